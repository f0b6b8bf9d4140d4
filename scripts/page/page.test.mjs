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
    test("a conversation of two turns streams, with the model that was chosen", () => checkConversation(server));
    test("a wrong key is shown, and the message can be sent again", () => checkRefusal(server));
    test("stop ends the request and keeps what has come; clear empties the conversation", () => checkStopAndClear(server, engine));
    test("failures inside a stream are shown", () => checkFailedStreams(server));
    if (engine.name === "mock") test("reasoning, tool calls and markup are shown as what they are", () => checkParts(server));
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

/** Records the length of the last answer each time that it grows. */
function recordAnswerLengths(page) {
  return page.evaluate(() => {
    const turns = document.getElementById("turns");
    globalThis.lengths = [];
    const record = () => globalThis.lengths.push([...turns.querySelectorAll(".parts")].at(-1)?.textContent.length ?? 0);
    new MutationObserver(record).observe(turns, { childList: true, characterData: true, subtree: true });
  });
}

/** Calls answerBegan in the page when the next answer has some text. */
function callWhenAnswerBegins(page) {
  return page.evaluate(() => {
    const turns = document.getElementById("turns"), before = turns.children.length;
    const watch = new MutationObserver(() => {
      if (!turns.children[before]?.querySelector(".parts").textContent) return;
      watch.disconnect();
      globalThis.answerBegan();
    });
    watch.observe(turns, { childList: true, characterData: true, subtree: true });
  });
}

/** Opens the page and keeps the bodies of its chat requests in page.asked. */
async function openChat(server, secret = apiKey) {
  const page = await openPage(browser, server.url);
  page.asked = [];
  page.on("request", (r) => { if (r.url().endsWith("/v1/chat/completions")) page.asked.push(r.postDataJSON()); });
  if (secret) await page.getByLabel("API key").fill(secret);
  return page;
}

const messageBox = (page) => page.getByRole("textbox", { name: "Message", exact: true });
const answers = (page) => page.locator(".parts");
const status = (page) => page.locator("#chat-status").textContent();

async function ask(page, message) {
  await messageBox(page).fill(message);
  await page.getByRole("button", { name: "Send" }).click();
}

const ended = (page) => page.waitForFunction(() => /ended by|Failed|stopped|cleared/.test(document.getElementById("chat-status").textContent));

const keptNowhere = (page) => page.evaluate(() => localStorage.length + sessionStorage.length + document.cookie.length);

async function checkConversation(server) {
  const page = await openChat(server);
  const model = page.getByRole("combobox", { name: /^Model/ });
  await eventually("the models are listed", async () => (await model.locator("option").allTextContents()).includes("demo:v1.0"));
  await model.selectOption("demo:v1.0");
  await page.getByLabel("System text (optional)").fill("You know every capital.");
  await page.getByLabel("Tokens at most").fill("40");
  await recordAnswerLengths(page);
  await ask(page, "What is the capital of France?");
  await ended(page);
  const first = await answers(page).textContent();
  assert.match(first, /capital of France/);
  assert.match(await status(page), /^demo:v1\.0: \d+ tokens, the first after [\d.]+ m?s, then [\d.]+ \/s, \d+ in the prompt.*; ended by (stop|length)$/);
  assert.equal(await page.locator("#spoken").textContent(), first, "what is read out");
  const lengths = await page.evaluate(() => new Set(globalThis.lengths).size);
  assert(lengths >= 4, `the answer came in ${lengths} pieces`);
  assert.equal(await messageBox(page).inputValue(), "", "a message that was sent stays in its field");

  await ask(page, "What is the capital of Italy?");
  await eventually("a second answer", async () => (await answers(page).count()) === 2 && /ended by/.test(await status(page)));
  assert.match(await answers(page).last().textContent(), /Italy/);
  assert.equal(await page.locator(".turn .who").last().textContent(), "demo:v1.0", "who answers");
  const common = { model: "demo:v1.0", stream: true, stream_options: { include_usage: true }, max_tokens: 40, temperature: 0 };
  const opening = [{ role: "system", content: "You know every capital." }, { role: "user", content: "What is the capital of France?" }];
  assert.deepEqual(page.asked, [
    { ...common, messages: opening },
    { ...common, messages: [...opening, { role: "assistant", content: first }, { role: "user", content: "What is the capital of Italy?" }] },
  ]);
  assert.deepEqual(await violations(page), []);
  assert(!(await page.content()).includes(apiKey) && (await keptNowhere(page)) === 0, "key or conversation are kept somewhere");
  await page.reload();
  assert.equal(await answers(page).count(), 0, "the conversation is still there after the page was loaded again");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

async function checkRefusal(server) {
  const page = await openChat(server, "no such key");
  await ask(page, "Hello");
  await ended(page);
  assert.match(await status(page), /^Failed: .*key/);
  assert.match(await page.locator(".turn.failed > .note").textContent(), /^Failed: .*key/);
  assert.deepEqual(page.faults.filter((f) => !f.includes("401")), [], "the browser itself reports the 401");
  page.faults.length = 0;
  assert.equal(await messageBox(page).inputValue(), "Hello");
  await page.getByLabel("API key").fill(apiKey);
  await messageBox(page).press("Enter");
  await eventually("an answer with the right key", async () => /ended by/.test(await status(page)));
  assert.deepEqual(page.asked.at(-1).messages, [{ role: "user", content: "Hello" }], "the turn that failed was sent again");
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

/** A click from outside could come too late. */
async function clickWhenAnswerBegins(page, button) {
  await page.evaluate((id) => { globalThis.answerBegan = () => document.getElementById(id).click(); }, button);
  await callWhenAnswerBegins(page);
}

async function checkStopAndClear(server, engine) {
  const page = await openChat(server);
  const aborted = new Set();
  page.on("requestfailed", (r) => aborted.add(new URL(r.url()).pathname));
  await clickWhenAnswerBegins(page, "stop");
  await ask(page, engine.longPrompt);
  await ended(page);
  assert.equal(await status(page), "stopped");
  await eventually("the request is aborted", () => aborted.has("/v1/chat/completions"));
  const part = await answers(page).textContent();
  assert(part.length > 0, "what had come is gone");
  await ask(page, "Go on.");
  await eventually("another answer", async () => /ended by/.test(await status(page)));
  assert.deepEqual(page.asked[1].messages, [{ role: "user", content: engine.longPrompt }, { role: "assistant", content: part }, { role: "user", content: "Go on." }]);

  await clickWhenAnswerBegins(page, "clear");
  await ask(page, engine.longPrompt);
  await ended(page);
  await eventually("nothing runs", () => page.getByRole("button", { name: "Send" }).isEnabled());
  assert.equal(await status(page), "cleared");
  assert.equal(await answers(page).count(), 0);
  await ask(page, "Hello");
  await ended(page);
  assert.deepEqual(page.asked.at(-1).messages, [{ role: "user", content: "Hello" }], "a message from before the clearing");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const event = (content) => `data: ${JSON.stringify({ model: "demo", choices: [{ index: 0, delta: { content }, finish_reason: null }], usage: null })}\n\n`;

async function checkFailedStreams(server) {
  const page = await openChat(server);
  const problem = { message: "the request took longer than it may", type: "server_error", param: null, code: "deadline_exceeded" };
  for (const [body, reason] of [
    [`${event("half ")}: alive\n\n${event("an answer")}data: ${JSON.stringify({ error: problem })}\n\n`, "the request took longer than it may"],
    [event("half an answer"), "the stream ended before the answer did"],
    [`${event("half an answer")}data: [DO`, "the stream ended before the answer did"],
  ]) {
    await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body }), { times: 1 });
    await ask(page, "Hello");
    await ended(page);
    assert.equal(await status(page), `Failed: ${reason}`);
    assert.equal(await answers(page).last().textContent(), "half an answer", "what had come");
    await page.getByRole("button", { name: "Clear" }).click();
  }
  await page.route("**/v1/chat/completions", (route) => route.fulfill({ status: 429, headers: { "Retry-After": "12" }, json: { error: { message: "rate limit reached; try again later" } } }), { times: 1 });
  await ask(page, "Hello");
  await ended(page);
  assert.equal(await status(page), "Failed: rate limit reached; try again later (in 12 s)");
  await page.getByRole("button", { name: "Clear" }).click();
  await page.route("**/v1/chat/completions", (route) => route.abort(), { times: 1 });
  await ask(page, "Hello");
  await ended(page);
  assert.equal(await status(page), "Failed: the server can't be reached");
  assert.deepEqual(page.faults.filter((f) => !/429|ERR_FAILED/.test(f)), [], "the browser itself reports these two");
  await page.context().close();
}

async function checkParts(server) {
  const page = await openChat(server);
  await ask(page, "think it is a city\nParis");
  await ended(page);
  const reasoning = page.locator("details.reasoning");
  assert.equal(await reasoning.locator(".text").textContent(), "it is a city");
  assert(!(await reasoning.locator(".text").isVisible()), "the reasoning isn't folded");
  await reasoning.locator("summary").press("Enter");
  assert(await reasoning.locator(".text").isVisible());
  assert.equal(await answers(page).locator("> .text").textContent(), "Paris");
  assert.match(await status(page), /\d+ tokens, \d+ of them reasoning/);
  assert.equal(await page.locator("#spoken").textContent(), "Paris", "reasoning is read out");

  const toolsSummary = page.locator("summary", { hasText: "Tools" });
  await toolsSummary.click();
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
  const toolsBox = page.getByLabel("Functions that the model may call");
  await toolsBox.fill("[{");
  await toolsSummary.click();
  await ask(page, "Hello");
  assert(await toolsBox.isVisible(), "the field with the mistake is hidden");
  assert.equal(await toolsBox.evaluate((e) => e.validationMessage), "This is not valid JSON.");
  assert.equal(page.asked.length, 1, "a request was sent without its tools");
  await toolsBox.fill(JSON.stringify(tools));
  await ask(page, 'call weather {"city":"Paris"}');
  await eventually("a tool call", async () => (await page.locator(".call").count()) === 1 && /ended by tool_calls/.test(await status(page)));
  assert.equal(await page.locator(".call").textContent(), 'Tool call weather{"city":"Paris"}');
  const markup = '<img src=x onerror="document.title=1"><b>bold</b>';
  await ask(page, markup);
  await eventually("an answer with markup", async () => (await answers(page).count()) === 3 && /ended by stop/.test(await status(page)));
  assert.equal(await answers(page).last().textContent(), markup);
  assert.equal(await page.locator("#turns img, #turns b").count(), 0, "text became elements");
  assert.deepEqual(page.asked[1].tools, tools);
  const [, { content: said }, , { content, tool_calls: [call], ...rest }] = page.asked[2].messages;
  assert.deepEqual([said, content, rest, call.type, call.function], ["Paris", "", { role: "assistant" }, "function", { name: "weather", arguments: '{"city":"Paris"}' }]);
  assert.match(call.id, /./);
  assert.deepEqual(await violations(page), []);
  assert.deepEqual(await overflows(page), []);
  await page.screenshot({ path: join(OUT, "chat.png"), fullPage: true });
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
  await messageBox(page).fill("");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await ended(page);
  assert.match(await status(page), /ended by/);
  assert.equal(await page.locator(".turn > .text").textContent(), "one\ntwo");
  assert.equal(await page.evaluate(() => document.activeElement.id), "message", "the focus went away");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

const fact = (page, name) => page.locator(`#facts dt:text-is("${name}") + dd`).textContent();

/** The engine dies in the middle of an answer, and no other one starts until the page has been looked at. */
async function checkEngineRestart(server, engine) {
  const page = await openChat(server);
  await eventually("the page is filled", async () => (await fact(page, "Engine")) === "up");
  assert.equal(await fact(page, "Restarts"), "0");
  const points = async () => (await plotData(page))["Response time"][0];
  const before = await eventually("points", points);
  const prompt = engine.longPrompt;
  const undisturbed = await (await server.chat({ messages: [{ role: "user", content: prompt }], max_tokens: 64, temperature: 0 })).json();
  await page.getByLabel("Tokens at most").fill("64");
  const kill = await server.prepareEngineKill();
  await page.exposeFunction("answerBegan", kill);
  await callWhenAnswerBegins(page);
  await ask(page, prompt);
  let textBefore;
  try {
    await eventually("the page says that the engine is away", async () => (await page.locator(".badge.bad").allTextContents()).includes("engine away"));
    assert.match(await page.locator("#badges").textContent(), /degraded/);
    await eventually("the chat says that it waits", async () => /^waiting for more/.test(await status(page)));
    textBefore = await answers(page).textContent();
    assert.deepEqual(await violations(page), [], "while the engine is away");
    await page.screenshot({ path: join(OUT, `${engine.name}-away.png`), fullPage: true });
  } finally {
    server.allowEngineRestart();
  }
  await eventually("the page says that it is back", async () => (await fact(page, "Engine")) === "up");
  await eventually("and counts the restart", async () => (await fact(page, "Restarts")) === "1 (crash 1)");
  await ended(page); // the stream went on over the restart
  assert.match(await status(page), /ended by (stop|length)$/);
  const answer = await answers(page).textContent();
  assert.equal(answer, undisturbed.choices[0].message.content, "the answer isn't the one of an engine that wasn't killed");
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

test("without keys no key is needed", async () => {
  const server = await TandemServer.start({ proxy: PROXY, engine: ENGINE_MOCK_PROGRAM, logs: join(OUT, "logs-keyless"), settings: { ENGINE_MOCK: "true", API_KEYS: "", AUTH_DISABLED: "true" } });
  try {
    const page = await openChat(server, "");
    await ask(page, "Hello");
    await ended(page);
    assert.match(await status(page), /ended by stop/);
    assert.equal(await answers(page).textContent(), "Hello");
    assert.deepEqual(page.faults, []);
    await page.context().close();
  } finally {
    await server.stop();
  }
});
