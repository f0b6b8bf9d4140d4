// How the tests use the page in a browser, and what they ask it.

import { chromium } from "playwright-core";
import { createRequire } from "node:module";
import { eventually } from "./tandem_server.mjs";

const axePath = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

// Nothing of the browser itself may look for a network.
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export function openBrowser(executablePath) {
  return chromium.launch({ executablePath, headless: true, args: flags });
}

/** Opens the page in a context of its own. Console errors and requests to other hosts are collected in faults. */
export async function openPage(browser, url, { width = 1280, theme = "light" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: width < 700 ? 844 : 800 }, colorScheme: theme, deviceScaleFactor: width < 700 ? 2 : 1, isMobile: width < 700, hasTouch: width < 700,
    locale: "en-GB", timezoneId: "UTC",
  });
  const page = await context.newPage();
  page.faults = [];
  page.inFlight = 0; // requests
  page.on("request", () => page.inFlight++);
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, () => page.inFlight--);
  page.on("console", (m) => { if (["error", "warning"].includes(m.type())) page.faults.push(`console ${m.type()}: ${m.text()}`); });
  page.on("pageerror", (e) => page.faults.push(`exception: ${e.message}`));
  page.on("request", (r) => { if (new URL(r.url()).origin !== new URL(url).origin) page.faults.push(`asked another host: ${r.url()}`); });
  await page.goto(url);
  return page;
}

/** Waits until a paused page has drawn the answer to its last request. */
export async function settled(page) {
  await eventually("no request is in flight", () => page.inFlight === 0);
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
}

/** How many numbers the plots hold: by title, a list with one count per series. */
export async function plotData(page) {
  return Object.fromEntries((await page.evaluate(() => globalThis.tandemPlots)).map((p) => [p.title, p.lengths]));
}

/** How many pixels of each plot have the colour of its first series, as drawn. */
export function drawnPixels(page) {
  return page.evaluate(() => {
    const wanted = getComputedStyle(document.documentElement).getPropertyValue("--s1").trim();
    const rgb = [1, 3, 5].map((i) => Number.parseInt(wanted.slice(i, i + 2), 16));
    return Object.fromEntries([...document.querySelectorAll("figure")].map((figure) => {
      const canvas = figure.querySelector("canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 150 && rgb.every((v, k) => Math.abs(data[i + k] - v) < 12)) count++;
      }
      return [figure.querySelector("figcaption").firstChild.textContent.trim(), count];
    }));
  });
}

/** Elements that reach beyond the sides of the page, other than in areas that scroll. */
export function overflows(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth, found = [];
    if (document.scrollingElement.scrollWidth > width) found.push(`the page is ${document.scrollingElement.scrollWidth} wide, the window ${width}`);
    for (const e of document.querySelectorAll("body *")) {
      const box = e.getBoundingClientRect();
      if (box.width > 1 && (box.right > width + 1 || box.left < -1) && !e.closest(".scroll")) found.push(`${e.tagName} ${e.className} ${box.left}..${box.right}`);
    }
    return found;
  });
}

/** The violations that axe finds of WCAG 2.2 A and AA and of its best practices, one line each. */
export async function violations(page) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axeText);
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return result.violations.map((v) => `${v.impact}: ${v.id}: ${v.help}: ${v.nodes.map((n) => n.target.join(" ")).join("; ")}`);
}

const axeText = await (await import("node:fs/promises")).readFile(axePath, "utf8");

/** Presses Tab from top to bottom of the page; returns the controls that got the focus, and whether it was visible. */
export async function tabThrough(page) {
  await page.evaluate(() => { document.activeElement?.blur?.(); globalThis.scrollTo(0, 0); });
  const order = [];
  for (let i = 0; i < 100; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const e = document.activeElement;
      if (!e || e === document.body) return null;
      const style = getComputedStyle(e), box = e.getBoundingClientRect();
      const outlined = style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) >= 2;
      const seen = outlined && box.width > 0 && box.bottom > 0 && box.top < innerHeight;
      globalThis.tabbed ??= new Map();
      if (!globalThis.tabbed.has(e)) globalThis.tabbed.set(e, globalThis.tabbed.size);
      return { number: globalThis.tabbed.get(e), what: `${e.tagName.toLowerCase()}#${e.id || e.textContent.trim().slice(0, 30)}`, seen };
    });
    if (!at || order.some((o) => o.number === at.number)) break;
    order.push(at);
  }
  return order;
}

/** Every control that a pointer can use, in the order of the document. */
export function controls(page) {
  return page.evaluate(() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary")]
    .filter((e) => !e.disabled && e.checkVisibility()) // what is in a closed <details> isn't visible
    .map((e) => `${e.tagName.toLowerCase()}#${e.id || e.textContent.trim().slice(0, 30)}`));
}
