/** The little of Markdown that answers need: paragraphs, code blocks, inline code. All of it is text. */

import { button, h } from "./dom.ts";

const FENCE = /^```(.*)$/;

/** An answer as elements. A code block that has not ended yet is one, too. */
export function rendered(text: string): Node[] {
  const nodes: Node[] = [];
  let paragraph: string[] = [];
  let code: string[] | null = null;
  const close = () => {
    if (paragraph.length > 0) nodes.push(h("p", {}, ...inline(paragraph.join("\n"))));
    paragraph = [];
  };
  for (const line of text.split("\n")) {
    const fence = FENCE.test(line.trimStart());
    if (code) {
      if (fence) {
        nodes.push(block(code.join("\n")));
        code = null;
      } else {
        code.push(line);
      }
    } else if (fence) {
      close();
      code = [];
    } else if (line.trim() === "") {
      close();
    } else {
      paragraph.push(line);
    }
  }
  close();
  if (code) nodes.push(block(code.join("\n")));
  return nodes;
}

function inline(text: string): (Node | string)[] {
  const parts = text.split(/`([^`\n]+)`/);
  return parts.map((part, index) => (index % 2 === 1 ? h("code", {}, part) : part));
}

function block(code: string): HTMLElement {
  const copy = button("Copy", "quiet copy", () => {
    // Where a page may not write to the clipboard, nothing happens and the text can be selected.
    navigator.clipboard?.writeText(code).then(() => (copy.textContent = "Copied"), () => undefined);
  });
  copy.setAttribute("aria-label", "Copy this code");
  return h("div", { class: "code" }, copy, h("pre", { tabindex: 0 }, h("code", {}, code)));
}
