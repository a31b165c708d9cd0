"""A tokenizer of pieces (SentencePiece, as Gemma's), with the few methods of `tokenizers.Tokenizer` that the chat model's scripts
use."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece as spm

import tokenizer as tok

SPECIAL = (tok.END_OF_TEXT, tok.IM_START, tok.IM_END)


@dataclass(frozen=True)
class Encoding:
    ids: list[int]


class Pieces:
    """`tokenizer.model`, and nothing added before or after a text."""

    def __init__(self, model: bytes) -> None:
        self.model, self.processor = model, spm.SentencePieceProcessor(model_proto=model)

    def get_vocab_size(self) -> int:
        return self.processor.vocab_size()

    def token_to_id(self, token: str) -> int:
        return self.processor.piece_to_id(token)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> Encoding:
        return Encoding(self.processor.encode(text))

    def encode_batch(self, texts: list[str], *, add_special_tokens: bool = False) -> list[Encoding]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: list[int]) -> str:
        return self.processor.decode(ids)


def train(texts: Iterable[str], vocab_size: int) -> Pieces:
    """Pieces by pairs, bytes for what has none, numbers whole, and text as it stands."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=vocab_size, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        character_coverage=1.0, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, num_threads=1, minloglevel=2,
        user_defined_symbols=[*SPECIAL, "\n"])
    return Pieces(model.getvalue())


def save(pieces: Pieces, folder: Path, context: int) -> None:
    """Writes tokenizer.model and tokenizer_config.json."""
    (folder / "tokenizer.model").write_bytes(pieces.model)
    added = {str(pieces.token_to_id(text)): {"content": text, "lstrip": False, "normalized": False, "rstrip": False,
                                             "single_word": False, "special": True} for text in SPECIAL}
    config = {"added_tokens_decoder": added, "add_bos_token": False, "add_eos_token": False, "bos_token": tok.END_OF_TEXT,
              "eos_token": tok.IM_END, "pad_token": tok.END_OF_TEXT, "unk_token": "<unk>", "chat_template": tok.CHAT_TEMPLATE,
              "clean_up_tokenization_spaces": False, "model_max_length": context, "tokenizer_class": "GemmaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
