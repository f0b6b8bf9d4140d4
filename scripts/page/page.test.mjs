// The live page in a real browser, with a real proxy and engine behind it. scripts/test-page.sh builds the programs, names them in the
// environment and runs this.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { controls, drawnPixels, openBrowser, openPage, overflows, plotData, tabThrough, violations } from "./browser.mjs";
import { eventually, key, Stack } from "./programs.mjs";

const { PROXY, ENGINE_MOCK_PROGRAM, ENGINE_REAL_PROGRAM, CHROMIUM, OUT } = process.env;
assert(PROXY && ENGINE_MOCK_PROGRAM && CHROMIUM && OUT, "scripts/test-page.sh runs this");

const prompts = ["What is the capital of France?", "Tell me something about the sea.", "One two three four five six seven."];
const versions = ["v1.0", "v1.1"];
const question = (n) => ({ prompt: prompts[n % 3], base_model: "demo", adapter_version: versions[n % 2], max_new_tokens: 32, stream: n % 3 === 0 });

const engines = [
  { name: "mock", program: ENGINE_MOCK_PROGRAM, settings: { ENGINE_MOCK: "true", MOCK_TOKEN_DELAY: "20ms", MOCK_MEMORY_USED: "0.4" },
    longPrompt: "Once more from the beginning, and then slowly to the end of a long line of words, please. ".repeat(2) },
  { name: "demo", program: ENGINE_REAL_PROGRAM, settings: { STEP_DELAY: "20ms" }, longPrompt: "What is the capital of France?" },
];

let browser;
before(async () => {
  await mkdir(OUT, { recursive: true });
  browser = await openBrowser(CHROMIUM);
});
after(() => browser?.close());

for (const engine of engines) {
  describe(`with the ${engine.name} engine`, { skip: engine.program ? false : "bin/tandem-engine isn't built (make build)" }, () => {
    let stack;
    before(async () => {
      stack = await Stack.start({ proxy: PROXY, engine: engine.program, logs: join(OUT, `logs-${engine.name}`), settings: engine.settings });
      stack.load(3, 100, question); // bounded: 3 requests at a time, at most 30 a second
    });
    after(() => stack?.stop());

    for (const width of [1280, 390]) {
      for (const theme of ["light", "dark"]) {
        test(`${width} pixels, ${theme}: plots hold data, nothing overflows, nothing bars anybody`, () => looks(stack, engine, width, theme));
      }
    }
    test("the playground streams an answer", () => playground(stack));
    test("a wrong key and a stop are said", () => refusals(stack, engine));
    test("the keyboard reaches everything and shows where it is", () => keyboard(stack));
    test("the page shows an engine that was killed, and goes on", () => restart(stack, engine));
    test("a server that is away is said, and found again", () => absence(stack));
  });
}

async function looks(stack, engine, width, theme) {
  const page = await openPage(browser, stack.url, { width, theme });
  await eventually("every plot holds at least 10 points", async () => {
    const data = await plotData(page);
    return Object.keys(data).length === 9 && Object.values(data).flat().every((n) => n >= 10);
  }, 40_000);
  for (const [title, pixels] of Object.entries(await drawnPixels(page))) {
    assert(pixels > 40, `${title}: ${pixels} pixels are drawn`);
  }
  assert.equal(await page.locator(".tile").count(), 9);
  for (const value of await page.locator(".tile .value").allTextContents()) assert.match(value, /\d/, "a tile without a figure");
  assert.match(await page.locator("figure [role=img]").first().getAttribute("aria-label"), /^Response time, whole answers\. Now: p95 .*\d/);
  assert.deepEqual(await overflows(page), []);
  assert.deepEqual(await violations(page), []);
  await page.screenshot({ path: join(OUT, `${engine.name}-${width}-${theme}.png`), fullPage: true });
  await page.locator("summary").first().click();
  await eventually("the table beside the plot is filled", async () => (await page.locator("figure").first().locator("tbody tr").count()) >= 2);
  assert.deepEqual(await overflows(page), [], "with a table open");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

/** Notes every length that the answer has, as it grows. */
function watchAnswer(page) {
  return page.evaluate(() => {
    const answer = document.getElementById("answer");
    globalThis.lengths = [];
    new MutationObserver(() => globalThis.lengths.push(answer.textContent.length)).observe(answer, { childList: true, characterData: true, subtree: true });
  });
}

/** Calls the page's begun when the answer begins. */
function tellWhenBegun(page) {
  return page.evaluate(() => {
    const answer = document.getElementById("answer");
    const watch = new MutationObserver(() => {
      if (answer.textContent === "") return;
      watch.disconnect();
      globalThis.begun();
    });
    watch.observe(answer, { childList: true, subtree: true });
  });
}

async function ask(page, prompt, secret = key) {
  await page.getByLabel("API key").fill(secret);
  await page.getByLabel("Prompt").fill(prompt);
  await page.getByRole("button", { name: "Send" }).click();
}

const ended = (page) => page.waitForFunction(() => /ended by|Failed|stopped/.test(document.getElementById("answer-status").textContent));

async function playground(stack) {
  const page = await openPage(browser, stack.url);
  const model = page.getByRole("combobox", { name: /^Model/ });
  await eventually("the models are listed", async () => (await model.locator("option").allTextContents()).includes("demo"));
  await model.selectOption("demo");
  await page.getByRole("combobox", { name: /^Version/ }).selectOption("v1.0");
  await watchAnswer(page);
  await ask(page, "What is the capital of France?");
  await ended(page);
  assert.match(await page.locator("#answer").textContent(), /capital of France/);
  assert.match(await page.locator("#answer-status").textContent(), /^demo@v1\.0: \d+ tokens in .*ended by stop/);
  assert.equal(await page.locator("#spoken").textContent(), await page.locator("#answer").textContent(), "what is read out");
  const lengths = await page.evaluate(() => new Set(globalThis.lengths).size);
  assert(lengths >= 4, `the answer came in ${lengths} pieces`);
  assert(!(await page.content()).includes(key) && (await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length)) === 0, "the key is kept somewhere");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function refusals(stack, engine) {
  const page = await openPage(browser, stack.url);
  await ask(page, "Hello", "no such key");
  await ended(page);
  assert.match(await page.locator("#answer-status").textContent(), /^Failed: .*key/);
  assert.deepEqual(page.faults.filter((f) => !f.includes("401")), [], "the browser itself reports the 401");
  page.faults.length = 0;
  await page.evaluate(() => { globalThis.begun = () => document.getElementById("stop").click(); }); // from here it could be too late
  await tellWhenBegun(page);
  await ask(page, engine.longPrompt);
  await ended(page);
  assert.equal(await page.locator("#answer-status").textContent(), "stopped");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function keyboard(stack) {
  const page = await openPage(browser, stack.url);
  await eventually("the page is filled", async () => (await page.locator(".tile").count()) === 9);
  const order = await tabThrough(page);
  const reached = order.map((o) => o.what), wanted = await controls(page);
  assert.deepEqual(reached.filter((what) => wanted.includes(what)), wanted, "every control, in the order in which it is seen");
  assert.deepEqual(order.filter((o) => !o.seen).map((o) => o.what), [], "focus that can't be seen");
  await page.locator("summary").first().focus();
  await page.keyboard.press("Space");
  await page.locator("figure").first().locator("tbody tr").first().waitFor();
  await page.locator("#pause").focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "true");
  await sleep(1200); // a question that was under way ends
  const held = JSON.stringify(await plotData(page));
  await sleep(2500); // the time in which two more would have been asked
  assert.equal(JSON.stringify(await plotData(page)), held, "figures come in spite of the pause");
  await page.keyboard.press("Enter");
  await eventually("figures come again", async () => JSON.stringify(await plotData(page)) !== held);
  await page.locator("#key").focus();
  await page.keyboard.type(key);
  await page.locator("#prompt").focus();
  await page.keyboard.press("Control+Enter");
  await ended(page);
  assert.match(await page.locator("#answer-status").textContent(), /ended by/);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const fact = (page, name) => page.locator(`#facts dt:text-is("${name}") + dd`).textContent();

/** The engine dies in the middle of an answer, and no other one starts until the page has been looked at. */
async function restart(stack, engine) {
  const page = await openPage(browser, stack.url);
  await eventually("the page is filled", async () => (await fact(page, "Engine")) === "up");
  assert.equal(await fact(page, "Restarts"), "0");
  const points = async () => (await plotData(page))["Response time"][0];
  const before = await eventually("points", points);
  const prompt = engine.longPrompt;
  const whole = await (await stack.infer({ prompt, max_new_tokens: 64, temperature: 0 })).json();
  const kill = await stack.engineKiller();
  await page.exposeFunction("begun", kill);
  await tellWhenBegun(page);
  await ask(page, prompt);
  let there;
  try {
    await eventually("the page says that the engine is away", async () => (await page.locator(".badge.bad").allTextContents()).includes("engine away"));
    assert.match(await page.locator("#badges").textContent(), /degraded/);
    there = await page.locator("#answer").textContent();
    assert.deepEqual(await violations(page), [], "while the engine is away");
    await page.screenshot({ path: join(OUT, `${engine.name}-away.png`), fullPage: true });
  } finally {
    stack.letRestart();
  }
  await eventually("the page says that it is back", async () => (await fact(page, "Engine")) === "up");
  await eventually("and counts the restart", async () => (await fact(page, "Restarts")) === "1 (crash 1)");
  await ended(page); // the stream went on over the restart
  const answer = await page.locator("#answer").textContent();
  assert.equal(answer, whole.result, "the answer isn't the one of an engine that wasn't killed");
  assert(there.length > 0 && there.length < answer.length && answer.startsWith(there), `the engine was to die in the middle: ${there.length} of ${answer.length} characters`);
  await eventually("the plots go on", async () => (await points()) > before + 3);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function absence(stack) {
  const page = await openPage(browser, stack.url);
  await eventually("the page is filled", async () => (await fact(page, "Engine")) === "up");
  await stack.end(stack.proxy);
  await eventually("the page says that the server is away", async () => /No new figures/.test(await page.locator("#notice:visible").textContent({ timeout: 1000 })));
  stack.startProxy();
  await stack.ready();
  await eventually("the page shows figures again", () => page.locator("#notice").isHidden());
  assert.deepEqual(page.faults.filter((f) => !/ERR_CONNECTION|ERR_EMPTY_RESPONSE|503/.test(f)), [], "the browser itself reports the lost connection");
  await page.context().close();
}

test("PAGE_ENABLED=false: no page, the figures stay", async () => {
  const stack = await Stack.start({ proxy: PROXY, engine: ENGINE_MOCK_PROGRAM, logs: join(OUT, "logs-off"), settings: { ENGINE_MOCK: "true", PAGE_ENABLED: "false" } });
  try {
    for (const [path, status] of [["/", 404], ["/page/app.js", 404], ["/page/app.css", 404], ["/status/live", 200]]) {
      assert.equal((await fetch(stack.url + path, { headers: { Accept: "text/html" } })).status, status, path);
    }
  } finally {
    await stack.stop();
  }
});
