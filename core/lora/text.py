r"""Text: a language model learns another text by training an adapter, made by peft, and nothing else.

Each adapted layer computes

$$y = W x + s \cdot \frac{\alpha}{r} \, B A x, \qquad A: r \times k, \quad B: d \times r,$$

where $W$ is a $d \times k$ matrix that is frozen and only $A$ and $B$ learn. $B$ starts at zero, so the untrained
adapter changes nothing: that is a figure below, and it must be 0 to the last bit. $s$ is the dial of the second
picture. It is 1 while training and can be turned afterwards without any training: at 0 the model *is* the base again
(another figure, again exactly 0), at $-1$ it goes against what it has learned, beyond 1 it overdoes it.

*Merging* adds $s \frac{\alpha}{r} BA$ to $W$ once and throws the adapter away: no cost at inference. The result differs
from the unmerged model only by float rounding, since the same sums are taken in another order.

The adapter is handed over as `adapter_model.safetensors` and `adapter_config.json`; in Python,
`PeftModel.from_pretrained(base_model, folder)` takes them. Upload it here (under More) to explore the dial without
training.

Validation loss is in nats per token, always on the same first 1,024 tokens of the 10 % of the text kept for judging.
SmolLM2, a real language model, is 58 times as large as the shipped base; a run with it is cut to a minute: 160 tokens,
fewer and smaller steps, fewer stops of the dial.

Left out: dropout on the adapter's input, biases, and training on instructions: the text is simply continued.
Source: Hu et al. 2021, arXiv:2106.09685, equation 3 and section 4.1; peft, github.com/huggingface/peft.
"""

import gc
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import (
    BASES,
    FOLDER,
    UNIT_FLOPS,
    Base,
    check_memory,
    fetching_words,
    free_bytes,
    load_base,
    parameters_of,
    validate,
)
from core.foundations.corpus import ASSETS, CORPORA, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.machine import this_machine
from core.foundations.settings import batch_field, context_field, own_file_field, own_text_field, seed_field
from core.foundations.turns import with_pauses, without_pauses
from core.lora.adapter_file import ADAPTER_FILE_BYTES, MOST_RANK, AdapterFile, files_of, read_adapter, wear
from core.lora.tuning import (
    TARGETS,
    Tuner,
    adapt,
    adapter_parameters,
    adapter_weights,
    check_rank,
    check_windows,
    dial,
    encoded,
    largest_difference,
    layer_shapes,
    logits_of,
    validation_start,
    written,
)

TEXTS = {name: CORPORA[name] for name in ("play", "tinyshakespeare", "own")}
ADAPTERS = {"new": "train a new one", "file": "a file: yours, or the one just trained; nothing is trained"}
PRECISIONS = {"float32": "float32, 4 bytes per weight", "float16": "float16, 2 bytes per weight (slow without a GPU)"}


@dataclass(frozen=True)
class Extent:
    """How much a run looks at."""

    stops: tuple[float, ...] = tuple(quarter / 4 for quarter in range(-4, 9))  # of the dial: -1, -0.75 ... 2
    evaluated: int = 1024  # tokens that the validation loss is measured on
    looks: int = 4  # how often training pauses to be evaluated and to write


USUAL, SHORT = Extent(), Extent((-1.0, 0.0, 0.5, 1.0, 2.0), 160, 2)
TEMPERATURE = 0.7
LOSS = Figure("validation loss", "nats per token", "baseline", "the base on the same tokens", headline=True)
SHARE = Figure("trained fraction of all weights", "%", "theory", "sum of r (d + k), over all weights", "computed", True)
FILE = Figure("adapter file", "bytes", "theory", "4 bytes per weight; the rest is names and config", headline=True)
REVERSED = Figure("validation loss at alpha x -1", "nats per token", "baseline", "the base", headline=True)
WEIGHTS = Figure("adapter weights", "weights", "theory", "sum of r (d + k) over the adapted layers", "computed")
UNTRAINED = Figure(
    "change by an untrained adapter", "largest logit difference", "theory", "B starts at zero, so BA is zero"
)
OFF = Figure("change by the adapter at alpha x 0", "largest logit difference", "theory", "W x + 0 is W x, bit for bit")
BEST_STOP = Figure("dial stop with the lowest loss", "times alpha", "baseline", "training was at alpha x 1")
MERGED = Figure("merged against unmerged", "largest logit difference", "theory", "only float rounding may differ")
LAST_LOSS = Figure("loss before it blew up", "nats per token", "baseline", "the base, before training", headline=True)
CPU_UNIT_SECONDS = 2.0  # a model whose smallest unit of work would take longer needs a GPU: others wait meanwhile


@dataclass(frozen=True)
class TextConfig(Config):
    """What is learned, by which adapter, how long, and on which base."""

    corpus: str = setting(
        "play",
        "Text to learn",
        choices=TEXTS,
        help="The text that is learned. Choose your own to paste one or to upload a file.",
    )
    own_text: str = own_text_field()
    own_file: bytes = own_file_field()
    rank: int = setting(
        8,
        "Rank r",
        low=1,
        high=MOST_RANK,
        help="A higher rank gives the adapter more weights: it can learn more, and its file grows.",
    )
    alpha: float = setting(
        16.0,
        "Alpha",
        low=0.01,
        high=1000.0,
        help="A higher alpha makes the adapter's change stronger: its output is scaled by alpha / r.",
    )
    targets: str = setting(
        "all",
        "Layers that get an adapter",
        choices=TARGETS,
        help="More layers with an adapter can learn more; each adds weights to train.",
    )
    steps: int = setting(
        48,
        "Steps",
        unit="step",
        low=0,
        high=10_000,
        help="More steps learn the text better and take longer; 0 only looks at the dial.",
    )
    learning_rate: float = setting(
        0.01,
        "Learning rate",
        low=1e-6,
        high=1.0,
        help="Higher makes each step larger: learning is faster, until the loss blows up.",
    )
    prompt: str = setting(
        "The lantern", "Begin samples with", high=200, more=True, help="The text that every sample begins with."
    )
    length: int = setting(
        48,
        "Sample length",
        unit="token",
        low=1,
        high=200,
        more=True,
        help="More tokens give a longer sample; each takes time to write.",
    )
    context: int = context_field(64, high=512, unit="token")
    batch: int = batch_field(8, high=64)
    model: str = setting(
        "shipped",
        "Base model",
        choices=BASES,
        more=True,
        help=(
            "SmolLM2 is a real, if small, language model. The models from the hub are larger and need a network once;"
            " most need a GPU."
        ),
        sets={real_model.NAME: {"steps": 12, "learning_rate": 0.003, "context": 32, "batch": 2, "length": 20}},
    )
    precision: str = setting(
        "float32",
        "Base weights in",
        choices=PRECISIONS,
        more=True,
        help="float16 halves the memory of the base's weights and rounds them more coarsely.",
    )
    seed: int = seed_field(high=2**32 - 1)
    adapter: str = setting(
        "new", "Adapter", choices=ADAPTERS, more=True, help="Train a new adapter, or upload one and only turn its dial."
    )
    adapter_file: bytes = setting(
        b"",
        "adapter_model.safetensors",
        high=ADAPTER_FILE_BYTES,
        suffixes=(".safetensors",),
        when=("adapter", "file"),
        help="The adapter_model.safetensors of a run here or of peft, for this base model.",
    )


@dataclass(frozen=True)
class TextStep(Step):
    """A step of training, a look at the model, or a stop of the dial; what did not happen in it is None."""

    step: int
    loss: float | None = None  # nats per token on this step's batch
    validation_loss: float | None = None  # nats per token on text it does not learn from
    before: str | None = None  # what the base writes
    after: str | None = None  # what the adapted model writes, from the same prompt and seed
    times: float | None = None  # the dial's stop: alpha times this
    dial_text: str | None = None  # what is written there
    dial_losses: tuple[tuple[float, float], ...] = ()  # (times, nats per token), as far as they are measured


@dataclass
class Bench:
    """What a run holds: the base, its adapted self, and what the base was like alone."""

    config: TextConfig
    base: Base
    model: Any  # the base with the adapter on it
    evaluated: Int[Tensor, "N"]  # tokens kept for validation
    bare: Float[Tensor, "T V"]  # logits of the base alone on the first window
    first_loss: float
    taken: int = 0  # steps of training

    def drift(self) -> float:
        """The largest difference of any logit to the base's."""
        return largest_difference(logits_of(self.model, self.evaluated[: self.config.context]), self.bare)

    def judge(self) -> Generator[None, None, float]:
        return validate(self.model, self.evaluated, self.config.context)

    def write(self) -> Generator[None, None, str]:
        return written(self.base, self.model, self.config.prompt, self.config.length, self.config.seed, TEMPERATURE)


@experiment("How can a file of a few hundred kilobytes teach a language model another text?")
def text(config: TextConfig) -> Iterator[TextStep]:
    """Adapt the base model to a text, then turn the dial."""
    given = read_adapter(config.adapter_file) if config.adapter == "file" else None
    corpus = load_corpus(config.corpus, config.own_text, config.own_file)
    try:
        base = yield from loaded(config)
        evaluated = validation_start(base, corpus, config.context, extent_of(config).evaluated)
        bench = yield from prepared(config, base, evaluated, given)
        if given is None and config.steps:
            ids = yield from read(bench, corpus.train)
            if not (yield from trained(bench, ids)):
                return
        yield from turned(bench)
        yield from merged(bench)
    finally:
        if this_machine().gpu:
            gc.collect()
            torch.cuda.empty_cache()


def extent_of(config: TextConfig) -> Extent:
    return SHORT if config.model == real_model.NAME else USUAL


def loaded(config: TextConfig) -> Generator[TextStep, None, Base]:
    """The base model; what it needs is said, and refused if it is not there, before anything is loaded."""
    dtype: torch.dtype = getattr(torch, config.precision)
    if config.model != "shipped":
        what, parameters = BASES[config.model], parameters_of(config.model)
        need = 1.15 * parameters * dtype.itemsize  # a seventh more: the adapter, its optimizer, a window's activations
        seconds = 4 * parameters * config.context / (UNIT_FLOPS["cpu"] / 0.15)
        check_memory(need, f"{what}, to be adapted,")
        if not this_machine().gpu and seconds > CPU_UNIT_SECONDS:
            raise ValueError(
                f"{what} needs a GPU: on this processor one window of {config.context} tokens would take about"
                f" {seconds:.0f} s"
            )
        yield TextStep(0, doing=f"{what} needs about {need / 1e9:.1f} GB; {free_bytes() / 1e9:.1f} GB are free")
    fetching = TextStep(0, doing=fetching_words(config.model))
    return (yield from with_pauses(load_base(config.model, dtype=dtype), fetching))


def prepared(
    config: TextConfig, base: Base, evaluated: Int[Tensor, "N"], given: AdapterFile | None
) -> Generator[TextStep, None, Bench]:
    """The start state: the base's loss and sample, and an adapter on it that has not changed anything yet.

    The shipped base is quick enough for one unit of work, and its first Step is the whole start state.
    """
    bench = Bench(config, base, base.model, evaluated, logits_of(base.model, evaluated[: config.context]), 0.0)
    look = seen(bench)
    bench.first_loss, before = without_pauses(look) if config.model == "shipped" else (yield from look)
    figures, doing = fitted(bench, given)
    yield TextStep(
        0,
        validation_loss=bench.first_loss,
        before=before,
        times=0.0,
        dial_text=before,
        dial_losses=((0.0, bench.first_loss),),
        figures=figures,
        doing=doing,
    )
    return bench


def seen(bench: Bench) -> Generator[TextStep, None, tuple[float, str]]:
    """The loss of the model as it is now and a sample, in units of work."""
    loss = yield from with_pauses(bench.judge(), TextStep(0))
    return loss, (yield from with_pauses(bench.write(), TextStep(0)))


def fitted(bench: Bench, given: AdapterFile | None) -> tuple[tuple[Result, ...], str]:
    """Put a new adapter on the base, or the given one; the figures that are known at once, and a line for the log."""
    config, base = bench.config, bench.base
    called = FOLDER.relative_to(ASSETS.parent).as_posix() if config.model == "shipped" else config.model
    if given is None:
        shapes = layer_shapes(base.model, config.targets)
        check_rank(config.rank, shapes)
        bench.model = adapt(base.model, config.rank, config.alpha, list(shapes), config.seed, called=called)
        untrained = UNTRAINED(bench.drift(), 0.0)
        told = (
            f"rank {config.rank} on {len(shapes)} layers; the base's loss on this text is {bench.first_loss:.3f} nats"
            " per token"
        )
        return (untrained, *size_figures(bench.model, config.rank, shapes)), told
    alpha = config.alpha if given.alpha is None else given.alpha
    bench.model = wear(base.model, given, alpha, called)
    said = "as the file says" if given.alpha is not None else "from the form, since the file does not say"
    told = (
        f"an adapter of rank {given.rank} on {len(given.pairs)} layers; alpha is {alpha:g}, {said}; nothing is trained"
    )
    return size_figures(bench.model, given.rank, given.shapes), told


def size_figures(model: Any, rank: int, shapes: dict[str, tuple[int, int]]) -> tuple[Result, ...]:
    """Weights and bytes of the adapter, by formula and as they are."""
    counted, by_formula = adapter_weights(model), adapter_parameters(rank, shapes)
    everything = sum(weight.numel() for weight in model.parameters())
    nbytes = len(files_of(model)["adapter_model.safetensors"])
    return (
        WEIGHTS(counted, by_formula),
        SHARE(100 * counted / everything, 100 * by_formula / (everything - counted + by_formula)),
        FILE(nbytes, 4 * by_formula),
    )


def read(bench: Bench, words: str) -> Generator[TextStep, None, Int[Tensor, "N"]]:
    """The text to learn as token ids, in units of work."""
    ids = yield from with_pauses(encoded(bench.base, words), TextStep(0, doing="cutting the text into tokens"))
    check_windows(ids, bench.config.context)
    yield TextStep(0, doing=f"the text to learn: {len(ids):,} tokens, {len(words) / len(ids):.2f} characters each")
    return ids


def trained(bench: Bench, ids: Int[Tensor, "N"]) -> Generator[TextStep, None, bool]:
    """Train the adapter; False if the loss blew up."""
    config, vocabulary = bench.config, bench.bare.shape[1]
    tuner = Tuner(
        bench.model,
        ids,
        context=config.context,
        batch=config.batch,
        learning_rate=config.learning_rate,
        steps=config.steps,
        seed=config.seed,
    )
    for step in range(1, config.steps + 1):
        loss = yield from with_pauses(tuner.one_step(), TextStep(step))
        if not loss <= 3 * math.log(vocabulary):  # not a number, or far worse than knowing nothing
            blown = LAST_LOSS(loss, bench.first_loss)
            why = f"step {step}: the loss went to {loss:.3g}, so the run stops; a smaller learning rate will hold"
            yield TextStep(step, loss, diverged=True, figures=(blown,), doing=why)
            return False
        bench.taken = step
        yield TextStep(step, loss, doing=f"step {step}: loss {loss:.3f}")
        looks = extent_of(config).looks
        if step * looks // config.steps > (step - 1) * looks // config.steps or step == config.steps:
            validation = yield from with_pauses(bench.judge(), TextStep(step))
            yield TextStep(step, validation_loss=validation, doing=f"step {step}: validation loss {validation:.3f}")
            after = yield from with_pauses(bench.write(), TextStep(step))
            yield TextStep(step, after=after, files=files_of(bench.model))
    return True


def turned(bench: Bench) -> Iterator[TextStep]:
    """The dial: the loss at every stop first, then what is written there, so that each frame has the whole curve."""
    step, stops, losses = bench.taken, extent_of(bench.config).stops, list[tuple[float, float]]()
    for times in stops:
        dial(bench.model, times)
        losses.append((times, (yield from with_pauses(bench.judge(), TextStep(step)))))
        yield TextStep(step, doing=f"alpha x {times:g}: loss {losses[-1][1]:.3f}")
    at_zero = math.nan
    for times in stops:
        dial(bench.model, times)
        at_zero = bench.drift() if times == 0 else at_zero
        words = yield from with_pauses(bench.write(), TextStep(step))
        yield TextStep(
            step, times=times, dial_text=words, dial_losses=tuple(losses), after=words if times == 1 else None
        )
    dial(bench.model, 1.0)
    loss_at, best = dict(losses), min(losses, key=lambda stop: stop[1])
    figures = (
        LOSS(loss_at[1.0], bench.first_loss),
        OFF(at_zero, 0.0),
        BEST_STOP(best[0], 1.0),
        REVERSED(loss_at[-1.0], bench.first_loss),
    )
    yield TextStep(
        step, figures=figures, validation_loss=loss_at[1.0], doing=f"the dial is lowest at alpha x {best[0]:g}"
    )


def merged(bench: Bench) -> Iterator[TextStep]:
    """Add the adapter into the base's matrices and compare; the adapted model is used up by it."""
    files, step = files_of(bench.model), bench.taken
    apart = logits_of(bench.model, bench.evaluated[: bench.config.context])
    bench.model.merge_adapter(safe_merge=True)  # into copies: the base's own tensors may be shared with other runs
    gap = largest_difference(logits_of(bench.model, bench.evaluated[: bench.config.context]), apart)
    yield TextStep(
        step, files=files, doing="done: the adapter is below, under Take it with you", figures=(MERGED(gap, 0.0),)
    )
