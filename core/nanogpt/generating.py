r"""Generating: one token after the other, with everything the model considered.

At each position the model gives every token a probability. One is drawn, appended, and the text goes through the model
again. The surprisal of the token that was drawn is $-\ln p$; what one must expect of it is the entropy of the
distribution it was drawn from,

$$H = -\sum_i p_i \ln p_i,$$

so the two means must agree within the noise of drawing, whose size stands beside them. A last figure is the longest
stretch copied word for word from the training text.

Keys and values of the latest tokens are kept, so each token goes through the layers once. When the context is full the
cache is dropped and the latest part of the text is read again.

Left out: other ways to choose the token (`decoding.py`).
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from core.foundations import real_model
from core.foundations.base_model import fetching_words, folder_of, tokenizer_of
from core.foundations.corpus import load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.hub import Unavailable, fetched
from core.foundations.machine import this_machine
from core.foundations.sampling import Choice, write
from core.foundations.transformer import Transformer
from core.foundations.turns import with_pauses
from core.foundations.weights import (
    MODEL_FILE_BYTES,
    from_bytes,
    gpt2_from_folder,
    llama_from_folder,
    model_bytes,
    models,
    shipped,
)

LLAMA_CONTEXT = 512  # tokens of the 8,192 that SmolLM2 could look at
MODELS = {
    "shipped": "the shipped model (the play and Python's manual)",
    "own": "the model file below: yours, or the one you just trained",
    real_model.NAME: real_model.WHAT,
    "gpt2": "GPT-2, 124 M parameters (hub; needs a network once)",
}
CANDIDATES = 12  # likeliest tokens shown per position
ATTENTION_REACH = 48  # latest positions whose attention is shown

SURPRISAL = Figure("mean surprisal of what was drawn", "nats per token", "theory", "mean entropy of the distributions")
ENTROPY = Figure(
    "as unsure as between",
    "equally likely tokens",
    None,
    "e^(mean entropy) of the distributions",
    "computed",
    headline=True,
)
COPIED = Figure(
    "longest stretch copied word for word", "characters", None, "searched in the text it was trained on", headline=True
)


@dataclass(frozen=True)
class GenerateConfig(Config):
    """Which model writes, from what, and how a token is chosen."""

    prompt: str = setting(
        "BRAMBLE:\n",
        "Prompt",
        high=2000,
        help="The text to go on from. Characters the model has never seen are left out, and it says so.",
    )
    temperature: float = setting(
        0.8,
        "Temperature",
        low=0.0,
        high=5.0,
        slider=True,
        help=(
            "Below 1 the likely tokens win more often, above 1 the unlikely ones get a chance; 0 always takes the"
            " likeliest."
        ),
    )
    top_k: int = setting(
        0,
        "Top-k",
        unit="token",
        low=0,
        high=1000,
        more=True,
        help="Only the k likeliest tokens may be drawn; 0 allows all.",
    )
    top_p: float = setting(
        1.0,
        "Top-p",
        low=0.01,
        high=1.0,
        slider=True,
        more=True,
        help="Only the fewest top tokens whose probabilities add up to p may be drawn; 1 allows all.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        help="Which trained model writes.",
        sets={real_model.NAME: {"prompt": real_model.asked("Why is the sea salty?"), "length": 80}},
    )
    model_file: bytes = setting(
        b"", "Model file", high=MODEL_FILE_BYTES, suffixes=(".safetensors",), when=("model", "own")
    )
    length: int = setting(240, "Length", unit="token", low=1, high=1000, more=True, help="How many tokens it writes.")
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="The same seed draws the same tokens.")


@dataclass(frozen=True)
class GenerateStep(Step):
    """One character and what was considered for its place."""

    position: int  # characters (or tokens) written so far
    text: str  # what this Step adds: the prompt on the first Step, then a character each
    candidates: tuple[
        tuple[str, float], ...
    ] = ()  # the likeliest next ones and their probabilities, before `text` was drawn
    surprisal: float | None = None  # -ln p of what was drawn, nats
    entropy: float | None = None  # of the distribution it was drawn from, nats
    attention: Float[np.ndarray, "L H S"] | None = field(
        default=None, repr=False
    )  # where the position before `text` looked
    copied: int | None = None  # length of the longest stretch copied so far
    note: str = ""  # what could not be had, and what is used instead


@dataclass(frozen=True)
class Writer:
    """A model with its alphabet."""

    model: Transformer
    symbols: tuple[str, ...]  # text of each token id
    encode: dict[str, int] | object  # characters by a table, GPT-2 by its tokenizer
    learned: str | None  # the text it learned from, None where that is not known
    end: int | None = None  # the token with which a model that answers ends its answer

    def ids(self, text: str) -> list[int]:
        if isinstance(self.encode, dict):
            return [self.encode[symbol] for symbol in text if symbol in self.encode]
        return self.encode.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined, no-any-return]

    def unknown(self, text: str) -> str:
        """A sentence about the characters of a prompt that the model has never seen."""
        strange = [
            symbol for symbol in dict.fromkeys(text) if isinstance(self.encode, dict) and symbol not in self.encode
        ]
        if not strange:
            return ""
        some = ", ".join(f"“{symbol}”" for symbol in strange[:5]) + (" and others" if len(strange) > 5 else "")
        what = "they are" if len(strange) > 1 else "it is"
        return f"This model has never seen {some}, so {what} left out."


def load_writer(model: str, model_file: bytes) -> Generator[None, None, tuple[Writer, str]]:
    """Returns the model that was asked for, and a sentence if another one had to stand in; yields while it is
    fetched.
    """
    if model == "own":
        if not model_file:
            raise ValueError(
                "model 'own' needs a model file: train one, or upload a model.safetensors that was downloaded here"
            )
        return character_writer(model_file), ""
    if model == real_model.NAME:
        folder = yield from folder_of(model)
        return models().get(f"{model}, to write", lambda: llama_writer(folder), writer_bytes), ""
    if model == "gpt2":
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
    """The writer in a model file: yours, or the one just trained."""
    file = from_bytes(data)
    learned = load_corpus(file.corpus).train if file.corpus in ("play", "python", "play+python") else None
    return Writer(
        file.build(this_machine().device),
        tuple(file.symbols),
        {symbol: i for i, symbol in enumerate(file.symbols)},
        learned,
    )


def gpt2_writer(folder: Path) -> Writer:
    tokenizer = tokenizer_of(folder)
    symbols = tuple(tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size()))
    return Writer(gpt2_from_folder(folder).to(this_machine().device), symbols, tokenizer, None)


def llama_writer(folder: Path) -> Writer:
    tokenizer = tokenizer_of(folder)
    symbols = tuple(tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size()))
    model = llama_from_folder(folder, LLAMA_CONTEXT).to(this_machine().device)
    return Writer(model, symbols, tokenizer, None, tokenizer.token_to_id(real_model.END))


def writer_bytes(writer: Writer) -> int:
    return model_bytes(writer.model)


def copied_length(longest_now: str, learned: str) -> str:
    """The longest end of `longest_now` that stands word for word in the text that was learned."""
    while longest_now and longest_now not in learned:
        longest_now = longest_now[1:]
    return longest_now


def surprisal_and_entropy(p: Float[torch.Tensor, "V"], token: int) -> tuple[float, float]:
    """-ln p of the drawn token, and -sum p ln p of the distribution, both in nats."""
    kept = p[p > 0].double()
    return abs(math.log(float(p[token]))), abs(float((kept * kept.log()).sum()))


def looked_at(maps: list[torch.Tensor] | None) -> Float[np.ndarray, "L H S"] | None:
    """Where the newest position looked, in each head: the last row of each map, its latest positions."""
    if not maps:
        return None
    return torch.stack([layer[0, :, -1, -ATTENTION_REACH:] for layer in maps]).half().cpu().numpy()


@experiment("What does the model consider before it writes a character?")
def generate(config: GenerateConfig) -> Iterator[GenerateStep]:
    """Write with a trained model; each Step is one character and what was considered for its place."""
    # the model: shipped, your own, or fetched from the hub
    fetching = GenerateStep(0, "", doing=fetching_words(config.model))
    writer, note = yield from with_pauses(load_writer(config.model, config.model_file), fetching)
    # the prompt, then a token at a time
    note = " ".join(sentence for sentence in (note, writer.unknown(config.prompt)) if sentence)
    prompt = writer.ids(config.prompt) or writer.ids("\n")
    if not prompt:
        raise ValueError("prompt must have at least one character that the model knows")
    yield GenerateStep(
        0, "".join(writer.symbols[i] for i in prompt), note=note, doing=note or "the prompt", part="text"
    )
    choice, rng = Choice(config.temperature, config.top_k, config.top_p), torch.Generator().manual_seed(config.seed)
    surprisals, entropies, copy, longest = [], [], "", 0
    for position, drawn in enumerate(write(writer.model, prompt, config.length, choice, rng, watch=True), 1):
        text = writer.symbols[drawn.token]
        surprisal, entropy = surprisal_and_entropy(drawn.p, drawn.token)
        surprisals.append(surprisal)
        entropies.append(entropy)
        if writer.learned is not None:
            copy = copied_length(copy + text, writer.learned)
            longest = max(longest, len(copy))
        best = drawn.p.topk(min(CANDIDATES, len(drawn.p)))
        candidates = tuple(
            (writer.symbols[i], float(p)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )
        done = position == config.length or drawn.token == writer.end
        figures = figures_of(writer, surprisals, entropies, longest) if done else ()
        yield GenerateStep(
            position,
            text,
            candidates,
            surprisal,
            entropy,
            looked_at(drawn.maps),
            longest if writer.learned is not None else None,
            note,
            figures=figures,
            doing=f"{position} of {config.length}: {text!r} with probability {math.exp(-surprisal):.2g}",
        )
        if done:
            return


def figures_of(writer: Writer, surprisals: list[float], entropies: list[float], longest: int) -> tuple[Result, ...]:
    """What was drawn against what it was drawn from: the two means agree within the noise of drawing, whose standard
    error is told.
    """
    noise = float(np.std(np.subtract(surprisals, entropies))) / math.sqrt(len(surprisals))
    drawn, meant = float(np.mean(surprisals)), float(np.mean(entropies))
    off = f"; this run is {abs(drawn - meant) / noise:.1f} of them away" if noise else ""
    source = f"{SURPRISAL.source}; one standard error of drawing is {noise:.2f}{off}"
    figures = (SURPRISAL(drawn, meant, source=source), ENTROPY(math.exp(meant)))
    return (*figures, COPIED(float(longest))) if writer.learned is not None else figures
