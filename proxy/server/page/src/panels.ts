// What isn't a plot: badges, tiles, models, facts.

import { find, make, say } from "./dom";
import type { Live, Target } from "./live";
import { bytes, write } from "./text";

const tiles = new Map<string, { box: HTMLElement; value: HTMLElement; state: HTMLElement }>();

const states = { met: "met", missed: "missed", idle: "not judged" };

function tile(t: Target) {
  const value = make("span", "value"), state = make("span", "state");
  const target = make("span", "target", make("span", "visually-hidden", "target "), `${t.above ? ">" : "<"} ${write(t.target, t.unit)} `, state);
  const box = make("li", "tile", make("span", "name", t.title), value, target);
  find("tiles").append(box);
  const made = { box, value, state };
  tiles.set(t.name, made);
  return made;
}

function showTargets(live: Live): void {
  for (const t of live.targets) {
    const { box, value, state } = tiles.get(t.name) ?? tile(t);
    box.className = `tile ${t.state}`;
    say(value, write(t.value, t.unit));
    say(state, states[t.state]);
  }
  say(find("window"), `over the last ${Math.round(live.figures.window_seconds ?? 0)} s`);
}

function showBadges(live: Live): void {
  const healthy = live.status === "healthy", up = live.engine_up === 1;
  const badges: [string, string][] = [
    [live.status, healthy ? "good" : "bad"],
    [up ? "engine up" : "engine away", up ? "good" : "bad"],
    [`device ${live.device}`, ""],
  ];
  const text = badges.map(([words]) => words).join();
  const place = find("badges");
  if (place.dataset.shown === text) return;
  place.dataset.shown = text;
  place.replaceChildren(...badges.map(([words, kind]) => make("span", `badge ${kind}`, words)));
}

function showModels(live: Live): void {
  const memory = new Map((live.figures.model_memory ?? []).map((m) => [`${m.base_model}@${m.version}`, m.bytes]));
  say(find("models-count"), `${live.loaded} of at most ${live.cache_size}; ${live.models} installed`);
  const rows = live.loaded_models.map((m) => {
    const size = memory.get(`${m.base_model}@${m.version}`);
    const state = (m.loading ? "loading" : "loaded") + (m.default ? ", default" : "");
    memory.delete(`${m.base_model}@${m.version}`);
    return [m.base_model, m.version, state, size ? bytes(size) : "–"];
  });
  for (const [name, size] of memory) { // what versions share counts under a version that isn't loaded for itself
    if (size > 0 && rows.some(([model]) => `${model}@base` === name)) rows.push([name.slice(0, -"@base".length), "all", "shared weights", bytes(size)]);
  }
  const place = find("models"), text = JSON.stringify(rows);
  if (place.dataset.shown === text) return;
  place.dataset.shown = text;
  if (rows.length === 0) {
    const empty = make("td", "", "none");
    empty.colSpan = 4;
    place.replaceChildren(make("tr", "", empty));
    return;
  }
  place.replaceChildren(...rows.map((row) => make("tr", "", ...row.map((cell, i) => make("td", i === 3 ? "number" : "", cell)))));
}

const facts = new Map<string, HTMLElement>();

function showFacts(live: Live): void {
  const reasons = Object.entries(live.figures.restart_reasons).map(([reason, n]) => `${reason} ${n}`).join(", ");
  const list: [string, string][] = [
    ["Engine", live.engine_up ? "up" : "away"],
    ["Restarts", `${live.figures.engine_restarts}${reasons && ` (${reasons})`}`],
    ["Running", String(live.running)],
    ["Waiting", `${live.waiting} of at most ${live.queue_capacity}`],
    ["Connections", String(live.connections)],
  ];
  for (const [name, text] of list) {
    let value = facts.get(name);
    if (!value) {
      value = make("dd");
      facts.set(name, value);
      find("facts").append(make("dt", "", name), value);
    }
    say(value, text);
  }
}

export function showPanels(live: Live): void {
  showBadges(live);
  showTargets(live);
  showModels(live);
  showFacts(live);
}
