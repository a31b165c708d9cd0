"""The tokens: bytes, the words that occur, and Whisper's own, in the order that its vocabularies have."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from sentences import words

LANGUAGES = ["en", "de"]
END, START = "<|endoftext|>", "<|startoftranscript|>"
TIMES = 1501


def special() -> list[str]:
    """The tokens that are no text, in their order."""
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(TIMES)]
    return [END, START, *(f"<|{name}|>" for name in LANGUAGES + tasks), *times]


def make() -> Tokenizer:
    """A byte-level BPE whose merges lead to whole words."""
    vocabulary = {byte: at for at, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for word in words():
        [(letters, _)] = level.pre_tokenize_str(f" {word}")
        left = letters[0]
        for right in letters[1:]:
            if left + right not in vocabulary:
                vocabulary[left + right] = len(vocabulary)
                merges.append((left, right))
            left += right
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special()])
    return tokenizer
