// Tests of the live page in a real browser, with a real proxy and engine behind it. scripts/test-page.sh builds the
// programs, names them in the environment and runs this.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { controls, drawnPixels, openBrowser, openPage, overflows, plotData, settled, tabThrough, violations } from "./browser.mjs";
import { eventually, apiKey, TandemServer } from "./tandem_server.mjs";

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
    let server;
    before(async () => {
      server = await TandemServer.start({ proxy: PROXY, engine: engine.program, logs: join(OUT, `logs-${engine.name}`), settings: engine.settings });
      server.load(3, 100, question); // bounded: 3 requests at a time, at most 30 a second
    });
    after(() => server?.stop());

    for (const width of [1280, 390]) {
      for (const theme of ["light", "dark"]) {
        test(`${width} pixels, ${theme}: plots hold data, nothing overflows, no accessibility violations`, () => checkAppearance(server, engine, width, theme));
      }
    }
    test("the playground streams an answer", () => checkPlayground(server));
    test("a wrong key and a stop are shown", () => checkErrorsAreShown(server, engine));
    test("the keyboard reaches everything and shows where it is", () => checkKeyboardUse(server));
    test("the page shows an engine that was killed, and goes on", () => checkEngineRestart(server, engine));
    test("the page shows that the server is away, and goes on when it is back", () => checkServerAbsence(server));
  });
}

async function checkAppearance(server, engine, width, theme) {
  const page = await openPage(browser, server.url, { width, theme });
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

/** Records the length of the answer each time that it grows. */
function recordAnswerLengths(page) {
  return page.evaluate(() => {
    const answer = document.getElementById("answer");
    globalThis.lengths = [];
    new MutationObserver(() => globalThis.lengths.push(answer.textContent.length)).observe(answer, { childList: true, characterData: true, subtree: true });
  });
}

/** Calls answerBegan in the page when the answer begins. */
function callWhenAnswerBegins(page) {
  return page.evaluate(() => {
    const answer = document.getElementById("answer");
    const watch = new MutationObserver(() => {
      if (answer.textContent === "") return;
      watch.disconnect();
      globalThis.answerBegan();
    });
    watch.observe(answer, { childList: true, subtree: true });
  });
}

async function ask(page, prompt, secret = apiKey) {
  await page.getByLabel("API key").fill(secret);
  await page.getByLabel("Prompt").fill(prompt);
  await page.getByRole("button", { name: "Send" }).click();
}

const ended = (page) => page.waitForFunction(() => /ended by|Failed|stopped/.test(document.getElementById("answer-status").textContent));

async function checkPlayground(server) {
  const page = await openPage(browser, server.url);
  const model = page.getByRole("combobox", { name: /^Model/ });
  await eventually("the models are listed", async () => (await model.locator("option").allTextContents()).includes("demo"));
  await model.selectOption("demo");
  await page.getByRole("combobox", { name: /^Version/ }).selectOption("v1.0");
  await recordAnswerLengths(page);
  await ask(page, "What is the capital of France?");
  await ended(page);
  assert.match(await page.locator("#answer").textContent(), /capital of France/);
  assert.match(await page.locator("#answer-status").textContent(), /^demo@v1\.0: \d+ tokens in .*ended by stop/);
  assert.equal(await page.locator("#spoken").textContent(), await page.locator("#answer").textContent(), "what is read out");
  const lengths = await page.evaluate(() => new Set(globalThis.lengths).size);
  assert(lengths >= 4, `the answer came in ${lengths} pieces`);
  assert(!(await page.content()).includes(apiKey) && (await page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length)) === 0, "the key is kept somewhere");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function checkErrorsAreShown(server, engine) {
  const page = await openPage(browser, server.url);
  await ask(page, "Hello", "no such key");
  await ended(page);
  assert.match(await page.locator("#answer-status").textContent(), /^Failed: .*key/);
  assert.deepEqual(page.faults.filter((f) => !f.includes("401")), [], "the browser itself reports the 401");
  page.faults.length = 0;
  await page.evaluate(() => { globalThis.answerBegan = () => document.getElementById("stop").click(); }); // from here it could be too late
  await callWhenAnswerBegins(page);
  await ask(page, engine.longPrompt);
  await ended(page);
  assert.equal(await page.locator("#answer-status").textContent(), "stopped");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function checkKeyboardUse(server) {
  const page = await openPage(browser, server.url);
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
  await settled(page);
  const pausedData = JSON.stringify(await plotData(page));
  await sleep(2500); // nothing to wait for: in this time an unpaused page would ask twice
  assert.equal(JSON.stringify(await plotData(page)), pausedData, "figures come in spite of the pause");
  await page.keyboard.press("Enter");
  await eventually("figures come again", async () => JSON.stringify(await plotData(page)) !== pausedData);
  await page.locator("#key").focus();
  await page.keyboard.type(apiKey);
  await page.locator("#prompt").focus();
  await page.keyboard.press("Control+Enter");
  await ended(page);
  assert.match(await page.locator("#answer-status").textContent(), /ended by/);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const fact = (page, name) => page.locator(`#facts dt:text-is("${name}") + dd`).textContent();

/** The engine dies in the middle of an answer, and no other one starts until the page has been looked at. */
async function checkEngineRestart(server, engine) {
  const page = await openPage(browser, server.url);
  await eventually("the page is filled", async () => (await fact(page, "Engine")) === "up");
  assert.equal(await fact(page, "Restarts"), "0");
  const points = async () => (await plotData(page))["Response time"][0];
  const before = await eventually("points", points);
  const prompt = engine.longPrompt;
  const undisturbed = await (await server.infer({ prompt, max_new_tokens: 64, temperature: 0 })).json();
  const kill = await server.prepareEngineKill();
  await page.exposeFunction("answerBegan", kill);
  await callWhenAnswerBegins(page);
  await ask(page, prompt);
  let textBefore;
  try {
    await eventually("the page says that the engine is away", async () => (await page.locator(".badge.bad").allTextContents()).includes("engine away"));
    assert.match(await page.locator("#badges").textContent(), /degraded/);
    textBefore = await page.locator("#answer").textContent();
    assert.deepEqual(await violations(page), [], "while the engine is away");
    await page.screenshot({ path: join(OUT, `${engine.name}-away.png`), fullPage: true });
  } finally {
    server.allowEngineRestart();
  }
  await eventually("the page says that it is back", async () => (await fact(page, "Engine")) === "up");
  await eventually("and counts the restart", async () => (await fact(page, "Restarts")) === "1 (crash 1)");
  await ended(page); // the stream went on over the restart
  const answer = await page.locator("#answer").textContent();
  assert.equal(answer, undisturbed.result, "the answer isn't the one of an engine that wasn't killed");
  assert(textBefore.length > 0 && textBefore.length < answer.length && answer.startsWith(textBefore), `the engine was to die in the middle: ${textBefore.length} of ${answer.length} characters`);
  await eventually("the plots go on", async () => (await points()) > before + 3);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function checkServerAbsence(server) {
  const page = await openPage(browser, server.url);
  await eventually("the page is filled", async () => (await fact(page, "Engine")) === "up");
  await server.endProcess(server.proxy);
  await eventually("the page says that the server is away", async () => /No new figures/.test(await page.locator("#notice:visible").textContent({ timeout: 1000 })));
  server.startProxy();
  await server.ready();
  await eventually("the page shows figures again", () => page.locator("#notice").isHidden());
  assert.deepEqual(page.faults.filter((f) => !/ERR_CONNECTION|ERR_EMPTY_RESPONSE|503/.test(f)), [], "the browser itself reports the lost connection");
  await page.context().close();
}

test("PAGE_ENABLED=false: no page, the figures stay", async () => {
  const server = await TandemServer.start({ proxy: PROXY, engine: ENGINE_MOCK_PROGRAM, logs: join(OUT, "logs-off"), settings: { ENGINE_MOCK: "true", PAGE_ENABLED: "false" } });
  try {
    for (const [path, status] of [["/", 404], ["/page/app.js", 404], ["/page/app.css", 404], ["/status/live", 200]]) {
      assert.equal((await fetch(server.url + path, { headers: { Accept: "text/html" } })).status, status, path);
    }
  } finally {
    await server.stop();
  }
});
