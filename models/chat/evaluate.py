"""Scores the chat model on held-out questions by greedy decoding.

    python models/chat/evaluate.py                       # the committed weights on the committed questions
    python models/chat/evaluate.py --count 2000 --seed 99  # on freshly drawn held-out questions
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import generate
import tokenizer as tok
from network import Config, Llama

HERE = Path(__file__).parent


@torch.inference_mode()
def answers(model: Llama, tokenizer: Tokenizer, prompts: list[str], max_new: int = 256, batch: int = 64) -> list[str]:
    """Greedy answers. Prompts are padded on the right: causal attention never sees the padding."""
    end = tokenizer.token_to_id(tok.IM_END)
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(prompts, add_special_tokens=False)]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    results = [""] * len(encoded)
    for start in range(0, len(order), batch):
        live = {i: list(encoded[i]) for i in order[start:start + batch]}
        for _ in range(max_new):
            if not live:
                break
            keys, rows = list(live), list(live.values())
            ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
            for row, values in enumerate(rows):
                ids[row, : len(values)] = torch.tensor(values)
            hidden = model(ids)[torch.arange(len(rows)), torch.tensor([len(values) - 1 for values in rows])]
            for key, token in zip(keys, model.logits(hidden).argmax(-1).tolist()):
                live[key].append(token)
                if token == end or len(live[key]) >= model.config.max_position_embeddings:
                    results[key] = tokenizer.decode([t for t in live.pop(key)[len(encoded[key]):] if t != end])
        for key, values in live.items():
            results[key] = tokenizer.decode(values[len(encoded[key]):])
    return results


def score(model: Llama, tokenizer: Tokenizer, entries: list[dict[str, object]]) -> tuple[float, dict[str, list[bool]], list[str]]:
    """The share of right answers, the verdicts by kind of question, and a line for each wrong answer."""
    prompts = [tok.render(entry["messages"], prompt=True) for entry in entries]  # type: ignore[arg-type]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    wrong = []
    for entry, answer in zip(entries, answers(model, tokenizer, prompts)):
        right = re.search(str(entry["expect"]), answer) is not None
        by_kind[str(entry["kind"])].append(right)
        if not right:
            wrong.append(f"{entry['messages'][-1]['content']!r} -> {answer!r}, wanted /{entry['expect']}/")  # type: ignore[index]
    verdicts = [right for kind in by_kind.values() for right in kind]
    return sum(verdicts) / len(verdicts), dict(by_kind), wrong


def load(folder: Path) -> tuple[Llama, Tokenizer]:
    """The model of a Hugging Face folder, in single precision."""
    model = Llama(Config.from_json(json.loads((folder / "config.json").read_text())))
    model.load_hf(load_file(folder / "model.safetensors"))
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE / "hf")
    parser.add_argument("--count", type=int, help="draw this many fresh held-out questions instead of reading held-out.jsonl")
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    if args.count is None:
        entries = [json.loads(line) for line in (HERE / "held-out.jsonl").read_text(encoding="utf-8").splitlines()]
    else:
        entries = generate.held_out_questions(args.seed, args.count)
    accuracy, by_kind, wrong = score(*load(args.model), entries)
    if args.json:
        print(json.dumps({"metric": "accuracy", "value": round(accuracy, 4), "samples": len(entries)}))
        return
    for line in wrong:
        print("wrong:", line)
    for kind, verdicts in sorted(by_kind.items()):
        print(f"{kind:20} {sum(verdicts):4} / {len(verdicts)}")
    print(f"held-out accuracy {accuracy:.4f} on {len(entries)} questions")


if __name__ == "__main__":
    main()
