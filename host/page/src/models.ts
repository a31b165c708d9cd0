/** Models: what they do, and how much of each device's memory they hold. */

import { ask, get, models } from "./api.ts";
import { button, byId, h } from "./dom.ts";
import { on, onFailure } from "./feed.ts";
import { bytes, duration } from "./format.ts";
import { device, type Part } from "./memory.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

interface Memory {
  device: string;
  weights: number;
  kv: number;
  scratch: number;
}

interface Status {
  id: string;
  state: string;
  pinned: boolean;
  in_flight: number;
  backend: string | null;
  device: string | null;
  memory: Memory[];
  load_ms: number | null;
  failure: { code: string; message: string } | null;
}

interface Device {
  device: string;
  total: number;
  used: number;
}

/** How often memory is looked at while the view is shown, in milliseconds: it grows without an event. */
const EVERY = 2000;
const COLOURS = 8;
const total = (memory: Memory) => memory.weights + memory.kv + memory.scratch;

/** Makes the view. */
export function modelsView(): View {
  const failed = byId("models-error", HTMLElement);
  const about = new Map<string, { task: string | null; description: string | null }>();
  const cards = new Map<string, Card>();
  const order: string[] = [];
  let timer = 0;
  let shown = false;

  const look = async () => {
    try {
      const { models: states, devices } = await get<{ models: Status[]; devices: Device[] }>("/admin/models");
      failed.replaceChildren();
      for (const { id } of states) if (!order.includes(id)) order.push(id);
      byId("models-devices", HTMLElement).replaceChildren(...bars(devices, states, order));
      for (const state of states) card(state.id).show(state, about.get(state.id));
    } catch (error) {
      failed.replaceChildren(trouble(error));
    }
  };
  const card = (id: string): Card => {
    let known = cards.get(id);
    if (!known) {
      known = new Card(id, (action) => void act(id, action));
      cards.set(id, known);
      byId("models-list", HTMLElement).append(known.element);
    }
    return known;
  };
  const act = async (id: string, action: string) => {
    try {
      await ask(`/admin/models/${encodeURIComponent(id)}/${action}`, { method: "POST" });
    } catch (error) {
      // A failed load is part of the model's state, and shown with it.
      failed.replaceChildren(trouble(error));
      return;
    }
    await look();
  };
  on("model", () => shown && void look());
  onFailure((error) => failed.replaceChildren(...(error ? [trouble(error)] : [])));
  const show = async () => {
    shown = true;
    timer = window.setInterval(() => document.visibilityState === "visible" && void look(), EVERY);
    // A key for operators may not list models: their states are shown all the same.
    for (const model of await models().catch(() => [])) about.set(model.id, model);
    await look();
  };
  const hide = () => {
    shown = false;
    clearInterval(timer);
  };
  return { name: "models", show: () => void show(), hide };
}

function bars(devices: Device[], states: Status[], order: string[]): HTMLElement[] {
  return devices.map(({ device: name, total: budget, used }) => {
    const parts: (Part & { of: string })[] = [];
    let named = 0;
    for (const { id, memory } of states) {
      const held = memory.filter((entry) => entry.device === name).reduce((sum, entry) => sum + total(entry), 0);
      if (held > 0) parts.push({ of: id, size: held, colour: order.indexOf(id) % COLOURS });
      named += held;
    }
    if (used > named) parts.push({ of: "reserved", size: used - named, colour: "reserved" });
    const names = parts.map(({ of, size, colour }) =>
      h("li", {}, h("span", { class: "dot", "data-colour": colour }), `${of} ${bytes(size)}`),
    );
    const made = device(name, budget, used, `${bytes(used)} of ${bytes(budget)}`, parts);
    made.append(h("ul", { class: "legend" }, ...names));
    return made;
  });
}

/** One model. Its buttons stay where they are while its state changes, so that the focus does. */
class Card {
  readonly element: HTMLLIElement;
  private readonly state = h("span", { class: "badge" });
  private readonly task = h("span", { class: "muted" });
  private readonly about = h("p", { class: "muted" });
  private readonly facts = h("p", { class: "small muted" });
  private readonly failure = h("div", {});
  private readonly load: HTMLButtonElement;
  private readonly pin: HTMLButtonElement;
  private loaded = false;
  private pinned = false;

  constructor(id: string, act: (action: string) => void) {
    this.load = button("Load", "", () => act(this.loaded ? "unload" : "load"));
    this.pin = button("Pin", "quiet", () => act(this.pinned ? "unpin" : "pin"));
    this.pin.title = "A pinned model stays in memory when others need room";
    const head = h("div", { class: "bar" }, h("h4", {}, id), this.task, h("span", { class: "grow" }), this.state);
    const row = h("div", { class: "row" }, this.facts, h("span", { class: "grow" }), this.pin, this.load);
    this.element = h("li", { class: "card" }, head, this.about, row, this.failure);
    this.load.dataset["model"] = this.pin.dataset["model"] = id;
  }

  show(status: Status, about: { task: string | null; description: string | null } | undefined): void {
    this.loaded = ["ready", "busy", "sleeping"].includes(status.state);
    this.pinned = status.pinned;
    this.state.textContent = status.state + (status.in_flight > 0 ? ` · ${status.in_flight}` : "");
    this.state.dataset["state"] = status.state;
    this.task.textContent = about?.task ?? "";
    this.about.textContent = about?.description ?? "";
    const facts = [
      status.backend && status.device && `${status.backend} on ${status.device}`,
      status.load_ms !== null && `loaded in ${duration(status.load_ms)}`,
      status.memory.length > 0 && sizes(status.memory),
    ];
    this.facts.textContent = facts.filter(Boolean).join(" · ");
    name(this.load, this.loaded ? "Unload" : "Load", status.id);
    this.load.disabled = status.state === "loading";
    name(this.pin, this.pinned ? "Unpin" : "Pin", status.id);
    const { failure } = status;
    const text = failure ? `${failure.message} [${failure.code}]` : "";
    if (this.failure.textContent !== text) this.failure.replaceChildren(text && h("p", { class: "trouble" }, text));
  }
}

function name(button: HTMLButtonElement, action: string, id: string): void {
  button.textContent = action;
  button.setAttribute("aria-label", `${action} ${id}`);
}

function sizes(memory: Memory[]): string {
  const sum = (kind: "weights" | "kv" | "scratch") => memory.reduce((all, entry) => all + entry[kind], 0);
  const parts = [["weights", sum("weights")], ["cache", sum("kv")], ["scratch", sum("scratch")]] as const;
  return parts.filter(([, size]) => size > 0).map(([kind, size]) => `${kind} ${bytes(size)}`).join(" · ");
}
