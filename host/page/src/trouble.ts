/** An error as the person sees it: the server's words and its code. */

import { Refusal } from "./api.ts";
import { h } from "./dom.ts";

/** A box with an error, announced at once. */
export function trouble(error: unknown): HTMLElement {
  const message = error instanceof Error ? error.message : String(error);
  const code = error instanceof Refusal ? error.code : "page-error";
  return h("div", { class: "trouble", role: "alert" }, h("p", {}, message), h("code", {}, code));
}
