"""Scores a model of a family on the chat model's held-out questions, by greedy decoding.

    python models/families/score.py moe
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer

import families
import pieces
from evaluate import score  # The chat model's.

HERE = Path(__file__).parent


def load(family: str, folder: Path) -> tuple[families.Network, object]:
    """The model of a Hugging Face folder, in single precision."""
    model = families.Network(families.CONFIGS[family])
    model.load_hf(load_file(folder / "model.safetensors"))
    if (folder / "tokenizer.model").exists():
        return model.eval(), pieces.Pieces((folder / "tokenizer.model").read_bytes())
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=list(families.CONFIGS))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    questions = (HERE.parent / "chat" / "held-out.jsonl").read_text(encoding="utf-8").splitlines()
    accuracy, _, wrong = score(*load(args.family, HERE / args.family / "hf"), [json.loads(line) for line in questions])  # type: ignore[arg-type]
    if args.json:
        print(json.dumps({"metric": "accuracy", "value": round(accuracy, 4), "samples": len(questions)}))
        return
    for line in wrong:
        print("wrong:", line)
    print(f"held-out accuracy {accuracy:.4f} on {len(questions)} questions")


if __name__ == "__main__":
    main()
