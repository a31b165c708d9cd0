/** The request log: where each request went and where its time did. */

import { byId, h } from "./dom.ts";
import { on, onFailure } from "./feed.ts";
import { clock, duration } from "./format.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

interface Entry {
  id: string;
  time: number;
  method: string;
  path: string;
  status: number | null;
  code: string | null;
  caller: string | null;
  task: string | null;
  route: { model: string; backend: string; device: string; format: string; reason: string } | null;
  ms: number;
  load_ms: number | null;
  queue_ms: number | null;
  first_token_ms: number | null;
  prompt_ms: number | null;
  decode_ms: number | null;
  prompt_tokens: number | null;
  cached_tokens: number | null;
  completion_tokens: number | null;
  steps: { step: string; ms: number }[];
}

/** Rows that are kept. */
const MOST = 100;

/** Makes the view. */
export function requestsView(): View {
  const rows = byId("requests-rows", HTMLTableSectionElement);
  const empty = byId("requests-empty", HTMLElement);
  const table = byId("requests-table", HTMLElement);
  const failed = byId("requests-error", HTMLElement);
  on("begin", () => rows.replaceChildren());
  on("request", (data) => {
    rows.prepend(row(data as Entry));
    if (rows.childElementCount > MOST) rows.lastElementChild?.remove();
    empty.hidden = true;
    table.hidden = false;
  });
  onFailure((error) => {
    failed.replaceChildren(...(error ? [trouble(error)] : []));
    if (error) empty.hidden = true;
  });
  return { name: "requests" };
}

function row(entry: Entry): HTMLTableRowElement {
  const { route, code, status } = entry;
  const result = h("span", { class: "badge", "data-state": state(entry) }, code ?? status ?? "left");
  const who = [entry.task, entry.caller && `key ${entry.caller}`].filter(Boolean).join(" · ");
  return h(
    "tr",
    { "data-id": entry.id },
    cell("Time", h("time", { datetime: new Date(entry.time).toISOString() }, clock(entry.time))),
    cell("Request", h("code", {}, `${entry.method} ${entry.path}`), who && h("span", { class: "second" }, who)),
    cell(
      "Route",
      route && h("strong", { title: route.reason }, route.model),
      route && h("span", { class: "second" }, `${route.backend} on ${route.device}`),
    ),
    cell("Result", result),
    number("Total", duration(entry.ms)),
    number("First token", entry.first_token_ms === null ? "" : duration(entry.first_token_ms)),
    cell("Where the time went", times(entry)),
    number("Tokens", tokens(entry)),
  );
}

function cell(label: string, ...children: (Node | string | null)[]): HTMLTableCellElement {
  const filled = children.some((child) => child !== null && child !== "");
  return h("td", { "data-label": filled ? label : undefined }, h("div", {}, ...children));
}

function number(label: string, text: string): HTMLTableCellElement {
  const made = cell(label, text);
  made.classList.add("number");
  return made;
}

function state({ status, code }: Entry): string {
  if (code === "cancelled") return "unloaded";
  return code !== null || status === null || status >= 400 ? "failed" : "ready";
}

function times(entry: Entry): string {
  // Of text, the engine's own phases say more than the pipeline's one step.
  const phases: [string, number | null][] =
    entry.prompt_ms === null
      ? entry.steps.map(({ step, ms }) => [step, ms])
      : [["queue", entry.queue_ms], ["prompt", entry.prompt_ms], ["decode", entry.decode_ms]];
  if (entry.load_ms !== null && entry.load_ms >= 1) phases.unshift(["load", entry.load_ms]);
  return phases.flatMap(([name, ms]) => (ms === null ? [] : [`${name} ${duration(ms)}`])).join(" · ");
}

function tokens({ prompt_tokens, cached_tokens, completion_tokens }: Entry): string {
  if (prompt_tokens === null) return "";
  const cached = cached_tokens ? ` (${cached_tokens} cached)` : "";
  return `${prompt_tokens}${cached} → ${completion_tokens ?? 0}`;
}
