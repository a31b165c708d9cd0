"""Writes tests/fixtures/voice: voices in piper's and in transformers' layout that say what they are given.

    python tests/peers/voices.py                       # needs onnx 1.20

Each id becomes a step of the sound, as high as its number in 64ths, so that ids, scales and speakers can be read off the sound: piper's is
100 samples long for a length scale of 1 and upside down for the second speaker; transformers' is 50. The id 60, which no symbol has,
becomes no number.
"""

import json
import pathlib

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "voice"
MARKS = {"_": 0, "^": 1, "$": 2, " ": 3, ".": 4, ",": 5, "?": 6, "!": 7, "'": 8}
LETTERS = {letter: 10 + number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
IDS = MARKS | LETTERS | {"\u0301": 36}


def constant(name, value, kind):
    return numpy_helper.from_array(np.array(value, kind), name)


def tensor(name, *shape, kind=TensorProto.INT64):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, constants):
    nodes = [helper.make_node(operator, takes, [gives], **more) for operator, takes, gives, more in nodes]
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pajamas-tests")
    checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


# From ids to steps: [1, n] to [1, n, 1].
STEPS = [
    ("Cast", ["ids"], "numbers", {"to": TensorProto.FLOAT}),
    ("Mul", ["numbers", "sixty_fourth"], "heights", {}),
    ("Equal", ["ids", "sixty"], "is_nothing", {}),
    ("Where", ["is_nothing", "nothing", "heights"], "steps", {}),
]
CONSTANTS = [constant("sixty_fourth", 1 / 64, np.float32), constant("sixty", 60, np.int64), constant("nothing", np.nan, np.float32),
             constant("last_axis", [2], np.int64), constant("one", [1], np.int64)]


def piper():
    nodes = [("Identity", ["input"], "ids", {}), *STEPS]
    for number, name in enumerate(["noise", "length", "noise_w"]):
        nodes.append(("Gather", ["scales", f"at_{number}"], name, {"axis": 0}))
    nodes += [
        # The scales are 1/2 and 1/4 in the configuration, the lengths as many as the ids: together they are 1.
        ("Shape", ["input"], "shape", {}),
        ("Gather", ["shape", "at_1"], "count", {"axis": 0}),
        ("Cast", ["count"], "counted", {"to": TensorProto.FLOAT}),
        ("Cast", ["input_lengths"], "told", {"to": TensorProto.FLOAT}),
        ("Div", ["told", "counted"], "whole", {}),
        ("Mul", ["noise", "noise_w"], "noises", {}),
        ("Mul", ["noises", "eight"], "noisy", {}),
        ("Mul", ["whole", "noisy"], "gain", {}),
        ("Cast", ["sid"], "speaker", {"to": TensorProto.FLOAT}),
        ("Mul", ["speaker", "two"], "turn", {}),
        ("Sub", ["unit", "turn"], "sign", {}),
        ("Mul", ["gain", "sign"], "signed", {}),
        ("Mul", ["steps", "signed"], "said", {}),
        ("Unsqueeze", ["said", "last_axis"], "columns", {}),
        ("Mul", ["length", "hundred"], "long", {}),
        ("Add", ["long", "little"], "longer", {}),
        ("Cast", ["longer"], "samples", {"to": TensorProto.INT64}),
        ("Concat", ["one", "count", "samples"], "wide", {"axis": 0}),
        ("Expand", ["columns", "wide"], "expanded", {}),
        ("Reshape", ["expanded", "flat"], "output", {}),
    ]
    constants = [*CONSTANTS, *(constant(f"at_{n}", [n], np.int64) for n in range(3)), constant("eight", 8, np.float32),
                 constant("two", 2, np.float32), constant("unit", 1, np.float32), constant("hundred", 100, np.float32),
                 constant("little", 0.01, np.float32), constant("flat", [1, 1, 1, -1], np.int64)]
    inputs = [tensor("input", 1, "phonemes"), tensor("input_lengths", 1), tensor("scales", 3, kind=TensorProto.FLOAT), tensor("sid", 1)]
    save(FOLDER / "piper.onnx", nodes, inputs, [tensor("output", 1, 1, 1, "time", kind=TensorProto.FLOAT)], constants)
    write(FOLDER / "piper.onnx.json", {
        "audio": {"sample_rate": 8000, "quality": "test"}, "espeak": {"voice": "en-us"}, "phoneme_type": "text",
        "inference": {"noise_scale": 0.5, "length_scale": 1, "noise_w": 0.25},
        "phoneme_id_map": {symbol: [id] for symbol, id in IDS.items()}, "num_symbols": 64, "num_speakers": 2,
        "speaker_id_map": {"amy": 0, "bob": 1},
    })


def mms():
    nodes = [
        ("Identity", ["input_ids"], "ids", {}), *STEPS,
        ("Cast", ["attention_mask"], "mask", {"to": TensorProto.FLOAT}),
        ("Mul", ["steps", "mask"], "said", {}),
        ("Unsqueeze", ["said", "last_axis"], "spectrogram", {}),
        ("Shape", ["input_ids"], "shape", {}),
        ("Concat", ["shape", "fifty"], "wide", {"axis": 0}),
        ("Expand", ["spectrogram", "wide"], "expanded", {}),
        ("Reshape", ["expanded", "flat"], "waveform", {}),
    ]
    constants = [*CONSTANTS, constant("fifty", [50], np.int64), constant("flat", [1, -1], np.int64)]
    constants = [c for c in constants if c.name != "one"]
    inputs = [tensor("input_ids", 1, "characters"), tensor("attention_mask", 1, "characters")]
    outputs = [tensor("spectrogram", 1, "characters", 1, kind=TensorProto.FLOAT), tensor("waveform", 1, "time", kind=TensorProto.FLOAT)]
    folder = FOLDER / "mms"
    save(folder / "model.onnx", nodes, inputs, outputs, constants)
    letters = {"k": 0, **{letter: id for letter, id in LETTERS.items() if letter != "k"}, " ": 3, "'": 8, "-": 9, "<unk>": 37}
    write(folder / "vocab.json", letters)
    write(folder / "config.json", {"model_type": "vits", "sampling_rate": 16000, "vocab_size": 64, "num_speakers": 1})
    write(folder / "tokenizer_config.json", {
        "add_blank": True, "is_uroman": False, "language": "eng", "normalize": True, "phonemize": False, "pad_token": "k",
        "unk_token": "<unk>", "tokenizer_class": "VitsTokenizer"})


piper()
mms()
