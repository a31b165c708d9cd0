/** Why the router does not take a model, in words. */

import { bytes, duration } from "./format.ts";

/** As the server writes it: the reason by name, and its numbers. */
export interface Reason {
  why: string;
  [number: string]: unknown;
}

/** The reason as a person reads it; one that this page does not know by its name. */
export function words(reason: Reason): string {
  const size = (key: string) => bytes(Number(reason[key]));
  const time = (key: string) => duration(Number(reason[key]) / 1000);
  switch (reason.why) {
    case "task":
      return `it was made for ${String(reason["made_for"])}`;
    case "unusable": {
      const fault = reason["fault"] as { code: string; message: string };
      return `${fault.message} [${fault.code}]`;
    }
    case "quarantined":
      return "it panicked again and again";
    case "too-large":
      return `it needs ${size("needs")} on ${String(reason["device"])}, where models may hold ${size("budget")}`;
    case "too-long":
      return `the request has about ${String(reason["tokens"])} tokens, and it takes ${String(reason["context"])}`;
    case "late":
      return `it is predicted to take ${time("predicted")}, and the request may take ${time("deadline")}`;
    case "crowded":
      return `${String(reason["waiting"])} would wait for it, of a spill of ${String(reason["most"])}`;
    case "dear":
      return `a million tokens cost ${Number(reason["cost"]) / 1e6} of a max_cost of ${Number(reason["most"]) / 1e6}`;
    case "no-room":
      return `it needs ${size("needs")} on ${String(reason["device"])}, where running requests leave ${size("free")}`;
    case "not-warm":
      return `it is ${String(reason["state"])}, and warm_only is set`;
    case "latency":
      return `it is predicted to take ${time("predicted")} of a latency_budget of ${time("budget")}`;
    case "headroom":
      return `it leaves ${size("leaves")} free on ${String(reason["device"])} of a vram_headroom of ${size("headroom")}`;
    case "hot":
      return `${String(reason["device"])} has ${String(reason["temperature"])} °C of a max_temperature of ${String(reason["most"])} °C`;
    default:
      return reason.why;
  }
}
