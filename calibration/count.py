#!/usr/bin/env python3
"""Counts the documents and tokens of the calibration texts.

    python calibration/count.py TOKENIZER [FILE ...]

TOKENIZER is a tokenizer.json, a folder that holds one, or a folder with GPT-2-like vocab.json and merges.txt.
Without FILE, every text beside this script is counted. Needs the PyPI package `tokenizers`.
"""

import argparse
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SEPARATOR = "-----"
HELD_OUT_EVERY = 5

# How Qwen's tokenizers split before merging; vocab.json and merges.txt do not say it.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load(path: Path) -> Tokenizer:
    """The tokenizer at `path`, a file or a folder."""
    if path.is_file():
        return Tokenizer.from_file(str(path))
    if (path / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    missing = [name for name in ("vocab.json", "merges.txt") if not (path / name).is_file()]
    if missing:
        sys.exit(f"{path}: no tokenizer.json, and no {' and '.join(missing)}; name a folder that has them")
    tokenizer = Tokenizer(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))
    tokenizer.decoder = decoders.ByteLevel()
    config = path / "tokenizer_config.json"
    kind = json.loads(config.read_text("utf-8")).get("tokenizer_class", "") if config.is_file() else ""
    if kind.startswith("Qwen2"):
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    added = path / "added_tokens.json"
    if added.is_file():
        by_id = sorted(json.loads(added.read_text("utf-8")).items(), key=lambda entry: entry[1])
        tokenizer.add_tokens([AddedToken(token, normalized=False) for token, _ in by_id])
    return tokenizer


def documents(text: str) -> list[str]:
    """The documents of a calibration text, in order."""
    parts: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(line)
    return [document for part in parts if (document := "\n".join(part).strip("\n"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--each", action="store_true", help="one line for every document too")
    arguments = parser.parse_intermixed_args()
    tokenizer = load(arguments.tokenizer)
    files = arguments.files or sorted(Path(__file__).parent.glob("*.txt"))
    print(f"{'file':<20} {'documents':>9} {'tokens':>7} {'train':>7} {'held out':>8} {'shortest':>8} {'longest':>8}")
    for file in files:
        found = documents(file.read_text("utf-8"))
        if not found:
            sys.exit(f"{file}: holds no document")
        counts = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in found]
        held_out = sum(counts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
        total = sum(counts)
        print(
            f"{file.name:<20} {len(found):>9} {total:>7} {total - held_out:>7} {held_out:>8} {min(counts):>8} {max(counts):>8}"
        )
        if arguments.each:
            for number, (count, text) in enumerate(zip(counts, found), 1):
                mark = " held out" if number % HELD_OUT_EVERY == 0 else ""
                print(f"  {number:>3} {count:>6}  {text.splitlines()[0][:80]}{mark}")


if __name__ == "__main__":
    main()
