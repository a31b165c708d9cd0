"""What the intent classifier sees of a prompt: hashed n-grams of its characters and words.

Every rule is written so that another language gives the same numbers; `golden.json` holds a few for it to check itself against, and
`host/src/router/intent/features.rs` is that other language. What stands in capitals is kept with the weights.

1. A text of more than `LIMIT` characters (Unicode scalar values) is cut to its first and its last `LIMIT / 2`, with a line feed between
   them: what is wanted stands before or after what was pasted. Then it is put into lower case (Unicode's full mapping).
2. Runs of tab, line feed, vertical tab, form feed, carriage return, space and U+00A0 become one line feed if they contain a line
   feed, otherwise one space; such runs at both ends go. ASCII digits become `0`.
3. Characters: every n-gram of 1 to `LONGEST` characters of the text with one space before and one after it.
4. Words: a word is a run of ASCII letters, digits and characters from U+0080 on; any other character that is no white space
   is a word by itself. All single words, pairs and triples of neighbours, joined by one space.
5. Edges: single words and pairs among the first `EDGE` words and, as another kind, among the last `EDGE`; and the first word, the first
   two, the first three, the last and the last two once more, each as a kind of its own, where the text has so many.
6. An n-gram's bucket is FNV-1a (32 bits) over one byte for its kind and its UTF-8 bytes, folded to `BITS` bits:
   (h >> BITS ^ h) & (2^BITS - 1). Kinds: `c` characters; `w` `p` `t` one, two, three words; `a` `b` one, two of the first words; `y` `z` one, two
   of the last; `f` `g` `h` the first one, two, three; `l` `m` the last one, two.
7. Within each of the three parts a bucket's value is the square root of its count; each part is scaled to length one, and then counts
   1 (characters), `WORDS` and `EDGES` times as much. They share the buckets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

LIMIT = 2048
LONGEST = 5
EDGE = 16
BITS = 16
BUCKETS = 1 << BITS
WORDS = 1.0
EDGES = 0.7

SPACE = "\t\n\v\f\r \u00a0"
RUN = re.compile(f"[{SPACE}]+")
WORD = re.compile(f"[a-z0-9\u0080-\u009f\u00a1-\U0010ffff]+|[^{SPACE}]")
DIGIT = re.compile("[0-9]")


def cleaned(text: str) -> str:
    if len(text) > LIMIT:
        text = f"{text[: LIMIT // 2]}\n{text[-(LIMIT // 2) :]}"
    text = RUN.sub(lambda run: "\n" if "\n" in run[0] else " ", text.lower()).strip(SPACE)
    return DIGIT.sub("0", text)


def bucket(kind: str, gram: str) -> int:
    value = 0x811C9DC5
    for byte in (kind + gram).encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (value >> BITS ^ value) & BUCKETS - 1


def characters(text: str) -> Iterator[int]:
    padded = f" {text} "
    for length in range(1, LONGEST + 1):
        for start in range(len(padded) - length + 1):
            yield bucket("c", padded[start : start + length])


def runs(kinds: str, words: list[str]) -> Iterator[int]:
    """Single words, pairs and so on, one kind for each."""
    for length, kind in enumerate(kinds, 1):
        for start in range(len(words) - length + 1):
            yield bucket(kind, " ".join(words[start : start + length]))


def edges(words: list[str]) -> Iterator[int]:
    yield from runs("ab", words[:EDGE])
    yield from runs("yz", words[-EDGE:])
    for length, kind in enumerate("fgh", 1):
        if len(words) >= length:
            yield bucket(kind, " ".join(words[:length]))
    for length, kind in enumerate("lm", 1):
        if len(words) >= length:
            yield bucket(kind, " ".join(words[-length:]))


def block(buckets: Iterable[int], weight: float) -> dict[int, float]:
    counts = Counter(buckets)
    length = sum(counts.values()) ** 0.5  # the squares of the square roots of the counts, summed
    return {index: weight * count**0.5 / length for index, count in counts.items()}


def features(text: str) -> dict[int, float]:
    """The prompt's features that are not zero, by bucket."""
    text, out = cleaned(text), Counter()
    words = WORD.findall(text)
    for part in (block(characters(text), 1.0), block(runs("wpt", words), WORDS), block(edges(words), EDGES)):
        for index, value in part.items():
            out[index] += value
    return dict(sorted(out.items()))
