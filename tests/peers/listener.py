"""Writes tests/fixtures/listener: a model in the layout of Optimum's Whisper that says what it was told to say.

    python tests/peers/listener.py                     # needs onnx 1.23

It hears one thing, whether a window is silent, and says " hello world." in its first two seconds; after <|translate|> " good day.". In
silence it is sure of nothing. So what comes out of the host can be known by heart: the tests are about windows, times, formats and routes.
"""

import json
import pathlib

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "listener"
WORDS = ["Ġhello", "Ġworld", ".", "Ġgood", "Ġday", "Ġ"]
SPECIAL = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
TIMES = [f"{step * 0.02:.2f}" for step in range(1501)]
ID = {name: number for number, name in enumerate(WORDS + SPECIAL + TIMES)}
TOKENS = len(ID)


def chain(*names):
    """Which token follows which; the end follows what is not named."""
    after = np.full(TOKENS, ID["endoftext"], np.float32)
    for name, following in zip(names, names[1:]):
        after[ID[name]] = ID[following]
    return after


SAID = chain("startoftranscript", "en", "transcribe", "0.00", "Ġhello", "Ġworld", ".", "2.00", "endoftext")
TRANSLATED = chain("startoftranscript", "en", "translate", "0.00", "Ġgood", "Ġday", ".", "2.00", "endoftext")


def constant(name, value, kind=np.float32):
    return numpy_helper.from_array(np.array(value, kind), name)


def tensor(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(name, nodes, inputs, outputs, constants):
    nodes = [helper.make_node(operator, takes, [gives], **more) for operator, takes, gives, more in nodes]
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pajamas-tests")
    checker.check_model(model, full_check=True)
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())


def encoder():
    # Silence has one level; in sound the loudest place is eight decades, which are two units, above the least.
    nodes = [
        ("ReduceMax", ["input_features"], "most", {"axes": [1, 2]}),
        ("ReduceMin", ["input_features"], "least", {"axes": [1, 2]}),
        ("Sub", ["most", "least"], "range", {}),
        ("Clip", ["range", "zero", "one"], "last_hidden_state", {}),
    ]
    save("encoder_model", nodes, [tensor("input_features", "batch_size", 80, 3000)],
         [tensor("last_hidden_state", "batch_size", 1, 1)], [constant("zero", 0), constant("one", 1)])


def decoder(name, ids, past):
    """`past`: whether it goes on."""
    heard = "past_key_values.0.encoder.key" if past else "present.0.encoder.key"
    fresh = "fresh" if past else "present.0.decoder.key"
    nodes = [
        ("Equal", ["input_ids", "translate"], "is_translate", {}),
        ("Cast", ["is_translate"], "translates", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["translates", "key_axes"], fresh, {}),
    ]
    if past:
        nodes.append(("Concat", ["past_key_values.0.decoder.key", "fresh"], "present.0.decoder.key", {"axis": 2}))
    else:
        nodes.append(("Unsqueeze", ["encoder_hidden_states", "heard_axes"], "present.0.encoder.key", {}))
    nodes += [
        # [rows, 1, 1]: whether a text is a translation, and how loud it is.
        ("ReduceMax", ["present.0.decoder.key"], "remembered", {"axes": [1], "keepdims": 0}),
        ("ReduceMax", ["remembered"], "translating", {"axes": [1]}),
        ("Squeeze", [heard, "heard_axes"], "loud", {}),
        ("Gather", ["said", "input_ids"], "word", {}),
        ("Gather", ["translated", "input_ids"], "other", {}),
        ("Sub", ["other", "word"], "change", {}),
        ("Unsqueeze", ["word", "last_axis"], "word_", {}),
        ("Unsqueeze", ["change", "last_axis"], "change_", {}),
        ("Mul", ["change_", "translating"], "changed", {}),
        ("Add", ["word_", "changed"], "next", {}),
        ("Sub", ["next", "every"], "distance", {}),
        ("Abs", ["distance"], "far", {}),
        ("Mul", ["far", "steep"], "unlikely", {}),
        ("Mul", ["unlikely", "loud"], "spoken", {}),
        ("Equal", ["input_ids", "start"], "is_start", {}),
        ("Cast", ["is_start"], "starts", {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["starts", "last_axis"], "starts_", {}),
        ("Sub", ["one", "loud"], "quiet", {}),
        ("Mul", ["starts_", "quiet"], "silent", {}),
        ("Mul", ["silent", "nobody"], "silence", {}),
        ("Add", ["spoken", "silence"], "logits", {}),
    ]
    nobody = np.zeros(TOKENS, np.float32)
    nobody[ID["nospeech"]] = 30
    constants = [
        constant("translate", ID["translate"], np.int64), constant("start", ID["startoftranscript"], np.int64),
        constant("key_axes", [1, 3], np.int64), constant("heard_axes", [1], np.int64), constant("last_axis", [2], np.int64),
        constant("said", SAID), constant("translated", TRANSLATED), constant("every", np.arange(TOKENS)),
        constant("steep", -4), constant("one", 1), constant("nobody", nobody),
    ]
    inputs = [tensor("input_ids", "batch_size", ids, kind=TensorProto.INT64)]
    outputs = [tensor("logits", "batch_size", ids, TOKENS), tensor("present.0.decoder.key", "batch_size", 1, "length", 1)]
    if past:
        inputs += [tensor("past_key_values.0.decoder.key", "batch_size", 1, "past", 1),
                   tensor("past_key_values.0.encoder.key", "batch_size", 1, 1, 1)]
    else:
        inputs.append(tensor("encoder_hidden_states", "batch_size", 1, 1))
        outputs.append(tensor("present.0.encoder.key", "batch_size", 1, 1, 1))
    save(name, nodes, inputs, outputs, constants)


def write(name, value):
    (FOLDER / name).write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")


FOLDER.mkdir(parents=True, exist_ok=True)
encoder()
decoder("decoder_model", "tokens", past=False)
decoder("decoder_with_past_model", 1, past=True)
# Times are not listed, as in Whisper's first tokenizers: they follow <|notimestamps|>.
added = [{"id": ID[name], "content": f"<|{name}|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
          "special": True} for name in SPECIAL]
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
write("tokenizer.json", {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": byte_level,
    "post_processor": None, "decoder": byte_level,
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
              "fuse_unk": False, "byte_fallback": False, "vocab": {word: ID[word] for word in WORDS}, "merges": []},
})
write("generation_config.json", {"begin_suppress_tokens": [ID["Ġ"], ID["endoftext"]], "is_multilingual": True, "max_initial_timestamp_index": 50,
                                 "suppress_tokens": [], "decoder_start_token_id": ID["startoftranscript"], "eos_token_id": ID["endoftext"]})
write("config.json", {"model_type": "whisper", "max_target_positions": 448, "num_mel_bins": 80})
