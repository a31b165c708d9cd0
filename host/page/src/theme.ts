/** Light, dark, or as the system is. */

import { byId } from "./dom.ts";

const THEMES = ["auto", "light", "dark"] as const;
const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };
type Theme = (typeof THEMES)[number];

/** Follows the system until the person chooses. */
export function startTheme(): void {
  const toggle = byId("theme", HTMLButtonElement);
  const kept = localStorage.getItem("pajamas-theme");
  let theme: Theme = THEMES.find((known) => known === kept) ?? "auto";
  const show = () => {
    document.documentElement.dataset["theme"] = theme;
    toggle.textContent = NAMES[theme];
    toggle.setAttribute("aria-label", `Theme: ${NAMES[theme]}`);
    toggle.title = "Light, dark, or as the system is";
  };
  toggle.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
    localStorage.setItem("pajamas-theme", theme);
    show();
  });
  show();
}
