// The conversation: what is shown of it, and which of it goes into the next request. Text is only ever put in as text.

import type { Answer } from "./completion_stream";
import { find, make, say } from "./dom";

interface Message {
  role: "system" | "user" | "assistant";
  content: string;
  tool_calls?: { id: string; type: "function"; function: { name: string; arguments: string } }[];
}

const box = find("conversation");
const list = find("turns");

/** A message of the user and its answer. */
class Turn {
  readonly question: string;
  readonly element: HTMLLIElement;
  private readonly who = make("p", "who", "Answer");
  private readonly content = document.createTextNode("");
  private readonly parts = make("div", "parts", textBox(this.content));
  private readonly calls: { name: HTMLElement; arguments: Text }[] = [];
  private reasoning: Text | null = null;
  private answer: Answer | null = null; // once it is kept

  constructor(question: string) {
    this.question = question;
    const asked = textBox(document.createTextNode(question));
    this.element = make("li", "turn", make("p", "who", "You"), asked, this.who, this.parts);
  }

  /** Shows an answer as far as it has come. */
  show(answer: Answer): void {
    if (answer.model) say(this.who, answer.model);
    if (answer.reasoning) grow((this.reasoning ??= this.addReasoning()), answer.reasoning);
    grow(this.content, answer.content);
    answer.calls.forEach((call, i) => {
      const shown = (this.calls[i] ??= this.addCall());
      say(shown.name, call.name);
      grow(shown.arguments, call.arguments);
    });
  }

  /** From now on the turn is part of the requests. */
  keep(answer: Answer): void { this.answer = answer; }

  /** Says below the answer what became of it. */
  note(text: string, failed: boolean): void {
    this.element.classList.toggle("failed", failed);
    this.element.append(make("p", "note", text));
  }

  messages(): Message[] {
    if (!this.answer) return [];
    const reply: Message = { role: "assistant", content: this.answer.content };
    if (this.answer.calls.length > 0) {
      reply.tool_calls = this.answer.calls.map((call) => (
        { id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }
      ));
    }
    return [{ role: "user", content: this.question }, reply];
  }

  private addReasoning(): Text {
    const text = document.createTextNode("");
    this.parts.prepend(make("details", "reasoning", make("summary", "", "Reasoning"), textBox(text)));
    return text;
  }

  private addCall(): { name: HTMLElement; arguments: Text } {
    const shown = { name: make("code"), arguments: document.createTextNode("") };
    this.parts.append(make("div", "call", make("p", "", "Tool call ", shown.name), textBox(shown.arguments)));
    return shown;
  }
}

export type { Turn };

function textBox(text: Text): HTMLElement {
  const element = make("div", "text", text);
  element.dir = "auto";
  return element;
}

function grow(node: Text, text: string): void {
  if (text.length > node.length) node.appendData(text.slice(node.length));
}

let turns: Turn[] = [];
let following = true; // the end of the answer stays in sight, unless somebody has scrolled up
let lastTop = 0;

export function addTurn(question: string): Turn {
  const turn = new Turn(question);
  turns.push(turn);
  list.append(turn.element);
  following = true;
  return turn;
}

export function clearTurns(): void {
  turns = [];
  list.replaceChildren();
}

/** The messages of a request that asks a question after the turns that are kept. */
export function messagesFor(question: string, system: string): Message[] {
  const first: Message[] = system.trim() ? [{ role: "system", content: system }] : [];
  return [...first, ...turns.flatMap((turn) => turn.messages()), { role: "user", content: question }];
}

box.addEventListener("scroll", () => {
  const up = box.scrollTop < lastTop;
  lastTop = box.scrollTop;
  following = box.scrollHeight - box.clientHeight - lastTop < 8 || (following && !up);
}, { passive: true });
new ResizeObserver(() => {
  if (following && box.getAttribute("aria-busy") === "true") box.scrollTop = box.scrollHeight;
}).observe(list);
