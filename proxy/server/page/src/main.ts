// The live page: asks /status/live each second, keeps five minutes of points, and shows them.

import "uplot/dist/uPlot.min.css";
import "./app.css";
import { loadModels, useKeyHeader } from "./chat";
import { find, say } from "./dom";
import { askLive, historySeconds, type Point } from "./live";
import { showPanels } from "./panels";
import { makePlots } from "./plots";

const pollMilliseconds = 1000;

const plots = makePlots(find("plots"));
const notice = find("notice");
const pause = find<HTMLButtonElement>("pause");

let points: Point[] = [];
let installed = -1;
let paused = false;

async function refresh(): Promise<void> {
  const live = await askLive(points.at(-1)?.t ?? 0);
  const last = points.at(-1)?.t ?? 0;
  points.push(...(live.history ?? []).filter((p) => p.t > last));
  points = points.filter((p) => p.t > live.timestamp - historySeconds);
  showPanels(live);
  for (const plot of plots) plot.show(points);
  useKeyHeader(live.key_header);
  if (live.models !== installed) {
    await loadModels();
    installed = live.models;
  }
}

/** One question at a time; none while nobody looks. */
async function loop(): Promise<never> {
  for (;;) {
    if (!paused && !document.hidden) {
      try {
        await refresh();
        notice.hidden = true;
      } catch (problem) {
        say(notice, `No new figures: ${problem instanceof Error ? problem.message : String(problem)}. Trying again each second.`);
        notice.hidden = false;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pollMilliseconds));
  }
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot.redraw()));

// For tests of the page: what the plots hold.
Object.defineProperty(window, "tandemPlots", { get: () => plots.map((plot) => ({ title: plot.title, lengths: plot.lengths })) });

void loop();
