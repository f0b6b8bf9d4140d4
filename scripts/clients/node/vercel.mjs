// The Vercel AI SDK with three of its providers: OpenAI's chat (and responses), "compatible with OpenAI", Anthropic's.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import * as h from "./harness.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const City = z.object({ city: z.enum(h.CITIES), warm: z.boolean() });
const get_weather = tool({ description: "The weather of a city", inputSchema: z.object({ city: z.enum(h.CITIES) }) });
const get_time = tool({ description: "The time", inputSchema: z.object({}) });
const both = { get_time, get_weather };
const sunny = tool({ description: "The weather of a city", inputSchema: z.object({ city: z.enum(h.CITIES) }), execute: async () => "The sun shines." });

async function all(stream) {
  const list = [];
  for await (const x of stream) list.push(x);
  return list;
}

function onlyCall(calls) {
  assert.deepEqual(calls.map((c) => c.toolName), ["get_weather"], "calls");
  assert.ok(calls[0].toolCallId);
  return calls[0].input;
}

// casesOf is what all providers have; modelOf makes a model for a key and a name, oneCall are a provider's options for
// one call at a time, ask is a prompt to which the mock answers with an object.
function casesOf(modelOf, oneCall, ask = h.ASK_CITY) {
  const options = (prompt, more) => ({
    model: modelOf(), prompt, temperature: 0, maxOutputTokens: h.CALL_TOKENS, maxRetries: 0, ...more });
  const text = (prompt, more) => generateText(options(prompt, more));
  const weather = { tools: { get_weather }, toolChoice: "required", providerOptions: oneCall };
  return {
    async chat() {
      const reply = await text(h.TEXT, { system: "You are brief." });
      h.says(reply.text, h.TEXT);
      h.usageAddsUp(reply.usage.inputTokens, reply.usage.outputTokens, reply.usage.totalTokens);
      assert.equal((await text(h.TEXT, { maxOutputTokens: 2 })).finishReason, "length");
    },
    async stream() {
      const reply = streamText(options(h.TEXT));
      assert.equal((await all(reply.textStream)).join(""), (await text(h.TEXT)).text, "the text of the stream and of the whole reply");
      const usage = await reply.usage;
      h.usageAddsUp(usage.inputTokens, usage.outputTokens, usage.totalTokens);
    },
    async stop() {
      const whole = (await text(h.TEXT)).text;
      const word = h.MOCK ? "capital" : whole.split(/\s+/)[2];
      assert.equal((await text(h.TEXT, { stopSequences: [word] })).text, whole.slice(0, whole.indexOf(word)));
    },
    async schema() {
      h.isCity((await generateObject(options(ask, { schema: City }))).object);
      const streamed = streamObject(options(ask, { schema: City }));
      await all(streamed.partialObjectStream);
      h.isCity(await streamed.object);
    },
    reasoning: h.mockOnly(async () => {
      const more = { maxOutputTokens: 2048, temperature: undefined, providerOptions: { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } } };
      const reply = await text("think why not\nyes", more);
      assert.deepEqual([reply.reasoningText, reply.text], ["why not", "yes"]);
    }, h.NO_REASONING),
    async tools_auto() {
      const reply = await text(h.CALL_PARIS, { tools: both });
      if (!h.MOCK) return;
      h.isWeather(onlyCall(reply.toolCalls));
      assert.equal(reply.finishReason, "tool-calls");
      h.says((await text(h.TEXT, { tools: both })).text, h.TEXT);
    },
    async tools_required() {
      h.isWeather(onlyCall((await text(h.CALL_PARIS, weather)).toolCalls));
    },
    async tools_named() {
      const named = { tools: both, toolChoice: { type: "tool", toolName: "get_weather" }, providerOptions: oneCall };
      h.isWeather(onlyCall((await text(h.CALL_PARIS, named)).toolCalls));
    },
    async tools_stream() {
      const parts = await all(streamText(options(h.CALL_PARIS, weather)).fullStream);
      const pieces = parts.filter((p) => p.type === "tool-input-delta").map((p) => p.delta);
      h.isWeather(pieces.join(""));
      h.isWeather(onlyCall(parts.filter((p) => p.type === "tool-call")));
    },
    async tools_parallel() {
      if (!h.MOCK) {
        const { toolCalls, finishReason } = await text(h.ASK_TWO, { tools: { get_weather }, toolChoice: "required" });
        h.weatherCalls(toolCalls.map((c) => [c.toolCallId, c.toolName, c.input]), finishReason === "length");
        return;
      }
      const calls = (await text(h.CALL_TWO, { tools: both })).toolCalls;
      assert.equal(new Set(calls.map((c) => c.toolCallId)).size, calls.length, "different ids");
      assert.deepEqual(calls.map((c) => c.input.city), ["Paris", "Rome"]);
    },
    async tool_loop() {
      const reply = await text(h.CALL_PARIS, { tools: { get_weather: sunny }, stopWhen: stepCountIs(3) });
      if (h.MOCK) assert.deepEqual([reply.steps.length, reply.text], [2, "The sun shines."]);
      const forced = { tools: { get_weather: sunny }, providerOptions: oneCall, stopWhen: stepCountIs(2) };
      const prepareStep = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" });
      const end = await text(h.CALL_PARIS, { ...forced, prepareStep });
      assert.equal(end.steps.length, 2);
      h.says(end.text, "The sun shines.");
    },
    async errors() {
      const refused = (key, name, more) => () => text(h.TEXT, { model: modelOf(key, name), maxOutputTokens: 2, ...more });
      await h.raises(APICallError, refused(h.WRONG_KEY), 401);
      await h.raises(APICallError, refused(h.OTHER_KEY), 403);
      await h.raises(APICallError, refused(h.KEY, "no-such-model"), 404, "no-such-model");
      await h.raises(APICallError, refused(h.KEY, h.MODEL, { prompt: "word ".repeat(20000) }), 400, /maximum context length|prompt is too long/);
      const e = await h.raises(APICallError, async () => { for (let i = 0; i < 3; i++) await refused(h.LIMITED_KEY)(); }, 429);
      assert.ok(Number(e.responseHeaders["retry-after"]) > 0 && e.isRetryable);
    },
    async cancel_stream() {
      const before = await h.cancelled();
      const leave = new AbortController();
      const reply = streamText(options(h.LONG, { maxOutputTokens: h.LONG_TOKENS, abortSignal: leave.signal, onError() {} }));
      for await (const part of reply.fullStream) {
        if (part.type === "text-delta") leave.abort();
      }
      await h.oneMoreCancelled(before);
    },
    async cancel_reply() {
      const before = await h.cancelled();
      const abortSignal = AbortSignal.timeout(500);
      await assert.rejects(text(h.LONG, { maxOutputTokens: h.LONG_TOKENS, abortSignal }), /TimeoutError|aborted/);
      await h.oneMoreCancelled(before);
    },
  };
}

const openai = (key = h.KEY) => createOpenAI({ baseURL: h.V1, apiKey: key });
const compatible = (key = h.KEY) => createOpenAICompatible({
  name: "tandem", baseURL: h.V1, apiKey: key, supportsStructuredOutputs: true, includeUsage: true });
const anthropic = (key = h.KEY) => createAnthropic({ baseURL: h.V1, apiKey: key });
const chatOf = (key, name = h.MODEL) => openai(key).chat(name);

function embeddingsOf(model) {
  return async () => {
    const { embeddings, usage } = await embedMany({ model, values: [h.TEXT, "one"], maxRetries: 0 });
    for (const v of embeddings) assert.ok(Math.abs(v.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3, "the length of a vector isn't 1");
    assert.equal(embeddings.length, 2);
    assert.ok(usage.tokens > 0);
  };
}

function seedOf(model) {
  return async () => {
    const ask = () => generateText({ model, prompt: h.TEXT, temperature: 1, seed: 11, maxOutputTokens: h.FEW_TOKENS, maxRetries: 0 });
    assert.equal((await ask()).text, (await ask()).text);
  };
}

async function logprobs() {
  const reply = await generateText({
    model: chatOf(), prompt: h.TEXT, maxOutputTokens: h.FEW_TOKENS, maxRetries: 0, providerOptions: { openai: { logprobs: 2 } } });
  assert.equal(reply.providerMetadata.openai.logprobs.map((t) => t.token).join(""), reply.text, "the tokens put together");
}

function completionsOf(model) {
  return async () => {
    const reply = await generateText({ model, prompt: "one two", temperature: 0, maxOutputTokens: 8, maxRetries: 0 });
    assert.equal(typeof reply.text, "string");
    assert.ok(reply.usage.outputTokens > 0);
  };
}

// Without store: false the provider sends the model's earlier texts as the ids of stored items.
const byResponses = { providerOptions: { openai: { store: false, parallelToolCalls: false } }, maxOutputTokens: h.CALL_TOKENS, maxRetries: 0 };
const responsesCases = {
  async responses() {
    const model = openai()(h.MODEL);
    const first = await generateText({ model, prompt: h.TEXT, ...byResponses });
    h.says(first.text, h.TEXT);
    const messages = [{ role: "user", content: h.TEXT }, ...first.response.messages, { role: "user", content: h.TEXT }];
    h.says((await generateText({ model, messages, ...byResponses })).text, h.TEXT);
    await h.raises(APICallError, () => generateText({ model, messages, maxRetries: 0 }), 400, "store: false");
    h.isCity((await generateObject({ model, prompt: h.ASK_CITY, schema: City, ...byResponses })).object);
  },
  async responses_stream() {
    const reply = streamText({ model: openai()(h.MODEL), prompt: h.TEXT, ...byResponses });
    h.says((await all(reply.textStream)).join(""), h.TEXT);
  },
  async responses_tools() {
    const prepareStep = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" });
    const reply = await generateText({
      model: openai()(h.MODEL), prompt: h.CALL_PARIS, tools: { get_weather: sunny }, stopWhen: stepCountIs(2), prepareStep, ...byResponses });
    h.isWeather(onlyCall(reply.steps[0].toolCalls));
    h.says(reply.text, "The sun shines.");
  },
};

const skipAll = (names, why) => Object.fromEntries(names.map((name) => [name, h.skip(why)]));
const nowhere = skipAll(["list", "n", "count"], "the Vercel AI SDK has nothing for it");
const responsesElsewhere = skipAll(["responses", "responses_stream", "responses_tools"], "only the provider for OpenAI has it");

await h.run("vercel-openai", h.version("@ai-sdk/openai"), {
  ...casesOf(chatOf, { openai: { parallelToolCalls: false } }), ...nowhere, ...responsesCases, seed: seedOf(chatOf()), logprobs,
  reasoning: h.skip("the provider for OpenAI leaves reasoning_content out; the compatible one has it"),
  completions: completionsOf(openai().completion(h.MODEL)), embeddings: embeddingsOf(openai().embedding(h.MODEL)),
});
await h.run("vercel-compatible", h.version("@ai-sdk/openai-compatible"), {
  ...casesOf((key, name = h.MODEL) => compatible(key)(name), { tandem: { parallel_tool_calls: false } }), ...nowhere, ...responsesElsewhere,
  seed: seedOf(compatible()(h.MODEL)), logprobs: h.skip("the compatible provider has no option for it"),
  completions: completionsOf(compatible().completionModel(h.MODEL)), embeddings: embeddingsOf(compatible().textEmbeddingModel(h.MODEL)),
});
// Of a model that it doesn't know the provider asks for an object by a tool of this name.
const jsonTool = h.MOCK ? `call json ${h.CITY_JSON}` : h.ASK_CITY;
await h.run("vercel-anthropic", h.version("@ai-sdk/anthropic"), {
  ...casesOf((key, name = h.MODEL) => anthropic(key)(name), { anthropic: { disableParallelToolUse: true } }, jsonTool), ...nowhere, ...responsesElsewhere,
  ...skipAll(["seed", "logprobs", "completions", "embeddings"], "Anthropic's API has no such thing"),
});
