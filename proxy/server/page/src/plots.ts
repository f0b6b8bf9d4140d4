// The plots: what each shows, drawing it with uPlot, and the same numbers as a table for those who don't see it.

import uPlot from "uplot";
import { make, say } from "./dom";
import { historySeconds, type Figure, type Point } from "./live";
import { clock, write, type Unit } from "./text";

interface Series {
  field: string;
  title: string;
}

interface Spec {
  title: string;
  about: string;
  unit: Unit;
  series: Series[];
  stacked?: boolean;
  limit?: number; // a target, drawn as a line
  top?: number; // the scale's end
}

const specs: Spec[] = [
  { title: "Response time", about: "whole answers", unit: "seconds", limit: 1,
    series: [{ field: "p95", title: "p95" }, { field: "mean", title: "mean" }, { field: "p99", title: "p99" }] },
  { title: "Where the time goes", about: "mean request", unit: "seconds", stacked: true,
    series: [{ field: "decode", title: "decode" }, { field: "prefill", title: "prefill" }, { field: "queue", title: "queue" }, { field: "restart", title: "restart" }] },
  { title: "Tokens", about: "generated a second", unit: "per_second", series: [{ field: "tokens_per_second", title: "tokens" }] },
  { title: "Requests", about: "answered a second", unit: "per_second", series: [{ field: "requests_per_second", title: "requests" }] },
  { title: "First token", about: "from request to first token", unit: "seconds",
    series: [{ field: "first_token_p50", title: "p50" }, { field: "first_token_p95", title: "p95" }] },
  { title: "Between tokens", about: "gap as written to clients", unit: "seconds",
    series: [{ field: "inter_token_p50", title: "p50" }, { field: "inter_token_p95", title: "p95" }] },
  { title: "Queue", about: "requests", unit: "count", series: [{ field: "running", title: "running" }, { field: "waiting", title: "waiting" }] },
  { title: "Errors", about: "share of valid requests", unit: "ratio", limit: 0.01, series: [{ field: "error_ratio", title: "errors" }] },
  { title: "Memory", about: "share in use", unit: "ratio", limit: 0.8, top: 1,
    series: [{ field: "memory_ratio", title: "fullest device" }, { field: "kv_usage", title: "KV cache" }] },
];

const dashes = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const height = 150;

class Plot {
  private readonly spec: Spec;
  private readonly chart: uPlot;
  private readonly box: HTMLElement;
  private readonly values: HTMLElement[] = [];
  private readonly details: HTMLDetailsElement;
  private readonly rows = make("tbody");
  private points: Point[] = [];

  constructor(spec: Spec, parent: HTMLElement) {
    this.spec = spec;
    this.box = make("div");
    this.box.setAttribute("role", "img");
    const legend = make("ul", "legend");
    spec.series.forEach((s, i) => {
      const value = make("span", "value");
      this.values.push(value);
      legend.append(make("li", `s${i + 1}`, `${s.title} `, value));
    });
    this.details = this.table();
    parent.append(make("figure", spec.stacked ? "stacked" : "",
      make("figcaption", "", `${spec.title} `, make("span", "unit", spec.about)), legend, this.box, this.details));
    this.chart = new uPlot(this.options(), [[], ...spec.series.map(() => [])] as uPlot.AlignedData, this.box);
    new ResizeObserver(() => this.chart.setSize({ width: this.width(), height })).observe(this.box);
  }

  /** For tests: how many numbers each series holds. */
  get lengths(): number[] {
    return this.spec.series.map((s) => this.points.filter((p) => typeof p[s.field] === "number").length);
  }

  get title(): string { return this.spec.title; }

  show(points: Point[]): void {
    this.points = points;
    const times = points.map((p) => p.t);
    const columns = this.spec.series.map((s) => points.map((p) => p[s.field] ?? null));
    const drawn = this.spec.stacked ? stack(columns) : columns;
    this.chart.setData([times, ...drawn] as uPlot.AlignedData);
    const last = points.at(-1);
    this.spec.series.forEach((s, i) => say(this.values[i]!, write(last?.[s.field], this.spec.unit)));
    const now = this.spec.series.map((s) => `${s.title} ${write(last?.[s.field], this.spec.unit)}`).join(", ");
    this.box.setAttribute("aria-label", `${this.spec.title}, ${this.spec.about}. Now: ${now}. A table follows.`);
    if (this.details.open) this.fill();
  }

  /** Colours are read again when the theme changes. */
  redraw(): void { this.chart.redraw(false, true); }

  private width(): number { return Math.max(120, this.box.clientWidth); }

  private table(): HTMLDetailsElement {
    const head = make("tr", "", scope("Time"), ...this.spec.series.map((s) => scope(s.title)));
    const table = make("table", "", make("caption", "visually-hidden", this.spec.title), make("thead", "", head), this.rows);
    const scroll = make("div", "scroll", table);
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `${this.spec.title} as a table`);
    const summary = make("summary", "", "Table", make("span", "visually-hidden", ` of ${this.spec.title}`));
    const details = make("details", "", summary, scroll);
    details.addEventListener("toggle", () => { if (details.open) this.fill(); });
    return details;
  }

  /** The newest come first; one row in five seconds is enough to read. */
  private fill(): void {
    const rows: HTMLElement[] = [];
    let before = Infinity;
    for (const p of this.points.toReversed()) {
      if (before - p.t < 4.5) continue;
      before = p.t;
      const time = scope(clock(p.t));
      time.scope = "row";
      rows.push(make("tr", "", time, ...this.spec.series.map((s) => make("td", "", write(p[s.field], this.spec.unit)))));
    }
    this.rows.replaceChildren(...rows);
  }

  private options(): uPlot.Options {
    const axis: uPlot.Axis = { stroke: () => colour("--muted"), grid: { stroke: () => colour("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width: this.width(), height, legend: { show: false }, padding: [8, 24, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { time: true, range: (_u, min, max) => span(min, max) },
        y: { range: (_u, _min, max) => [0, this.spec.top ?? this.ceiling(max ?? 0)] },
      },
      axes: [
        { ...axis, size: 26, space: 70, values: (_u, splits, _axis, _space, step) => splits.map((t) => clock(t, step < 60)), incrs: [10, 20, 30, 60, 120] },
        { ...axis, size: 58, space: 34, values: (_u, splits) => splits.map((v) => write(v, this.spec.unit)), ...(this.spec.unit === "count" ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {}) },
      ],
      series: [{}, ...this.spec.series.map((s, i) => this.line(s, i))],
      bands: this.spec.stacked ? this.spec.series.slice(1).map((_, i) => ({ series: [i + 2, i + 1] as [number, number] })) : [],
      hooks: { draw: [(u) => this.drawLimit(u)], setCursor: [(u) => this.point(u)] },
    };
  }

  private line(s: Series, i: number): uPlot.Series {
    const stroke = () => colour(`--s${i + 1}`);
    const common = { label: s.title, stroke, points: { show: false }, spanGaps: false };
    return this.spec.stacked ? { ...common, width: 1, fill: () => colour(`--s${i + 1}`) + "b0" } : { ...common, width: 2, dash: dashes[i] };
  }

  /** The scale's end: a round number above the data; a target shows when it is near. */
  private ceiling(max: number): number {
    const least = { seconds: 0.001, ratio: 0.02, per_second: 1, count: 4 }[this.spec.unit];
    const limit = this.spec.limit ?? 0;
    return Math.max(least, max * 1.12, limit <= max * 2.5 ? limit * 1.25 : 0);
  }

  private drawLimit(u: uPlot): void {
    if (this.spec.limit === undefined) return;
    const y = u.valToPos(this.spec.limit, "y", true);
    if (y < u.bbox.top || y > u.bbox.top + u.bbox.height) return;
    const c = u.ctx, pixel = devicePixelRatio;
    c.save();
    c.strokeStyle = c.fillStyle = colour("--bad");
    c.setLineDash([4 * pixel, 4 * pixel]);
    c.lineWidth = pixel;
    c.beginPath();
    c.moveTo(u.bbox.left, y);
    c.lineTo(u.bbox.left + u.bbox.width, y);
    c.stroke();
    const above = y - u.bbox.top > 16 * pixel;
    c.font = `${11 * pixel}px system-ui, sans-serif`;
    c.textAlign = "left";
    c.textBaseline = above ? "bottom" : "top";
    c.fillText(`target ${write(this.spec.limit, this.spec.unit)}`, u.bbox.left + 4 * pixel, y + (above ? -3 : 4) * pixel);
    c.restore();
  }

  /** The legend follows the pointer. */
  private point(u: uPlot): void {
    const p = u.cursor.idx === null || u.cursor.idx === undefined ? this.points.at(-1) : this.points[u.cursor.idx];
    this.spec.series.forEach((s, i) => say(this.values[i]!, write(p?.[s.field], this.spec.unit)));
  }
}

function scope(text: string): HTMLTableCellElement {
  const cell = make("th", "", text);
  cell.scope = "col";
  return cell;
}

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The time shown: what there is, at least a minute and at most the history. */
function span(first: number | null, last: number | null): [number, number] {
  const end = last ?? 1;
  return [Math.max(end - historySeconds, Math.min(first ?? 0, end - 60)), end];
}

/** Each column on those before it. */
function stack(columns: Figure[][]): Figure[][] {
  const sums: number[] = [];
  return columns.map((column) => column.map((v, i) => (v === null ? null : (sums[i] = (sums[i] ?? 0) + v))));
}

export function makePlots(parent: HTMLElement): Plot[] {
  return specs.map((s) => new Plot(s, parent));
}
