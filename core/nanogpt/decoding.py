r"""Decoding: from the model's probabilities to a text, in five ways.

The model only gives probabilities; somebody has to choose. The first picture takes one place apart: what temperature,
top-k, top-p and min-p each do to the bars (`core/foundations/sampling.py`). Then the same prompt is continued in five
ways: greedy, greedy with a repetition penalty, beam search (`beams.py`), drawing from the
distribution as it is, and drawing from it as you have cut it.

Two numbers are measured of each text. The mean surprisal under the uncut model, $-\frac{1}{n}\sum_t \ln p(x_t)$: the
lower, the more probable. And how much it repeats itself,

$$\text{rep-}n = 1 - \frac{\text{different } n\text{-grams}}{\text{all } n\text{-grams}},$$

here for n = 2 words in a row. A stretch of the text that the model never learned from is measured in the same way. What
people write is neither the most probable text nor does it go in circles; a text made as probable as possible does: a
phrase that has just been written is likely to be written again, and each time more so.

Left out: stopping, and judging whether a text is good.
Source: Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration", figures 2 and 4; Welleck et al.
2019, "Neural Text Generation with Unlikelihood Training" (rep-n, there seq-rep-n).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import fetching_words
from core.foundations.corpus import load_corpus
from core.foundations.experiment import Config, Step, counted, experiment, quoted, setting
from core.foundations.figures import Figure, Result
from core.foundations.sampling import Choice, draw, fresh, next_logits, probabilities, stages, write
from core.foundations.turns import with_pauses
from core.foundations.weights import MODEL_FILE_BYTES
from core.nanogpt.beams import beam_search
from core.nanogpt.generating import CANDIDATES, MODELS, Writer, load_writer

SHOWN = 8  # tokens between two looks at a text that is being written
MOST_KEPT = 64_000_000  # numbers in the keys and values of all beams: 256 MB
WORDS = 2  # words in a row that count as a repetition

WAYS = {
    "greedy": "greedy",
    "penalty": "greedy with a penalty",
    "beam": "beam search",
    "draw": "drawn, nothing cut",
    "yours": "drawn, your settings",
}
UNSEEN = "unseen, by people"  # what the model never learned from

KEPT = Figure("tokens that may still be drawn", "tokens", "baseline", "all that the model knows", headline=True)
BEST = Figure("probability of the likeliest token", "%", "baseline", "before your settings")
SURPRISAL = Figure("mean surprisal, {way}", "nats per token", "baseline", "text that the model never learned from")
REPEATED = Figure("pairs of words that stood before, {way}", "%", "baseline", "text that the model never learned from")
SUM = Figure("ln p of the whole text, beam search", "nats", "baseline", "the greedy text", headline=True)


@dataclass(frozen=True)
class DecodeConfig(Config):
    """The prompt, and how a token is chosen."""

    prompt: str = setting(
        "BRAMBLE:\n", "Prompt", high=2000, help="The text to go on from. The bars show the place right after it."
    )
    temperature: float = setting(
        0.7,
        "Temperature",
        low=0.0,
        high=5.0,
        slider=True,
        help="Below 1 likely tokens become likelier, above 1 the unlikely ones get a chance; 0 takes the likeliest.",
    )
    top_k: int = setting(
        20, "Top-k", unit="token", low=0, high=1000, help="Only the k likeliest tokens stay; 0 keeps all."
    )
    top_p: float = setting(
        0.95,
        "Top-p",
        low=0.01,
        high=1.0,
        slider=True,
        help="Only the fewest likeliest tokens whose probabilities add up to p stay; 1 keeps all.",
    )
    min_p: float = setting(
        0.1,
        "Min-p",
        low=0.0,
        high=1.0,
        slider=True,
        help="Only tokens that are at least this times as likely as the likeliest stay; 0 keeps all.",
    )
    penalty: float = setting(
        1.2,
        "Repetition penalty",
        low=1.0,
        high=3.0,
        slider=True,
        help="For the second text: how much a token loses that the text already holds; 1 is no penalty.",
    )
    beams: int = setting(
        4, "Beams", unit="text", low=1, high=16, slider=True, help="How many texts beam search keeps at once."
    )
    length: int = setting(300, "Length", unit="token", low=8, high=600, more=True, help="How long each text gets.")
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        more=True,
        help="Which trained model writes.",
        sets={real_model.NAME: {"prompt": "The old lighthouse", "length": 60}},
    )
    model_file: bytes = setting(
        b"", "Model file", high=MODEL_FILE_BYTES, suffixes=(".safetensors",), when=("model", "own")
    )
    seed: int = setting(0, "Seed", low=0, high=2**32 - 1, more=True, help="The same seed draws the same tokens.")

    @property
    def choice(self) -> Choice:
        return Choice(self.temperature, self.top_k, self.top_p, self.min_p)


@dataclass(frozen=True)
class Measured:
    """A text and what was measured of it."""

    name: str
    surprisal: float  # mean, nats per token, under the uncut model
    repeated: float  # of its pairs of words, how many stood before; from 0 to 1


@dataclass(frozen=True)
class DecodeStep(Step):
    """One thing that was done to the bars, a piece of a text, or what was measured of the texts."""

    stage: str = ""
    says: str = ""
    symbols: tuple[str, ...] = ()  # the likeliest tokens, by the uncut model
    before: tuple[float, ...] = ()  # their probabilities by the model
    after: tuple[float, ...] = ()  # ... and after this stage
    way: str = ""  # which text has grown
    text: str = ""  # all that it has added to the prompt
    measured: tuple[Measured, ...] = ()


# --- one place, taken apart -------------------------------------------------------------------------------------------


def what_it_did(name: str, config: DecodeConfig, was: Float[Tensor, "V"], now: Float[Tensor, "V"]) -> str:
    """One sentence on a stage, with its own numbers."""
    gone = int(((was > 0) & (now == 0)).sum())
    lost = float(was[(was > 0) & (now == 0)].sum())
    best, then = float(was.max()), float(now.max())
    left = int((now > 0).sum())
    if name == "temperature" and config.temperature < 1e-6:
        return "At temperature 0 the likeliest token gets everything: this is greedy decoding."
    if name == "temperature":
        way = "sharper" if config.temperature < 1 else "flatter"
        return (
            f"All logits are divided by {config.temperature:g}, and the softmax of them is {way}: the likeliest token"
            f" goes from {best:.0%} to {then:.0%}. Their order stays."
        )
    rule = {
        "top-k": f"Top-k keeps the {counted(config.top_k, 'likeliest token')}",
        "top-p": f"Top-p keeps the fewest likeliest that together have {100 * config.top_p:g} %",
        "min-p": f"Min-p keeps what has at least {config.min_p:g} of the likeliest's probability",
    }[name]
    if not gone:
        return f"{rule}. Here that takes nothing away: {counted(left, 'token')} {'stays' if left == 1 else 'stay'}."
    return (
        f"{rule}. That takes {counted(gone, 'token')} away, with {lost:.1%} in all; what is left"
        f" ({counted(left, 'token')}) grows to 100 % again."
    )


def bars(config: DecodeConfig, writer: Writer, logits: Float[Tensor, "V"]) -> Iterator[DecodeStep]:
    """The distribution of one place, stage by stage."""
    p = was = torch.softmax(logits, -1)
    best = p.topk(min(CANDIDATES, len(p))).indices.tolist()
    symbols, before = tuple(writer.symbols[i] for i in best), tuple(float(p[i]) for i in best)
    first = f"For the next place the model gives each of its {len(p):,} tokens a probability."
    yield DecodeStep("the model", first, symbols, before, before, doing="the model's own probabilities", part="predict")
    for name, change in stages(config.choice):
        logits = change(logits)
        now = torch.softmax(logits, -1)
        says, after = what_it_did(name, config, was, now), tuple(float(now[i]) for i in best)
        yield DecodeStep(name, says, symbols, before, after, doing=name, part="predict")
        was = now


# --- one prompt, several texts ----------------------------------------------------------------------------------------


def written(config: DecodeConfig, way: str, writer: Writer, prompt: list[int]) -> Iterator[list[int]]:
    """The text so far, after each token, in one of the five ways."""
    if way == "beam":
        for beam in beam_search(writer.model, prompt, config.length, config.beams):
            yield beam.tokens[0].tolist()
        return
    choices = {
        "greedy": Choice(0.0),
        "penalty": Choice(0.0, penalty=config.penalty),
        "draw": Choice(),
        "yours": config.choice,
    }
    rng, tokens = torch.Generator().manual_seed(config.seed), list[int]()
    for drawn in write(writer.model, prompt, config.length, choices[way], rng):
        tokens.append(drawn.token)
        yield list(tokens)


@torch.inference_mode()
def surprisal_of(writer: Writer, prompt: list[int], text: list[int]) -> float:
    """Mean -ln p of a text after a prompt, nats per token, under the uncut model.

    Read in windows of the model's context, each of which begins with half a window that is only read.
    """
    model, total, at, whole = writer.model, 0.0, len(prompt), prompt + text
    half = max(1, model.shape.context // 2)
    while at < len(whole):
        start, end = max(0, at - half), min(len(whole), at + half)
        ids = torch.tensor(whole[start:end], device=model.embed.weight.device)
        logits = model(ids[None, :-1])[0, at - start - 1 :].float()
        total += float(F.cross_entropy(logits, ids[at - start :], reduction="sum"))
        at = end
    return total / len(text)


def pairs(text: str) -> Iterator[tuple[int, int, bool]]:
    """All words in a row, `WORDS` at a time: where they begin and end in the text, and whether they stood before."""
    words, seen = list(re.finditer(r"\S+", text)), set[tuple[str, ...]]()
    for at in range(len(words) - WORDS + 1):
        stretch = tuple(word.group() for word in words[at : at + WORDS])
        yield words[at].start(), words[at + WORDS - 1].end(), stretch in seen
        seen.add(stretch)


def repeats(text: str) -> list[tuple[int, int]]:
    """Where words in a row stand that stood before, as (first, end) in characters; what touches is one part."""
    found = list[tuple[int, int]]()
    for first, end, again in pairs(text):
        if again and found and first < found[-1][1]:
            found[-1] = (found[-1][0], end)
        elif again:
            found.append((first, end))
    return found


def repeated(text: str) -> float:
    """rep-2: of all pairs of words in a row, the share that stood before."""
    again = [stood for _, _, stood in pairs(text)]
    return sum(again) / len(again) if again else 0.0


def unseen(writer: Writer, length: int) -> Measured | None:
    """A stretch from the middle of the play's validation text, as long as the texts; None where the model does not know
    its characters.
    """
    play = load_corpus("play").validation
    text = writer.ids(play)
    middle = len(text) // 2
    before, people = text[middle - 32 : middle], text[middle : middle + length]
    if writer.unknown(play) or len(people) < length:
        return None
    return Measured(UNSEEN, surprisal_of(writer, before, people), repeated("".join(writer.symbols[i] for i in people)))


@experiment("The model gives probabilities. Who chooses the token, and how?")
def decode(config: DecodeConfig) -> Iterator[DecodeStep]:
    """What each rule does to the probabilities of one place, and what text each way of choosing writes."""
    # the model and the prompt
    fetching = DecodeStep(doing=fetching_words(config.model))
    writer, note = yield from with_pauses(load_writer(config.model, config.model_file), fetching)
    prompt = writer.ids(config.prompt)
    if not prompt:
        raise ValueError("prompt must have at least one character that the model knows")
    refuse_too_many_beams(config, writer, len(prompt))
    note = " ".join(sentence for sentence in (note, writer.unknown(config.prompt)) if sentence)
    # the place after the prompt: what each rule does to it
    ids = torch.tensor([prompt[-writer.model.shape.context :]], device=writer.model.embed.weight.device)
    logits = next_logits(writer.model, ids, fresh(writer.model), None)
    before = torch.softmax(logits, -1)
    for step in bars(config, writer, logits):  # the last one's bars stand below, too
        yield step
    p = probabilities(logits, config.choice)
    chosen = draw(p, torch.Generator().manual_seed(config.seed))
    says = (
        f"Greedy takes {quoted(writer.symbols[int(before.argmax())])}. One draw from what is left took"
        f" {quoted(writer.symbols[chosen])}, which had {float(p[chosen]):.0%}."
    )
    yield DecodeStep("one is taken", says, step.symbols, step.before, step.after, doing=note or says, part="predict")
    # the same prompt, continued in five ways
    lines, sums = [], dict[str, float]()
    for way, name in WAYS.items():
        for count, tokens in enumerate(written(config, way, writer, prompt), 1):
            if count % SHOWN and count < config.length:
                yield DecodeStep()  # a place to take turns
                continue
            text = "".join(writer.symbols[i] for i in tokens)
            yield DecodeStep(way=way, text=text, doing=f"{name}: {count} of {config.length} tokens", part="predict")
        lines.append(Measured(name, surprisal_of(writer, prompt, tokens), repeated(text)))
        sums[way] = -lines[-1].surprisal * len(tokens)
        yield DecodeStep(measured=tuple(lines), doing=f"{name}: measured")
    # what people wrote, measured in the same way
    people = unseen(writer, config.length)
    figures = figures_of(lines, people, sums, before, p)
    told = tuple(lines) if people is None else (*lines, people)
    yield DecodeStep(measured=told, figures=figures, doing=note or "five texts from one prompt")


def refuse_too_many_beams(config: DecodeConfig, writer: Writer, prompt: int) -> None:
    """One sentence where the keys and values of all beams would not fit into the memory that a run may have."""
    shape = writer.model.shape
    one = 2 * shape.n_layer * shape.width * min(shape.context, prompt + config.length)
    if config.beams * one > MOST_KEPT:
        most = max(1, MOST_KEPT // one)
        raise ValueError(f"beams must be at most {most} with a model and texts of this size, got {config.beams} texts")


def figures_of(
    lines: list[Measured],
    people: Measured | None,
    sums: dict[str, float],
    before: Float[Tensor, "V"],
    after: Float[Tensor, "V"],
) -> tuple[Result, ...]:
    """What was left to draw from, and each text beside the one that people wrote."""
    told = [
        KEPT(float((after > 0).sum()), len(before)),
        BEST(100 * float(after.max()), 100 * float(before.max())),
        SUM(sums["beam"], sums["greedy"]),
    ]
    surprisal, again = (people.surprisal, 100 * people.repeated) if people else (None, None)
    for line in lines:
        told.append(SURPRISAL.of(way=line.name)(line.surprisal, surprisal))
        told.append(REPEATED.of(way=line.name)(100 * line.repeated, again))
    return tuple(told)
