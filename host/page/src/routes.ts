/** Routes: the ladders with where their models are, the memory that decisions reckon with, and the latest decisions. */

import { get } from "./api.ts";
import { byId, h } from "./dom.ts";
import { on, onFailure } from "./feed.ts";
import { bytes, clock, duration } from "./format.ts";
import { device } from "./memory.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

interface Model {
  state: string;
  device: string;
}

interface Device {
  budget: number;
  held: number;
  idle: number;
  temperature: number | null;
}

interface Snapshot {
  time: number;
  models: Record<string, Model>;
  devices: Record<string, Device>;
}

interface Considered {
  model: string;
  step: number;
  rejected: object | null;
  /** Why it cannot take the request, and what it does not keep. */
  words: string[];
  predicted: { total: number; guessed: boolean };
}

interface Decision {
  chosen: string | null;
  by: "asked" | "rule" | "default" | "only";
  rule: string | null;
  name: string | null;
  degraded: { from: string } | null;
  predicted: { total: number; guessed: boolean } | null;
  steps: { rule: string; failed: string | null }[];
  candidates: Considered[];
  refused: { code: string; message: string } | null;
}

interface Made {
  request: string | null;
  ask: { task: string; model: string | null; tokens: number };
  snapshot: Snapshot;
  decision: Decision;
  outcome: { code: string; took: number } | null;
}

interface Routes {
  ladders: { id: string; description: string | null; steps: string[][] }[];
  snapshot: Snapshot;
  decisions: Made[];
}

/** Decisions that are shown. */
const MOST = 100;
/** Between two looks, in milliseconds: requests may end many times in a second. */
const EVERY = 1000;

/** Makes the view. */
export function routesView(): View {
  const failed = byId("routes-error", HTMLElement);
  const list = byId("routes-decisions", HTMLElement);
  let shown = false;
  let timer = 0;
  const look = async () => {
    timer = 0;
    try {
      const { ladders, snapshot, decisions } = await get<Routes>("/admin/routes");
      failed.replaceChildren();
      byId("routes-ladders", HTMLElement).replaceChildren(...ladders.map((one) => ladder(one, snapshot)));
      byId("routes-no-ladder", HTMLElement).hidden = ladders.length > 0;
      byId("routes-devices", HTMLElement).replaceChildren(...Object.entries(snapshot.devices).map(memory));
      // What a person opened stays open while others come.
      const open = new Set([...list.querySelectorAll("details[open]")].map((one) => one.getAttribute("data-id")));
      const latest = decisions.slice(-MOST).reverse();
      list.replaceChildren(...latest.map((made) => decision(made, open)));
      byId("routes-empty", HTMLElement).hidden = latest.length > 0;
    } catch (error) {
      failed.replaceChildren(trouble(error));
    }
  };
  const soon = () => {
    if (shown && timer === 0) timer = window.setTimeout(() => void look(), EVERY);
  };
  on("request", soon);
  on("model", soon);
  onFailure((error) => failed.replaceChildren(...(error ? [trouble(error)] : [])));
  const show = () => {
    shown = true;
    void look();
  };
  const hide = () => {
    shown = false;
    clearTimeout(timer);
    timer = 0;
  };
  return { name: "routes", show, hide };
}

function ladder({ id, description, steps }: Routes["ladders"][number], { models }: Snapshot): HTMLElement {
  const rung = (names: string[]) => h("li", {}, ...names.map((name) => place(name, models[name])));
  const head = h("div", { class: "bar" }, h("h4", {}, id), h("span", { class: "muted" }, description));
  return h("li", { class: "card" }, head, h("ol", { class: "rungs" }, ...steps.map(rung)));
}

function place(name: string, model: Model | undefined): HTMLElement {
  const state = model?.state ?? "unknown";
  return h("span", { class: "place" }, h("strong", {}, name), h("span", { class: "badge", "data-state": state }, state));
}

function memory([id, { budget, held, idle, temperature }]: [string, Device]): HTMLElement {
  const heat = temperature === null ? "" : ` · ${temperature} °C`;
  const text = `${bytes(held)} of ${bytes(budget)} held, ${bytes(idle)} of it gives way${heat}`;
  return device(id, budget, held, text, [
    { size: held - idle, colour: 0 },
    { size: idle, colour: "reserved" },
  ]);
}

function decision(made: Made, open: Set<string | null>): HTMLElement {
  const { ask, snapshot, decision: it, outcome, request } = made;
  const id = request ?? String(snapshot.time);
  const how = { asked: "asked for", rule: `rule ${it.rule ?? ""}`, default: "default", only: "the only one" }[it.by];
  const note = it.refused ? it.refused.code : it.degraded ? `in place of ${it.degraded.from}` : "";
  const ended = outcome && (outcome.code === "ok" ? duration(outcome.took / 1000) : outcome.code);
  const summary = h(
    "summary",
    {},
    h("time", { datetime: new Date(snapshot.time).toISOString() }, clock(snapshot.time)),
    h("span", {}, ask.model ? `${ask.task} · ${ask.model}` : ask.task),
    h("strong", {}, it.chosen ?? "refused"),
    h("span", { class: "muted" }, how),
    note && h("span", { class: "badge", "data-state": it.refused ? "failed" : "loading" }, note),
    h("span", { class: "grow" }),
    h("span", { class: "muted number" }, it.predicted && predicted(it.predicted), ended && ` → ${ended}`),
  );
  const rules = it.steps.map(({ rule, failed }) =>
    h("li", {}, h("strong", {}, rule), " ", failed === null ? "applies" : `does not apply: ${failed}`),
  );
  const body = [
    it.refused && h("p", { class: "trouble" }, `${it.refused.message} [${it.refused.code}]`),
    rules.length > 0 && h("ol", { class: "plain" }, ...rules),
    h("ol", { class: "plain" }, ...it.candidates.map((one) => candidate(one, it.chosen))),
  ];
  return h("li", {}, h("details", { "data-id": id, open: open.has(id) }, summary, ...body));
}

function candidate({ model, step, rejected, words, predicted: time }: Considered, chosen: string | null): HTMLElement {
  const taken = model === chosen && rejected === null;
  return h(
    "li",
    {},
    `step ${step + 1} `,
    h("strong", {}, model),
    ` ${predicted(time)} `,
    taken && h("span", { class: "badge", "data-state": "ready" }, "taken"),
    words.length > 0 && h("span", { class: "muted" }, ` ${words.join("; ")}`),
  );
}

function predicted({ total, guessed }: { total: number; guessed: boolean }): string {
  return `${guessed ? "about " : ""}${duration(total / 1000)}`;
}
