"""Trains the chat model from nothing and writes the Hugging Face folder.

    python models/chat/train.py --out models/chat/hf
    python models/chat/train.py --start models/chat/hf --steps 1000 --rate 0.4 --seed 21    # go on, more gently
    python models/chat/export_gguf.py

One thread, fixed seeds. The assistant's tokens count fully in the loss and all others a little: questions teach what words
there are. Rows are conversations laid end to end, so the model also learns that earlier turns may have nothing to do with
the question.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

import generate
import tokenizer as tok
from evaluate import load, score
from network import Config, Llama

# The share of a token in the loss when the assistant did not say it.
ASIDE = 0.1
# Row length -> share of the steps: mostly short, so that single questions are common, some as long as the context.
ROW_LENGTHS = {128: 0.6, 256: 0.36, 1024: 0.04}


def weighted(tokenizer: Tokenizer, messages: list[dict[str, str]]) -> tuple[list[int], list[float]]:
    """Token ids and how much each counts in the loss."""
    ids: list[int] = []
    weights: list[float] = []
    for message in messages:
        head, body = f"{tok.IM_START}{message['role']}\n", f"{message['content']}{tok.IM_END}"
        for text, weight in ((head, ASIDE), (body, 1.0 if message["role"] == "assistant" else ASIDE), ("\n", ASIDE)):
            piece = tokenizer.encode(text, add_special_tokens=False).ids
            ids += piece
            weights += [weight] * len(piece)
    return ids, weights


def batches(tokenizer: Tokenizer, seed: int, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of one length each with about `tokens` tokens in all, one token longer than their length, and the weights of
    the tokens; every row begins with the begin of a conversation."""
    rng = random.Random(seed)
    source = generate.conversations(seed + 1)
    while True:
        length = rng.choices(list(ROW_LENGTHS), list(ROW_LENGTHS.values()))[0]
        rows = max(1, tokens // length)
        ids, weights = torch.zeros(rows, length + 1, dtype=torch.long), torch.zeros(rows, length + 1)
        for row in range(rows):
            filled: list[int] = []
            counts: list[float] = []
            while len(filled) <= length:
                piece, share = weighted(tokenizer, next(source))
                filled += piece
                counts += share
            ids[row], weights[row] = torch.tensor(filled[:length + 1]), torch.tensor(counts[:length + 1])
        yield ids, weights


def orthogonalized(update: Tensor) -> Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrix (Muon's quintic coefficients)."""
    x = (update / (update.norm() + 1e-7)).bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal: for the matrices inside the layers."""

    def __init__(self, parameters: list[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalized(parameter.grad.lerp(buffer, group["momentum"]))
                parameter.mul_(1 - 0.05 * group["lr"])
                parameter.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, parameter.shape[0] / parameter.shape[1])))


def pace(step: int, steps: int) -> float:
    """Share of the full learning rate: a short warm-up, a plateau, a linear descent over the last 60 %."""
    return min(1.0, (step + 1) / 50, max(0.01, (1 - step / steps) / 0.6))


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes everything a Hugging Face folder holds."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict_hf(), folder / "model.safetensors", metadata={"format": "pt"})
    tok.save(tokenizer, folder, model.config.max_position_embeddings)
    generation = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False, "max_new_tokens": 256}
    for name, value in (("config.json", model.config.to_json()), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def arguments(parser: argparse.ArgumentParser, steps: int) -> None:
    """What every training can be told."""
    parser.add_argument("--rate", type=float, default=1.0, help="share of the usual learning rate")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in a step")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--report", type=int, default=200, help="steps between two lines of progress")


def fit(model: Any, tokenizer: Any, args: argparse.Namespace, keep: Callable[[], None]) -> None:
    """Trains by what `arguments` read, calls `keep` now and then and at the end, and tells the held-out score."""
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {tokenizer.get_vocab_size()} tokens", flush=True)

    matrices = [p for p in model.layers.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    optimizers = [Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]

    total, began = 0.0, time.process_time()
    for step, (ids, weights) in enumerate(itertools.islice(batches(tokenizer, args.seed, args.tokens), args.steps)):
        for optimizer, rate in zip(optimizers, rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * args.rate * pace(step, args.steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model.logits(model(ids[:, :-1])).flatten(0, 1)
        surprise = F.cross_entropy(scores.float(), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        loss = (surprise * weight).sum() / weight.sum() + model.beside()
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        spoken = weight == 1.0
        total += surprise[spoken].mean().item()
        if (step + 1) % args.report == 0:
            spent = time.process_time() - began
            print(f"step {step + 1:5} of {args.steps}  loss of answers {total / args.report:.4f}  {(step + 1) * args.tokens / spent:.0f} tokens/s  "
                  f"{spent / 60:.1f} CPU minutes", flush=True)
            total = 0.0
        if (step + 1) % (4 * args.report) == 0:
            keep()
    keep()
    accuracy, _, wrong = score(model.eval(), tokenizer, generate.held_out_questions(seed=5, count=290))
    print(f"held-out accuracy {accuracy:.3f}; the first wrong answers: {wrong[:5]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "hf")
    parser.add_argument("--start", type=Path, help="go on from this Hugging Face folder and keep its tokenizer")
    arguments(parser, steps=4000)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    if args.start is None:
        config = Config()
        sample = itertools.islice(generate.conversations(args.seed), 30_000)
        tokenizer = tok.train((tok.render(messages) for messages in sample), config.vocab_size)
        model = Llama(config)
    else:
        model, tokenizer = load(args.start)
        model.train()
    fit(model, tokenizer, args, lambda: save(model, tokenizer, args.out))


if __name__ == "__main__":
    main()
