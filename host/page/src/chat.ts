/** The conversation. */

import { isAbort, models } from "./api.ts";
import { Attachments } from "./attachments.ts";
import type { Attached } from "./attachments.ts";
import { byId, fill, h } from "./dom.ts";
import { rendered } from "./markdown.ts";
import { answer } from "./stream.ts";
import type { Part, Turn } from "./stream.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

/** How near the end, in pixels, counts as reading along. */
const NEAR = 80;

/** Makes the view. */
export function chatView(): View {
  const chat = new Chat();
  return { name: "chat", show: () => void chat.begin() };
}

class Chat {
  private readonly scroll = byId("chat-scroll", HTMLElement);
  private readonly list = byId("chat-turns", HTMLOListElement);
  private readonly empty = byId("chat-empty", HTMLElement);
  private readonly input = byId("chat-input", HTMLTextAreaElement);
  private readonly send = byId("chat-send", HTMLButtonElement);
  private readonly stop = byId("chat-stop", HTMLButtonElement);
  private readonly anew = byId("chat-new", HTMLButtonElement);
  private readonly model = byId("chat-model", HTMLSelectElement);
  private readonly attachments: Attachments;
  private turns: Turn[] = [];
  private running: AbortController | null = null;
  private begun = false;

  constructor() {
    this.attachments = new Attachments(byId("chat", HTMLElement), this.input);
    byId("chat-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      void this.ask();
    });
    this.stop.addEventListener("click", () => this.running?.abort());
    this.anew.addEventListener("click", () => this.clear());
    this.input.addEventListener("input", () => this.fit());
    this.input.addEventListener("keydown", (event) => {
      // While a text is composed, Enter ends the composition.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.ask();
    });
    byId("chat", HTMLElement).addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.running?.abort();
    });
    const settings = byId("chat-settings", HTMLDetailsElement);
    const wide = matchMedia("(min-width: 60rem)");
    const follow = () => (settings.open = wide.matches);
    wide.addEventListener("change", follow);
    follow();
  }

  /** Lists the models that answer. */
  async begin(): Promise<void> {
    if (this.begun) return;
    this.begun = true;
    try {
      const known = (await models()).filter(({ task }) => task === "chat" || task === "generate");
      fill(this.model, known.map(({ id }) => ({ value: id, text: id })));
      const about = () => {
        const chosen = known.find(({ id }) => id === this.model.value);
        byId("chat-about", HTMLElement).textContent = chosen
          ? (chosen.description ?? "")
          : "No model for conversations is configured: add one to pajamas.toml.";
      };
      this.model.addEventListener("change", about);
      about();
    } catch (error) {
      this.begun = false;
      this.empty.hidden = true;
      this.list.append(h("li", {}, trouble(error)));
    }
  }

  private async ask(): Promise<void> {
    const text = this.input.value.trim();
    if (this.running) return;
    const files = this.attachments.take();
    if (text === "" && files.length === 0) return;
    this.input.value = "";
    this.fit();
    const question: Turn = { role: "user", content: content(text, files) };
    const asked = h("li", { class: "turn user" }, h("span", { class: "hidden" }, "You: "));
    asked.append(...files.map(({ name, url }) => h("img", { src: url, alt: name })), text && h("p", {}, text));
    const body = h("div", { class: "text" });
    const note = h("p", { class: "note" });
    const told = h("li", { class: "turn model", "aria-live": "polite", "aria-busy": "true" });
    told.append(h("span", { class: "hidden" }, `${this.model.value}: `), body, note);
    this.empty.hidden = true;
    this.list.append(asked, told);
    this.scroll.scrollTop = this.scroll.scrollHeight;
    this.setRunning(new AbortController());

    // A new chat begins with other turns: an answer that it stops goes to those it belongs to.
    const turns = this.turns;
    let said = "";
    let frame = 0;
    const draw = () => {
      frame = 0;
      const along = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < NEAR;
      body.replaceChildren(...rendered(said));
      if (along) this.scroll.scrollTop = this.scroll.scrollHeight;
    };
    try {
      const request = { ...this.settings(), messages: [...this.system(), ...turns, question] };
      note.textContent = await answer(request, this.running!.signal, (piece) => {
        said += piece;
        frame ||= requestAnimationFrame(draw);
      });
    } catch (error) {
      if (isAbort(error)) note.textContent = "Stopped.";
      else told.append(trouble(error));
      if (said === "" && !isAbort(error)) this.giveBack(asked, text, files);
    }
    cancelAnimationFrame(frame);
    draw();
    // What got no answer is not part of the conversation.
    if (said !== "") turns.push(question, { role: "assistant", content: said });
    told.setAttribute("aria-busy", "false");
    this.setRunning(null);
    this.scroll.scrollTop = this.scroll.scrollHeight;
  }

  /** A refused message can be changed and sent again. */
  private giveBack(asked: HTMLElement, text: string, files: Attached[]): void {
    asked.classList.add("refused");
    if (this.input.value === "") this.input.value = text;
    this.attachments.put(files);
    this.fit();
  }

  private setRunning(running: AbortController | null): void {
    const focused = document.activeElement;
    this.running = running;
    this.send.hidden = running !== null;
    this.stop.hidden = running === null;
    this.anew.hidden = this.list.childElementCount === 0;
    this.scroll.dataset["busy"] = String(running !== null);
    // The button that had the focus is gone.
    if (focused === this.send || focused === this.stop) this.input.focus();
  }

  private clear(): void {
    this.running?.abort();
    this.turns = [];
    this.list.replaceChildren();
    this.empty.hidden = false;
    this.anew.hidden = true;
    this.input.focus();
  }

  private system(): Turn[] {
    const system = byId("chat-system", HTMLTextAreaElement).value.trim();
    return system === "" ? [] : [{ role: "system", content: system }];
  }

  private settings(): Record<string, unknown> {
    const settings: Record<string, unknown> = { model: this.model.value || undefined };
    for (const [field, id] of [
      ["temperature", "chat-temperature"],
      ["top_p", "chat-top-p"],
      ["max_tokens", "chat-max-tokens"],
      ["seed", "chat-seed"],
    ] as const) {
      const { value, valueAsNumber } = byId(id, HTMLInputElement);
      if (value !== "") settings[field] = valueAsNumber;
    }
    return settings;
  }

  /** As high as the text, up to a limit of the style; newer browsers do so by themselves. */
  private fit(): void {
    if (CSS.supports("field-sizing", "content")) return;
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight}px`;
  }
}

function content(text: string, files: Attached[]): string | Part[] {
  if (files.length === 0) return text;
  const pictures = files.map(({ url }): Part => ({ type: "image_url", image_url: { url } }));
  return text === "" ? pictures : [...pictures, { type: "text", text }];
}
