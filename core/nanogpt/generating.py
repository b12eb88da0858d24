r"""Generating: one character after the other, with everything the model considered.

At each position the model gives every character a probability; one is drawn, appended, and the text goes through the
model again. What was drawn surprises the model by $-\ln p$, and on average by the entropy of what it drew from,

$$H = -\sum_i p_i \ln p_i,$$

so the two means must agree within the noise of the drawing: that is the first figure. The second weighs the cache of
keys and values, $2 \cdot L \cdot H \cdot D \cdot T$ numbers. The third is the longest stretch copied word for word from
the text that was learnt.

Left out: beams, penalties against repetition.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from core.foundations.corpus import load_corpus
from core.foundations.experiment import Compared, Config, Step, experiment, setting
from core.foundations.machine import this_machine
from core.foundations.sampling import Choice, write
from core.foundations.transformer import Transformer
from core.foundations.weights import MODEL_FILE_BYTES, Unavailable, fetched, from_bytes, gpt2_from_folder, model_bytes, models, shipped

MODELS = {
    "shipped": "the shipped model (the play and Python's manual)",
    "own": "the model file below: yours, or the one you just trained",
    "gpt2": "GPT-2, 124 M parameters (hub; needs a network once)",
}
CANDIDATES = 12  # likeliest characters told per position
ATTENTION_REACH = 48  # latest positions whose attention is told


@dataclass(frozen=True)
class GenerateConfig(Config):
    """Which model writes, from what, and how a token is chosen."""

    prompt: str = setting("BRAMBLE:\n", "Begin with", high=2000)
    temperature: float = setting(0.8, "Temperature", low=0.0, high=5.0, help="0 always takes the likeliest")
    top_k: int = setting(0, "Top-k", unit="character", low=0, high=1000, help="keep only the k likeliest; 0 keeps all")
    top_p: float = setting(1.0, "Top-p", low=0.01, high=1.0, help="keep the likeliest that sum to p")
    length: int = setting(240, "Length", unit="character", low=1, high=1000, more=True)
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True)
    model: str = setting("shipped", "Model", choices=MODELS)
    model_file: bytes = setting(b"", "Model file", high=MODEL_FILE_BYTES, suffixes=(".safetensors",), when=("model", "own"))


@dataclass(frozen=True)
class GenerateStep(Step):
    """One character and what was considered for its place."""

    position: int  # characters (or tokens) written so far
    text: str  # what this Step adds: the prompt on the first Step, then a character each
    candidates: tuple[tuple[str, float], ...] = ()  # the likeliest next ones and their probabilities, before `text` was drawn
    surprise: float | None = None  # -ln p of what was drawn, nats
    entropy: float | None = None  # of the distribution it was drawn from, nats
    attention: Float[np.ndarray, "L H S"] | None = field(default=None, repr=False)  # where the position before `text` looked
    copied: int | None = None  # length of the longest stretch copied so far
    note: str = ""  # what could not be had, and what is used instead


@dataclass(frozen=True)
class Writer:
    """A model with its alphabet."""

    model: Transformer
    symbols: tuple[str, ...]  # text of each token id
    encode: dict[str, int] | object  # characters by a table, GPT-2 by its tokenizer
    learnt: str | None  # the text it learnt from, None where that is not known

    def ids(self, text: str) -> list[int]:
        if isinstance(self.encode, dict):
            return [self.encode[symbol] for symbol in text if symbol in self.encode]
        return self.encode.encode(text).ids  # type: ignore[attr-defined, no-any-return]


def load_writer(config: GenerateConfig) -> Generator[None, None, tuple[Writer, str]]:
    """Returns the model that was asked for, and a sentence if another one had to stand in; yields while it is fetched."""
    if config.model == "own":
        if not config.model_file:
            raise ValueError("model 'own' needs a model file: train one, or upload a model.safetensors that was downloaded here")
        return character_writer(config.model_file), ""
    if config.model == "gpt2":
        try:
            folder = yield from fetched("openai-community/gpt2")
            return models().get("openai-community/gpt2", lambda: gpt2_writer(folder), writer_bytes), ""
        except Unavailable as missing:
            return shipped_writer(), f"{missing} The shipped model is used instead."
    return shipped_writer(), ""


def shipped_writer() -> Writer:
    def load() -> Writer:
        file = shipped("nanogpt")
        table = {symbol: i for i, symbol in enumerate(file.symbols)}
        return Writer(file.build(this_machine().device), tuple(file.symbols), table, load_corpus(file.corpus).train)

    writer: Writer = models().get("nanogpt", load, writer_bytes)
    return writer


def character_writer(data: bytes) -> Writer:
    file = from_bytes(data)
    learnt = load_corpus(file.corpus).train if file.corpus in ("play", "python", "play+python") else None
    return Writer(file.build(this_machine().device), tuple(file.symbols), {symbol: i for i, symbol in enumerate(file.symbols)}, learnt)


def gpt2_writer(folder: Path) -> Writer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    symbols = tuple(tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size()))
    return Writer(gpt2_from_folder(folder).to(this_machine().device), symbols, tokenizer, None)


def writer_bytes(writer: Writer) -> int:
    return model_bytes(writer.model)


def copied_length(longest_now: str, learnt: str) -> str:
    """The longest end of `longest_now` that stands word for word in the text that was learnt."""
    while longest_now and longest_now not in learnt:
        longest_now = longest_now[1:]
    return longest_now


def surprise_and_entropy(p: Float[torch.Tensor, "V"], token: int) -> tuple[float, float]:
    """-ln p of the drawn token, and -sum p ln p of the distribution, both in nats."""
    kept = p[p > 0].double()
    return -math.log(float(p[token])), float(-(kept * kept.log()).sum())


def looked_at(maps: list[torch.Tensor] | None) -> Float[np.ndarray, "L H S"] | None:
    """Where the newest position looked, in each head: the last row of each map, its latest positions."""
    if not maps:
        return None
    return torch.stack([layer[0, :, -1, -ATTENTION_REACH:] for layer in maps]).half().cpu().numpy()


@experiment("What does the model consider before it writes a character?")
def generate(config: GenerateConfig) -> Iterator[GenerateStep]:
    """Write with a trained model; each Step is one character and what was considered for its place."""
    loading = load_writer(config)
    while True:
        try:
            next(loading)
        except StopIteration as loaded:
            writer, note = loaded.value
            break
        yield GenerateStep(0, "", doing="fetching the model from the hub, once")
    prompt = writer.ids(config.prompt) or writer.ids("\n")
    if not prompt:
        raise ValueError("prompt must have at least one character that the model knows")
    yield GenerateStep(0, "".join(writer.symbols[i] for i in prompt), note=note, doing=note or "the prompt")
    choice, dice = Choice(config.temperature, config.top_k, config.top_p), torch.Generator().manual_seed(config.seed)
    surprises, entropies, copy, longest = [], [], "", 0
    for position, drawn in enumerate(write(writer.model, prompt, config.length, choice, dice, watch=True), 1):
        text = writer.symbols[drawn.token]
        surprise, entropy = surprise_and_entropy(drawn.p, drawn.token)
        surprises.append(surprise)
        entropies.append(entropy)
        if writer.learnt is not None:
            copy = copied_length(copy + text, writer.learnt)
            longest = max(longest, len(copy))
        best = drawn.p.topk(min(CANDIDATES, len(drawn.p)))
        candidates = tuple((writer.symbols[i], float(p)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True))
        figures = figures_of(writer, surprises, entropies, drawn.cache.length, drawn.cache.nbytes_used, longest) if position == config.length else ()
        yield GenerateStep(position, text, candidates, surprise, entropy, looked_at(drawn.maps), longest if writer.learnt is not None else None,
                           note, figures=figures, doing=f"{position} of {config.length}: {text!r} with probability {math.exp(-surprise):.0%}")  # fmt: skip


def figures_of(writer: Writer, surprises: list[float], entropies: list[float], tokens: int, cache_bytes: int, longest: int) -> tuple[Compared, ...]:
    shape = writer.model.shape
    predicted = 2 * shape.n_layer * shape.width * tokens * 4
    copied = (Compared("longest stretch copied word for word", "characters", None, float(longest), "searched in the text that was learnt"),)
    return (
        Compared("mean surprise", "nats per character", float(np.mean(entropies)), float(np.mean(surprises)), "mean entropy of what was drawn from"),
        Compared("cache of keys and values", "bytes", float(predicted), float(cache_bytes), "2 L H D T x 4 bytes"),
    ) + (copied if writer.learnt is not None else ())
