"""Trains the model that listens, from nothing, on speech that espeak-ng makes, and writes the Hugging Face folder.

    python models/listen/train.py --minutes 70 --out models/listen/hf

One thread, fixed seeds. First single words in short windows, then sentences, then several in a row. A second head on the encoder
(CTC, discarded at the end) tells it early which sound is which word.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

import tokens
from features import RATE, log_mel
from network import Config, Whisper
from sentences import sentence
from speech import Said, recording, say, voice

# Share of the time -> longest sentence, seconds of a window, sentences in a recording, rows of a batch.
STAGES = [(0.25, 2, 2.0, 1, 32), (0.55, 5, 4.0, 1, 20), (0.85, 6, 8.0, 3, 10), (1.0, 6, 14.0, 4, 6)]
# Every so many steps a window is as long as those that are listened to later: mostly silence.
WHOLE_EVERY, WHOLE_SECONDS = 12, 30.0
SILENT = 0.06


def pool(seed: int, size: int, longest: int) -> list[Said]:
    """Sentences, each by some voice."""
    rng = random.Random(seed)
    made = []
    while len(made) < size:
        one = sentence(rng, longest)
        made.append(Said(one, say(one.text, voice(rng, one.language))))
    return made


class Rows:
    """Recordings with what is written for them."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer, self.rng = tokenizer, random.Random(seed)
        self.id = {name: tokenizer.token_to_id(name) for name in tokens.special()}

    def text(self, words: str) -> list[int]:
        return self.tokenizer.encode(f" {words}", add_special_tokens=False).ids

    def row(self, said: list[Said], seconds: float, most: int) -> tuple[np.ndarray, list[int], list[int]]:
        """The sound, all tokens, and the words alone, in the language that was spoken."""
        rng, at = self.rng, self.id
        if rng.random() < SILENT:
            sound, _ = recording(rng, [], seconds)
            return sound, [at[tokens.START], at["<|nospeech|>"], at[tokens.END]], []
        language = rng.choice(said).sentence.language
        # A recording has one language.
        fitting = [one for one in rng.sample(said, min(len(said), 60)) if one.sentence.language == language and len(one.sound) < (seconds - 0.7) * RATE]
        sound, placed = recording(rng, fitting[:rng.randint(1, most)], seconds)
        if not placed:
            return sound, [at[tokens.START], at["<|nospeech|>"], at[tokens.END]], []
        translate = rng.random() < (0.4 if language == "de" else 0.05)
        ids = [at[tokens.START], at[f"<|{language}|>"], at["<|translate|>" if translate else "<|transcribe|>"]]
        timed = rng.random() < 0.6
        ids += [] if timed else [at["<|notimestamps|>"]]
        heard: list[int] = []
        for begin, end, one in placed:
            words = self.text(one.english if translate else one.text)
            heard += self.text(one.text)
            ids += [self.time(begin), *words, self.time(end)] if timed else words
        return sound, [*ids, at[tokens.END]], heard

    def time(self, seconds: float) -> int:
        return self.id[f"<|{min(round(seconds / 0.02), tokens.TIMES - 1) * 0.02:.2f}|>"]

    def batch(self, said: list[Said], seconds: float, most: int, rows: int) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Features, tokens padded with -1, and the words of each."""
        made = [self.row(said, seconds, most) for _ in range(rows)]
        longest = max(len(ids) for _, ids, _ in made)
        ids = torch.full((rows, longest), -1)
        for at, (_, row, _) in enumerate(made):
            ids[at, :len(row)] = torch.tensor(row)
        return log_mel(torch.from_numpy(np.stack([sound for sound, _, _ in made]))), ids, [words for _, _, words in made]


def loss_of(network: Whisper, head: nn.Linear, batch: tuple[Tensor, Tensor, list[list[int]]], ctc: float) -> tuple[Tensor, float]:
    """The whole loss, and the share of tokens that were right."""
    features, ids, words = batch
    logits, heard = network(features, ids[:, :-1].clamp(min=0))
    targets = ids[:, 1:]
    loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, label_smoothing=0.05)
    right = ((logits.argmax(-1) == targets) & (targets >= 0)).sum() / (targets >= 0).sum()
    if ctc > 0:
        scores = head(heard.float()).log_softmax(-1).transpose(0, 1)
        lengths = torch.tensor([len(row) for row in words])
        flat = torch.tensor([token for row in words for token in row], dtype=torch.long)
        inputs = torch.full((len(words),), scores.shape[0])
        loss = loss + ctc * F.ctc_loss(scores, flat, inputs, lengths, blank=head.out_features - 1, zero_infinity=True)
    return loss, right.item()


def train(network: Whisper, tokenizer: Tokenizer, minutes: float, seed: int) -> None:
    """Trains for so many minutes of one core."""
    head = nn.Linear(network.config.d_model, tokenizer.token_to_id(tokens.END) + 1)
    weights = [p for p in [*network.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0, betas=(0.9, 0.98), weight_decay=0.01)
    rows = Rows(tokenizer, seed)
    began, step, shown, said, stage_of_pool = time.process_time(), 0, 0.0, [], -1
    network.train()
    while (done := (time.process_time() - began) / (minutes * 60)) < 1:
        stage = next(at for at, (share, *_) in enumerate(STAGES) if done < share)
        _, longest, seconds, most, size = STAGES[stage]
        if stage != stage_of_pool:
            said, stage_of_pool = pool(seed * 10 + stage, 700 if stage == 0 else 1200, longest) + said[-400:], stage
        if step % 400 == 399:
            # Fresh sentences and voices, a few at a time.
            said = said[60:] + pool(seed * 1000 + step, 60, longest)
        if stage > 0 and step % WHOLE_EVERY == 0:
            seconds, size = WHOLE_SECONDS, 2
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-5
        with torch.autocast("cpu", torch.bfloat16):
            loss, right = loss_of(network, head, rows.batch(said, seconds, most, size), 0.5 if done < 0.7 else 0.1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        shown, step = 0.98 * shown + 0.02 * right, step + 1
        if step % 50 == 0:
            print(f"{step:6} {done:4.0%} loss {loss.item():.3f} right {shown / (1 - 0.98 ** min(step, 500)):.3f}", flush=True)


def save(network: Whisper, tokenizer: Tokenizer, folder: Path) -> None:
    """The Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"model.{name}": value.half() for name, value in network.state_dict().items()}, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    at = tokenizer.token_to_id
    sizes = asdict(network.config)
    heads = {f"{side}_{key}": sizes[value] for side in ("encoder", "decoder") for key, value in (("attention_heads", "attention_heads"), ("ffn_dim", "ffn_dim"))}
    del sizes["attention_heads"], sizes["ffn_dim"]
    files = {
        "config.json": {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "activation_function": "gelu", **sizes, **heads,
                        "scale_embedding": False, "is_encoder_decoder": True, "decoder_start_token_id": at(tokens.START), "bos_token_id": at(tokens.END),
                        "eos_token_id": at(tokens.END), "pad_token_id": at(tokens.END), "suppress_tokens": None, "begin_suppress_tokens": None},
        "generation_config.json": {"is_multilingual": True, "no_timestamps_token_id": at("<|notimestamps|>"), "max_initial_timestamp_index": 250,
                                   "lang_to_id": {f"<|{name}|>": at(f"<|{name}|>") for name in tokens.LANGUAGES},
                                   "task_to_id": {name: at(f"<|{name}|>") for name in ("transcribe", "translate")},
                                   "suppress_tokens": [], "begin_suppress_tokens": []},
        "preprocessor_config.json": {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80, "sampling_rate": RATE, "hop_length": 160,
                                     "n_fft": 400, "chunk_length": 30, "n_samples": 480_000, "nb_max_frames": 3000, "padding_value": 0.0},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def load(folder: Path) -> Whisper:
    """The network of a Hugging Face folder."""
    config = json.loads((folder / "config.json").read_text())
    names = [name for name in Config.__dataclass_fields__ if name in config]
    network = Whisper(Config(**{name: config[name] for name in names}, attention_heads=config["encoder_attention_heads"], ffn_dim=config["encoder_ffn_dim"]))
    network.load_state_dict({name.removeprefix("model."): value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "hf")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tokenizer = tokens.make()
    network = load(args.start) if args.start else Whisper(Config(tokenizer.get_vocab_size()))
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    train(network, tokenizer, args.minutes, args.seed)
    save(network.eval(), tokenizer, args.out)


if __name__ == "__main__":
    main()
