r"""SFT: supervised fine-tuning, the first step of RLHF. A model that continues texts learns to answer, and to stop.

A pretrained model goes on with whatever it is given; a question is often followed by another question. Supervised
fine-tuning shows it question and answer in a chat template, and goes on with the training that made it: predict the
next token, by cross-entropy.

$$L = -\frac{1}{|a|} \sum_{t \in a} \ln p(x_t \mid x_{<t})$$

Only the tokens of the answer $a$ count, its end mark included: the model will never have to write the question. In code
the others get the label -100, which the loss ignores. It can also be computed over every token. Then its number is
lower, since a question's words are easier to predict; whether the *answers* get better is another matter, so both are
trained here on the same batches and evaluated on the answers alone.

What does it learn? The form, within a few dozen steps: how an answer begins, how long it is, that it ends. What an
answer should *say* has to come from pretraining (LIMA calls this the superficial alignment hypothesis). A model that is
taught to answer what it does not know learns to invent: the small base answers at once, in the manual's voice, and
wrongly.

The small base is fine-tuned whole. SmolLM2 keeps its weights and gets a LoRA adapter by peft; it has been through SFT
already, on other pairs, so it knows how to answer before we begin, at length; what it learns here is to be as short as
the manual. Its run is shorter, and it is evaluated on 10 answers instead of 40.

Code -> paper: `batched` -> which tokens count, `Student.one_step` -> one step of SFT.
Left out: several turns, packing many pairs into one window, people's own demonstrations (InstructGPT's labelers wrote
thousands).
Source: Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3.5; Zhou et al. 2023 (LIMA), arXiv:2305.11206,
section 2; Shi et al. 2024, arXiv:2405.14394 (loss over the instructions); Gudibande et al. 2023, arXiv:2305.15717
(imitation learns the style).
"""

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import Base, drawn, fetching_words, load_base, windows_at_once
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.sampling import Choice
from core.foundations.settings import batch_field, seed_field
from core.foundations.turns import with_pauses
from core.rlhf.questions import IGNORED, Example, asked, batched, end_of, example_of, in_common, manual, readable

MODELS = {"shipped": "the shipped base, 2.3 M parameters", real_model.NAME: real_model.WHAT}
HELD_OUT = 40  # pairs nobody learns from


@dataclass(frozen=True)
class Extent:
    """How much is evaluated; a real model is evaluated on less, so that a run takes a minute at most."""

    answers: int = 10  # held-out questions that it answers at a look
    evaluated: int = HELD_OUT  # held-out answers whose loss is measured
    longest: int = 40  # tokens of an answer; who has not stopped by then is interrupted
    looks: int = 4  # how often it is evaluated while it learns
    tokens_at_once: int = 12  # written in one unit of work


USUAL, SHORT = Extent(), Extent(4, 10, 32, 2, 3)
SHOWN = 4  # questions whose answers are shown, yours among them
WARM_UP = 5  # steps
TYPICAL = 40  # tokens of a pair, to cut the work into units
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RANK = 8

STOPS = Figure("answers that stop by themselves", "%", "baseline", "before training", headline=True)
LOSS = Figure("loss on answers it has never seen", "nats per token", "baseline", "before training", headline=True)
COMMON = Figure("words in common with the manual's answer, F1", "%", "baseline", "before training", headline=True)
SAME = Figure("new questions answered word for word as the manual does", "%")
EVERYTHING = Figure(
    "loss on answers never seen, when every token counts", "nats per token", "baseline",
    "when the answer's tokens count", headline=True,
)  # fmt: skip
OF_EVERYTHING = Figure("training loss over every token", "nats per token", "baseline", "over the answer's tokens")
COUNTED = Figure("tokens that count", "% of all in the pairs", label="computed")


@dataclass(frozen=True)
class SftConfig(Config):
    """Your question, how many pairs it learns from, and how long."""

    question: str = setting(
        "What does str.upper do?",
        "Your question",
        high=200,
        help="Answered before and after. A question out of the manual is never learned from.",
    )
    model: str = setting(
        "shipped",
        "Model",
        choices=MODELS,
        help="SmolLM2 is a real, if small, language model, and has been taught to answer before.",
        sets={real_model.NAME: {"steps": 8, "batch": 4, "learning_rate": 0.002, "control": False}},
    )
    pairs: int = setting(
        500,
        "Pairs",
        unit="pair",
        low=4,
        high=500,
        more=True,
        help="Questions with answers out of Python's own documentation.",
    )
    steps: int = setting(
        40, "Steps", unit="step", low=1, high=2000, help="More steps learn the form, then the pairs by heart."
    )
    control: bool = setting(
        True,
        "Also count every token",
        help="Trains a second model on the same batches, whose loss counts the question's tokens too; takes twice as"
        " long.",
    )
    learning_rate: float = setting(
        0.003, "Learning rate", low=1e-6, high=0.1, more=True, help="Higher makes each step larger."
    )
    batch: int = batch_field(16, high=64)
    seed: int = seed_field()


@dataclass(frozen=True)
class Answered:
    """A question and what the model says."""

    question: str
    answer: str
    stopped: bool


@dataclass(frozen=True)
class Token:
    """A token of one pair: whether it counts, and its loss before and now, in nats."""

    text: str
    counts: bool
    before: float
    now: float


@dataclass(frozen=True)
class SftStep(Step):
    """A step of training or a look at the model; what did not happen in it is None."""

    step: int
    loss: float | None = None  # nats per token that counts, on this step's batch
    loss_of_every: float | None = None  # ... of the model whose every token counts
    held_out: float | None = None  # nats per token of answers never seen
    held_out_every: float | None = None
    stops: float | None = None  # fraction of the answers
    before: tuple[Answered, ...] = ()
    now: tuple[Answered, ...] = ()
    tokens: tuple[Token, ...] = ()  # of one pair, never learned from


# --- learning ---------------------------------------------------------------------------------------------------------


def losses_of(model: Any, ids: Int[Tensor, "B T"], labels: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Surprise in nats at each label; 0 where none counts."""
    device = next(model.parameters()).device
    logits = model(input_ids=ids.to(device), use_cache=False).logits.float()
    return F.cross_entropy(logits.transpose(1, 2), labels.to(device), ignore_index=IGNORED, reduction="none")


class Student:
    """A model that learns from pairs. everything: every token of a pair counts, not the answer's alone."""

    def __init__(self, model: Any, config: SftConfig, everything: bool) -> None:
        self.model, self.config, self.everything, self.taken = model, config, everything, 0
        self.free = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.free, config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.at_once = windows_at_once(model, TYPICAL, 6)

    def one_step(self, examples: list[Example]) -> Generator[None, None, float]:
        """One update; returns the loss per token that counts. Yields between parts of the batch."""
        ids, labels = batched(examples, self.everything)
        counted, total = int((labels != IGNORED).sum()), 0.0
        self.model.train()
        for first in range(0, len(ids), self.at_once):
            if first:
                yield
            part = slice(first, first + self.at_once)
            loss = losses_of(self.model, ids[part], labels[part]).sum() / counted
            loss.backward()
            total += loss.item()
        up, down = min(1.0, (self.taken + 1) / WARM_UP), 1 + math.cos(math.pi * self.taken / self.config.steps)
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * up * 0.5 * down
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.eval()
        self.taken += 1
        return total

    def judge(self, examples: list[Example]) -> Generator[None, None, float]:
        """The loss per token of these answers. Yields between parts."""
        ids, labels = batched(examples, everything=False)
        total, at_once = 0.0, 3 * self.at_once  # forward only
        for first in range(0, len(ids), at_once):
            if first:
                yield
            with torch.no_grad():
                total += float(
                    losses_of(self.model, ids[first : first + at_once], labels[first : first + at_once]).sum()
                )
        return total / int((labels != IGNORED).sum())


@torch.no_grad()
def surprises(model: Any, example: Example) -> list[float]:
    """The loss of each token after the first, in nats."""
    return losses_of(model, *batched([example], everything=True))[0].tolist()


def with_adapter(model: Any, seed: int) -> Any:
    """peft's LoRA on every linear layer of a model whose own weights stay as they are."""
    from peft import LoraConfig, get_peft_model

    plan = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(ADAPTED), lora_dropout=0.0)
    adapted: Any = get_peft_model(model, plan)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # peft's own start for A, from our generator
        for name, weight in adapted.named_parameters():
            if "lora_A" in name:
                weight.copy_((2 * torch.rand(weight.shape, generator=rng) - 1) * weight.shape[1] ** -0.5)
    return adapted


def answer(base: Base, model: Any, question: str, extent: Extent) -> Generator[None, None, Answered]:
    """Its likeliest answer, token by token until it ends it. Yields between parts."""
    end, ids = base.ids(end_of(base)).tolist(), list[int]()
    prompt = base.ids(asked(base, question)).tolist()
    for token in drawn(model, prompt, extent.longest, Choice(0.0), torch.Generator()):
        if [token] == end:
            return Answered(question, readable(base.text(ids)).strip(), True)
        ids.append(token)
        if len(ids) % extent.tokens_at_once == 0:
            yield
    return Answered(question, readable(base.text(ids)).strip(), False)


# --- the experiment ---------------------------------------------------------------------------------------------------


def extent_of(config: SftConfig) -> Extent:
    return SHORT if config.model == real_model.NAME else USUAL


class School:
    """What a run holds: the pairs, cut in learned and held out, and the models that learn from them."""

    def __init__(self, config: SftConfig, base: Base) -> None:
        self.config, self.base = config, base
        self.rng = torch.Generator().manual_seed(config.seed)
        everything = manual()
        order = torch.randperm(len(everything), generator=self.rng).tolist()
        mixed = sorted((everything[at] for at in order), key=lambda pair: pair.question != config.question.strip())
        self.held_out, learned = mixed[:HELD_OUT], mixed[HELD_OUT : HELD_OUT + config.pairs]
        self.learned = [example_of(base, pair) for pair in learned]
        self.new = [example_of(base, pair) for pair in self.held_out]
        self.extent = extent_of(config)
        self.students = list[Student]()

    @property
    def evaluated(self) -> list[Example]:
        return self.new[: self.extent.evaluated]

    @property
    def own(self) -> bool:
        """Whether your question is one of the manual's."""
        return self.held_out[0].question == self.config.question.strip()

    def batch(self) -> list[Example]:
        at = torch.randint(len(self.learned), (min(self.config.batch, len(self.learned)),), generator=self.rng)
        return [self.learned[place] for place in at.tolist()]

    def answers(self) -> Generator[None, None, tuple[list[Answered], tuple[Answered, ...]]]:
        """To held-out questions, and those that are shown: yours first."""
        model = self.students[0].model
        given = list[Answered]()
        for pair in self.held_out[: self.extent.answers]:
            given.append((yield from answer(self.base, model, pair.question, self.extent)))
        if self.own or not self.config.question.strip():
            return given, tuple(given[:SHOWN])
        yours = yield from answer(self.base, model, self.config.question, self.extent)
        return given, (yours, *given[: SHOWN - 1])


@experiment("How does a model that only continues texts learn to answer, and to stop?")
def sft(config: SftConfig) -> Iterator[SftStep]:
    """The base answers; then it learns from pairs, and answers the same questions again."""
    base = yield from with_pauses(load_base(config.model), SftStep(0, doing=fetching_words(config.model)))
    school = School(config, base)
    tokens = surprises(base.model, school.new[0])
    pair = tokens_of(school, tokens, tokens)
    yield SftStep(0, tokens=pair, doing="first it answers as it is, before it has learned anything")
    yield from enrolled(school)
    student, looks = school.students[0], school.extent.looks
    first, at_first = yield from with_pauses(school.answers(), SftStep(0))
    before = yield from with_pauses(student.judge(school.evaluated), SftStep(0))
    stops = sum(one.stopped for one in first) / len(first)
    yield SftStep(
        0, None, None, before, before if config.control else None, stops, at_first, at_first,
        doing=f"before: {stops:.0%} of its answers stop by themselves",
    )  # fmt: skip
    curves, now, given = [list[float]() for _ in school.students], [before], first
    for step in range(1, config.steps + 1):
        examples = school.batch()
        for one, curve in zip(school.students, curves, strict=True):
            curve.append((yield from with_pauses(one.one_step(examples), SftStep(step))))
            yield SftStep(step)
        loss, every = curves[0][-1], curves[-1][-1] if config.control else None
        diverged = not all(math.isfinite(curve[-1]) for curve in curves)
        yield SftStep(step, loss, every, diverged=diverged, doing=f"step {step}: loss {loss:.3f}")
        if diverged:
            return
        if step * looks // config.steps > (step - 1) * looks // config.steps:
            now = list[float]()
            for one in school.students:
                now.append((yield from with_pauses(one.judge(school.evaluated), SftStep(step))))
            given, shown = yield from with_pauses(school.answers(), SftStep(step))
            stops = sum(one.stopped for one in given) / len(given)
            looked = tokens_of(school, tokens, surprises(student.model, school.new[0]))
            yield SftStep(
                step, None, None, now[0], now[-1] if config.control else None, stops, (), shown, looked,
                doing=f"step {step}: {stops:.0%} of its answers stop by themselves",
            )  # fmt: skip
    yield SftStep(config.steps, figures=figures(school, first, given, [before, *now], curves), doing="done")


def enrolled(school: School) -> Generator[SftStep, None, None]:
    """The models that learn: one, or two whose losses count different tokens."""
    config, base = school.config, school.base
    real = config.model == real_model.NAME
    model = with_adapter(base.model, config.seed) if real else base.model
    school.students.append(Student(model, config, everything=False))
    yield SftStep(0)
    if config.control:
        if real:
            other = yield from with_pauses(load_base(config.model), SftStep(0))
            second = with_adapter(other.model, config.seed)
        else:
            second = copy.deepcopy(base.model)
        school.students.append(Student(second, config, everything=True))
        yield SftStep(0)


def tokens_of(school: School, before: list[float], now: list[float]) -> tuple[Token, ...]:
    """The first held-out pair, token by token, without the first, which nothing predicts."""
    example, base = school.new[0], school.base
    return tuple(
        Token(readable(base.text([token])), at >= example.asked, was, loss)
        for at, (token, was, loss) in enumerate(zip(example.ids[1:], before, now, strict=False), 1)
    )


def figures(
    school: School, first: list[Answered], last: list[Answered], losses: list[float], curves: list[list[float]]
) -> tuple[Result, ...]:
    """losses: on held-out answers, before, after, and after of the model whose every token counts."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def common(given: list[Answered]) -> float:
        return 100 * mean(
            [in_common(one.answer, pair.answer) for one, pair in zip(given, school.held_out, strict=False)]
        )

    stops = [100 * mean([one.stopped for one in given]) for given in (last, first)]
    same = [one.answer == pair.answer for one, pair in zip(last, school.held_out, strict=False)]
    examples = school.learned
    counted = sum(len(one.ids) - one.asked for one in examples) / sum(len(one.ids) for one in examples)
    results = [
        STOPS(stops[0], stops[1]),
        LOSS(losses[1], losses[0]),
        COMMON(common(last), common(first)),
        SAME(100 * mean([float(one) for one in same])),
        COUNTED(100 * counted),
    ]
    if school.config.control:
        quarter = max(1, len(curves[0]) // 4)
        results += [
            EVERYTHING(losses[2], losses[1]),
            OF_EVERYTHING(mean(curves[1][-quarter:]), mean(curves[0][-quarter:])),
        ]
    return tuple(results)
