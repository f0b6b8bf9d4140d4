// How figures are written.

import type { Figure } from "./live";

export type Unit = "seconds" | "ratio" | "per_second" | "count";

/** A number with its unit; a dash when there is none. */
export function write(value: Figure | undefined, unit: Unit): string {
  if (value === null || value === undefined) return "–";
  switch (unit) {
    case "seconds":
      return duration(value);
    case "ratio":
      return `${trim(100 * value, value > 0.99 && value < 1 ? 2 : 1)} %`;
    case "per_second":
      return `${trim(value, value < 100 ? 1 : 0)} /s`;
    case "count":
      return trim(value, 0);
  }
}

function duration(seconds: number): string {
  if (seconds === 0) return "0 ms";
  if (seconds >= 1) return `${trim(seconds, 2)} s`;
  if (seconds >= 0.01) return `${trim(seconds * 1e3, 0)} ms`;
  if (seconds >= 0.001) return `${trim(seconds * 1e3, 1)} ms`;
  if (seconds >= 0.0001) return `${trim(seconds * 1e3, 2)} ms`;
  return `${trim(seconds * 1e6, 0)} µs`;
}

function trim(value: number, digits: number): string {
  return String(Number(value.toFixed(digits)));
}

/** Bytes in binary units. */
export function bytes(n: number): string {
  if (n >= 2 ** 30) return `${trim(n / 2 ** 30, 2)} GiB`;
  if (n >= 2 ** 20) return `${trim(n / 2 ** 20, 1)} MiB`;
  return `${trim(n / 1024, 0)} KiB`;
}

/** The time of day. */
export function clock(unixSeconds: number, seconds = true): string {
  const style: Intl.DateTimeFormatOptions = { hour12: false, hour: "2-digit", minute: "2-digit" };
  return new Date(unixSeconds * 1e3).toLocaleTimeString([], seconds ? { ...style, second: "2-digit" } : style);
}
