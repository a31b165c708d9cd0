/** One streamed answer of `/v1/chat/completions`. */

import { Refusal, post } from "./api.ts";
import { duration } from "./format.ts";
import { events } from "./sse.ts";

export type Part = { type: "text"; text: string } | { type: "image_url"; image_url: { url: string } };

export interface Turn {
  role: "system" | "user" | "assistant";
  content: string | Part[];
}

interface Chunk {
  error?: unknown;
  choices?: { delta?: { content?: string }; finish_reason?: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number; prompt_tokens_details?: { cached_tokens?: number } };
  timings?: { queue_ms?: number; prompt_ms: number; decode_ms: number };
}

/** Streams an answer: `each` gets every piece of text. Returns what it used, for people. */
export async function answer(body: object, signal: AbortSignal, each: (text: string) => void): Promise<string> {
  const begun = performance.now();
  let first: number | null = null;
  let last: Chunk = {};
  let finish = "";
  const response = await post(
    "/v1/chat/completions",
    { ...body, stream: true, stream_options: { include_usage: true } },
    signal,
  );
  for await (const { data } of events(response)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw Refusal.of(response.status, chunk);
    if (chunk.usage) last = chunk;
    const choice = chunk.choices?.[0];
    finish = choice?.finish_reason ?? finish;
    const text = choice?.delta?.content;
    if (!text) continue;
    first ??= performance.now() - begun;
    each(text);
  }
  return summary(last, first, finish, response.headers.get("x-pajamas-route"));
}

function summary({ usage, timings }: Chunk, first: number | null, finish: string, route: string | null): string {
  const parts: string[] = [];
  if (usage) {
    parts.push(`${usage.completion_tokens} tokens`);
    // The first token comes with the prompt.
    const decoded = usage.completion_tokens - 1;
    if (timings && timings.decode_ms > 0 && decoded > 0) {
      const rate = decoded / (timings.decode_ms / 1e3);
      parts.push(`${rate.toFixed(rate < 10 ? 1 : 0)} token/s`);
    }
  }
  if (first !== null) parts.push(`first after ${duration(first)}`);
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`prompt ${usage.prompt_tokens}${cached > 0 ? ` (${cached} cached)` : ""}`);
  }
  if (finish === "length") parts.push("cut at max tokens");
  const place = /backend=([^;]*); device=([^;]*)/.exec(route ?? "");
  if (place) parts.push(`${place[1]} on ${place[2]}`);
  return parts.join(" · ");
}
