r"""Postcards: the small world in which people have taste.

A postcard has a greeting, one or two sentences about a holiday by the sea and often a farewell. Whoever writes it is in
a mood: nine words of ten are as cheerful or as gloomy as the writer. A grammar draws the cards, from 76 words in all; a
policy that has learned from 60,000 of them writes such cards. No list of cheerful words is ever shown to it, but it can
know which words keep company. The first four tokens (`<start> dear anna ,`) are the prompt, the rest is the answer.

A *rule* is somebody with a taste who can say of any card how good it is: the gold reward, which in the real world
nobody has. It values each wanted word once, up to four of them, and takes points off for what no reader would like:
words said over and over, and a card that does not end.

Left out: meaning. The sea may be salty and late.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

CHEERFUL = ("sunny", "lovely", "warm", "calm", "golden", "happy", "kind", "fresh", "bright", "perfect")
GLOOMY = ("rainy", "cold", "grey", "late", "loud", "broken", "salty", "tired", "dull", "empty")
SEA = ("sea", "harbour", "boat", "beach", "lighthouse", "fish")
LAND = ("soup", "room", "bus", "garden", "market", "museum", "bread", "hotel")
NAMES = ("anna", "ben", "clara", "david", "ella", "finn")
GREETINGS = ("dear", "hello", "hi")
FAREWELLS = (
    ("see", "you", "soon"),
    ("wish", "you", "were", "here"),
    ("love", "from", "us"),
    ("thank", "you", "for", "everything"),
)
OTHER = (
    "the",
    "is",
    "was",
    "very",
    "and",
    "we",
    "saw",
    "liked",
    "hated",
    "found",
    "every",
    "day",
    "i",
    "miss",
    "love",
    "but",
    "today",
)
SPECIAL = ("<start>", "<end>")
MARKS = (",", ".", "!")
WORDS = tuple(
    dict.fromkeys(
        SPECIAL
        + MARKS
        + OTHER
        + GREETINGS
        + NAMES
        + SEA
        + LAND
        + CHEERFUL
        + GLOOMY
        + tuple(word for line in FAREWELLS for word in line)
    )
)
NUMBER = {word: i for i, word in enumerate(WORDS)}
START, END = NUMBER["<start>"], NUMBER["<end>"]
PROMPT = 4  # tokens: <start>, greeting, name, comma
LENGTH = 34  # tokens of the longest card, prompt and <end> included
MOOD = 0.9  # chance that a word with a mood has the writer's


class Draws:
    """Choices from a generator in one of two moods, and how likely each choice was in either; nobody is told the
    mood.
    """

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng
        self.log_p = [math.log(0.5), math.log(0.5)]  # of the choices so far and a cheerful writer, and a gloomy one
        self.gloomy = bool(torch.rand((), generator=rng) < 0.5)

    @property
    def surprisal(self) -> float:
        """-ln of the chance of all choices so far, in nats: the two moods' chances added up."""
        return -float(torch.logsumexp(torch.tensor(self.log_p, dtype=torch.float64), 0))

    def one(self, things: Sequence[str] | Sequence[tuple[str, ...]]) -> str | tuple[str, ...]:
        self.log_p = [p - math.log(len(things)) for p in self.log_p]
        return things[int(torch.randint(len(things), (), generator=self.rng))]

    def maybe(self, chance: float, if_gloomy: float | None = None) -> bool:
        chances = (chance, chance if if_gloomy is None else if_gloomy)
        yes = float(torch.rand((), generator=self.rng)) < chances[self.gloomy]
        self.log_p = [
            p + math.log(chance if yes else 1 - chance) for p, chance in zip(self.log_p, chances, strict=True)
        ]
        return yes

    def cheerful(self) -> bool:
        """Whether the next word is a cheerful one."""
        return self.maybe(MOOD, 1 - MOOD)

    def word(self, things: Sequence[str]) -> list[str]:
        return [str(self.one(things))]


def postcard(rng: torch.Generator) -> tuple[list[str], float]:
    """A card as words, `<start>` and `<end>` included, and its surprisal in nats: -ln of the chance that the grammar
    draws it.
    """
    draws = Draws(rng)
    words = ["<start>", *draws.word(GREETINGS), *draws.word(NAMES), ","]
    words += sentence(draws)
    if draws.maybe(0.6):
        words += sentence(draws)
    if draws.maybe(0.7):
        words += [*draws.one(FAREWELLS), "!" if draws.maybe(0.5) else "."]
    return [*words, "<end>"], draws.surprisal


def sentence(draws: Draws) -> list[str]:
    """One of three kinds: how something is, what we did, what I feel."""
    if draws.maybe(0.6):
        words = [*thing(draws), "is" if draws.maybe(0.5) else "was", *quality(draws)]
        if draws.maybe(0.35):
            words += [
                "and" if draws.maybe(0.6) else "but",
                *thing(draws),
                "is" if draws.maybe(0.5) else "was",
                *quality(draws),
            ]
    elif draws.maybe(0.6):
        did = draws.word(("saw", "found")) if draws.maybe(0.5) else ["liked" if draws.cheerful() else "hated"]
        words = ["we", *did, *thing(draws)]
        words += ["every", "day"] if draws.maybe(0.4) else []
    else:
        words = ["i", "miss" if draws.maybe(0.5) else "love", *thing(draws)]
        words += ["today"] if draws.maybe(0.4) else []
    return [*words, "!" if draws.maybe(0.2) else "."]


def thing(draws: Draws) -> list[str]:
    return ["the", *draws.word(SEA if draws.maybe(0.5) else LAND)]


def quality(draws: Draws) -> list[str]:
    words = ["very"] if draws.maybe(0.25) else []
    return words + draws.word(CHEERFUL if draws.cheerful() else GLOOMY)


def tokens_of(cards: Sequence[Sequence[str]]) -> Int[Tensor, "N T"]:
    """Cards as rows of word numbers, filled up with `<end>`."""
    rows = [[NUMBER[word] for word in card][:LENGTH] for card in cards]
    return torch.tensor([row + [END] * (LENGTH - len(row)) for row in rows])


def words_of(row: Int[Tensor, "T"]) -> list[str]:
    """The words of one card, without `<start>`, up to its `<end>`, which is left out."""
    words = [WORDS[token] for token in row.tolist()]
    return words[1 : words.index("<end>") if "<end>" in words else None]


def readable(words: Sequence[str]) -> str:
    """'dear anna, the sea is calm.'"""
    return " ".join(words).replace(" ,", ",").replace(" .", ".").replace(" !", "!")


# --- people with a taste ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Who chooses instead of the user, and what they like."""

    what: str
    points: Mapping[str, float]  # of each word, the first time it is said


RULES = {
    "cheerful": Rule("somebody who likes cheerful cards", dict.fromkeys(CHEERFUL, 1.0) | dict.fromkeys(GLOOMY, -1.0)),
    "gloomy": Rule("somebody who likes gloomy cards", dict.fromkeys(GLOOMY, 1.0) | dict.fromkeys(CHEERFUL, -1.0)),
    "sailor": Rule("a sailor, who wants to read about the sea", dict.fromkeys(SEA, 1.0)),
    "polite": Rule(
        "somebody who likes good manners",
        {"dear": 1.0, "thank": 1.5, "wish": 1.0, "love": 1.0, "hated": -1.0, "hi": -1.0},
    ),
}
MOST_POINTS = 4.0


def gold(words: Sequence[str], rule: str) -> float:
    """The rule's own judgement of a card (words as `words_of` gives them): wanted words once each and at most four
    points, less a point for each word said for the third time or more and for each word said twice in a row, less two
    without an end.
    """
    points = min(MOST_POINTS, sum(RULES[rule].points.get(word, 0.0) for word in set(words)))
    counted = [word for word in words if word not in MARKS and word != "the"]
    again = sum(max(0, counted.count(word) - 2) for word in set(counted))
    twice = sum(one == next_one for one, next_one in itertools.pairwise(words))
    ends = bool(words) and words[-1] in (".", "!") and len(words) < LENGTH - 1
    return points - again - twice - (0.0 if ends else 2.0)


def gold_of(tokens: Int[Tensor, "N T"], rule: str) -> Tensor:
    """The gold reward of each row, (N,)."""
    return torch.tensor([gold(words_of(row), rule) for row in tokens])


Judge = Callable[[Int[Tensor, "N T"]], Tensor]  # cards -> how good each is, (N,)
