#!/usr/bin/env python3
"""Makes tests/fixtures/vectors: tiny models in the layout that transformers exports CLIP and BERT in, with random weights, and
the vectors that onnxruntime, Pillow and `tokenizers` make with them.

Needs `pip install onnx==1.23.2 numpy==2.4.6 onnxruntime==1.31.1 pillow==13.0.0`, and `--no-deps tokenizers==0.23.3`.
"""
import json, pathlib, shutil

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/fixtures/vectors"
VOCABULARY = ROOT / "wasm-stages/tokenize/tests/wordpiece.json"
SIDE, SIZE, PATCH, WORDS = 32, 8, 16, 160
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
LABELS = ["red circle", "blue square", "yellow star"]
TEXTS = ["a red circle above a blue square", "yellow stars", "two", ""]
random = np.random.default_rng(7)


def weights(name, *shape):
    return numpy_helper.from_array(random.normal(0, 1, shape).astype(np.float32), name)


def save(folder, name, inputs, outputs, nodes, constants):
    def port(spec):
        return helper.make_tensor_value_info(*spec)

    graph = helper.make_graph(nodes, "g", [port(i) for i in inputs], [port(o) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    (OUT / folder).mkdir(parents=True, exist_ok=True)
    onnx.save(model, OUT / folder / name)


def vision():
    save("clip", "vision_model.onnx",
         [("pixel_values", TensorProto.FLOAT, ["batch_size", "num_channels", "height", "width"])],
         [("last_hidden_state", TensorProto.FLOAT, ["batch_size", SIZE, 2, 2]),
          ("image_embeds", TensorProto.FLOAT, ["batch_size", SIZE])],
         [helper.make_node("Conv", ["pixel_values", "patches"], ["last_hidden_state"], strides=[PATCH, PATCH],
                           kernel_shape=[PATCH, PATCH]),
          helper.make_node("Tanh", ["last_hidden_state"], ["bent"]),
          helper.make_node("ReduceMean", ["bent"], ["image_embeds"], axes=[2, 3], keepdims=0)],
         [numpy_helper.from_array(random.normal(0, 0.05, (SIZE, 3, PATCH, PATCH)).astype(np.float32), "patches")])


def text(folder, name, output, pooled):
    ports = [(n, TensorProto.INT64, ["batch_size", "sequence_length"]) for n in ("input_ids", "attention_mask")]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
             helper.make_node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
             helper.make_node("Unsqueeze", ["counts", "last"], ["mask"])]
    constants = [weights("table", WORDS, SIZE), numpy_helper.from_array(np.array([-1]), "last")]
    if pooled:
        nodes += [helper.make_node("Mul", ["rows", "mask"], ["kept"]),
                  helper.make_node("ReduceMean", ["kept"], [output], axes=[1], keepdims=0)]
        shape = ["batch_size", SIZE]
    else:
        # What fills up has vectors, too, which must not count.
        nodes += [helper.make_node("Add", ["rows", "mask"], [output])]
        shape = ["batch_size", "sequence_length", SIZE]
    save(folder, name, ports, [(output, TensorProto.FLOAT, shape)], nodes, constants)


def both():
    """A whole CLIP in one graph, as optimum exports it: pictures and texts to how well they belong together."""
    ids = [(n, TensorProto.INT64, ["text_batch_size", "sequence_length"]) for n in ("input_ids", "attention_mask")]
    ports = [ids[0], ("pixel_values", TensorProto.FLOAT, ["image_batch_size", "num_channels", "height", "width"]), ids[1]]
    node = helper.make_node
    nodes = [node("Conv", ["pixel_values", "patches"], ["cells"], strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH]),
             node("Tanh", ["cells"], ["bent"]),
             node("ReduceMean", ["bent"], ["image_embeds"], axes=[2, 3], keepdims=0),
             node("Gather", ["table", "input_ids"], ["rows"]),
             node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
             node("Unsqueeze", ["counts", "last"], ["mask"]),
             node("Mul", ["rows", "mask"], ["kept"]),
             node("ReduceMean", ["kept"], ["text_embeds"], axes=[1], keepdims=0),
             node("Transpose", ["text_embeds"], ["turned"], perm=[1, 0]),
             node("MatMul", ["image_embeds", "turned"], ["logits_per_image"])]
    constants = [numpy_helper.from_array(random.normal(0, 0.05, (SIZE, 3, PATCH, PATCH)).astype(np.float32), "patches"),
                 weights("table", WORDS, SIZE), numpy_helper.from_array(np.array([-1]), "last")]
    save("whole", "model.onnx", ports,
         [("logits_per_image", TensorProto.FLOAT, ["image_batch_size", "text_batch_size"])], nodes, constants)


def of_labels(path):
    tokenizer = Tokenizer.from_file(str(VOCABULARY))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    encoded = tokenizer.encode_batch([f"a photo of a {label}" for label in LABELS])
    feeds = {"input_ids": np.array([e.ids for e in encoded]), "pixel_values": pixels(path),
             "attention_mask": np.array([e.attention_mask for e in encoded])}
    logits = session("whole/model.onnx").run(["logits_per_image"], feeds)[0][0]
    likely = np.exp(logits - logits.max())
    return (likely / likely.sum()).tolist()


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def pixels(path):
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
    return ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)[None].astype(np.float32)


def of_picture(session, path):
    tensor = pixels(path)
    return unit(session.run(["image_embeds"], {"pixel_values": tensor})[0])[0].tolist()


def of_texts(session, output, pool):
    tokenizer, vectors = Tokenizer.from_file(str(VOCABULARY)), []
    for one in TEXTS:
        ids = np.array([tokenizer.encode(one).ids])
        made = session.run([output], {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        vectors.append(unit({"mean": lambda: made.mean(1), "cls": lambda: made[:, 0], "": lambda: made}[pool]())[0].tolist())
    return vectors


vision()
text("clip", "text_model.onnx", "text_embeds", True)
text("bert", "model.onnx", "last_hidden_state", False)
both()
for folder in ("clip", "bert", "whole"):
    shutil.copy(VOCABULARY, OUT / folder / "tokenizer.json")
for folder in ("clip", "whole"):
    (OUT / folder / "preprocessor_config.json").write_text(json.dumps({
        "do_resize": True, "size": {"shortest_edge": SIDE}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE}, "do_normalize": True, "image_mean": MEAN, "image_std": STD}) + "\n")
session = lambda path: ort.InferenceSession(OUT / path, providers=["CPUExecutionProvider"])
bert = session("bert/model.onnx")
(OUT / "expected.json").write_text(json.dumps({
    "texts": TEXTS,
    "labels": [LABELS, of_labels(ROOT / "models/sample.png")],
    "image": of_picture(session("clip/vision_model.onnx"), ROOT / "models/sample.png"),
    "clip": of_texts(session("clip/text_model.onnx"), "text_embeds", ""),
    "mean": of_texts(bert, "last_hidden_state", "mean"),
    "cls": of_texts(bert, "last_hidden_state", "cls"),
}) + "\n")
