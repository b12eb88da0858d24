r"""Texts to learn from, as characters: what they are, how they split, and what a table of n-grams would know of them.

The dashed lines on the loss chart are n-gram baselines: what tables of the training text alone reach on the validation
text. A model of the tables is the simplest language model there is:

$$P(x_t \mid h) = \frac{c(h, x_t) + T(h)\,P(x_t \mid h')}{c(h) + T(h)}$$

$c$ counts how often characters followed the history $h$ of the one or two characters before, $T(h)$ how many different
ones did, and $h'$ is the history without its first character (Witten-Bell smoothing). Guessing blindly costs $\ln V$; a
unigram table knows how often each character occurs, a bigram table the pairs, a trigram table the triples. A model
whose validation loss lies below a line has learned more than that table holds. All in nats per character (1 nat = 1.443
bits).

Left out: longer histories, and better smoothing (Kneser-Ney).
Source: Shannon 1951, "Prediction and Entropy of Printed English"; Witten and Bell 1991, "The zero-frequency problem",
method C.
"""

import codecs
import math
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

ASSETS = Path(__file__).parents[2] / "assets"
OWN_TEXT_BYTES = 5_000_000
SHORTEST_CONTEXT = 8  # characters; the shortest that the tab offers
MOST_SYMBOLS = 5_000  # different characters a model may know; the output layer has one row for each

CORPORA = {
    "play": "The Lantern of Saltmere, a play written for this app",
    "python": "Python's own manual, from this machine",
    "reader": "The Harbour Reader, modern prose written for this app",
    "play+python": "the play and the manual together",
    "tinyshakespeare": "Tiny Shakespeare (1.1 MB, downloaded once)",
    "own": "your own text",
}

TINY_SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
TINY_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class Corpus:
    """A text split in two: the model learns from `train` and is evaluated on `validation`, which it never sees."""

    name: str
    train: str
    validation: str
    symbols: str  # the different characters, sorted; a character's id is its place here

    @property
    def text(self) -> str:
        return self.train + self.validation

    def encode(self, text: str) -> list[int]:
        """Ids of the characters; those the corpus does not have are left out."""
        table = {symbol: i for i, symbol in enumerate(self.symbols)}
        return [table[symbol] for symbol in text if symbol in table]

    @cached_property
    def train_ids(self) -> Int[Tensor, "N"]:
        return character_ids(self.train, self.symbols)

    @cached_property
    def validation_ids(self) -> Int[Tensor, "N"]:
        return character_ids(self.validation, self.symbols)


def character_ids(text: str, symbols: str) -> Int[Tensor, "N"]:
    """A text as a row of ids; every character of it must be among the symbols."""
    codes, known = (np.frombuffer(part.encode("utf-32-le"), dtype=np.uint32) for part in (text, symbols))
    return torch.from_numpy(np.searchsorted(known, codes))


def load_corpus(name: str, pasted: str = "", uploaded: bytes = b"") -> Corpus:
    """A corpus by name. `own` takes the uploaded file if there is one, else the pasted text."""
    if name == "own":
        return split("own", [own_text(pasted, uploaded)])
    return shipped_corpus(name)


@cache
def shipped_corpus(name: str) -> Corpus:
    sources = {"play": the_play, "python": python_manual, "reader": the_reader, "tinyshakespeare": tiny_shakespeare}
    return split(name, [sources[part]() for part in name.split("+")])


def split(name: str, texts: list[str]) -> Corpus:
    """The first 90 % of each text is learned from, the last 10 % is for judging."""
    cuts = [int(0.9 * len(text)) for text in texts]
    train = "".join(text[:cut] for text, cut in zip(texts, cuts, strict=True))
    validation = "".join(text[cut:] for text, cut in zip(texts, cuts, strict=True))
    return Corpus(name, train, validation, "".join(sorted(set(train + validation))))


def the_play() -> str:
    return (ASSETS / "corpora" / "the_lantern_of_saltmere.txt").read_text(encoding="utf-8")


def the_reader() -> str:
    return (ASSETS / "corpora" / "the_harbour_reader.txt").read_text(encoding="utf-8")


def python_manual() -> str:
    """The help topics that ship inside every Python (`help("assert")` prints one of them)."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def tiny_shakespeare() -> str:
    """Downloaded once from where nanoGPT's prepare.py takes it, kept in the user's cache, checked by its SHA-256."""
    import logging

    import pooch

    pooch.get_logger().setLevel(logging.ERROR)
    try:
        path = pooch.retrieve(
            TINY_SHAKESPEARE,
            known_hash="sha256:" + TINY_SHAKESPEARE_SHA256,
            fname="tinyshakespeare.txt",
            path=pooch.os_cache("everything-about-llms"),
            downloader=pooch.HTTPDownloader(timeout=5),
        )
    except (OSError, ValueError):  # no network, no answer within 5 s, or not the file that was expected
        raise ValueError(
            "Tiny Shakespeare could not be downloaded: it needs the network once; please choose another text"
        ) from None
    return Path(path).read_text(encoding="utf-8")


def decoded(file: bytes) -> str:
    """A text file in UTF-8, or in UTF-16 with its byte-order mark; others are refused with the way to fix it."""
    utf32 = file.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE))
    utf16 = not utf32 and file.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    unmarked = (
        not utf16 and not utf32 and 4 * file.count(0) > len(file)
    )  # every other byte of Latin text in UTF-16 is 0
    try:
        if not utf32 and not unmarked:
            text = file.decode("utf-16" if utf16 else "utf-8-sig")
            unmarked = 10 * sum(symbol < " " and symbol not in "\t\n\v\f\r" for symbol in text) > len(text)
            if not unmarked:  # Cyrillic in UTF-16 is full of control characters, Chinese is no UTF-8
                return text
    except UnicodeDecodeError:
        pass
    it_is = "looks like UTF-16 without its mark" if unmarked else "is not"
    raise ValueError(
        f"Your file must be plain text in UTF-8, and this one {it_is}: open it in an editor and save it as UTF-8 (in"
        " Notepad: Save as, Encoding: UTF-8)"
    )


def own_text(pasted: str, uploaded: bytes) -> str:
    """The user's text, or one sentence that says why it cannot be learned from."""
    if len(uploaded) > OWN_TEXT_BYTES or len(pasted.encode("utf-8", "replace")) > OWN_TEXT_BYTES:
        raise ValueError(
            "Your text must be at most 5 MB, got"
            f" {max(len(uploaded), len(pasted.encode('utf-8', 'replace'))) / 1e6:.1f} MB"
        )
    text = decoded(uploaded) if uploaded else pasted.removeprefix("\ufeff")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if any("\ud800" <= symbol <= "\udfff" for symbol in set(text)):
        raise ValueError(
            "Your text holds half of a character (a lone surrogate), which no file can hold: please paste it again"
        )
    symbols = len(set(text))
    if not text.strip():
        raise ValueError("Your own text is empty: paste some, or upload a .txt file")
    if symbols < 2:
        raise ValueError("Your text needs at least 2 different characters, got 1: there would be nothing to predict")
    if symbols > MOST_SYMBOLS:
        raise ValueError(f"Your text may have at most {MOST_SYMBOLS:,} different characters, got {symbols:,}")
    return text


def check_length(corpus: Corpus, context: int) -> None:
    """Both parts must hold one window of `context` characters and the character after it."""
    shortest = min(len(corpus.train), len(corpus.validation))
    if shortest >= context + 1:
        return
    length, most = len(corpus.text), shortest - 1
    needed = 10 * context + 1  # a tenth is kept for judging, and must hold a window and the character after it
    start = (
        f"Your text is too short: it has {length:,} characters, and a context of {context} needs {needed:,}, since a"
        " tenth is"
    )
    if most < SHORTEST_CONTEXT:
        raise ValueError(
            f"{start} kept for judging; paste at least {10 * SHORTEST_CONTEXT + 1} characters and set the context to 8"
        )
    raise ValueError(f"{start} kept for judging; paste more, or set the context to at most {most}")


def ngram_baselines(corpus: Corpus) -> dict[str, float]:
    """ln V, and the loss on the validation text of tables of 1, 2 and 3 characters of the training text, in nats."""
    size = len(corpus.symbols)
    train, evaluated = corpus.train_ids.numpy().astype(np.int64), corpus.validation_ids.numpy().astype(np.int64)
    p = np.full(
        len(evaluated), 1 / size
    )  # each character's probability by the tables so far; at first all are equally likely
    losses = {"ln V": math.log(size)}
    for n, name in enumerate(("unigram", "bigram", "trigram")):
        p = with_longer_history(p, train, evaluated, n, size)
        losses[name] = float(-np.log(p[n:]).mean())
    return losses


def with_longer_history(
    shorter: Float[np.ndarray, "N"], train: Int[np.ndarray, "M"], evaluated: Int[np.ndarray, "N"], n: int, size: int
) -> Float[np.ndarray, "N"]:
    """Witten-Bell: P(x | h) of every evaluated character given the n before it, from P(x | h') in `shorter`.

    Needs size^(n + 1) < 2^63. The first n characters have no such history and keep what they had.
    """
    blocks, counts = np.unique(blocks_of(train, n + 1, size), return_counts=True)
    histories, first = np.unique(
        blocks // size, return_index=True
    )  # blocks are sorted, so those of a history stand together
    totals, kinds = np.add.reduceat(counts, first), np.diff(np.append(first, len(blocks)))
    wanted = blocks_of(evaluated, n + 1, size)
    at, of = np.searchsorted(blocks, wanted).clip(max=len(blocks) - 1), wanted // size
    history = np.searchsorted(histories, of).clip(max=len(histories) - 1)
    known = histories[history] == of
    c = np.where(blocks[at] == wanted, counts[at], 0)
    total, kind = np.where(known, totals[history], 0), np.where(known, kinds[history], 1)
    p = shorter.copy()
    p[n:] = (c + kind * shorter[n:]) / (total + kind)
    return p


def blocks_of(codes: Int[np.ndarray, "N"], n: int, size: int) -> Int[np.ndarray, "M"]:
    """Every n characters in a row as one number."""
    return sum(codes[i : len(codes) - n + 1 + i] * size ** (n - 1 - i) for i in range(n))


def batch_of(
    data: Int[Tensor, "N"], context: int, batch: int, rng: torch.Generator
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Random windows of the text and, shifted by one, the characters to predict."""
    start = torch.randint(len(data) - context, (batch, 1), generator=rng)
    at = start + torch.arange(context)  # (B, 1) + (T,) -> (B, T)
    return data[at], data[at + 1]


def windows_of(
    data: Int[Tensor, "N"], context: int, most: int | None = None
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """The text cut into consecutive windows, for judging; `most` limits how many characters are used."""
    whole = min(len(data) - 1, most or len(data)) // context
    return data[: whole * context].view(whole, context), data[1 : whole * context + 1].view(whole, context)
