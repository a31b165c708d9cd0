"""Folders of mlx_lm.convert: what is recorded of them, what differs from them, and whether mlx_lm runs them.

    python tests/peers/mlx_parity.py golden --models MODELS --out plugins/quant/tests/golden/mlx
    python tests/peers/mlx_parity.py affine --out plugins/quant/tests/golden/mlx-affine.json
    python tests/peers/mlx_parity.py compare OURS THEIRS
    python tests/peers/mlx_parity.py run FOLDER [FOLDER ...]

MODELS are folders written by `mlx --models`, an example of plugins/quant. Needs what mlx-requirements.txt lists.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import struct
import sys
import tempfile
from pathlib import Path

# Name, and arguments of mlx_lm.convert. `mixed` is our own recipe, for which mlx_lm takes a function.
RECIPES = {
    "bf16": {"dtype": "bfloat16"},
    "f16": {"dtype": "float16"},
    "4bit": {"quantize": True, "q_bits": 4, "q_group_size": 64, "mixed": (6, 6)},
    "2bit-32": {"quantize": True, "q_bits": 2, "q_group_size": 32, "mixed": (8, 5)},
    "3bit-32-pure": {"quantize": True, "q_bits": 3, "q_group_size": 32},
    "8bit-pure": {"quantize": True, "q_bits": 8, "q_group_size": 64},
    "6bit-64-f16-pure": {"quantize": True, "q_bits": 6, "q_group_size": 64, "dtype": "float16"},
}


def sha256(data: bytes) -> str:
    """Enough of the hash to tell a difference."""
    return hashlib.sha256(data).hexdigest()[:16]


def tensors(folder: Path) -> dict:
    """Each tensor's type, shape, and hash of its bytes."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "mlx"}, path
        for name, about in header.items():
            start, end = (8 + length + at for at in about["data_offsets"])
            found[name] = [about["dtype"], about["shape"], sha256(data[start:end])]
    return found


def parts(folder: Path) -> dict:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return {
        "config": json.loads((folder / "config.json").read_text()),
        "metadata": index["metadata"],
        "weight_map": index["weight_map"],
        "tensors": [[name, *about] for name, about in sorted(tensors(folder).items())],
    }


def mixed(embeddings: int, output: int, group: int):
    """Our recipe as a function of mlx_lm: other bits for both ends, and what the model's class asks for itself."""

    def predicate(path, module):
        if path.endswith("embed_tokens"):
            tied = "lm_head" not in predicate.names
            return {"group_size": group, "bits": max(embeddings, output) if tied else embeddings, "mode": "affine"}
        if path.endswith("lm_head"):
            return {"group_size": group, "bits": output, "mode": "affine"}
        return predicate.own(path, module) if predicate.own else True

    predicate.own, predicate.names = None, set()
    return predicate


def convert(model: Path, out: Path, recipe: dict) -> None:
    module = importlib.import_module("mlx_lm.convert")

    arguments = dict(recipe)
    ends = arguments.pop("mixed", None)
    original = module.quantize_model
    if ends:
        predicate = mixed(*ends, arguments["q_group_size"])
        arguments["quant_predicate"] = predicate

        def quantize_model(model, config, *rest, **named):
            body = {"group_size": arguments["q_group_size"], "bits": arguments["q_bits"], "mode": "affine"}
            predicate.own = getattr(model, "quant_predicate", None)
            predicate.names = {name.split(".")[-1] for name, _ in model.named_modules()}
            model, config = original(model, config, *rest, **named)
            # A rule that is the rule of all is not written down; what the model's authors quantized has no such rule.
            if config["quantization"]["mode"] == "affine":
                for key in [k for k, v in config["quantization"].items() if v == body]:
                    del config["quantization"][key]
            return model, config

        module.quantize_model = quantize_model
    try:
        module.convert(str(model), str(out), **arguments)
    finally:
        module.quantize_model = original


def golden(models: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for model in sorted(path for path in models.iterdir() if path.is_dir()):
        recorded = {}
        for name, recipe in RECIPES.items():
            with tempfile.TemporaryDirectory() as folder:
                made = Path(folder) / "mlx"
                convert(model, made, recipe)
                recorded[name] = parts(made)
                # One file holds all of a model this small.
                assert set(recorded[name].pop("weight_map").values()) == {"model.safetensors"}
        (out / f"{model.name}.json").write_text(compact(recorded) + "\n")
        print(f"{model.name}: {len(recorded['bf16']['tensors'])} tensors")


def compact(recorded: dict) -> str:
    """One line to a tensor, so that a change of one is a change of one line."""
    def block(part: dict) -> str:
        rows = ",\n".join("   " + json.dumps(row) for row in part["tensors"])
        config, metadata = json.dumps(part["config"], sort_keys=True), json.dumps(part["metadata"])
        return f'{{\n  "config": {config},\n  "metadata": {metadata},\n  "tensors": [\n{rows}\n  ]\n }}'
    return "{\n" + ",\n".join(f' "{kind}": {block(part)}' for kind, part in recorded.items()) + "\n}"


def weights(kind: str, count: int):
    """Random weights of a kind, the same as those of plugins/quant/tests/mlx_affine.rs."""
    import numpy as np

    state = 0xCBF29CE484222325
    for byte in kind.encode():
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    values = []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append(state >> 40)
    unit = np.array(values, dtype=np.float32) / np.float32(2**24)
    one = np.float32(1)
    return {
        "even": lambda: unit - np.float32(0.5),
        "positive": lambda: unit + np.float32(0.25),
        "negative": lambda: -unit - np.float32(0.25),
        "large": lambda: (unit - np.float32(0.5)) * np.float32(30000),
        "small": lambda: (unit - np.float32(0.5)) * np.float32(2e-7),
        "heavy": lambda: np.where(unit > np.float32(0.98), unit * np.float32(40), unit - np.float32(0.5)),
        "lattice": lambda: np.floor(unit * np.float32(31)) / np.float32(4) - np.float32(3),
        "constant": lambda: unit * np.float32(0) + one / np.float32(3),
        "zero": lambda: unit * np.float32(0),
        "offset": lambda: unit * np.float32(0.01) + np.float32(5),
    }[kind]().astype(np.float32)


KINDS = ["even", "positive", "negative", "large", "small", "heavy", "lattice", "constant", "zero", "offset"]


def affine(out: Path) -> None:
    import mlx.core as mx
    import numpy as np

    mx.set_default_device(mx.cpu)
    lines = []
    for kind in KINDS:
        plain = mx.array(weights(kind, 16 * 256)).reshape(16, 256)
        for dtype in ("float32", "float16", "bfloat16"):
            for bits in (2, 3, 4, 5, 6, 8):
                for group in (32, 64, 128):
                    made = mx.quantize(plain.astype(getattr(mx, dtype)), group_size=group, bits=bits)
                    hashes = [sha256(bytes(memoryview(a.view(mx.uint8)))) for a in made]
                    lines.append(json.dumps([kind, dtype, bits, group, *hashes]))
    out.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} cases")


def compare(ours: Path, theirs: Path) -> int:
    a, b = parts(ours), parts(theirs)
    found = []
    for kind in ("config", "metadata"):
        for key in sorted({*a[kind], *b[kind]}):
            if a[kind].get(key) != b[kind].get(key):
                found.append(f"{kind}: {key}: ours {a[kind].get(key)}, theirs {b[kind].get(key)}")
    x, y = ({row[0]: row[1:] for row in part["tensors"]} for part in (a, b))
    for name in sorted({*x, *y}):
        if x.get(name) != y.get(name):
            found.append(f"{name}: ours {x.get(name)}, theirs {y.get(name)}")
    print("\n".join(found) or f"the same: {len(x)} tensors, configuration, sums")
    return int(bool(found))


def run(folders: list[Path]) -> None:
    """Loads folders as anybody would, strictly, and has each say something."""
    import mlx.core as mx
    from mlx_lm import generate, load

    mx.set_default_device(mx.cpu)
    # Would call a C++ compiler for each function.
    mx.disable_compile()
    for folder in folders:
        model, tokenizer = load(str(folder))
        logits = model(mx.array([[3, 1, 4, 1, 5]])).astype(mx.float32)
        assert mx.isfinite(logits).all().item(), folder
        text = generate(model, tokenizer, prompt="the in", max_tokens=4)
        print(f"{folder.name}: {text!r}")
    print("journey ok")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("golden")
    record.add_argument("--models", type=Path, required=True)
    record.add_argument("--out", type=Path, required=True)
    alone = commands.add_parser("affine")
    alone.add_argument("--out", type=Path, required=True)
    differ = commands.add_parser("compare")
    differ.add_argument("ours", type=Path)
    differ.add_argument("theirs", type=Path)
    journey = commands.add_parser("run")
    journey.add_argument("folders", type=Path, nargs="+")
    args = parser.parse_args()
    match args.command:
        case "golden":
            golden(args.models, args.out)
        case "affine":
            affine(args.out)
        case "compare":
            sys.exit(compare(args.ours, args.theirs))
        case "run":
            run(args.folders)


if __name__ == "__main__":
    main()
