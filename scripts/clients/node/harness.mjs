// What the suites of the clients for Node share: the server's address, the prompts, and how results are told. It says
// the same as ../python/harness.py, where the comments are.
import assert from "node:assert/strict";
import fs from "node:fs";

const env = process.env;
export const URL = env.TANDEM_URL;
export const V1 = `${URL}/v1`;
export const KEY = env.TANDEM_KEY;
export const WRONG_KEY = "no-such-key";
export const LIMITED_KEY = env.TANDEM_LIMITED_KEY;
export const OTHER_KEY = env.TANDEM_OTHER_KEY;
export const MODEL = env.TANDEM_MODEL;
export const MOCK = env.TANDEM_ENGINE === "mock";

export const TEXT = "What is the capital of France?";
export const CITIES = ["Paris", "Rome", "Oslo"];
export const CALL_PARIS = 'call get_weather {"city":"Paris"}';
export const CALL_TWO = `${CALL_PARIS}\ncall get_weather {"city":"Rome"}`;
export const ASK_TWO = "How is the weather in Paris, and how is it in Rome?";
export const LONG = MOCK ? "one two three four five ".repeat(400) : "Write a very long story about every year of a sailor's life.";
export const LONG_TOKENS = 2500;
export const FEW_TOKENS = MOCK ? 64 : 24;
export const CALL_TOKENS = MOCK ? 200 : 96;

export const WEATHER_SCHEMA = {
  type: "object", properties: { city: { type: "string", enum: CITIES } }, required: ["city"], additionalProperties: false,
};
export const TIME_SCHEMA = { type: "object", properties: {}, additionalProperties: false };
export const CITY_SCHEMA = {
  type: "object", properties: { city: { type: "string", enum: CITIES }, warm: { type: "boolean" } },
  required: ["city", "warm"], additionalProperties: false,
};
export const CITY_JSON = '{"city":"Rome","warm":true}';
export const ASK_CITY = MOCK ? CITY_JSON : "Name one of the cities Paris, Rome and Oslo, and say whether it is warm there.";

export const skip = (why) => ({ skip: why });
export const mockOnly = (test, why) => (MOCK ? test : skip(why));
export const NO_REASONING = "SmolLM2 doesn't reason";

export function says(got, want) {
  assert.equal(typeof got, "string", "the text isn't a string");
  if (MOCK) assert.equal(got, want, "text");
  else assert.notEqual(got.trim(), "", "the text is empty");
}

export function usageAddsUp(prompt, completion, total) {
  assert.ok(prompt > 0 && completion > 0, `numbers of tokens: ${prompt}, ${completion}`);
  assert.equal(total, prompt + completion, "total tokens");
  if (MOCK) assert.deepEqual([prompt, completion], [7, 8], "tokens of the prompt and of its echo with the end token");
}

export function isCity(value) {
  if (typeof value === "string") value = JSON.parse(value);
  assert.deepEqual(Object.keys(value).sort(), ["city", "warm"], "members");
  assert.ok(CITIES.includes(value.city) && typeof value.warm === "boolean", "the instance doesn't fit its schema");
  if (MOCK) assert.equal(value.city, "Rome", "city");
}

export function isWeather(args, known = true) {
  if (typeof args === "string") args = JSON.parse(args);
  if (MOCK) {
    assert.deepEqual(args, known ? { city: "Paris" } : {}, "arguments");
    return;
  }
  assert.deepEqual(Object.keys(args), ["city"], "arguments");
  assert.ok(CITIES.includes(args.city), `the city isn't one that the schema has: ${args.city}`);
}

// weatherCalls checks the calls, each as its id, name and arguments, of a model that must call get_weather and may do so
// several times. Where the answer was cut, the last one may be incomplete.
export function weatherCalls(calls, cut) {
  assert.equal(new Set(calls.map(([id]) => id).filter(Boolean)).size, calls.length, "different ids");
  const complete = cut ? calls.slice(0, -1) : calls;
  assert.notEqual(complete.length, 0, "no complete call, although one is required");
  for (const [, name, args] of complete) {
    assert.equal(name, "get_weather", "the tool that is called");
    isWeather(args);
  }
}

// raises calls and returns the exception, which must be of this very class.
export async function raises(kind, call, status, text) {
  let e;
  try {
    await call();
  } catch (caught) {
    e = caught;
  }
  assert.ok(e, `no ${kind.name}`);
  assert.equal(e.constructor.name, kind.name, `${e}`);
  if (status !== undefined) assert.equal(e.status ?? e.statusCode, status, "status");
  if (text !== undefined) assert.match(e.message, new RegExp(text));
  return e;
}

export async function cancelled() {
  const page = await (await fetch(`${URL}/prometheus`)).text();
  const lines = page.split("\n").filter((line) => line.startsWith("llm_requests_cancelled_total{"));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

export async function oneMoreCancelled(before, milliseconds = 3000) {
  const deadline = Date.now() + milliseconds;
  let now = await cancelled();
  while (now === before && Date.now() < deadline) {
    await new Promise((done) => setTimeout(done, 20));
    now = await cancelled();
  }
  assert.equal(now, before + 1, `requests given up, ${milliseconds} ms after the client left`);
}

// isPending tells whether an exception says that the server has no such endpoint.
function isPending(e) {
  const texts = [e, e?.cause, e?.responseBody, e?.lastError].map(String).join(" ");
  return texts.includes("unknown_url") || texts.includes("no endpoint");
}

async function outcome(name, client, test) {
  if (test.skip) return ["skip", test.skip];
  try {
    await test();
    return ["ok", ""];
  } catch (e) {
    console.error(`${client} ${name}:`, e);
    return [isPending(e) ? "pending" : "fail", `${e.name}: ${e.message}`];
  }
}

export function version(name) {
  return JSON.parse(fs.readFileSync(new globalThis.URL(`node_modules/${name}/package.json`, import.meta.url))).version;
}

// run runs the cases of one client.
export async function run(client, version, cases) {
  const only = (env.ONLY_CASES ?? "").split(" ").filter(Boolean);
  for (const [name, test] of Object.entries(cases)) {
    if (only.length > 0 && !only.includes(name)) continue;
    const start = performance.now();
    const [status, detail] = await outcome(name, client, test);
    const seconds = Math.round(performance.now() - start) / 1000;
    fs.writeSync(1, `${JSON.stringify({ client, version, case: name, status, detail, seconds })}\n`);
  }
}
