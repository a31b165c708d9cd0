/** The server: requests with the key, and refusals with their code. */

import { askForKey, currentKey } from "./key.ts";

/** What the server refused, in its own words. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  /** The refusal in an answer or in an event of a stream. */
  static of(status: number, body: unknown): Refusal {
    const error = (body as { error?: { code?: unknown; message?: unknown } } | null)?.error;
    return new Refusal(status, String(error?.code ?? "unknown"), String(error?.message ?? `status ${status}`));
  }
}

/** Whether a request was stopped by the person. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** Asks; a refusal is thrown. Where a key is missing it is asked for, and the request is made again. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const headers = new Headers(init.headers);
    const key = currentKey();
    if (key) headers.set("authorization", `Bearer ${key}`);
    let answer: Response;
    try {
      answer = await fetch(path, { ...init, headers, cache: "no-store" });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw new Refusal(0, "unreachable", "the server does not answer");
    }
    if (answer.ok) return answer;
    const refusal = Refusal.of(answer.status, await answer.json().catch(() => null));
    // Another view may have asked meanwhile: then its key is tried first.
    if (answer.status !== 401 || (key === currentKey() && !(await askForKey(refusal.message)))) throw refusal;
  }
}

/** Asks for JSON. */
export async function get<T>(path: string): Promise<T> {
  return (await (await ask(path)).json()) as T;
}

/** Sends JSON. */
export function post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
}

/** A model as `/v1/models` lists it. */
export interface ListedModel {
  id: string;
  task: string | null;
  description: string | null;
}

let listed: Promise<ListedModel[]> | null = null;

/** The configured models; asked for once. */
export function models(): Promise<ListedModel[]> {
  listed ??= get<{ data: ListedModel[] }>("/v1/models").then(
    (list) => list.data,
    (error: unknown) => {
      listed = null;
      throw error;
    },
  );
  return listed;
}
