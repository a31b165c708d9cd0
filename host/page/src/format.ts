/** Numbers as people read them; a line does not break before a unit. */

/** Bytes with a unit of 1024. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit + 1 < units.length) {
    count /= 1024;
    unit += 1;
  }
  return `${count.toFixed(count < 10 && unit > 0 ? 1 : 0)}\u00a0${units[unit]}`;
}

/** A duration in milliseconds. */
export function duration(ms: number): string {
  if (ms >= 60_000) return `${(ms / 60_000).toFixed(1)}\u00a0min`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms >= 10_000 ? 1 : 2)}\u00a0s`;
  return `${ms.toFixed(ms >= 10 ? 0 : 1)}\u00a0ms`;
}

/** A share of one. */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)}\u00a0%`;
}

/** A time of day, from milliseconds since 1970. */
export function clock(time: number): string {
  return new Date(time).toLocaleTimeString([], { hour12: false });
}
