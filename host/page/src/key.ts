/** The server's key: asked for when the server asks for it, kept for this tab only. */

import { byId } from "./dom.ts";

const STORE = "pajamas-key";
let asking: Promise<boolean> | null = null;

/** The key, if one was given. */
export function currentKey(): string | null {
  return sessionStorage.getItem(STORE);
}

/** Asks the person; all who ask at once share one question. Says whether there is a new key. */
export function askForKey(why: string): Promise<boolean> {
  asking ??= dialog(why).finally(() => (asking = null));
  return asking;
}

function dialog(why: string): Promise<boolean> {
  const box = byId("key-dialog", HTMLDialogElement);
  const input = byId("key-input", HTMLInputElement);
  byId("key-why", HTMLElement).textContent = why;
  byId("key-change", HTMLElement).hidden = false;
  input.value = "";
  box.returnValue = "";
  box.showModal();
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      const key = input.value.trim();
      const given = box.returnValue === "key" && key !== "";
      if (given) sessionStorage.setItem(STORE, key);
      input.value = "";
      resolve(given);
    }, { once: true });
  });
}

/** Lets the key be given and changed. */
export function startKey(): void {
  const box = byId("key-dialog", HTMLDialogElement);
  byId("key-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    box.close("key");
  });
  byId("key-cancel", HTMLButtonElement).addEventListener("click", () => box.close(""));
  const change = byId("key-change", HTMLButtonElement);
  change.hidden = currentKey() === null;
  change.addEventListener("click", () => {
    // All views begin anew with the other key.
    void askForKey("Another key replaces the one in use.").then((given) => given && location.reload());
  });
}
