// What /status/live answers; proxy/server/live.go and proxy/metrics/live.go say what each field means.

export type Figure = number | null;

export interface Point {
  t: number;
  [name: string]: Figure;
}

export interface Target {
  name: string;
  title: string;
  unit: "seconds" | "ratio" | "per_second";
  value: Figure;
  target: number;
  above: boolean;
  state: "met" | "missed" | "idle";
}

export interface Live {
  timestamp: number;
  status: string;
  device: string;
  key_header: string;
  engine_up: number;
  exchanges: number;
  connections: number;
  waiting: number;
  running: number;
  queue_capacity: number;
  cache_size: number;
  loaded: number;
  loading: number;
  models: number;
  loaded_models: { base_model: string; version: string; loading: boolean; default: boolean }[];
  targets: Target[];
  figures: {
    window_seconds: Figure;
    model_memory: { base_model: string; version: string; bytes: number }[] | null;
    engine_restarts: number;
    restart_reasons: Record<string, number>;
  };
  history?: Point[];
}

/** How far back the plots go, in seconds. */
export const historySeconds = 300;

/** Asks for the figures and the points after the time `since`. */
export async function askLive(since: number): Promise<Live> {
  const reply = await fetch(`/status/live?since=${since}`, { cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (!reply.ok) throw new Error(`the server answers ${reply.status}`);
  return (await reply.json()) as Live;
}
