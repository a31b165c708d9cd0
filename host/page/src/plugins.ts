/** Plugins: which were found, which are used, and why not the others. */

import { get } from "./api.ts";
import { byId, h } from "./dom.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

interface Step {
  step: string;
  outcome: "passed" | "failed" | "skipped";
  code?: string;
  detail: string;
  help?: string;
}

interface Report {
  library: string;
  manifest: { name: string; version: string; license?: string } | null;
  steps: Step[];
}

interface Backend {
  plugin: string;
  backend: { id: string; description: string; formats: string[] };
  probe: { score: number; reason: string; devices: { id: string; name?: string }[] };
}

/** Makes the view. */
export function pluginsView(): View {
  const show = async () => {
    const failed = byId("plugins-error", HTMLElement);
    try {
      const { plugins, backends } = await get<{ plugins: Report[]; backends: Backend[] }>("/admin/plugins");
      failed.replaceChildren();
      const cards = plugins.map((report) => card(report, backends));
      const none = h("li", { class: "empty" }, "No plugin was found: see plugins.search in pajamas.toml.");
      byId("plugins-list", HTMLElement).replaceChildren(...(cards.length > 0 ? cards : [none]));
    } catch (error) {
      failed.replaceChildren(trouble(error));
    }
  };
  return { name: "plugins", show: () => void show() };
}

function card(report: Report, backends: Backend[]): HTMLElement {
  const { manifest, library, steps } = report;
  const failed = steps.find(({ outcome }) => outcome === "failed");
  const own = failed ? [] : backends.filter(({ plugin }) => plugin === manifest?.name);
  const badge = h("span", { class: "badge", "data-state": failed ? "failed" : "ready" }, failed ? "refused" : "in use");
  return h(
    "li",
    { class: "card" },
    h(
      "div",
      { class: "bar" },
      h("h3", {}, manifest?.name ?? library),
      h("span", { class: "muted" }, manifest?.version),
      h("span", { class: "grow" }),
      badge,
    ),
    failed && h("p", { class: "trouble" }, `${failed.detail} `, failed.help && `(${failed.help}) `, h("code", {}, failed.code)),
    own.length > 0 && h("ul", { class: "backends" }, ...own.map(backendItem)),
    h(
      "details",
      {},
      h("summary", {}, "How it was opened"),
      h("p", { class: "mono small" }, library),
      h("ol", { class: "steps" }, ...steps.map(stepItem)),
    ),
  );
}

function backendItem({ backend, probe }: Backend): HTMLElement {
  const here = probe.score > 0;
  const devices = probe.devices.map(({ id, name }) => (name && name !== id ? `${id} (${name})` : id)).join(", ");
  return h(
    "li",
    {},
    h(
      "div",
      { class: "bar" },
      h("strong", {}, backend.id),
      h("span", { class: "muted" }, backend.formats.join(", ")),
      h("span", { class: "grow" }),
      h("span", { class: "badge", "data-state": here ? "ready" : "unloaded" }, here ? `score ${probe.score}` : "not here"),
    ),
    h("p", { class: "muted" }, backend.description),
    h("p", { class: "small" }, probe.reason),
    devices && h("p", { class: "small muted" }, `Devices: ${devices}`),
  );
}

function stepItem({ step, outcome, code, detail, help }: Step): HTMLElement {
  const sign = { passed: "✓", failed: "✗", skipped: "–" }[outcome];
  const words = [detail, help].filter(Boolean).join(" – ");
  return h(
    "li",
    { "data-outcome": outcome },
    h("span", { "aria-hidden": "true" }, sign),
    h("span", { class: "hidden" }, outcome),
    h("strong", {}, step),
    h("span", {}, words, code && h("code", {}, ` ${code}`)),
  );
}
