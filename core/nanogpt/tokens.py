r"""Tokens: how a text is cut before a model sees it, learned from the text itself (byte-pair encoding).

A token starts as one of the 256 bytes. Then, again and again, the pair of neighbouring tokens that occurs most often in
the text becomes one new token. After $m$ merges there are

$$V = 256 + m$$

tokens. Frequent words become one token each, rare ones stay several, and any text can be written, since the bytes stay.
No token reaches over the border of a word; a word takes the space before it along, as GPT-2's rule has it.

Longer tokens make a text shorter, so a context of T tokens reaches further back; the price is a larger vocabulary,
whose tokens are each seen more rarely. What a unit is worth is measured with the simplest model: a table of pairs
(`corpus.py`), once over bytes, once over characters, once over tokens, all evaluated on the same held-out text. Nats
per token of one cut cannot be compared with nats per token of another. Bits per byte can:

$$\text{bits per byte} = \frac{\text{nats of the whole text}}{\ln 2 \cdot \text{its bytes}}.$$

Where SmolLM2 is installed, your sentence is cut by its tokenizer as well: the same method, learned from far more text,
until there were 49,152 tokens. Common words are one token there, and so are many spaces at once.

Ties between pairs are broken as the `tokenizers` library breaks them, so its merges must be ours, one by one.

Code -> paper: `BytePairs.learn` -> Algorithm 1 of Sennrich et al.; its alphabet is characters, ours GPT-2's bytes.
Left out: special tokens, and unigram tokenizers (SentencePiece), which choose from many possible cuts.
Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2; Radford et al.
2019 (GPT-2), section 2.2: bytes as the alphabet, and no merge across kinds of characters.
"""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from core.foundations import real_model
from core.foundations.base_model import fetching_words, folder_of, tokenizer_of
from core.foundations.corpus import CORPORA, character_ids, load_corpus, with_longer_history
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.settings import own_file_field, own_text_field
from core.foundations.turns import with_pauses

WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)  # GPT-2's rule for where a word ends
LEARNED = 400_000  # characters of the training text that are learned from, at most
AT_ONCE = 40_000  # characters that one unit of work splits into words
STOPS = 30  # frames of the film: one merge after the other at first, many at once later
NEWEST = 10  # merges shown
AT_A_TIME = 25  # merges that one unit of work learns at most
SHORTEST = 100  # characters of a text that pairs can be counted in
FEWEST = 2  # times that a pair must occur to be merged

PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES = (*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE))  # GPT-2's order: byte of each token id
BYTE_OF = dict(zip(sorted(WORDS.alphabet()), BYTES, strict=True))  # the library writes a byte as a letter

KINDS = {
    "English": "The tide took the ropes before the bell rang twice.",
    "accents": "Le garçon a mangé une crêpe à l'école cet été.",
    "digits": "3.14159265358979 or 2718281828 or 16777216",
    "Greek": "Η θάλασσα πήρε τα σχοινιά πριν χτυπήσει η καμπάνα.",
    "Chinese": "钟响两次之前，潮水把绳子带走了。",
    "emoji": "⛵🌊🐋🦀🎈🏠🌳❄️",
}
UNITS = ("bytes", "characters", "tokens")

LENGTH = Figure("length of a token on new text", "bytes", "baseline", "before the first merge: one byte", headline=True)
VOCABULARY = Figure("vocabulary", "tokens", "baseline", "before the first merge: the bytes", "computed", headline=True)
BEST = Figure(
    "surprise, pairs of tokens", "bits per byte", "baseline", "pairs of characters, on the same text", headline=True
)
BYTEWISE = Figure("surprise, pairs of bytes", "bits per byte", "baseline", "pairs of characters, on the same text")
COST = Figure("tokens per character, {kind}", "tokens", "baseline", "an English sentence that was not learned from")
YOURS = Figure("tokens of your sentence", "tokens", "baseline", "SmolLM2's 49,152 tokens on the same sentence")
SAME = Figure(
    "merges that differ from the tokenizers library's", "merges", "theory", "the same rule makes the same merges"
)


@dataclass(frozen=True)
class TokensConfig(Config):
    """The text to learn from, how many merges, and the sentence to cut."""

    sentence: str = setting(
        "The lighthouse keeper's lantern burned until 11:45.",
        "Your sentence",
        high=300,
        help="Any text, in any script: watch how it is cut while the merges are learned.",
    )
    merges: int = setting(
        600,
        "Merges",
        unit="merge",
        low=1,
        high=3000,
        help="How many tokens are learned on top of the 256 bytes. GPT-2 has 50,000.",
    )
    corpus: str = setting(
        "play", "Text to learn from", choices=CORPORA, help="The merges are those of its first nine tenths."
    )
    own_text: str = own_text_field()
    own_file: bytes = own_file_field()

    def check(self) -> None:
        if not self.sentence:
            raise ValueError("sentence must have at least 1 character: there is nothing to cut")


@dataclass(frozen=True)
class TokensStep(Step):
    """Some merges later; the last Steps evaluate what was learned."""

    merges: int  # learned so far
    newest: tuple[tuple[str, int], ...] = ()  # the latest tokens, newest first, and how often their pair occurred
    cut: tuple[tuple[str, bool], ...] = ()  # the sentence, token by token, and whether a new token made it
    cost: tuple[float, ...] = ()  # tokens per character, for each of `KINDS`
    length: float | None = None  # mean bytes per token of the held-out text
    real: tuple[str, ...] = ()  # the sentence, cut by SmolLM2's tokenizer


# --- learning ---------------------------------------------------------------------------------------------------------


class BytePairs:
    """Byte-pair encoding while it is learned.

    counts: how often each word occurs; a word with 0 is cut along and not learned from.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.tokens = [bytes([byte]) for byte in BYTES]
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.merges: list[tuple[bytes, bytes]] = []
        self.ranks: dict[tuple[int, int], tuple[int, int]] = {}  # of a merged pair: which merge it was, the new token
        self.counts = counts
        self.cuts = {word: self.in_bytes(word) for word in counts}  # each word as ids of tokens
        self.pairs: Counter[tuple[int, int]] = Counter()  # how often each pair stands in the text
        self.where: dict[tuple[int, int], set[str]] = {}  # the words that it stands in
        for word in counts:
            self.count(word, 1)

    def in_bytes(self, text: str) -> list[int]:
        return [self.ids[bytes([byte])] for byte in text.encode()]

    def count(self, word: str, times: int) -> None:
        """Add (or, with -1, take away) the pairs of a word, as often as the word occurs."""
        for pair in pairwise(self.cuts[word]):
            self.pairs[pair] += times * self.counts[word]
            self.where.setdefault(pair, set()).add(word)

    def learn(self) -> tuple[bytes, int] | None:
        """Merge the most frequent pair: its token, and how often it occurred. None where no pair occurs twice."""
        most = max(self.pairs.values(), default=0)
        if most < FEWEST:
            return None
        pair = min(pair for pair, times in self.pairs.items() if times == most)  # of equal ones the oldest tokens
        left, right = self.tokens[pair[0]], self.tokens[pair[1]]
        new = self.ids.setdefault(left + right, len(self.tokens))
        if new == len(self.tokens):
            self.tokens.append(left + right)
        self.ranks[pair] = (len(self.merges), new)
        self.merges.append((left, right))
        for word in tuple(self.where[pair]):
            self.count(word, -1)
            self.cuts[word] = merged(self.cuts[word], pair, new)
            self.count(word, 1)
        del self.pairs[pair], self.where[pair]
        return left + right, most

    def cut(self, word: str) -> list[int]:
        """A word that may be new, in tokens: all merges that fit, in the order in which they were learned."""
        ids = self.in_bytes(word)
        while fitting := [pair for pair in pairwise(ids) if pair in self.ranks]:
            first = min(fitting, key=self.ranks.__getitem__)
            ids = merged(ids, first, self.ranks[first][1])
        return ids


def merged(ids: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The row with every `pair` in it, from left to right, replaced by `new`."""
    out: list[int] = []
    for token in ids:
        if out and (out[-1], token) == pair:
            out[-1] = new
        else:
            out.append(token)
    return out


def words_of(text: str) -> list[str]:
    """The words of a text by GPT-2's rule; joined they are the text again."""
    return [text[start:end] for _, (start, end) in WORDS.pre_tokenize_str(text)]


def pieces_of(text: str) -> Iterator[str]:
    """The text in pieces of about `AT_ONCE` characters, cut before a line break, where no word is cut."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + AT_ONCE)
        while end > 0 and text[end - 1].isspace():  # a row of white space is one word
            end = text.find("\n", end + 1)
        end = end if end > 0 else len(text)
        yield text[start:end]
        start = end


def stops(merges: int) -> list[int]:
    """After which merges a frame is shown: one by one at first, then ever further apart."""
    spread = {round(merges * (i / STOPS) ** 2) for i in range(1, STOPS + 1)}
    return sorted((spread | set(range(1, min(merges, 6) + 1))) - {0})


# --- evaluating -------------------------------------------------------------------------------------------------------


def bits_per_byte(train: Int[np.ndarray, "M"], held_out: Int[np.ndarray, "N"], size: int, bytes_of_text: int) -> float:
    """The surprisal of a table of pairs of units, counted in one row of ids, at another row, per byte of its text."""
    p = np.full(len(held_out), 1 / size)
    for n in range(2):
        p = with_longer_history(p, train, held_out, n, size)
    return float(-np.log2(p).sum()) / bytes_of_text


def library_merges(text: str, merges: int) -> list[tuple[bytes, bytes]]:
    """What `tokenizers` learns from the same text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = WORDS  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=len(BYTES) + merges, min_frequency=FEWEST, initial_alphabet=WORDS.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(pieces_of(text), trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(in_bytes(half) for half in pair) for pair in learned]  # type: ignore[misc]


def in_bytes(token: str) -> bytes:
    """A token of the library's, whose letters stand for bytes."""
    return bytes(BYTE_OF[letter] for letter in token)


def shown(token: bytes) -> str:
    """A token as text; bytes that are only a part of a character by their hexadecimal numbers."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "".join(f"⟨{byte:02X}⟩" for byte in token)


# --- the run ----------------------------------------------------------------------------------------------------------


@experiment("How is a text cut into tokens?")
def tokens(config: TokensConfig) -> Iterator[TokensStep]:
    """Learn byte-pair merges from a text, watch a sentence being cut by them, and see what the cut is worth."""
    yield look(config, BytePairs({}), (), None, "before the first merge every byte is a token")
    # the text as words, each with how often it occurs
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    train, new = corpus.train[:LEARNED], corpus.validation[:LEARNED]
    if len(corpus.text) < SHORTEST:
        raise ValueError(f"Your text is too short: it has {len(corpus.text)} characters, and {SHORTEST} are needed")
    train_words, new_words = list[str](), list[str]()
    for text, words in ((train, train_words), (new, new_words)):
        for piece in pieces_of(text):
            words += words_of(piece)
            yield TokensStep(0, doing="splitting the text into words", part="words")
    learned, held_out = Counter(train_words), Counter(new_words)
    pairs = BytePairs({word: learned[word] for word in learned | held_out})
    # merge after merge
    newest: list[tuple[str, int]] = []
    for stop in stops(config.merges):
        while len(pairs.merges) < stop and (merge := pairs.learn()):
            newest = [(shown(merge[0]), merge[1]), *newest[: NEWEST - 1]]
            if len(pairs.merges) % AT_A_TIME == 0:
                yield TokensStep(
                    len(pairs.merges), doing=f"{len(pairs.merges):,} of {config.merges:,} merges", part="merge"
                )
        length = len(new.encode()) / sum(times * len(pairs.cuts[word]) for word, times in held_out.items())
        yield look(config, pairs, tuple(newest), length, f"{len(pairs.merges):,} of {config.merges:,} merges")
    # what the cut is worth: the same model over three kinds of units
    bits = {}
    for unit in UNITS:
        rows, size = in_units(unit, (train, new), (train_words, new_words), corpus.symbols, pairs)
        bits[unit] = bits_per_byte(*rows, size, len(new.encode()))
        yield TokensStep(
            len(pairs.merges), doing=f"a table of pairs of {unit}: {bits[unit]:.2f} bits per byte", part="table"
        )
    real = yield from cut_by_the_real_one(config, len(pairs.merges))
    differing = sum(a != b for a, b in zip_longest(pairs.merges, library_merges(train, config.merges)))
    cost = costs(pairs)
    figures = (
        LENGTH(length, 1.0),
        VOCABULARY(len(pairs.tokens), len(BYTES)),
        BEST(bits["tokens"], bits["characters"]),
        BYTEWISE(bits["bytes"], bits["characters"]),
        *(COST.of(kind=kind)(each, cost[0]) for kind, each in zip(KINDS, cost, strict=True) if kind != "English"),
        *((YOURS(len(cut_of(pairs, config.sentence)), len(real)),) if real else ()),
        SAME(differing, 0),
    )
    done = f"after {len(pairs.merges):,} merges a token of new text has {length:.2f} bytes on average"
    yield TokensStep(len(pairs.merges), length=length, figures=figures, doing=done)


def look(
    config: TokensConfig, pairs: BytePairs, newest: tuple[tuple[str, int], ...], length: float | None, doing: str
) -> TokensStep:
    """What the merges so far make of the sentence and of each kind of text."""
    fresh = {text for text, _ in newest}
    cut = tuple((part, part in fresh) for part in cut_of(pairs, config.sentence))
    return TokensStep(len(pairs.merges), newest, cut, costs(pairs), length, doing=doing, part="merge" if newest else "")


def cut_of(pairs: BytePairs, sentence: str) -> list[str]:
    """The tokens of a sentence, as text."""
    return [shown(pairs.tokens[token]) for word in words_of(sentence) for token in pairs.cut(word)]


def cut_by_the_real_one(config: TokensConfig, merges: int) -> Generator[TokensStep, None, tuple[str, ...]]:
    """The sentence in SmolLM2's tokens; nothing where it is not installed."""
    if not real_model.installed():
        return ()
    fetching = TokensStep(merges, doing=fetching_words(real_model.NAME))
    folder = yield from with_pauses(folder_of(real_model.NAME), fetching)
    tokens = tokenizer_of(folder).encode(config.sentence, add_special_tokens=False).tokens
    real = tuple(shown(in_bytes(token)) for token in tokens)
    yield TokensStep(merges, real=real, doing=f"SmolLM2's tokenizer makes {len(real)} tokens of your sentence")
    return real


def costs(pairs: BytePairs) -> tuple[float, ...]:
    """Tokens per character of each kind of text."""
    return tuple(sum(len(pairs.cut(word)) for word in words_of(text)) / len(text) for text in KINDS.values())


def in_units(
    unit: str, texts: tuple[str, str], words: tuple[list[str], list[str]], symbols: str, pairs: BytePairs
) -> tuple[tuple[Int[np.ndarray, "M"], Int[np.ndarray, "N"]], int]:
    """The training text and the new text as ids of bytes, characters or tokens, and how many kinds there are."""
    if unit == "bytes":
        return tuple(np.frombuffer(text.encode(), np.uint8).astype(np.int64) for text in texts), len(BYTES)  # type: ignore[return-value]
    if unit == "characters":
        return tuple(character_ids(text, symbols).numpy() for text in texts), len(symbols)  # type: ignore[return-value]
    rows = (np.array([token for word in part for token in pairs.cuts[word]], dtype=np.int64) for part in words)
    return tuple(rows), len(pairs.tokens)  # type: ignore[return-value]
