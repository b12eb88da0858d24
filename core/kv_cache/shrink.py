r"""Ways to a smaller cache, and what each costs in the text: fewer heads, fewer tokens, fewer bits.

The bytes are $2 \, L \, G \, D \, b \, T$ per text, so there are three factors to save on.

- **Fewer heads $G$.** With grouped queries (GQA) several heads of queries share one head of keys and values; with one
  for
  all of them it is MQA. Our base was trained with all 6. Here the heads of a group are averaged, which is how GQA's
  authors start, too; *the model was not made for that*, and the text falls apart. Then it learns for a few steps to
  share: theirs needed 5 % of the original training, a model that is trained with GQA from the start loses little.
- **Fewer tokens $T$.** A window keeps the latest tokens. What fell out is gone. Large models send much of their
  attention
  to the very first tokens, whatever they are, and break when these leave (Llama-2-13B: perplexity 5158 with a window of
  1,024, 5.40 with 4 first tokens and 1,020 others): *attention sinks*. How much the first tokens get here is measured
  below; a model as small as ours has not learned to use them, so keeping them is of no use.
- **Fewer bits $b$.** Each row of $D$ numbers is stored as whole numbers of 8 or 4 bits with one 16-bit scale:
  $b = 1 + 2/32$ or $\tfrac12 + 2/32$ bytes.

All variants read the same unseen texts token by token through their caches, and the bytes are those of the storages
that are there. The base has learned sequences of 128 tokens. Beyond, the full cache holds positions it has never seen,
and the loss climbs, while a window stays within what was learned: smaller and better.

Finally, one word's rows of keys and values are overwritten with noise of the same size, in every layer. The text itself
is not touched, and the model goes on as if another text stood there: *the cache is what it knows of the past.*

Left out: transformers' QuantizedCache (it needs another library); latent attention (`big` counts it); the same further
training for the full cache; choosing which tokens to drop by their attention (H2O).
Source: Shazeer 2019, arXiv:1911.02150 (MQA); Ainslie et al. 2023, arXiv:2305.13245 (GQA, section 2.1); Xiao et al.
2023, arXiv:2309.17453 (sinks, Table 1); Jiang et al. 2023, arXiv:2310.06825 (sliding window).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from core.foundations.base_model import CONTEXT, FOLDER, Base, from_folder
from core.foundations.corpus import CORPORA, load_corpus
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import seed_field
from core.foundations.turns import with_pauses
from core.kv_cache.llama import Llama, llama_of, pooled
from core.kv_cache.poison import Look, go_on, poison
from core.kv_cache.uptraining import uptrain, uptraining_ids
from core.kv_cache.variants import Runner, Variant, binned, greedy, loss_in_one_pass, perplexity, rounded, whole, window

PROMPT = "The harbour master looked at the boat and said that he did not know what"
TEXTS = {name: CORPORA[name] for name in ("reader", "python", "play")}
AT_ONCE = 16  # tokens that a variant reads between two Steps
BIN = 32  # places of the text whose losses are averaged for the chart
FULL, MQA, EIGHT, FOUR = "full cache", "MQA, 1 head", "8 bits", "4 bits"

ONE_PASS = "the full model in one pass, without a cache, on the same tokens"
BYTES = Figure("cache, {variant}", "kB", "theory")
PERPLEXITY = Figure("perplexity, {variant}", "tokens", "baseline", ONE_PASS)
PERPLEXITY_EIGHT = Figure("perplexity with 8-bit keys and values", "tokens", "baseline", ONE_PASS, headline=True)
PERPLEXITY_TRAINED = Figure(
    "perplexity with shared heads, after training", "tokens", "baseline", ONE_PASS, headline=True
)
BEYOND_FULL = Figure(
    "perplexity beyond 128 tokens, full cache",
    "tokens",
    "baseline",
    "the same cache within the 128 tokens that the model has learned",
)
FULL_BEYOND = "the full cache on the same tokens"
BEYOND_WINDOW = Figure("perplexity beyond 128 tokens, window", "tokens", "baseline", FULL_BEYOND, headline=True)
BEYOND_SINKS = Figure("perplexity beyond 128 tokens, window with sinks", "tokens", "baseline", FULL_BEYOND)
FIRST_ATTENTION = Figure("attention on the first tokens", "%", "baseline")
POISONED = Figure("next tokens changed by the poison", "tokens", headline=True)
POISON_KL = Figure(
    "KL divergence of the next token", "nats", None, "its distribution before against after the word became noise"
)

Continued = tuple[
    tuple[str, str, str, int], ...
]  # variant, its text as far as the full cache wrote the same, the rest, tokens of the former


@dataclass(frozen=True)
class ShrinkConfig(Config):
    """What is saved on, the texts it is evaluated on, and the word that is poisoned."""

    window: int = setting(
        32,
        "Window",
        unit="token",
        low=1,
        high=512,
        help="A larger window keeps more tokens, the first ones included, and takes more memory.",
    )
    sinks: int = setting(
        4, "Sinks", unit="token", low=1, high=64, help="How many of the kept tokens are the very first ones."
    )
    groups: str = setting(
        "3",
        "Heads of keys and values (GQA)",
        choices={"3": "3 of 6: pairs share", "2": "2 of 6: three share one"},
        help="Fewer heads of keys and values make the cache smaller and the untrained text worse.",
    )
    steps: int = setting(
        12,
        "Uptraining steps",
        unit="step",
        low=0,
        high=400,
        help="More training steps let the model get used to shared heads.",
    )
    prompt: str = setting(PROMPT, "Your prompt", high=200, help="Every cache continues this text.")
    poison: str = setting(
        "not", "Poisoned word", high=40, help="A word of your prompt: its keys and values in the cache become noise."
    )
    corpus: str = setting(
        "reader",
        "Text",
        choices=TEXTS,
        more=True,
        help="The text on which the caches are compared: its last tenth, which nobody has learned.",
    )
    context: int = setting(
        256,
        "Tokens of each sequence",
        unit="token",
        low=8,
        high=768,
        more=True,
        help="Longer sequences show what happens beyond the 128 tokens that the model has learned.",
    )
    batch: int = setting(
        6,
        "Sequences",
        unit="sequence",
        low=1,
        high=16,
        more=True,
        help="More sequences give steadier perplexities and take longer.",
        slider=True,
    )
    length: int = setting(
        40,
        "Tokens to write",
        unit="token",
        low=1,
        high=100,
        more=True,
        help="More tokens show better where a text leaves that of the full cache.",
    )
    seed: int = seed_field()

    def check(self) -> None:
        if self.sinks >= self.window:
            raise ValueError(f"sinks must be fewer than the window holds, got {self.sinks} of {self.window} tokens")


@dataclass(frozen=True)
class ShrinkStep(Step):
    """Everything so far, by variant; what has not been measured yet is missing."""

    at: int = BIN  # places in a bin
    formulas: tuple[
        tuple[str, tuple[tuple[int, float], ...]], ...
    ] = ()  # name, the corners (tokens, bytes) of the formula's line
    one_pass: tuple[float, ...] = ()  # loss by bin without a cache
    near: float = 0.0  # perplexity within the learned tokens, without a cache
    losses: tuple[tuple[str, tuple[float, ...]], ...] = ()  # name, loss by bin (nats per token)
    price: tuple[
        tuple[str, float, float], ...
    ] = ()  # name, bytes at the end by formula, perplexity within the learned tokens
    weighed: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()  # name, (tokens, bytes per text) measured
    texts: Continued = ()
    harm: tuple[tuple[str, float], ...] = ()  # what poisoning each token would do (KL, nats)
    chosen: tuple[int, ...] = ()  # places of the poisoned word
    nexts: tuple[tuple[str, float, float], ...] = ()  # next token, probability clean and poisoned
    clean: str = ""
    changed: str = ""


@dataclass
class Race:
    """All variants of a run, and what they have shown."""

    texts: Int[Tensor, "B T"]
    model: Llama
    variants: list[Variant]
    runners: dict[str, Runner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = self.texts.shape[1] - 1
        self.one_pass = loss_in_one_pass(self.model, self.texts)
        corners = {variant.name: sorted({0, min(variant.corner, places), places}) for variant in self.variants}
        self.formulas = tuple(
            (one.name, tuple((place, one.nbytes(place)) for place in corners[one.name])) for one in self.variants
        )

    def join(self, variants: list[Variant]) -> list[Runner]:
        new = [Runner(variant, self.texts) for variant in variants]
        self.runners |= {runner.variant.name: runner for runner in new}
        return new

    def step(self, **what: Any) -> ShrinkStep:
        read, places = {name: runner for name, runner in self.runners.items() if runner.losses}, self.texts.shape[1] - 1
        return ShrinkStep(
            formulas=self.formulas,
            one_pass=binned(self.one_pass, BIN),
            near=perplexity(self.one_pass[:CONTEXT]),
            losses=tuple((name, binned(runner.losses, BIN)) for name, runner in read.items()),
            price=tuple(
                (name, runner.variant.nbytes(places), runner.perplexity(CONTEXT)) for name, runner in read.items()
            ),
            weighed=tuple((name, tuple(runner.bytes)) for name, runner in read.items()),
            **what,
        )

    def read(self, runners: list[Runner], most: int = 10**6) -> Iterator[ShrinkStep]:
        """All of them, AT_ONCE tokens by turns; the first `most` tokens."""
        places = min(most, self.texts.shape[1] - 1)
        for first in range(0, places, AT_ONCE):
            last = min(first + AT_ONCE, places)
            for runner in runners:
                runner.read(last - first)
                yield self.step(
                    doing=f"{runner.variant.name}: {last} tokens read, {runner.bytes[-1][1] / 1e3:,.0f} kB per text"
                )


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("How small can the cache be, and what does the text pay?")
def shrink(config: ShrinkConfig) -> Iterator[ShrinkStep]:
    """Read, uptrain, read again, write, poison."""
    base = from_folder(FOLDER, "shipped")
    model, prompt = llama_of(base.model), [int(id) for id in base.ids(config.prompt)]
    look = poison(base, model, prompt, config.poison, config.seed)
    race = Race(evaluated_texts(base, config), model, variants_of(model, config))
    yield race.step(harm=look.harm, chosen=look.chosen, nexts=look.nexts)
    yield from race.read(race.join(race.variants))
    if config.steps:
        trained = yield from uptrained(base, race, config)
        yield from race.read(race.join(trained), CONTEXT)
        race.variants += trained
    yield from written(base, prompt, race, config)
    share = sink_share(race.texts[0], config)
    yield race.step(
        doing=f"the first {config.sinks} tokens get {share[0]:.1%} of the attention; an even share is {share[1]:.1%}"
    )
    writing = go_on(base, model, prompt[-1], look, config.length)
    clean, changed, differing = yield from with_pauses(writing, race.step())
    figures = (*race_figures(race, config), *poison_figures(look, differing, share, config))
    doing = f"“{config.poison.strip()}” poisoned: {differing} of {config.length} next tokens differ"
    yield race.step(figures=figures, clean=clean, changed=changed, doing=doing)


def evaluated_texts(base: Base, config: ShrinkConfig) -> Int[Tensor, "B T"]:
    """Pieces of the corpus' last tenth, evenly spread, each with the token after it."""
    ids = base.ids(load_corpus(config.corpus).validation).to(base.device)
    starts = torch.linspace(0, len(ids) - config.context - 1, config.batch).long().tolist()
    return torch.stack([ids[start : start + config.context + 1] for start in starts])


def variants_of(model: Llama, config: ShrinkConfig) -> list[Variant]:
    """In the order of the lesson."""
    groups, (plain, with_sinks) = int(config.groups), windows(config)
    return [
        whole(FULL, model),
        whole(gqa(config), pooled(model, groups)),
        whole(MQA, pooled(model, 1)),
        window(plain, model, config.window),
        window(with_sinks, model, config.window, config.sinks),
        rounded(EIGHT, model, 8),
        rounded(FOUR, model, 4),
    ]


def gqa(config: ShrinkConfig) -> str:
    return f"GQA, {config.groups} heads"


def windows(config: ShrinkConfig) -> tuple[str, str]:
    """Names of the window and of the window with sinks."""
    return f"window {config.window}", f"{config.sinks} sinks + {config.window - config.sinks}"


def uptrained(base: Base, race: Race, config: ShrinkConfig) -> Generator[ShrinkStep, None, list[Variant]]:
    """The two models with fewer heads learn to share them."""
    ids, trained = uptraining_ids(base), list[Variant]()
    for variant in (one for one in race.variants if one.name in (gqa(config), MQA)):
        losses = list[float]()

        def pause(loss: float | None, name: str = variant.name, losses: list[float] = losses) -> ShrinkStep:
            losses += [] if loss is None else [loss]
            told = "" if loss is None else f", loss {loss:.2f} nats per token"
            return race.step(doing=f"{name}: {len(losses)} of {config.steps} steps of learning to share{told}")

        model = yield from with_pauses(uptrain(variant.model, ids, config.steps, config.seed), pause)
        trained.append(whole(f"{variant.name}, trained", model))
    return trained


def written(base: Base, prompt: list[int], race: Race, config: ShrinkConfig) -> Iterator[ShrinkStep]:
    """The prompt, continued by each variant; the first is the one to compare with."""
    told, reference = list[tuple[str, str, str, int]](), list[int]()
    for variant in race.variants:
        ids = list[int]()
        for id in greedy(variant.model, prompt, config.length, variant.fresh()):
            ids.append(id)
            if len(ids) % AT_ONCE == 0:
                yield race.step(texts=tuple(told))
        reference = reference or ids
        same = next((place for place, (a, b) in enumerate(zip(ids, reference, strict=True)) if a != b), config.length)
        told.append((variant.name, base.text(ids[:same]), base.text(ids[same:]), same))
        yield race.step(
            texts=tuple(told),
            doing=f"{variant.name} writes: the first {same} of {config.length} tokens are those of the full cache",
        )


@torch.inference_mode()
def sink_share(text: Int[Tensor, "T"], config: ShrinkConfig) -> tuple[float, float]:
    """Of the attention of later tokens, what the first ones get, and what would be even; transformers tells the
    weights.
    """
    model = from_folder(FOLDER, "shipped", attn_implementation="eager").model
    maps = model(input_ids=text[None, :CONTEXT], output_attentions=True, use_cache=False).attentions
    late = torch.arange(min(config.window, maps[0].shape[-1] - 1), maps[0].shape[-1])
    got = torch.stack([weights[0, :, late, : config.sinks].sum(-1).mean() for weights in maps]).mean()
    return float(got), float((config.sinks / (late + 1)).clamp(max=1.0).mean())


# --- figures ----------------------------------------------------------------------------------------------------------


def race_figures(race: Race, config: ShrinkConfig) -> tuple[Result, ...]:
    """Per variant its bytes against the formula, and its perplexity against that of one pass without a cache."""
    figures, near = list[Result](), perplexity(race.one_pass[:CONTEXT])
    for name, runner in race.runners.items():
        tokens, nbytes = runner.bytes[-1]
        if not name.endswith("trained"):
            source = f"2 L G D b T of this cache at token {tokens}"
            figures.append(BYTES.of(variant=name)(nbytes / 1e3, runner.variant.nbytes(tokens) / 1e3, source=source))
        figures.append(perplexity_figure(name, config)(runner.perplexity(CONTEXT), near))
    if config.context > CONTEXT:
        full, plain, sinks = (race.runners[name] for name in (FULL, *windows(config)))
        far = perplexity(full.losses[CONTEXT:])
        figures += [
            BEYOND_FULL(far, full.perplexity(CONTEXT)),
            BEYOND_WINDOW(perplexity(plain.losses[CONTEXT:]), far),
            BEYOND_SINKS(perplexity(sinks.losses[CONTEXT:]), far),
        ]
    return tuple(figures)


def perplexity_figure(name: str, config: ShrinkConfig) -> Figure:
    """The figure of a variant's perplexity: two of them stand on cards."""
    on_cards = {EIGHT: PERPLEXITY_EIGHT, f"{gqa(config)}, trained": PERPLEXITY_TRAINED}
    return on_cards.get(name, PERPLEXITY.of(variant=name))


def poison_figures(look: Look, differing: int, share: tuple[float, float], config: ShrinkConfig) -> tuple[Result, ...]:
    """Attention on the first tokens, and what the poisoned word changed."""
    places, (got, even) = len(look.chosen), share
    return (
        FIRST_ATTENTION(
            100 * got, 100 * even, source=f"an even share for {config.sinks} tokens, from token {config.window} on"
        ),
        POISONED(differing, source=f"{places} of {len(look.harm)} cached tokens became noise"),
        POISON_KL(look.kl),
    )
