/** What happens on the server, as it happens: one connection for all views. */

import { Refusal, ask, isAbort } from "./api.ts";
import { byId } from "./dom.ts";
import { events } from "./sse.ts";

type Listener = (data: unknown) => void;
const listeners = new Map<string, Listener[]>();
const failures: ((error: unknown) => void)[] = [];
/** Between attempts to connect, in milliseconds. */
const AGAIN = 2000;

/** Calls with each event of a name. */
export function on(name: string, listener: Listener): void {
  listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

/** Calls when nothing will be told, with the reason; and with null when it is again. */
export function onFailure(listener: (error: unknown) => void): void {
  failures.push(listener);
}

/** Connects, and connects again whenever that ends. */
export async function startFeed(): Promise<void> {
  const live = byId("live", HTMLElement);
  const say = (state: string, text: string) => {
    live.dataset["state"] = state;
    if (live.textContent !== text) live.textContent = text;
  };
  for (;;) {
    try {
      const answer = await ask("/admin/events");
      say("live", "live");
      failures.forEach((tell) => tell(null));
      // What is kept of the requests comes again with each connection.
      listeners.get("begin")?.forEach((tell) => tell(null));
      for await (const { event, data } of events(answer)) {
        const value: unknown = JSON.parse(data);
        listeners.get(event)?.forEach((tell) => tell(value));
      }
      say("off", "offline");
    } catch (error) {
      if (error instanceof Refusal && error.status > 0) {
        // A key without the scope, or none: another attempt changes nothing.
        say("off", "not live");
        failures.forEach((tell) => tell(error));
        return;
      }
      if (!isAbort(error)) say("off", "offline");
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}
