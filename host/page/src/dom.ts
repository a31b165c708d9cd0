/** Elements: found by id, or made from text and never from markup. */

export type Child = Node | string | number | null | undefined | false;

/** The element of the page with this id. */
export function byId<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`#${id} is not there`);
  return found;
}

/** Makes an element. `class` and `text` are what they say; the rest are attributes. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(parent: Element, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}

/** A button that does something. */
export function button(text: string, kind: string, act: () => void): HTMLButtonElement {
  const made = h("button", { type: "button", class: kind }, text);
  made.addEventListener("click", act);
  return made;
}

/** Puts options into a selection and keeps what was selected. */
export function fill(select: HTMLSelectElement, options: { value: string; text: string }[]): void {
  const before = select.value;
  select.replaceChildren(...options.map(({ value, text }) => h("option", { value }, text)));
  if (options.some(({ value }) => value === before)) select.value = before;
}
