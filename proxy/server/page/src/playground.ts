// The playground: one question to /infer, the answer as it comes. The key lives in its field and nowhere else.

import { find, make, say } from "./dom";
import { write } from "./text";

interface Model { base_model: string; versions: string[] }
interface Metadata { model: string; version: string; tokens_generated: number; response_time: number; finish_reason: string }
interface Message { text?: string; result?: string; metadata?: Metadata; error?: { type: string; message: string } }

const form = find<HTMLFormElement>("form");
const key = find<HTMLInputElement>("key");
const model = find<HTMLSelectElement>("model");
const version = find<HTMLSelectElement>("version");
const send = find<HTMLButtonElement>("send");
const stop = find<HTMLButtonElement>("stop");
const answer = find("answer");
const status = find("answer-status");
const spoken = find("spoken");

let models: Model[] = [];
let keyHeader = "X-API-Key";
let current: AbortController | null = null;

function options(select: HTMLSelectElement, names: string[]): void {
  const chosen = select.value;
  select.replaceChildren(...["", ...names].map((name) => {
    const option = make("option", "", name || "default");
    option.value = name;
    return option;
  }));
  select.value = names.includes(chosen) ? chosen : "";
}

function showVersions(): void {
  options(version, models.find((m) => m.base_model === model.value)?.versions ?? []);
}

/** Asks which models are installed; the page calls it when their number changes. */
export async function loadModels(): Promise<void> {
  const reply = await fetch("/models", { signal: AbortSignal.timeout(5000) });
  models = ((await reply.json()) as { models: Model[] }).models;
  options(model, models.map((m) => m.base_model));
  showVersions();
}

/** The name of the key's header is a setting of the server. */
export function useKeyHeader(name: string): void { keyHeader = name; }

function body(): string {
  const request: Record<string, unknown> = { prompt: find<HTMLTextAreaElement>("prompt").value, stream: true };
  const tokens = find<HTMLInputElement>("tokens").valueAsNumber, temperature = find<HTMLInputElement>("temperature").valueAsNumber;
  if (tokens >= 1) request.max_new_tokens = Math.floor(tokens);
  if (temperature >= 0) request.temperature = temperature;
  if (model.value) request.base_model = model.value;
  if (model.value && version.value) request.adapter_version = version.value;
  return JSON.stringify(request);
}

/** Gives the data of each event of a stream; keep-alive comments are left out. */
async function* messages(stream: ReadableStream<Uint8Array>): AsyncGenerator<Message> {
  const reader = stream.pipeThrough(new TextDecoderStream() as unknown as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop()!;
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data) as Message;
    }
  }
}

async function ask(signal: AbortSignal): Promise<void> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (key.value) headers[keyHeader] = key.value;
  const reply = await fetch("/infer", { method: "POST", headers, body: body(), signal, cache: "no-store", credentials: "omit" });
  if (!reply.ok || !reply.body) {
    const told = (await reply.json().catch(() => ({}))) as Message;
    throw new Error(told.error?.message ?? `the server answers ${reply.status}`);
  }
  for await (const message of messages(reply.body)) {
    if (message.error) throw new Error(message.error.message);
    if (message.text) answer.append(message.text);
    if (message.metadata) {
      finish(message.metadata, message.result ?? "");
      return;
    }
  }
  throw new Error("the answer was cut off");
}

/** The whole answer is spoken once; piece by piece nobody could follow it. */
function finish(m: Metadata, result: string): void {
  say(answer, result);
  say(spoken, result);
  const rate = m.response_time > 0 ? `, ${write(m.tokens_generated / m.response_time, "per_second")}` : "";
  say(status, `${m.model}@${m.version}: ${m.tokens_generated} tokens in ${write(m.response_time, "seconds")}${rate}; ended by ${m.finish_reason}`);
}

function busy(yes: boolean): void {
  answer.setAttribute("aria-busy", String(yes));
  send.disabled = yes;
  stop.disabled = !yes;
}

async function submit(): Promise<void> {
  const mine = new AbortController();
  current = mine;
  const hadFocus = document.activeElement === send;
  busy(true);
  if (hadFocus) stop.focus(); // a disabled button would lose it
  answer.classList.remove("failed");
  say(answer, "");
  say(spoken, "");
  say(status, "waiting for the answer");
  try {
    await ask(mine.signal);
  } catch (problem) {
    answer.classList.toggle("failed", !mine.signal.aborted);
    say(status, mine.signal.aborted ? "stopped" : `Failed: ${problem instanceof Error ? problem.message : String(problem)}`);
  } finally {
    const refocus = document.activeElement === stop;
    current = null;
    busy(false);
    if (refocus) send.focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!current) void submit();
});
find("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
stop.addEventListener("click", () => current?.abort());
model.addEventListener("change", showVersions);
