/** Light, dark, or as the system is. */

import { byId } from "./dom.ts";

const THEMES = ["auto", "light", "dark"] as const;
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };
type Theme = (typeof THEMES)[number];

/** Follows the system until the person chooses. */
export function startTheme(): void {
  const toggle = byId("theme", HTMLButtonElement);
  const kept = localStorage.getItem("pajamas-theme");
  let theme: Theme = THEMES.find((known) => known === kept) ?? "auto";
  const show = () => {
    document.documentElement.dataset["theme"] = theme;
    toggle.textContent = SIGNS[theme];
    toggle.setAttribute("aria-label", `Theme: ${theme}`);
    toggle.title = `Theme: ${theme}`;
  };
  toggle.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
    localStorage.setItem("pajamas-theme", theme);
    show();
  });
  show();
}
