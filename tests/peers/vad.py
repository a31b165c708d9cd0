#!/usr/bin/env python3
"""The peer of the stage `vad-segments`: the `get_speech_timestamps_from_probs` of silero-vad itself.

    vad.py SILERO_VAD_FOLDER ASSETS     writes wasm-stages/vad-segments/tests/golden.json

SILERO_VAD_FOLDER is silero-vad 6.2.3 as unpacked from PyPI. The function touches no tensor, so that torch need not be there.
Needs `pip install numpy==2.4.6 onnxruntime==1.31.1 soundfile==0.14.0`.
"""
import importlib.util, json, pathlib, random, sys, types

import numpy as np
import onnxruntime as ort
import soundfile

OUT = pathlib.Path(__file__).resolve().parents[2] / "wasm-stages/vad-segments/tests/golden.json"
# Ours, and silero's name for it.
NAMES = {
    "threshold": "threshold", "neg_threshold": "neg_threshold", "min_speech_ms": "min_speech_duration_ms",
    "min_silence_ms": "min_silence_duration_ms", "pad_ms": "speech_pad_ms", "max_speech_s": "max_speech_duration_s",
    "min_silence_at_max_speech_ms": "min_silence_at_max_speech", "cut_at_longest_silence": "use_max_poss_sil_at_max_speech",
}


def silero(folder):
    torch = types.ModuleType("torch")
    torch.no_grad = lambda: lambda f: f
    torch.Tensor, torch.device = object, lambda name: name
    torch.nn = types.SimpleNamespace(functional=None)
    sys.modules.update({"torch": torch, "torch.nn": types.ModuleType("torch.nn"), "torch.nn.functional": types.ModuleType("f")})
    spec = importlib.util.spec_from_file_location("utils_vad", pathlib.Path(folder) / "silero_vad/utils_vad.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_speech_timestamps_from_probs


def recorded(assets, name):
    """The probabilities of a recording, frame by frame."""
    audio, _ = soundfile.read(pathlib.Path(assets) / "audio" / name, dtype="float32")
    model = ort.InferenceSession(str(pathlib.Path(assets) / "vad/silero_vad.onnx"), providers=["CPUExecutionProvider"])
    state, context, out = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for start in range(0, len(audio), 512):
        frame = np.pad(audio[start:start + 512], (0, max(0, start + 512 - len(audio))))
        feed = {"input": np.concatenate([context, frame])[None], "state": state, "sr": np.array(16000, np.int64)}
        p, state = model.run(None, feed)
        context = frame[-64:]
        out.append(round(float(p[0, 0]), 4))
    return out, len(audio)


def invented(rng):
    """Speech and silence of random lengths, unsure in between."""
    out = []
    while len(out) < 250:
        level = rng.choice([0.05, 0.4, 0.45, 0.9])
        out += [round(min(1, max(0, level + rng.uniform(-0.1, 0.1))), 4) for _ in range(rng.choice([1, 2, 4, 8, 40]))]
    return out, len(out) * 512 - rng.randrange(512)


def options(rng):
    some = {}
    for name, choices in {
        "threshold": [0.3, 0.6], "neg_threshold": [0.1, 0.45], "min_speech_ms": [0, 64, 500], "min_silence_ms": [0, 30, 300, 2000],
        "pad_ms": [0, 100, 250], "max_speech_s": [0.5, 1, 2.5, 7], "min_silence_at_max_speech_ms": [0, 40, 200],
        "cut_at_longest_silence": [True, False],
    }.items():
        if rng.random() < 0.4 or name == "max_speech_s" and rng.random() < 0.4:
            some[name] = rng.choice(choices)
    return some


def main():
    reference, rng = silero(sys.argv[1]), random.Random(1)
    sounds = [recorded(sys.argv[2], "jfk.wav"), recorded(sys.argv[2], "silero_test.wav")]
    sounds += [invented(rng) for _ in range(8)]
    entries = []
    for n, (probs, samples) in enumerate(sounds):
        cases = []
        for given in [{}, *(options(rng) for _ in range(30))]:
            # As float32, as the stage gets them.
            exact = [float(np.float32(p)) for p in probs]
            found = reference(exact, 16000, audio_length_samples=samples, **{NAMES[k]: v for k, v in given.items()})
            cases.append([given, [[s["start"], s["end"]] for s in found]])
        entries.append({"samples": samples, "probabilities": probs, "cases": cases})
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
