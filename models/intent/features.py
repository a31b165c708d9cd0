"""What the intent classifier sees of a prompt: hashed n-grams of its characters and words.

Every rule is written so that another language gives the same numbers; `golden.json` holds a few for it to check itself against.

1. The text is cut to its first 2,048 characters (Unicode scalar values) and put into lower case (Unicode's full mapping).
2. Runs of tab, line feed, vertical tab, form feed, carriage return, space and U+00A0 become one line feed if they contain a line
   feed, otherwise one space; such runs at both ends go. ASCII digits become `0`.
3. Characters: every n-gram of 1 to 4 characters of the text with one space before and one after it.
4. Words: a word is a run of ASCII letters, digits and characters from U+0080 on; any other character that is no white space
   is a word by itself. All single words and all pairs of neighbours joined by one space; and the first word once more as itself.
5. An n-gram's bucket is FNV-1a (32 bits) over one byte for its kind (`c`, `w`, `p`, `f`) and its UTF-8 bytes, folded to
   `BITS` bits: (h >> BITS ^ h) & (2^BITS - 1).
6. Within the characters and within the words a bucket's value is the square root of its count; each of the two is scaled to length
   one, and the words count `WORDS` times as much. Both share the buckets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

LIMIT = 2048
LONGEST = 4
BITS = 15
BUCKETS = 1 << BITS
WORDS = 1.0

SPACE = "\t\n\v\f\r \u00a0"
RUN = re.compile(f"[{SPACE}]+")
WORD = re.compile(f"[a-z0-9\u0080-\u009f\u00a1-\U0010ffff]+|[^{SPACE}]")
DIGIT = re.compile("[0-9]")


def cleaned(text: str) -> str:
    text = RUN.sub(lambda run: "\n" if "\n" in run[0] else " ", text[:LIMIT].lower()).strip(SPACE)
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


def words(text: str) -> Iterator[int]:
    found = WORD.findall(text)
    for word in found:
        yield bucket("w", word)
    for first, second in zip(found, found[1:]):
        yield bucket("p", f"{first} {second}")
    for word in found[:1]:
        yield bucket("f", word)


def block(buckets: Iterable[int], weight: float) -> dict[int, float]:
    counts = Counter(buckets)
    length = sum(counts.values()) ** 0.5  # the squares of the square roots of the counts, summed
    return {index: weight * count**0.5 / length for index, count in counts.items()}


def vector(text: str) -> NDArray[np.float32]:
    """The prompt's features, [BUCKETS]."""
    text, out = cleaned(text), np.zeros(BUCKETS, np.float32)
    for part in (block(characters(text), 1.0), block(words(text), WORDS)):
        for index, value in part.items():
            out[index] += value
    return out
