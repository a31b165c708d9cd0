/** The views: one is shown, its name is the address's fragment; the slash keeps the browser from moving the focus there. */

import { byId } from "./dom.ts";

export interface View {
  name: string;
  /** Called each time the view comes to the front. */
  show?: () => void;
  /** Called when another takes its place. */
  hide?: () => void;
}

/** Shows the view that the address names, and follows clicks and arrow keys. */
export function startTabs(views: View[]): void {
  const tabs = views.map((view) => byId(`tab-${view.name}`, HTMLButtonElement));
  let shown: View | undefined;
  const open = (next: View) => {
    if (next === shown) return;
    shown?.hide?.();
    shown = next;
    views.forEach((view, index) => {
      byId(view.name, HTMLElement).hidden = view !== next;
      const tab = tabs[index];
      if (!tab) return;
      tab.setAttribute("aria-selected", String(view === next));
      tab.tabIndex = view === next ? 0 : -1;
      if (view === next) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    document.title = next.name === "chat" ? "pajamas" : `${next.name} · pajamas`;
    next.show?.();
  };
  const named = () => views.find((view) => `#/${view.name}` === location.hash) ?? views[0];
  const follow = () => {
    const view = named();
    if (view) open(view);
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => (location.hash = `/${views[index]?.name ?? ""}`));
    tab.addEventListener("keydown", (event) => {
      const steps: Record<string, number> = {
        ArrowRight: index + 1,
        ArrowLeft: index - 1 + tabs.length,
        Home: 0,
        End: tabs.length - 1,
      };
      const target = steps[event.key];
      if (target === undefined) return;
      event.preventDefault();
      const next = tabs[target % tabs.length];
      next?.focus();
      next?.click();
    });
  });
  addEventListener("hashchange", follow);
  follow();
}
