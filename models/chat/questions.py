"""Questions with their answers: one function for each kind of question, each drawing from a seeded `random.Random`.

A kind returns a `Turn`. Turns of the same `thread` may follow each other elliptically ("And a lemon?").
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import knowledge as k


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    `expect` is a regular expression (the common subset of Python's `re` and Rust's `regex`) searched in an answer.
    `terse` is the answer under the instruction to use one word, `ellipsis` the short form of the question that is
    clear right after another turn of the same `thread`.
    """

    question: str
    answer: str
    expect: str
    terse: str | None = None
    ellipsis: str | None = None
    thread: str = ""


Kind = Callable[[random.Random], Turn]


def number(n: int) -> str:
    """A pattern that matches exactly this number."""
    return rf"\b{n}\b"


def _operand(rng: random.Random, n: int) -> str:
    return k.NUMBER_WORDS[n] if n <= 20 and rng.random() < 0.15 else str(n)


def add(rng: random.Random) -> Turn:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    x, y = _operand(rng, a), _operand(rng, b)
    question = rng.choice([
        f"What is {a} + {b}?", f"What is {x} plus {y}?", f"{a} + {b}", f"{a}+{b}", f"{a} + {b} = ?", f"How much is {x} and {y}?",
        f"Add {x} and {y}.", f"Can you add {x} and {y}?", f"What do {x} and {y} make?", f"What is the sum of {x} and {y}?",
        f"Calculate {a} + {b}.", f"Work out {x} plus {y}.", f"How much is {a} + {b}?", f"How much is {x} plus {y}?",
        f"If I add {y} to {x}, what do I get?", f"{x} plus {y} is what?", f"Compute {a} + {b}.", f"What does {x} plus {y} equal?",
    ])
    short = rng.choice([f"And {a} + {b}?", f"And {x} plus {y}?", f"What about {a} + {b}?", f"And {x} and {y}?"])
    return Turn(question, f"{a} + {b} = {a + b}.", rf"= {a + b}\.", f"{a + b}.", short, "add")


def subtract(rng: random.Random) -> Turn:
    a = rng.randint(0, 20)
    b = rng.randint(0, a)
    x, y = _operand(rng, a), _operand(rng, b)
    question = rng.choice([
        f"What is {a} - {b}?", f"What is {x} minus {y}?", f"{a} - {b}", f"{a}-{b}", f"{a} - {b} = ?", f"Take {y} away from {x}.",
        f"How much is {x} minus {y}?", f"Subtract {y} from {x}.", f"Calculate {a} - {b}.", f"How much is {a} - {b}?",
        f"What is {x} take away {y}?", f"If I take {y} from {x}, what is left?", f"Compute {a} - {b}.",
    ])
    short = rng.choice([f"And {a} - {b}?", f"And {x} minus {y}?", f"What about {a} - {b}?"])
    return Turn(question, f"{a} - {b} = {a - b}.", rf"= {a - b}\.", f"{a - b}.", short, "subtract")


def double(rng: random.Random) -> Turn:
    n = rng.randint(0, 20)
    x = _operand(rng, n)
    question = rng.choice([
        f"What is double {x}?", f"What is twice {x}?", f"Double {x}.", f"What is two times {x}?", f"What is 2 times {x}?",
        f"How much is twice {x}?", f"Can you double {x}?", f"What is the double of {x}?", f"How much is double {x}?",
    ])
    return Turn(question, f"Double {n} is {2 * n}.", rf"is {2 * n}\.", f"{2 * n}.", f"And double {x}?", "double")


def word_problem(rng: random.Random) -> Turn:
    name, (_, things) = rng.choice(k.NAMES), rng.choice(k.COUNTABLES)
    a, b = rng.randint(2, 10), rng.randint(1, 10)
    if rng.random() < 0.6:
        total = a + b
        story = rng.choice([
            f"{name} has {a} {things} and gets {b} more.", f"{name} has {a} {things} and finds {b} more.",
            f"{name} had {a} {things} and bought {b} more.", f"{name} has {a} {things}. Then {name} gets {b} more.",
        ])
    else:
        b = min(b, a)
        total = a - b
        story = rng.choice([
            f"{name} has {a} {things} and loses {b}.", f"{name} has {a} {things} and gives away {b}.",
            f"{name} had {a} {things} and lost {b}.", f"{name} has {a} {things}. Then {name} loses {b}.",
        ])
    ask = rng.choice([f"How many {things} does {name} have?", f"How many {things} does {name} have now?",
                      f"How many {things} are there now?", f"How many {things} is that?"])
    return Turn(f"{story} {ask}", f"{name} has {total} {things}.", number(total), f"{total}.")


def compare_numbers(rng: random.Random) -> Turn:
    a, b = rng.sample(range(0, 31), 2)
    style = rng.randrange(3)
    if style == 0:
        word = rng.choice(["bigger", "larger", "greater", "more"])
        question = rng.choice([f"Which is {word}, {a} or {b}?", f"What is {word}, {a} or {b}?", f"Which number is {word}: {a} or {b}?"])
        return Turn(question, f"{max(a, b)} is bigger than {min(a, b)}.", rf"^{max(a, b)}\b", f"{max(a, b)}.",
                    f"And {a} or {b}?", "bigger number")
    if style == 1:
        word = rng.choice(["smaller", "less", "lower"])
        question = rng.choice([f"Which is {word}, {a} or {b}?", f"What is {word}, {a} or {b}?", f"Which number is {word}: {a} or {b}?"])
        return Turn(question, f"{min(a, b)} is smaller than {max(a, b)}.", rf"^{min(a, b)}\b", f"{min(a, b)}.",
                    f"And {a} or {b}?", "smaller number")
    word, truth = (rng.choice(["more than", "bigger than", "greater than"]), a > b) if rng.random() < 0.5 else \
        (rng.choice(["less than", "smaller than"]), a < b)
    yes = "Yes" if truth else "No"
    relation = "bigger" if a > b else "smaller"
    return Turn(f"Is {a} {word} {b}?", f"{yes}, {a} is {relation} than {b}.", rf"^{yes}\b", f"{yes}.")


def neighbour(rng: random.Random) -> Turn:
    n = rng.randint(1, 60)
    if rng.random() < 0.6:
        question = rng.choice([f"What comes after {n}?", f"Which number comes after {n}?", f"What is the next number after {n}?",
                               f"Which number follows {n}?", f"What number is after {n}?", f"What is one more than {n}?"])
        return Turn(question, f"After {n} comes {n + 1}.", rf"comes {n + 1}\.", f"{n + 1}.", f"And after {n}?", "after")
    question = rng.choice([f"What comes before {n}?", f"Which number comes before {n}?", f"What number is before {n}?",
                           f"What is one less than {n}?", f"Which number is right before {n}?"])
    return Turn(question, f"Before {n} comes {n - 1}.", rf"comes {n - 1}\.", f"{n - 1}.", f"And before {n}?", "before")


def parity(rng: random.Random) -> Turn:
    n = rng.randint(0, 40)
    kind = "odd" if n % 2 else "even"
    asked = rng.choice(["even", "odd"])
    question = rng.choice([f"Is {n} {asked}?", f"Is {n} an {asked} number?", f"Is the number {n} {asked}?", f"Is {n} even or odd?"])
    if "even or odd" in question:
        return Turn(question, f"{n} is {kind}.", rf"\b{kind}\b", f"{kind.capitalize()}.", f"And {n}?", "parity")
    yes = "Yes" if kind == asked else "No"
    return Turn(question, f"{yes}, {n} is {kind}.", rf"^{yes}\b.*\b{kind}\b", f"{yes}.", f"And {n}?", f"is {asked}")


def count(rng: random.Random) -> Turn:
    style = rng.random()
    if style < 0.25:
        start = rng.randint(3, 15)
        numbers = list(range(start, 0, -1))
        question = rng.choice([f"Count down from {start}.", f"Count backwards from {start}.", f"Can you count down from {start}?",
                               f"Count down from {start} to 1.", f"Please start a countdown from {start}."])
    elif style < 0.5:
        start = rng.randint(2, 30)
        numbers = list(range(start, start + rng.randint(3, 8)))
        last = numbers[-1]
        question = rng.choice([f"Count from {start} to {last}.", f"Can you count from {start} to {last}?",
                               f"Say the numbers from {start} to {last}.", f"List the numbers from {start} to {last}."])
    else:
        last = rng.randint(20, 100) if rng.random() < 0.08 else rng.randint(3, 20)
        numbers = list(range(1, last + 1))
        question = rng.choice([f"Count to {last}.", f"Count from 1 to {last}.", f"Can you count to {last}?", f"Count up to {last}.",
                               f"Say the numbers from 1 to {last}.", f"List the numbers from 1 to {last}.", f"Please count to {last}."])
    text = ", ".join(map(str, numbers)) + "."
    return Turn(question, text, "^" + re.escape(text).replace(r"\ ", " ") + "$")


def count_words(rng: random.Random) -> Turn:
    singular, plural = rng.choice(k.COUNTABLES)
    n = rng.randint(1, 9)
    row = " ".join([singular] * n)
    question = rng.choice([f"How many {plural}: {row}?", f"Count the {plural}: {row}.", f"How many {plural} are here: {row}?",
                           f"How many {plural} do you see: {row}?"])
    things = singular if n == 1 else plural
    return Turn(question, f"I count {n} {things}.", number(n), f"{n}.")


def colour_of(rng: random.Random) -> Turn:
    thing = rng.choice(list(k.COLOUR_OF))
    colour = k.COLOUR_OF[thing]
    if rng.random() < 0.35:
        asked = colour if rng.random() < 0.5 else rng.choice(k.COLOURS)
        yes = "Yes" if asked == colour else "No"
        question = rng.choice([f"Is {thing} {asked}?", f"Is {thing} usually {asked}?", f"Is the colour of {thing} {asked}?",
                               f"Is it true that {thing} is {asked}?"])
        return Turn(question, f"{yes}, {thing} is {colour}.", rf"^{yes}\b.*\b{colour}\b", f"{yes}.")
    question = rng.choice([f"What colour is {thing}?", f"Which colour is {thing}?", f"What is the colour of {thing}?",
                           f"Which colour has {thing}?", f"What colour does {thing} have?", f"Tell me the colour of {thing}.",
                           f"Do you know the colour of {thing}?", f"What is the usual colour of {thing}?"])
    return Turn(question, f"{_capital(thing)} is {colour}.", rf"\b{colour}\b", f"{colour.capitalize()}.",
                rng.choice([f"And {thing}?", f"What about {thing}?", f"And what about {thing}?"]), "colour")


def something_coloured(rng: random.Random) -> Turn:
    colour = rng.choice(sorted(set(k.COLOUR_OF.values())))
    things = [thing for thing, c in k.COLOUR_OF.items() if c == colour]
    question = rng.choice([f"Name something {colour}.", f"What is {colour}?", f"Tell me something that is {colour}.",
                           f"Which thing is {colour}?", f"Give me an example of something {colour}.", f"Can you name something {colour}?",
                           f"What thing is {colour}?", f"Do you know something {colour}?"])
    pattern = "|".join(thing.split()[-1] for thing in things)
    return Turn(question, f"{_capital(rng.choice(things))} is {colour}.", rf"(?i)({pattern}) is {colour}", None,
                f"And something {colour}?", "something")


def mix(rng: random.Random) -> Turn:
    pair = rng.choice(list(k.MIXES))
    colour = k.MIXES[pair]
    a, b = rng.sample(pair, 2)
    question = rng.choice([
        f"What do {a} and {b} make?", f"What colour do you get from {a} and {b}?", f"Mix {a} and {b}.", f"What is {a} mixed with {b}?",
        f"If I mix {a} and {b}, what do I get?", f"Which colour do {a} and {b} make?", f"What happens when I mix {a} and {b}?",
        f"What colour is {a} and {b} together?", f"Which colour do I get when I mix {a} with {b}?", f"{_capital(a)} and {b} make which colour?",
        f"What do you get when you mix {a} and {b}?", f"What colour comes from {a} and {b}?", f"What does {a} and {b} paint make?",
    ])
    return Turn(question, f"{_capital(a)} and {b} make {colour}.", rf"make {colour}\b", f"{colour.capitalize()}.",
                rng.choice([f"And {a} and {b}?", f"What about {a} and {b}?"]), "mix")


def legs(rng: random.Random) -> Turn:
    animal = rng.choice(list(k.LEGS))
    n, name = k.LEGS[animal], animal.split(" ", 1)[1]
    question = rng.choice([f"How many legs does {animal} have?", f"How many legs has {animal}?", f"On how many legs does {animal} walk?",
                           f"What is the number of legs of {animal}?", f"Tell me how many legs {animal} has.",
                           f"How many legs are on {animal}?", f"{_capital(animal)} has how many legs?", f"How many legs does the {name} have?"])
    return Turn(question, f"{_capital(animal)} has {n} legs.", number(n), f"{n}.",
                rng.choice([f"And {animal}?", f"What about {animal}?", f"And what about {animal}?"]), "legs")


def sound(rng: random.Random) -> Turn:
    animal = rng.choice(list(k.SOUNDS))
    verb, name = k.SOUNDS[animal], animal.split(" ", 1)[1]
    question = rng.choice([f"What sound does {animal} make?", f"Which sound does {animal} make?", f"What noise does {animal} make?",
                           f"How does {animal} sound?", f"What does {animal} sound like?", f"What is the sound of {animal}?",
                           f"Which noise does {animal} make?", f"What sound does the {name} make?"])
    return Turn(question, f"{_capital(animal)} {verb}.", rf"\b{verb}\b", f"{verb.capitalize()}.",
                rng.choice([f"And {animal}?", f"What about {animal}?"]), "sound")


def home(rng: random.Random) -> Turn:
    animal = rng.choice(list(k.LIVES))
    place, name = k.LIVES[animal], animal.split(" ", 1)[1]
    question = rng.choice([f"Where does {animal} live?", f"Where do you find {animal}?", f"What is the home of {animal}?",
                           f"Where is the home of {animal}?", f"In which place does {animal} live?", f"Where can I find {animal}?",
                           f"Where does the {name} live?", f"Tell me where {animal} lives."])
    return Turn(question, f"{_capital(animal)} lives {place}.", place, f"{place.split()[-1].capitalize()}.",
                rng.choice([f"And {animal}?", f"What about {animal}?"]), "home")


def ability(rng: random.Random) -> Turn:
    verb = rng.choice(list(k.ABILITIES))
    able = rng.random() < 0.5
    subject = rng.choice(k.ABILITIES[verb][0 if able else 1])
    yes, can = ("Yes", "can") if able else ("No", "cannot")
    question = rng.choice([f"Can {subject} {verb}?", f"Is {subject} able to {verb}?", f"Is it true that {subject} can {verb}?",
                           f"Do you think {subject} can {verb}?", f"Can {subject} really {verb}?", f"Does {subject} {verb}?"])
    return Turn(question, f"{yes}, {subject} {can} {verb}.", rf"^{yes}\b", f"{yes}.", f"And {subject}?", verb)


def size(rng: random.Random) -> Turn:
    i, j = rng.sample(range(len(k.SIZES)), 2)
    a, b = k.SIZES[i], k.SIZES[j]
    big, small = (a, b) if i > j else (b, a)
    style = rng.randrange(3)
    if style == 0:
        word = rng.choice(["bigger", "larger"])
        question = rng.choice([f"Which is {word}, {a} or {b}?", f"What is {word}, {a} or {b}?", f"Who is {word}, {a} or {b}?"])
        return Turn(question, f"{_capital(big)} is bigger than {small}.", f"^{_capital(big)} is bigger", f"{big.split()[1].capitalize()}.",
                    f"And {a} or {b}?", "bigger thing")
    if style == 1:
        question = rng.choice([f"Which is smaller, {a} or {b}?", f"What is smaller, {a} or {b}?", f"Who is smaller, {a} or {b}?"])
        return Turn(question, f"{_capital(small)} is smaller than {big}.", f"^{_capital(small)} is smaller", f"{small.split()[1].capitalize()}.",
                    f"And {a} or {b}?", "smaller thing")
    word = rng.choice(["bigger", "larger", "smaller"])
    relation = "bigger" if i > j else "smaller"
    yes = "Yes" if (word == "smaller") == (relation == "smaller") else "No"
    return Turn(f"Is {a} {word} than {b}?", f"{yes}, {a} is {relation} than {b}.", rf"^{yes}\b", f"{yes}.")


def opposite(rng: random.Random) -> Turn:
    a, b = rng.sample(rng.choice(k.OPPOSITES), 2)
    question = rng.choice([f"What is the opposite of {a}?", f"Tell me the opposite of {a}.", f"Which word is the opposite of {a}?",
                           f"What is not {a} but the opposite?", f"Do you know the opposite of {a}?", f"Say the opposite of {a}.",
                           f"Name the opposite of {a}.", f"The opposite of {a} is what?", f"Give me the opposite of {a}."])
    return Turn(question, f"The opposite of {a} is {b}.", rf"is {b}\b", f"{b.capitalize()}.",
                rng.choice([f"And of {a}?", f"And the opposite of {a}?", f"What about {a}?"]), "opposite")


def calendar(rng: random.Random) -> Turn:
    names, word = (k.DAYS, "day") if rng.random() < 0.6 else (k.MONTHS, "month")
    i, after = rng.randrange(len(names)), rng.random() < 0.6
    here, there = names[i], names[(i + (1 if after else -1)) % len(names)]
    where = "after" if after else "before"
    question = rng.choice([f"What {word} comes {where} {here}?", f"Which {word} comes {where} {here}?", f"What comes {where} {here}?",
                           f"Which {word} is {where} {here}?", f"Tell me the {word} {where} {here}.", f"Name the {word} {where} {here}.",
                           f"What is the {word} {where} {here}?", f"Do you know the {word} {where} {here}?"])
    return Turn(question, f"{_capital(where)} {here} comes {there}.", rf"comes {there}\b", f"{there}.",
                rng.choice([f"And {where} {here}?", f"What about {where} {here}?"]), f"{word} {where}")


def echo(rng: random.Random) -> Turn:
    words = " ".join(rng.choice(k.WORDS) for _ in range(rng.randint(1, 6)))
    question = rng.choice([f"Say {words}.", f"Repeat after me: {words}.", f"Repeat: {words}.", f"Can you say {words}?",
                           f"Please say: {words}.", f"Write the words {words}."])
    return Turn(question, f"{_capital(words)}.", f"^{_capital(words)}\\.$")


def fact(rng: random.Random, table: list[tuple[list[str], str, str, str | None]]) -> Turn:
    """A question of one of the fact tables."""
    questions, answer, expect, terse = rng.choice(table)
    return Turn(rng.choice(questions), answer, expect, terse)


def unknown(rng: random.Random) -> Turn:
    question = rng.choice(k.UNKNOWN_QUESTIONS).format(rng.choice(k.UNKNOWN_SUBJECTS))
    return Turn(question, k.UNKNOWN_ANSWER, k.UNKNOWN_PATTERN)


def story(rng: random.Random) -> Turn:
    hero = rng.choice(["llama", "alpaca", "cat", "sheep", "mouse", "bear", "owl"])
    name, colour = rng.choice(k.NAMES), rng.choice(k.COLOURS)
    question = rng.choice([
        f"Tell me a story about a {hero}.", f"Tell a story about a {hero} named {name}.", f"Write a story about a {hero}.",
        f"Tell me a bedtime story about a {hero} named {name}.", f"Write a short story about a {hero} with {colour} pajamas.",
        f"Tell me a story about a {hero} with {colour} pajamas.", f"Can you tell me a story about a {hero}?",
    ])
    colour = colour if colour in question else rng.choice(k.COLOURS)
    place = rng.choice(["in the mountains", "near a quiet river", "in a small garden", "on a green farm", "under the big trees"])
    event = rng.choice([
        f"One night {name} could not sleep, so {name} counted the stars.",
        f"One evening {name} lost a button and looked for it everywhere.",
        f"One cold night {name} gave a blanket to a friend.",
        f"One day {name} found a soft pillow and took it home.",
    ])
    end = rng.choice([f"Then {name} slept until the morning.", f"In the end {name} was warm and happy.",
                      f"After that {name} smiled and went to bed."])
    text = f"Once there was a {hero} named {name} who lived {place}. {name} had {colour} pajamas. {event} {end}"
    return Turn(question, text, rf"Once there was an? {hero} named")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# Every kind with its share of the training text. Arithmetic is what a small model finds hardest.
KINDS: list[tuple[str, float, Kind]] = [
    ("add", 3.0, add), ("subtract", 2.2, subtract), ("double", 0.6, double), ("word_problem", 2.0, word_problem),
    ("compare_numbers", 1.6, compare_numbers), ("neighbour", 1.0, neighbour), ("parity", 1.2, parity), ("count", 1.6, count),
    ("count_words", 1.0, count_words), ("colour_of", 2.0, colour_of), ("something_coloured", 0.5, something_coloured),
    ("mix", 0.7, mix), ("legs", 0.9, legs), ("sound", 0.7, sound), ("home", 0.6, home), ("ability", 1.0, ability),
    ("size", 1.6, size), ("opposite", 0.9, opposite), ("calendar", 1.0, calendar), ("echo", 1.6, echo),
    ("llama", 1.8, lambda rng: fact(rng, k.LLAMA_FACTS)), ("pajamas", 1.8, lambda rng: fact(rng, k.PAJAMA_FACTS)),
    ("world", 0.9, lambda rng: fact(rng, k.WORLD_FACTS)), ("self", 1.6, lambda rng: fact(rng, k.SELF_FACTS)),
    ("small_talk", 1.3, lambda rng: fact(rng, k.SMALL_TALK)), ("unknown", 1.0, unknown), ("story", 0.4, story),
]
