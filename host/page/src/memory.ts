/** The memory of a device as a bar. */

import { h } from "./dom.ts";

/** A part of a bar: its bytes, and its colour by number or name. */
export interface Part {
  size: number;
  colour: number | string;
}

/** A device with a bar for what models hold of its `budget`; `text` says the same. */
export function device(name: string, budget: number, held: number, text: string, parts: Part[]): HTMLElement {
  const bar = h("div", {
    class: "memory",
    role: "meter",
    "aria-label": `Memory of ${name} held by models`,
    "aria-valuemin": 0,
    "aria-valuemax": budget,
    "aria-valuenow": held,
    "aria-valuetext": text,
  });
  for (const { size, colour } of parts) {
    if (size <= 0) continue;
    const made = h("span", { "data-colour": colour });
    made.style.width = `${(size / budget) * 100}%`;
    bar.append(made);
  }
  const head = h("p", { class: "ends" }, h("strong", {}, name), h("span", { class: "muted" }, text));
  return h("div", { class: "device" }, head, bar);
}
