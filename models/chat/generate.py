"""Writes the text the chat model is trained and scored on: conversations, from a seed.

A question is *held out* when the hash of its bare words (no case, no punctuation, no politeness) falls into one bucket
of sixteen. No training conversation contains a held-out question, so every held-out score is on wordings or
combinations that the model has never read.

    python models/chat/generate.py --count 20                     # look at training conversations
    python models/chat/generate.py --held-out held-out.jsonl      # write the questions the score is measured on
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import knowledge as k
from questions import KINDS, Kind, Turn

Message = dict[str, str]

HELD_OUT_BUCKETS = 16
NEUTRAL_SYSTEMS = ["You are a helpful assistant.", "You are Pip.", "You are a kind assistant.", "Answer the questions of the user.",
                   "You are a tiny llama.", "Be helpful and kind.", "You are an assistant that answers in short sentences."]
TERSE_SYSTEMS = ["Answer with one word.", "Use one word only.", "Reply with a single word.", "One word answers only."]


def held_out(thread: str, question: str) -> bool:
    """Whether this question belongs to the held-out bucket."""
    bare = " ".join(re.findall(r"[a-z0-9+\-=]+", question.lower().replace("color", "colour")))
    digest = hashlib.sha256(f"{thread}|{bare}".encode()).digest()
    return digest[0] % HELD_OUT_BUCKETS == 0


def restyle(rng: random.Random, question: str) -> str:
    """The same question as different people type it."""
    if rng.random() < 0.1:
        question = question.replace("colour", "color")
    if rng.random() < 0.15:
        question = question.replace("What is ", "What's ", 1)
    if rng.random() < 0.06 and question[0].isalpha():
        question = rng.choice(["Hey, ", "Please, ", "Pip, ", "Tell me, ", "Quick question: "]) + question[0].lower() + question[1:]
        question = re.sub(r"\bi\b", "I", question)
    if rng.random() < 0.05 and question.endswith("?"):
        question = question[:-1] + rng.choice([", please?", ", Pip?"])
    if rng.random() < 0.12:
        question = question.lower()
    if rng.random() < 0.1:
        question = question.rstrip("?.!")
    return question


def _draw_kind(rng: random.Random) -> Kind:
    return rng.choices([kind for _, _, kind in KINDS], [weight for _, weight, _ in KINDS])[0]


def _ask(rng: random.Random, kind: Kind, previous: Turn | None, want_held_out: bool) -> tuple[Turn, str] | None:
    """A turn of this kind and the question's text; `None` when the draw fell on the wrong side of the split."""
    turn = kind(rng)
    follows = previous is not None and turn.ellipsis is not None and turn.thread == previous.thread
    if follows and rng.random() < 0.7:
        text, key = turn.ellipsis or "", f"follow:{turn.thread}"
    else:
        text, key = turn.question, ""
    if held_out(key, text) != want_held_out:
        return None
    return turn, text


def _remember(rng: random.Random, want_held_out: bool) -> tuple[list[Message], str] | None:
    """The user tells something and asks for it later; filler turns may lie between."""
    if rng.random() < 0.6:
        value = rng.choice(k.NAMES)
        told = rng.choice([f"My name is {value}.", f"I am {value}.", f"Hello, I am {value}.", f"Hi, my name is {value}."])
        reply, asked = f"Nice to meet you, {value}!", ["What is my name?", "Do you remember my name?", "Who am I?", "What am I called?",
                                                       "Tell me my name.", "Do you know my name?"]
        recall = f"Your name is {value}."
    else:
        value = rng.choice(k.COLOURS)
        told = rng.choice([f"My favourite colour is {value}.", f"I like {value} most.", f"The colour I love is {value}.",
                           f"I love the colour {value}."])
        reply, asked = f"{value.capitalize()} is a nice colour.", ["What is my favourite colour?", "Which colour do I like?",
                                                                   "Do you remember my favourite colour?", "Which colour do I like most?"]
        recall = f"Your favourite colour is {value}."
    messages = [{"role": "user", "content": told}, {"role": "assistant", "content": reply}]
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        drawn = _ask(rng, _draw_kind(rng), None, False)
        if drawn is not None and len(drawn[0].answer) < 80:
            messages += [{"role": "user", "content": drawn[1]}, {"role": "assistant", "content": drawn[0].answer}]
    question = rng.choice(asked)
    if held_out("recall", f"{question} {value}") != want_held_out:
        return None
    messages += [{"role": "user", "content": restyle(rng, question)}, {"role": "assistant", "content": recall}]
    return messages, rf"\b{value}\b"


def _persona(rng: random.Random, want_held_out: bool) -> tuple[list[Message], str] | None:
    """The system message gives the assistant another name."""
    name, colour = rng.choice(k.NAMES), rng.choice(k.COLOURS)
    if held_out("persona", f"{name} {colour}") != want_held_out:
        return None
    question = rng.choice(["Who are you?", "What is your name?", "Tell me your name.", "What are you?", "Introduce yourself."])
    return [{"role": "system", "content": rng.choice([f"You are {name}, a {colour} llama.", f"Your name is {name}. You are a {colour} llama."])},
            {"role": "user", "content": restyle(rng, question)},
            {"role": "assistant", "content": f"I am {name}, a {colour} llama."}], rf"{name}.*\b{colour}\b"


def conversation(rng: random.Random, *, turns: int, held: bool = False, kind: Kind | None = None) -> tuple[list[Message], str] | None:
    """One conversation and the pattern its last answer must match.

    With `held`, the last question is a held-out one and all questions before it are not; otherwise none is.
    Returns `None` when the random draws met the wrong side of the split: draw again.
    """
    if kind is None and rng.random() < 0.06:
        return _remember(rng, held)
    if kind is None and rng.random() < 0.03:
        return _persona(rng, held)
    fixed, kind = kind is not None, kind or _draw_kind(rng)
    messages: list[Message] = []
    terse, draw = False, rng.random()
    if draw < 0.12:
        messages.append({"role": "system", "content": rng.choice(NEUTRAL_SYSTEMS)})
    elif draw < 0.24:
        terse = True
        messages.append({"role": "system", "content": rng.choice(TERSE_SYSTEMS)})
    previous: Turn | None = None
    for index in range(turns):
        if index and not fixed and rng.random() < 0.4:
            kind = _draw_kind(rng)
        drawn = _ask(rng, kind, previous, held and index == turns - 1)
        if drawn is None:
            return None
        previous, text = drawn
        if terse and previous.terse is None:
            return None
        answer = previous.terse if terse and previous.terse else previous.answer
        messages += [{"role": "user", "content": restyle(rng, text)}, {"role": "assistant", "content": answer}]
    if previous is None:
        return None
    return messages, f"^{re.escape(previous.terse)}$" if terse and previous.terse else previous.expect


def conversations(seed: int) -> Iterator[list[Message]]:
    """Training conversations without end."""
    rng = random.Random(seed)
    while True:
        drawn = conversation(rng, turns=rng.choice([1, 1, 1, 1, 2, 2, 3, 4]))
        if drawn is not None:
            yield drawn[0]


def held_out_questions(seed: int, count: int) -> list[dict[str, object]]:
    """Distinct held-out questions, spread evenly over the kinds: `{"messages": [...], "expect": regex, "kind": name}`."""
    rng = random.Random(seed)
    entries: list[dict[str, object]] = []
    seen: set[str] = set()
    names = [(name, kind) for name, _, kind in KINDS] + [("remember", None), ("persona", None)]
    misses = 0
    while len(entries) < count and misses < 200_000:
        name, kind = names[len(entries) % len(names)] if misses < 2_000 else rng.choice(names)
        if name == "remember":
            drawn = _remember(rng, True)
        elif name == "persona":
            drawn = _persona(rng, True)
        else:
            drawn = conversation(rng, turns=rng.choice([1, 1, 1, 2]), held=True, kind=kind)
        if drawn is None:
            misses += 1
            continue
        messages = drawn[0][:-1]
        key = json.dumps(messages)
        if key in seen:
            misses += 1
            continue
        seen.add(key)
        misses = 0
        entries.append({"messages": messages, "expect": drawn[1], "kind": name})
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--held-out", type=Path, help="write held-out questions to this JSON-lines file instead of printing conversations")
    args = parser.parse_args()
    if args.held_out is not None:
        with args.held_out.open("w", encoding="utf-8") as file:
            for entry in held_out_questions(args.seed, args.count):
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        return
    for _, messages in zip(range(args.count), conversations(args.seed)):
        print(json.dumps(messages, ensure_ascii=False))


if __name__ == "__main__":
    main()
