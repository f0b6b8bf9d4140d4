// Tests of the module that reads a stream, without a browser. scripts/test-page.sh bundles it and names it in MODULE.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { pathToFileURL } from "node:url";

assert(process.env.MODULE, "scripts/test-page.sh runs this");
const { addChunk, emptyAnswer, readChunks } = await import(pathToFileURL(process.env.MODULE));

/** A body that comes in pieces of so many bytes. */
function bodyOf(text, pieceBytes) {
  const bytes = new TextEncoder().encode(text);
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + pieceBytes));
      at += pieceBytes;
    },
  });
}

const chunk = (delta, finish = null) => JSON.stringify({ model: "demo", choices: [{ index: 0, delta, finish_reason: finish }], usage: null });
const usage = { prompt_tokens: 3, completion_tokens: 4 };
const whole = [
  ": alive", "", `data: ${chunk({ role: "assistant", content: "" })}`, "", `data:${chunk({ reasoning_content: "hm, " })}`, "",
  `data: ${chunk({ reasoning_content: "ja" })}`, "", "event: message", `data: ${chunk({ content: "Grüße " })}`, "", ":", "",
  `data: ${chunk({ content: "aus 東京 🗼" })}`, "", `data: ${chunk({ tool_calls: [{ index: 0, id: "a", function: { name: "f", arguments: "" } }] })}`, "",
  `data: ${chunk({ tool_calls: [{ index: 0, function: { arguments: '{"x":' } }] })}`, "",
  `data: ${chunk({ tool_calls: [{ index: 0, function: { arguments: "1}" } }] })}`, "",
  `data: ${chunk({ tool_calls: [{ index: 1, id: "b", function: { name: "g", arguments: "{}" } }] })}`, "", `data: ${chunk({}, "tool_calls")}`, "",
  `data: ${JSON.stringify({ model: "demo", choices: [], usage })}`, "", "data: [DONE]", "", "",
];

async function read(body) {
  const answer = emptyAnswer();
  let texts = 0;
  for await (const c of readChunks(body)) texts += addChunk(answer, c) ? 1 : 0;
  return { answer, texts };
}

describe("an answer is the same, however its bytes are cut and lines end", () => {
  for (const lineEnd of ["\n", "\r\n", "\r"]) {
    for (const pieceBytes of [1, 2, 3, 7, 64, 100_000]) {
      test(`${JSON.stringify(lineEnd)}, pieces of ${pieceBytes} bytes`, async () => {
        assert.deepEqual(await read(bodyOf(whole.join(lineEnd), pieceBytes)), {
          texts: 8,
          answer: {
            model: "demo", reasoning: "hm, ja", content: "Grüße aus 東京 🗼", finish: "tool_calls", usage,
            calls: [{ id: "a", name: "f", arguments: '{"x":1}' }, { id: "b", name: "g", arguments: "{}" }],
          },
        });
      });
    }
  }
});

describe("what isn't a whole answer is an error", () => {
  const part = `data: ${chunk({ content: "half" })}\n\n`;
  for (const [name, text, reason] of [
    ["nothing", "", /ended before/],
    ["no end mark", part, /ended before/],
    ["an end mark that is cut", `${part}data: [DONE]`, /ended before/],
    ["no end mark after the last choice", `${part}data: ${chunk({}, "stop")}\n\n`, /ended before/],
    ["an error", `${part}data: {"error":{"message":"out of memory","code":"out_of_memory"}}\n\n`, /^Error: out of memory$/],
    ["an error without words", `${part}data: {"error":{}}\n\n`, /no reason/],
    ["an event that is no JSON", `${part}data: {"choices\n\n`, /can't be read/],
    ["an event that is no object", `${part}data: null\n\n`, /can't be read/],
  ]) {
    test(name, () => assert.rejects(read(bodyOf(text, 5)), reason));
  }
  test("a connection that breaks", () => {
    const body = new ReadableStream({ pull(controller) { controller.error(new TypeError("network error")); } });
    return assert.rejects(read(body), /connection was lost/);
  });
});

test("a stream is given up as soon as its reader is", async () => {
  let given = false;
  const body = new ReadableStream({
    pull(controller) { controller.enqueue(new TextEncoder().encode(`data: ${chunk({ content: "x" })}\n\n`)); },
    cancel() { given = true; },
  });
  for await (const c of readChunks(body)) if (c) break;
  assert(given);
});
