/** Speech: a text is typed, and heard. */

import { isAbort, models, post } from "./api.ts";
import { byId, fill } from "./dom.ts";
import { bytes, duration } from "./format.ts";
import type { View } from "./tabs.ts";
import { trouble } from "./trouble.ts";

/** Makes the view. */
export function speechView(): View {
  const form = byId("speech-form", HTMLFormElement);
  const select = byId("speech-model", HTMLSelectElement);
  const text = byId("speech-input", HTMLTextAreaElement);
  const voice = byId("speech-voice", HTMLInputElement);
  const speed = byId("speech-speed", HTMLInputElement);
  const status = byId("speech-status", HTMLElement);
  const player = byId("speech-player", HTMLAudioElement);
  const wrong = byId("speech-wrong", HTMLElement);
  let heard: string | null = null;
  let running: AbortController | null = null;

  const speak = async () => {
    if (!select.value || !text.value.trim()) return;
    running?.abort();
    const { signal } = (running = new AbortController());
    const begun = performance.now();
    wrong.replaceChildren();
    status.textContent = `${select.value} speaks …`;
    const body: Record<string, unknown> = { model: select.value, input: text.value, response_format: "wav" };
    if (voice.value.trim()) body.voice = voice.value.trim();
    if (speed.value) body.speed = Number(speed.value);
    try {
      const sound = await (await post("/v1/audio/speech", body, signal)).arrayBuffer();
      if (heard) URL.revokeObjectURL(heard);
      heard = URL.createObjectURL(new Blob([whole(sound)], { type: "audio/wav" }));
      player.src = heard;
      player.hidden = false;
      status.textContent = `${bytes(sound.byteLength)} in ${duration(performance.now() - begun)}`;
      // Where the browser does not let a page begin by itself, the person presses play.
      await player.play().catch(() => undefined);
    } catch (error) {
      if (isAbort(error)) return;
      status.textContent = "";
      wrong.replaceChildren(trouble(error));
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void speak();
  });
  const begin = async () => {
    if (select.options.length > 0) return;
    try {
      const voices = (await models()).filter(({ task }) => task === "speak");
      fill(select, voices.map(({ id }) => ({ value: id, text: id })));
      if (voices.length === 0) status.textContent = "No model that speaks is configured: add one to pajamas.toml.";
    } catch (error) {
      wrong.replaceChildren(trouble(error));
    }
  };
  return { name: "speech", show: () => void begin(), hide: () => player.pause() };
}

/** A WAV file with its lengths, which its header lacks when it left before the last sentence was spoken. */
function whole(sound: ArrayBuffer): ArrayBuffer {
  const header = new DataView(sound);
  header.setUint32(4, sound.byteLength - 8, true);
  header.setUint32(40, sound.byteLength - 44, true);
  return sound;
}
