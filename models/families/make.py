"""Trains a model of a family from nothing and writes its Hugging Face folder, by the chat model's texts and training.

    python models/families/make.py moe            # or alternating, or hybrid
    python models/families/score.py moe

One thread, fixed seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

import families
import generate  # The chat model's, as are `tokenizer` and `train`.
import pieces
import tokenizer as tok
import train

HERE = Path(__file__).parent


def save(model: families.Network, tokenizer: object, folder: Path) -> None:
    """Writes everything a Hugging Face folder holds."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict_hf(), folder / "model.safetensors", metadata={"format": "pt"})
    writes = pieces.save if isinstance(tokenizer, pieces.Pieces) else tok.save
    writes(tokenizer, folder, model.config.max_position_embeddings)  # type: ignore[arg-type]
    end, stop = tokenizer.token_to_id(tok.END_OF_TEXT), tokenizer.token_to_id(tok.IM_END)  # type: ignore[attr-defined]
    special = {"bos_token_id": end, "eos_token_id": stop, "pad_token_id": end}
    generation = {**special, "do_sample": False, "max_new_tokens": 256}
    for name, value in (("config.json", model.config.to_json(special)), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=list(families.CONFIGS))
    parser.add_argument("--out", type=Path, help="the Hugging Face folder; this family's own by default")
    train.arguments(parser, steps=800)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    config = families.CONFIGS[args.family]
    texts = (tok.render(messages) for messages in itertools.islice(generate.conversations(args.seed), 30_000))
    # Gemma 2 knows vocabularies of pieces only.
    tokenizer = (pieces if args.family == "alternating" else tok).train(texts, config.vocab_size)
    model = families.Network(config)
    train.fit(model, tokenizer, args, lambda: save(model, tokenizer, args.out or HERE / args.family / "hf"))


if __name__ == "__main__":
    main()
