// OpenAI's library for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import * as h from "./harness.mjs";

const client = new OpenAI({ baseURL: h.V1, apiKey: h.KEY, maxRetries: 0 });
const user = (text) => [{ role: "user", content: text }];
const tool = (name, parameters) => ({ type: "function", function: { name, description: `The ${name}`, parameters } });
const TOOLS = [tool("get_time", h.TIME_SCHEMA), tool("get_weather", h.WEATHER_SCHEMA)];
const WEATHER = { tools: TOOLS.slice(1), tool_choice: "required", parallel_tool_calls: false, max_tokens: h.CALL_TOKENS };
const City = z.object({ city: z.enum(h.CITIES), warm: z.boolean() });

const options = (text, more) => ({ model: h.MODEL, messages: user(text), max_tokens: more?.response_format ? h.CALL_TOKENS : h.FEW_TOKENS, temperature: 0, ...more });
const chat = (text = h.TEXT, more = {}) => client.chat.completions.create(options(text, more));
const content = (reply, i = 0) => reply.choices[i].message.content;

async function chunks(text, more) {
  const all = [];
  for await (const chunk of await chat(text, { stream: true, ...more })) all.push(chunk);
  return all;
}

function onlyCall(reply, name = "get_weather") {
  assert.equal(reply.choices[0].finish_reason, "tool_calls");
  assert.deepEqual(reply.choices[0].message.tool_calls.map((c) => c.function.name), [name]);
  const call = reply.choices[0].message.tool_calls[0];
  assert.ok(call.id && call.type === "function");
  return call;
}

const cases = {
  async list() {
    const names = [];
    for await (const m of client.models.list()) names.push(m.id);
    assert.ok(names.includes(h.MODEL), `the model isn't in the list: ${names}`);
    assert.equal((await client.models.retrieve(h.MODEL)).id, h.MODEL);
  },
  async chat() {
    const reply = await chat();
    assert.equal(reply.choices.length, 1);
    assert.equal(reply.choices[0].message.role, "assistant");
    h.says(content(reply), h.TEXT);
    h.usageAddsUp(reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens);
    const cut = await chat(h.TEXT, { max_tokens: undefined, max_completion_tokens: 2 });
    assert.deepEqual([cut.choices[0].finish_reason, cut.usage.completion_tokens], ["length", 2]);
  },
  async stream() {
    const all = await chunks(h.TEXT, { stream_options: { include_usage: true } });
    assert.equal(all[0].choices[0].delta.role, "assistant");
    const { usage, choices } = all.at(-1);
    assert.deepEqual(choices, []);
    h.usageAddsUp(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens);
    const text = all.slice(0, -1).map((c) => c.choices[0].delta.content ?? "").join("");
    assert.equal(text, content(await chat()), "the text of the stream and of the whole reply");
    const helper = client.chat.completions.stream(options(h.TEXT));
    assert.equal(await helper.finalContent(), text, "the text that the helper put together");
  },
  async n() {
    const reply = await chat(h.TEXT, { n: 2, temperature: 1, seed: 1 });
    assert.deepEqual(reply.choices.map((c) => c.index), [0, 1]);
    const texts = ["", ""];
    for (const chunk of await chunks(h.TEXT, { n: 2, temperature: 1, seed: 1 })) {
      for (const c of chunk.choices) texts[c.index] += c.delta.content ?? "";
    }
    assert.deepEqual(texts, [content(reply, 0), content(reply, 1)], "texts of the stream and of the whole reply");
    texts.forEach((text) => h.says(text, h.TEXT));
  },
  async stop() {
    const whole = content(await chat());
    const word = h.MOCK ? "capital" : whole.split(/\s+/)[2];
    const reply = await chat(h.TEXT, { stop: word });
    assert.equal(content(reply), whole.slice(0, whole.indexOf(word)));
    assert.equal(reply.choices[0].finish_reason, "stop");
  },
  async seed() {
    const texts = await Promise.all([1, 2].map(() => chat(h.TEXT, { temperature: 1, seed: 11 })));
    assert.equal(content(texts[0]), content(texts[1]));
    if (h.MOCK) return;
    const others = await Promise.all([1, 2, 3].map((seed) => chat(h.TEXT, { temperature: 1.5, seed })));
    assert.ok(new Set(others.map((r) => content(r))).size > 1, "three seeds gave one text");
  },
  async logprobs() {
    const reply = await chat(h.TEXT, { logprobs: true, top_logprobs: 2 });
    const tokens = reply.choices[0].logprobs.content;
    assert.equal(tokens.map((t) => t.token).join(""), content(reply), "the tokens put together");
    for (const t of tokens) {
      assert.ok(t.logprob <= 0 && t.top_logprobs.length === 2);
      assert.equal(t.top_logprobs[0].token, t.token, "the most likely token at temperature 0");
    }
    const streamed = (await chunks(h.TEXT, { logprobs: true, top_logprobs: 2 })).flatMap((c) => c.choices[0].logprobs?.content ?? []);
    assert.deepEqual(streamed.map((t) => t.token), tokens.map((t) => t.token));
  },
  async schema() {
    const response_format = { type: "json_schema", json_schema: { name: "city", strict: true, schema: h.CITY_SCHEMA } };
    h.isCity(content(await chat(h.ASK_CITY, { response_format })));
    const parsed = await client.chat.completions.parse(options(h.ASK_CITY, { response_format: zodResponseFormat(City, "city") }));
    h.isCity(parsed.choices[0].message.parsed);
  },
  reasoning: h.mockOnly(async () => {
    const { message } = (await chat("think why not\nyes")).choices[0];
    assert.deepEqual([message.reasoning_content, message.content], ["why not", "yes"]);
    const deltas = (await chunks("think why not\nyes")).map((c) => c.choices[0].delta);
    assert.equal(deltas.map((d) => d.reasoning_content ?? "").join(""), "why not");
  }, h.NO_REASONING),
  async tools_auto() {
    const reply = await chat(h.CALL_PARIS, { tools: TOOLS, max_tokens: h.CALL_TOKENS });
    if (h.MOCK) h.isWeather(onlyCall(reply).function.arguments);
    else for (const c of reply.choices[0].message.tool_calls ?? []) JSON.parse(c.function.arguments);
    const none = await chat(h.CALL_PARIS, { tools: TOOLS, tool_choice: "none" });
    assert.ok(!none.choices[0].message.tool_calls, "a call although tool_choice is none");
  },
  async tools_required() {
    h.isWeather(onlyCall(await chat("How is the weather in Paris?", WEATHER)).function.arguments, false);
  },
  async tools_named() {
    const tool_choice = { type: "function", function: { name: "get_weather" } };
    const reply = await chat("How is it?", { tools: TOOLS, tool_choice, max_tokens: h.CALL_TOKENS });
    h.isWeather(onlyCall(reply).function.arguments, false);
  },
  async tools_stream() {
    const all = await chunks(h.CALL_PARIS, WEATHER);
    const pieces = all.flatMap((c) => c.choices[0].delta.tool_calls ?? []);
    assert.ok(pieces[0].id && pieces[0].function.name === "get_weather");
    h.isWeather(pieces.map((p) => p.function.arguments ?? "").join(""));
    assert.equal(all.at(-1).choices[0].finish_reason, "tool_calls");
    const final = await client.chat.completions.stream(options(h.CALL_PARIS, WEATHER)).finalChatCompletion();
    h.isWeather(onlyCall(final).function.arguments);
  },
  async tools_parallel() {
    if (!h.MOCK) {
      const { message, finish_reason } = (await chat(h.ASK_TWO, { ...WEATHER, parallel_tool_calls: true })).choices[0];
      h.weatherCalls((message.tool_calls ?? []).map((c) => [c.id, c.function.name, c.function.arguments]), finish_reason === "length");
      return;
    }
    const calls = (await chat(h.CALL_TWO, { tools: TOOLS, max_tokens: h.CALL_TOKENS })).choices[0].message.tool_calls;
    assert.equal(new Set(calls.map((c) => c.id)).size, calls.length, "different ids");
    assert.deepEqual(calls.map((c) => JSON.parse(c.function.arguments).city), ["Paris", "Rome"]);
  },
  async tool_loop() {
    const asked = [];
    const get_weather = (args) => { asked.push(args.city); return "The sun shines."; };
    const runner = client.chat.completions.runTools(options(h.CALL_PARIS, {
      max_tokens: h.CALL_TOKENS, stop: h.MOCK ? undefined : ".", // the runner refuses an answer that is cut
      tools: [{ type: "function", function: { function: get_weather, parse: JSON.parse, name: "get_weather", description: "The weather", parameters: h.WEATHER_SCHEMA } }],
    }), { maxChatCompletions: 3 });
    const text = await runner.finalContent();
    if (h.MOCK) assert.deepEqual([asked, text], [["Paris"], "The sun shines."]);
    const call = (await chat(h.CALL_PARIS, WEATHER)).choices[0].message;
    const result = { role: "tool", tool_call_id: call.tool_calls[0].id, content: "It rains." };
    const messages = [...user(h.CALL_PARIS), call, result];
    h.says(content(await chat("", { messages, tools: TOOLS, tool_choice: "none" })), "It rains.");
  },
  async completions() {
    const reply = await client.completions.create({ model: h.MODEL, prompt: ["one two", "three"], max_tokens: 8, temperature: 0, logprobs: 2 });
    assert.deepEqual(reply.choices.map((c) => c.index), [0, 1]);
    if (h.MOCK) assert.deepEqual(reply.choices.map((c) => c.text), ["one two", "three"]);
    assert.equal(reply.choices[0].logprobs.tokens.join(""), reply.choices[0].text);
    let text = "";
    for await (const c of await client.completions.create({ model: h.MODEL, prompt: "one two", max_tokens: 8, temperature: 0, stream: true })) {
      text += c.choices[0].text;
    }
    assert.equal(text, reply.choices[0].text, "the text of the stream and of the whole reply");
  },
  async count() {
    const { input_tokens } = await client.responses.inputTokens.count({ model: h.MODEL, input: h.TEXT });
    assert.equal(input_tokens, (await chat()).usage.prompt_tokens, "the prompt's tokens");
  },
  async embeddings() {
    const input = [h.TEXT, "one", "two three"];
    const many = await client.embeddings.create({ model: h.MODEL, input }); // the client asks for base64
    assert.deepEqual(many.data.map((d) => d.index), [0, 1, 2]);
    for (const d of many.data) {
      assert.ok(Math.abs(d.embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3, "the length of a vector isn't 1");
    }
    const plain = (await client.embeddings.create({ model: h.MODEL, input: "one", encoding_format: "float" })).data[0].embedding;
    assert.equal(plain.length, many.data[1].embedding.length);
    plain.forEach((x, i) => assert.ok(Math.abs(x - many.data[1].embedding[i]) < 1e-4, "as numbers and in base64"));
  },
  async responses() {
    const reply = await client.responses.create({ model: h.MODEL, input: h.TEXT, max_output_tokens: h.FEW_TOKENS, temperature: 0, store: false });
    h.says(reply.output_text, h.TEXT);
    h.usageAddsUp(reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens);
  },
  async responses_stream() {
    const events = [];
    for await (const e of await client.responses.create({ model: h.MODEL, input: h.TEXT, max_output_tokens: h.FEW_TOKENS, store: false, stream: true })) events.push(e);
    assert.equal(events[0].type, "response.created");
    assert.match(events.at(-1).type, /^response\.(completed|incomplete)$/);
    h.says(events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta).join(""), h.TEXT);
  },
  async responses_tools() {
    const tools = [{ type: "function", name: "get_weather", parameters: h.WEATHER_SCHEMA, strict: true }];
    const input = user(h.CALL_PARIS);
    const reply = await client.responses.create({ model: h.MODEL, input, tools, tool_choice: "required", parallel_tool_calls: false, store: false });
    const calls = reply.output.filter((o) => o.type === "function_call");
    assert.equal(calls.length, 1);
    h.isWeather(calls[0].arguments);
    const result = { type: "function_call_output", call_id: calls[0].call_id, output: "It rains." };
    const end = await client.responses.create({
      model: h.MODEL, input: [...input, ...reply.output, result], tools, tool_choice: "none", max_output_tokens: h.FEW_TOKENS, store: false });
    h.says(end.output_text, "It rains.");
  },
  async errors() {
    const ask = (more = {}, apiKey = h.KEY) => () => client.withOptions({ apiKey }).chat.completions.create(options(h.TEXT, { max_tokens: 2, ...more }));
    await h.raises(OpenAI.AuthenticationError, ask({}, h.WRONG_KEY), 401);
    await h.raises(OpenAI.PermissionDeniedError, ask({}, h.OTHER_KEY), 403);
    let e = await h.raises(OpenAI.NotFoundError, ask({ model: "no-such-model" }), 404, "no-such-model");
    assert.equal(e.code, "model_not_found");
    e = await h.raises(OpenAI.BadRequestError, ask({ temperature: 9 }), 400, "temperature");
    assert.deepEqual([e.param, e.type], ["temperature", "invalid_request_error"]);
    e = await h.raises(OpenAI.BadRequestError, ask({ messages: user("word ".repeat(20000)) }), 400, "maximum context length");
    assert.equal(e.code, "context_length_exceeded");
    e = await h.raises(OpenAI.RateLimitError, async () => { for (let i = 0; i < 3; i++) await ask({}, h.LIMITED_KEY)(); }, 429);
    assert.ok(Number(e.headers.get("retry-after")) > 0);
  },
  async cancel_stream() {
    const before = await h.cancelled();
    for await (const chunk of await chat(h.LONG, { max_tokens: h.LONG_TOKENS, stream: true })) {
      if (chunk.choices[0].delta.content) break;
    }
    await h.oneMoreCancelled(before);
  },
  async cancel_reply() {
    const before = await h.cancelled();
    const signal = AbortSignal.timeout(500);
    await h.raises(OpenAI.APIUserAbortError, () => client.chat.completions.create(options(h.LONG, { max_tokens: h.LONG_TOKENS }), { signal }));
    await h.oneMoreCancelled(before);
  },
};

await h.run("openai-node", h.version("openai"), cases);
