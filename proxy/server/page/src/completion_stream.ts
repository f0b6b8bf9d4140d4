// What streams from /v1/chat/completions: reading the events, and adding up the answer. Knows nothing of the document.

export interface ToolCall { id: string; name: string; arguments: string }

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number; // with the end token
  prompt_tokens_details?: { cached_tokens?: number };
  completion_tokens_details?: { reasoning_tokens?: number };
}

/** An answer as far as it has come. */
export interface Answer {
  model: string; // as the server names it
  content: string;
  reasoning: string;
  calls: ToolCall[];
  finish: string; // empty: it hasn't ended
  usage: Usage | null;
}

interface Delta {
  content?: string | null;
  reasoning_content?: string | null;
  tool_calls?: { index: number; id?: string; function?: { name?: string; arguments?: string } }[];
}

export interface Chunk {
  model?: string;
  choices?: { delta?: Delta; finish_reason?: string | null }[];
  usage?: Usage | null;
}

export interface ErrorBody { error?: { message?: string } }

export function emptyAnswer(): Answer {
  return { model: "", content: "", reasoning: "", calls: [], finish: "", usage: null };
}

/** Gives the chunks of a stream. Throws what an error event says, and if the stream ends before its end mark. */
export async function* readChunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Chunk> {
  for await (const data of readEvents(body)) {
    if (data === "[DONE]") return;
    const chunk = parse(data);
    if (chunk.error) throw new Error(chunk.error.message ?? "the server gives no reason");
    yield chunk;
  }
  throw new Error("the stream ended before the answer did");
}

function parse(data: string): Chunk & ErrorBody {
  let value: unknown = null;
  try {
    value = JSON.parse(data);
  } catch { /* it stays null */ }
  if (typeof value !== "object" || value === null) {
    throw new Error(`the stream has an event that can't be read: ${data.slice(0, 80)}`);
  }
  return value;
}

/** Gives the data of each event. Comments, which keep the connection alive, and other fields are left out. */
async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data: string[] = [];
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(() => {
        throw new Error("the connection was lost before the answer's end");
      });
      if (done) return;
      // A line's end that is cut between \r and \n gives one blank line too many, which says nothing.
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\r|\n/);
      rest = lines.pop()!;
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "" || data.length === 0) continue;
        yield data.join("\n");
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // a stream that has failed can't be cancelled, nor needs to be
  }
}

/** Adds a chunk to the answer; reports whether it had something of the text. */
export function addChunk(answer: Answer, chunk: Chunk): boolean {
  answer.model = chunk.model || answer.model;
  answer.usage = chunk.usage ?? answer.usage;
  const choice = chunk.choices?.[0];
  answer.finish = choice?.finish_reason ?? answer.finish;
  const delta = choice?.delta ?? {};
  answer.content += delta.content ?? "";
  answer.reasoning += delta.reasoning_content ?? "";
  for (const part of delta.tool_calls ?? []) {
    const call = (answer.calls[part.index] ??= { id: "", name: "", arguments: "" });
    call.id += part.id ?? "";
    call.name += part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls?.length);
}
