// The chat: asks /v1/chat/completions with the conversation so far and shows the answer as it comes. The conversation
// and the key are kept in this tab's memory and nowhere else.

import { addChunk, emptyAnswer, readChunks, type Answer, type ErrorBody } from "./completion_stream";
import { addTurn, clearTurns, messagesFor, type Turn } from "./conversation";
import { find, make, say } from "./dom";
import { write } from "./text";

const quietMilliseconds = 3000; // so long without text is called waiting

const form = find<HTMLFormElement>("form");
const key = find<HTMLInputElement>("key");
const model = find<HTMLSelectElement>("model");
const system = find<HTMLTextAreaElement>("system");
const tools = find<HTMLTextAreaElement>("tools");
const message = find<HTMLTextAreaElement>("message");
const tokens = find<HTMLInputElement>("tokens");
const temperature = find<HTMLInputElement>("temperature");
const send = find<HTMLButtonElement>("send");
const stop = find<HTMLButtonElement>("stop");
const conversation = find("conversation");
const status = find("chat-status");
const spoken = find("spoken");

/** What a request is aborted for; also what the page says then. */
type Abort = "stopped" | "cleared";

let keyHeader = "X-API-Key";
let current: AbortController | null = null;

/** Asks which models can be asked for; the page calls it when their number changes. */
export async function loadModels(): Promise<void> {
  const reply = await fetch("/v1/models", { signal: AbortSignal.timeout(5000) });
  if (!reply.ok) throw new Error(`the server answers ${reply.status} to /v1/models`);
  const names = ((await reply.json()) as { data: { id: string }[] }).data.map((entry) => entry.id);
  const chosen = model.value;
  model.replaceChildren(...["", ...names].map((name) => {
    const option = make("option", "", name || "default");
    option.value = name;
    return option;
  }));
  model.value = names.includes(chosen) ? chosen : "";
}

/** The name of the key's header is a setting of the server. */
export function useKeyHeader(name: string): void { keyHeader = name; }

function requestBody(question: string): string {
  const request: Record<string, unknown> = {
    messages: messagesFor(question, system.value), stream: true, stream_options: { include_usage: true },
  };
  if (model.value) request.model = model.value;
  if (tokens.valueAsNumber >= 1) request.max_tokens = Math.floor(tokens.valueAsNumber);
  if (temperature.valueAsNumber >= 0) request.temperature = temperature.valueAsNumber;
  if (tools.value.trim()) request.tools = JSON.parse(tools.value); // its field checks that it is JSON
  return JSON.stringify(request);
}

async function openStream(body: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (key.value) headers[keyHeader] = key.value;
  const options: RequestInit = { method: "POST", headers, body, signal, cache: "no-store", credentials: "omit" };
  const reply = await fetch("/v1/chat/completions", options).catch(() => {
    throw new Error("the server can't be reached");
  });
  if (reply.ok && reply.body) return reply.body;
  const told = (await reply.json().catch(() => ({}))) as ErrorBody;
  const after = reply.headers.get("Retry-After");
  throw new Error((told.error?.message ?? `the server answers ${reply.status}`) + (after ? ` (in ${after} s)` : ""));
}

/** Times of an answer, as performance.now() gives them; 0: not yet. */
interface Times { asked: number; first: number; last: number; end: number }

/** Asks, and shows the answer as it grows. An engine that restarts meanwhile is a pause of the stream. */
async function ask(body: string, answer: Answer, turn: Turn, signal: AbortSignal): Promise<Times> {
  const now = performance.now();
  const times: Times = { asked: now, first: 0, last: now, end: 0 };
  const showProgress = () => say(status, progress(answer, times.first > 0, performance.now() - times.last));
  showProgress();
  const timer = setInterval(showProgress, 500);
  try {
    for await (const chunk of readChunks(await openStream(body, signal))) {
      const hasText = addChunk(answer, chunk);
      if (answer.finish) times.end ||= performance.now();
      turn.show(answer);
      if (!hasText) continue;
      times.last = performance.now();
      times.first ||= times.last;
      showProgress();
    }
    return times;
  } finally {
    clearInterval(timer);
  }
}

/** What is said while an answer comes. It changes rarely, since it is read out. */
function progress(answer: Answer, begun: boolean, quiet: number): string {
  if (!begun) return "waiting for the answer";
  if (quiet >= quietMilliseconds) return "waiting for more: the answer goes on when the server does";
  return answer.content || answer.calls.length > 0 ? "answering" : "reasoning";
}

/** Usage and speed of an answer. The time to the first token isn't part of its tokens a second. */
function summary(answer: Answer, times: Times): string {
  const { usage } = answer;
  const parts = [];
  if (usage) {
    const reasoning = usage.completion_tokens_details?.reasoning_tokens;
    parts.push(`${usage.completion_tokens} tokens${reasoning ? `, ${reasoning} of them reasoning` : ""}`);
  }
  if (times.first > 0) parts.push(`the first after ${write((times.first - times.asked) / 1e3, "seconds")}`);
  const seconds = (times.end - times.first) / 1e3;
  if (usage && usage.completion_tokens > 1 && times.first > 0 && seconds > 0) {
    parts.push(`then ${write((usage.completion_tokens - 1) / seconds, "per_second")}`);
  }
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens;
    parts.push(`${usage.prompt_tokens} in the prompt${cached ? ` (${cached} from the cache)` : ""}`);
  }
  return `${answer.model}: ${parts.join(", ")}; ended by ${answer.finish}`;
}

/** The whole answer is read out once; piece by piece nobody could follow it. */
function readOut(answer: Answer): void {
  const calls = answer.calls.map((call) => `Tool call ${call.name} ${call.arguments}`);
  say(spoken, [answer.content, ...calls].filter(Boolean).join("\n"));
}

/** What failed, or was stopped before it began, isn't part of later requests: the message can be sent again. */
function giveBack(turn: Turn): void {
  if (message.value === "") message.value = turn.question;
}

function stopped(answer: Answer, turn: Turn): void {
  if (answer.content || answer.calls.length > 0) {
    turn.keep(answer);
    turn.note("stopped", false);
    return;
  }
  turn.note("stopped before the answer; later requests leave this out", false);
  giveBack(turn);
}

function failed(turn: Turn, problem: unknown): void {
  const reason = problem instanceof Error ? problem.message : String(problem);
  turn.note(`Failed: ${reason}. Later requests leave this out.`, true);
  say(status, `Failed: ${reason}`);
  giveBack(turn);
}

async function converse(question: string, signal: AbortSignal): Promise<void> {
  const body = requestBody(question);
  const turn = addTurn(question);
  const answer = emptyAnswer();
  message.value = "";
  say(spoken, "");
  try {
    const times = await ask(body, answer, turn, signal);
    turn.keep(answer);
    readOut(answer);
    say(status, summary(answer, times));
  } catch (problem) {
    if (!signal.aborted) return failed(turn, problem);
    const reason = signal.reason as Abort;
    say(status, reason);
    if (reason === "stopped") stopped(answer, turn);
  }
}

function setBusy(yes: boolean): void {
  conversation.setAttribute("aria-busy", String(yes));
  send.disabled = yes;
  stop.disabled = !yes;
}

async function submit(): Promise<void> {
  const mine = new AbortController();
  current = mine;
  const hadFocus = document.activeElement === send;
  setBusy(true);
  if (hadFocus) stop.focus(); // a disabled button would lose it
  try {
    await converse(message.value, mine.signal);
  } finally {
    const refocus = document.activeElement === stop;
    current = null;
    setBusy(false);
    if (refocus) send.focus();
  }
}

function isJSON(text: string): boolean {
  try {
    if (text.trim()) JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function abort(why: Abort): void { current?.abort(why); }

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!current) void submit();
});
message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!current) form.requestSubmit();
});
tools.addEventListener("input", () => {
  tools.setCustomValidity(isJSON(tools.value) ? "" : "This is not valid JSON.");
});
tools.addEventListener("invalid", () => { tools.closest("details")!.open = true; }); // the browser says why beside it
stop.addEventListener("click", () => abort("stopped"));
find("clear").addEventListener("click", () => {
  abort("cleared");
  clearTurns();
  say(spoken, "");
  say(status, "cleared");
});
