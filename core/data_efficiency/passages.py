"""The passages of `dedup`: the paragraphs of a text with copies planted among them, and the settings of all this."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from core.data_efficiency.fleet import FleetConfig
from core.data_efficiency.minhash import alike, shingles_of
from core.foundations.corpus import Corpus
from core.foundations.experiment import setting

FEWEST_WORDS, FEWEST_PASSAGES = 12, 8
MOST_HASHES = 512
CHANGED = 0.45  # of the words of a near copy, at most
TOLD = 64  # characters that a model continues a passage for


@dataclass(frozen=True)
class DedupConfig(FleetConfig):
    """The text with its planted copies, and how they are searched."""

    corpus: str = setting(
        "reader",
        "Text to learn",
        choices=FleetConfig.__dataclass_fields__["corpus"].metadata["choices"],
        help="The text that the passages come from.",
    )
    plant: bool = setting(
        True, "Plant copies", help="Unticked, the text stays as it is: for a text of your own that has copies already."
    )
    copies: int = setting(
        200,
        "Copies",
        low=2,
        high=300,
        help="How often a repeated passage stands in the text. More copies are learned by heart.",
    )
    ngram: int = setting(
        3,
        "Words per shingle",
        unit="word",
        low=1,
        high=10,
        help="Longer shingles make passages with changed words look less alike; datatrove takes 5.",
        slider=True,
    )
    bands: int = setting(
        20,
        "Bands b",
        unit="band",
        low=2,
        high=64,
        help="More bands find more pairs, wrong ones too; datatrove takes 14.",
    )
    rows: int = setting(
        5,
        "Rows per band r",
        unit="row",
        low=1,
        high=32,
        help="More rows per band find only pairs that are more alike; datatrove takes 8.",
    )
    passages: int = setting(
        100,
        "Passages",
        unit="passage",
        low=FEWEST_PASSAGES,
        high=400,
        more=True,
        help="More different passages make a larger text, of which the copies are a smaller part.",
    )
    repeated: int = setting(
        2,
        "Repeated passages",
        unit="passage",
        low=1,
        high=12,
        more=True,
        help="How many passages are planted again and again.",
        slider=True,
    )
    near: int = setting(
        60,
        "Near copies",
        unit="passage",
        low=1,
        high=200,
        more=True,
        help="How many passages are planted with some words changed; more fill the curve with more pairs.",
    )
    tokens: int = setting(
        81_920,
        "Token budget",
        unit="character",
        low=64,
        high=1_000_000,
        help="How many characters each model reads; here a token is a character. More takes longer.",
    )
    width: int = setting(
        48,
        "Width",
        unit="number",
        low=8,
        high=64,
        help="Elements per character inside a model, a multiple of 4. Wider models learn more by heart.",
    )

    learning_rate: float = setting(
        0.01,
        "Learning rate",
        low=1e-5,
        high=1.0,
        more=True,
        help="At its highest: too low learns slowly, too high blows up.",
    )

    def check(self) -> None:
        super().check()
        if self.bands * self.rows > MOST_HASHES:
            raise ValueError(
                f"bands times rows must be at most {MOST_HASHES} hash functions, got {self.bands} x {self.rows} ="
                f" {self.bands * self.rows}"
            )


@dataclass(frozen=True)
class Collection:
    """Passages with copies among them."""

    documents: tuple[str, ...]  # in the order they are read
    shingles: tuple[frozenset[str], ...]  # of each document
    pairs: tuple[tuple[int, int, float], ...]  # two documents and their true similarity


def passages_of(text: str) -> list[str]:
    """The paragraphs that are long enough to be compared."""
    found = [part.strip() for part in re.split(r"\n\s*\n" if "\n\n" in text else r"\n", text)]
    found = [part for part in found if len(re.findall(r"\w+", part)) >= FEWEST_WORDS]
    if len(found) < FEWEST_PASSAGES:
        raise ValueError(
            f"Your text needs at least {FEWEST_PASSAGES} paragraphs of {FEWEST_WORDS} words or more, with empty lines"
            f" between, got {len(found)}"
        )
    return found


def collect(config: DedupConfig, corpus: Corpus) -> Collection:
    """The passages, shuffled, with copies planted if they are asked for."""
    found, rng = passages_of(corpus.train), torch.Generator().manual_seed(config.seed)
    if config.plant:
        different = list(dict.fromkeys(found))
        order = torch.randperm(len(different), generator=rng).tolist()
        chosen = [different[at] for at in order[: config.passages]]
        enough = config.context + TOLD
        repeated = sorted(range(len(chosen)), key=lambda at: (len(chosen[at]) < enough, abs(len(chosen[at]) - enough)))[
            : config.repeated
        ]
        words = [word for text in chosen for word in text.split()]
        near = [
            reworded(chosen[number % len(chosen)], CHANGED * (number + 1) / config.near, words, rng)
            for number in range(config.near)
        ]
        chosen += [chosen[at] for at in repeated for _ in range(config.copies - 1)] + near
        found = [chosen[at] for at in torch.randperm(len(chosen), generator=rng).tolist()]
    documents = found if config.plant else found[: config.passages]
    shingles = tuple(shingles_of(text, config.ngram) for text in documents)
    return Collection(tuple(documents), shingles, tuple(alike(shingles)))


def reworded(text: str, share: float, words: Sequence[str], rng: torch.Generator) -> str:
    """The text with a share of its words replaced by words of other passages; its line breaks become spaces."""
    parts = text.split()
    for at in torch.randperm(len(parts), generator=rng)[: max(1, round(share * len(parts)))].tolist():
        parts[at] = words[int(torch.randint(len(words), (1,), generator=rng))]
    return " ".join(parts)
