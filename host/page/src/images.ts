/** Pictures: what is in them, with boxes. */

import { ask, isAbort, models } from "./api.ts";
import type { ListedModel } from "./api.ts";
import { onDrop } from "./attachments.ts";
import { byId, fill, h } from "./dom.ts";
import { duration, percent } from "./format.ts";
import { drawn as maskOf } from "./masks.ts";
import type { Mask } from "./masks.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

interface Found {
  label: string;
  class_id: number;
  score: number;
  box?: [number, number, number, number];
  mask?: Mask;
}

interface Seen {
  width?: number;
  height?: number;
  detections?: Found[];
  classes?: Found[];
}

/** What is done with pictures here. */
const TASKS = ["detect", "segment", "classify"];

/** Colours of classes: as many as people tell apart. */
const COLOURS = 8;

/** The same colours for masks, which are drawn: red, green, blue. */
const TINTS: [number, number, number][] = [
  [75, 69, 178],
  [181, 72, 31],
  [25, 112, 63],
  [163, 38, 111],
  [11, 107, 134],
  [125, 90, 0],
  [122, 63, 176],
  [79, 107, 0],
];

/** Makes the view. */
export function imagesView(): View {
  const select = byId("images-model", HTMLSelectElement);
  const choose = byId("images-file", HTMLInputElement);
  const view = byId("images", HTMLElement);
  const status = byId("images-status", HTMLElement);
  const result = byId("images-result", HTMLElement);
  let known: ListedModel[] = [];
  let file: File | null = null;
  let shown: string | null = null;
  let running: AbortController | null = null;

  const look = async () => {
    const model = known.find(({ id }) => id === select.value);
    if (!file || !model) return;
    running?.abort();
    const { signal } = (running = new AbortController());
    const begun = performance.now();
    status.textContent = `${model.id} looks at ${file.name} …`;
    const form = new FormData();
    form.set("model", model.id);
    form.set("image", file);
    try {
      const answer = await ask(`/v1/images/${model.task}`, { method: "POST", body: form, signal });
      const seen = (await answer.json()) as Seen;
      if (shown) URL.revokeObjectURL(shown);
      shown = URL.createObjectURL(file);
      const found = seen.detections ?? seen.classes ?? [];
      status.textContent = `${file.name}: ${count(found, seen)} in ${duration(performance.now() - begun)}`;
      result.replaceChildren(picture(shown, file.name, seen, found), table(found, seen, result));
    } catch (error) {
      if (isAbort(error)) return;
      status.textContent = file.name;
      result.replaceChildren(trouble(error));
    }
    result.hidden = false;
  };
  const take = (files: FileList | null) => {
    file = files?.[0] ?? file;
    void look();
  };
  choose.addEventListener("change", () => {
    take(choose.files);
    choose.value = "";
  });
  select.addEventListener("change", () => void look());
  onDrop(view, take);
  const begin = async () => {
    if (known.length > 0) return;
    try {
      known = (await models()).filter(({ task }) => TASKS.includes(task ?? ""));
      fill(select, known.map(({ id, task }) => ({ value: id, text: `${id} (${task})` })));
      if (known.length === 0) status.textContent = "No model for pictures is configured: add one to pajamas.toml.";
    } catch (error) {
      result.replaceChildren(trouble(error));
      result.hidden = false;
    }
  };
  return { name: "images", show: () => void begin() };
}

function count(found: Found[], seen: Seen): string {
  const best = found[0];
  if (seen.classes) return best ? best.label : "nothing known";
  return found.length === 1 ? "1 object" : `${found.length} objects`;
}

/** The picture with its boxes over it, in shares of its size: they fit at every width. */
function picture(url: string, name: string, { width, height }: Seen, found: Found[]): HTMLElement {
  const words = found.map(({ label, score }) => `${label} ${percent(score)}`).join(", ");
  const frame = h("div", { class: "frame" }, h("img", { src: url, alt: `${name}: ${words || "nothing found"}` }));
  // Small pictures are shown larger, with their pixels.
  if (width && width < 320) frame.classList.add("small");
  found.forEach(({ class_id, mask }) => {
    if (!mask) return;
    const canvas = maskOf(mask, TINTS[class_id % COLOURS] ?? [0, 0, 0]);
    canvas.className = "mask";
    canvas.setAttribute("aria-hidden", "true");
    frame.append(canvas);
  });
  found.forEach(({ label, class_id, score, box }, index) => {
    if (!box || !width || !height) return;
    const [x1, y1, x2, y2] = box;
    const drawn = h("div", {
      class: "box",
      "aria-hidden": "true",
      "data-index": index,
      "data-colour": class_id % COLOURS,
    });
    drawn.append(h("span", {}, `${label} ${Math.round(score * 100)} %`));
    drawn.style.left = `${(x1 / width) * 100}%`;
    drawn.style.top = `${(y1 / height) * 100}%`;
    drawn.style.width = `${((x2 - x1) / width) * 100}%`;
    drawn.style.height = `${((y2 - y1) / height) * 100}%`;
    // A label above the upper edge would be cut off.
    if (y1 / height < 0.1) drawn.classList.add("inside");
    frame.append(drawn);
  });
  return frame;
}

function table(found: Found[], seen: Seen, within: HTMLElement): HTMLElement {
  if (found.length === 0) return h("p", { class: "empty" }, "Nothing was found in this picture.");
  const boxes = seen.detections !== undefined;
  const head = ["Label", "Score", ...(boxes ? ["Box"] : [])].map((text) => h("th", { scope: "col" }, text));
  const rows = found.map(({ label, class_id, score, box }, index) => {
    const meter = h("span", { class: "score", "aria-hidden": "true" });
    meter.style.setProperty("--share", String(score));
    const row = h(
      "tr",
      {},
      h("th", { scope: "row" }, h("span", { class: "dot", "data-colour": class_id % COLOURS }), label),
      h("td", {}, percent(score), meter),
      box && h("td", { class: "mono" }, box.map((v) => Math.round(v)).join(", ")),
    );
    const mark = (is: boolean) =>
      within.querySelector(`.box[data-index="${index}"]`)?.classList.toggle("marked", is);
    row.addEventListener("pointerenter", () => mark(true));
    row.addEventListener("pointerleave", () => mark(false));
    return row;
  });
  const caption = h("caption", { class: "hidden" }, boxes ? "Objects found" : "Classes, the likeliest first");
  return h("table", { class: "found" }, caption, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}
