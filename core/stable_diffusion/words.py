r"""Where each word is read, and one word changed.

**Heat.** At every step every place of the latents reads the tokens of the prompt by cross-attention: $M_{pj}$ is how
much place $p$ reads from token $j$ (`attention.py`). Averaged over layers, heads and steps, the column of a word is its
*heat map*. A place must read something, so the maps of all tokens add up to 1 at each place, and an idle word still
gets its share. What tells is where a word is read *more than elsewhere*: the maps are shown relative to the word's own
mean, orange above it, blue below. If a word were read everywhere alike, its fraction of heat on the object would be the
object's fraction of the area.

**Who knows what.** The text tower reads from left to right: the state of "red" in "a red circle" has not seen "circle",
and all later tokens have. But only the state of the *end* was trained, by CLIP's loss, to sum up the whole prompt. So
do not be surprised where the shape is read from. Attention is not attribution, either: a map says where a token was
read, not which pixels it caused, and "red" may well be read beside the red object.

**One word changed.** A new prompt from the same noise gives another picture, in other places too. Prompt-to-prompt
keeps the layout: both pictures are drawn at once, and for the first fraction of the steps the second one uses the
attention maps of the first, its own values.

$$o_p = \sum_j M^{\text{first}}_{pj}\, v^{\text{second}}_j$$

The authors' code does so in self-attention, too, which says what belongs together, though only in small maps (16 x 16
or 32 x 32 places) and in the half with the words; here in all. Both are measured over several noises. What the maps of
words alone cannot hold is what their values and the convolutions decide.

Left out: reweighting of words, a mask that pastes the old background back, the authors' smaller fraction of steps for
self-attention.
Source: Tang et al. 2022, arXiv:2210.04885 (DAAM); Hertz et al. 2022, arXiv:2208.01626 (prompt-to-prompt).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from core.foundations.captioned_shapes import asked_pair, words_of
from core.foundations.diffusion import Moment, sampling
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.judge import seen, verdicts
from core.foundations.settings import guidance_field, noise_seed_field
from core.stable_diffusion.attention import Reuse, Watched, aligned
from core.stable_diffusion.model import Latent, ids_of
from core.stable_diffusion.real import Real, denoiser_of, model_field, shown

HEAT = Figure("heat of '{word}' on the object", "%", "baseline", "the object's part of the area: read everywhere alike")
OWN_MAPS = Figure("same prompt with its own maps put in: largest change of a pixel", "0 to 1", "theory", "the same sum")
OUTSIDE = Figure("pixels changed outside the object, maps {way}", "%", "baseline")
NEW_SEEN = Figure("judge sees the new object, maps {way}", "%", "baseline")
END = "end"
WAYS = {"words": "of words", "both": "of words and of places"}
SHARES = (0.3, 0.6, 1.0)  # of the steps, in the sweep
FAR = 0.1  # a pixel has changed if one of its colors moved by more
APART = 0.15  # ... and belongs to the object if it is so far from the background
WARM, COLD = torch.tensor((0.90, 0.45, 0.0)), torch.tensor((0.0, 0.40, 0.85))  # more and less heat than the mean


@dataclass(frozen=True)
class WordsConfig(Config):
    """Two prompts, and whose maps the second one uses."""

    prompt: str = setting("a red circle on white", "Prompt", high=200, help="The first prompt; its words are followed.")
    changed: str = setting(
        "a green circle on white",
        "The prompt with a word changed",
        high=200,
        help="The same prompt with a word changed.",
    )
    keep: float = setting(
        0.8,
        "Steps with the first one's maps",
        unit="of the steps",
        low=0.0,
        high=1.0,
        help="Higher uses the first picture's attention maps longer: the layout stays, the new word has less say.",
        slider=True,
    )
    maps: str = setting(
        "both",
        "Maps",
        choices=WAYS,
        help="The maps of words say where each token is read; those of places say what belongs together.",
    )
    steps: int = setting(
        25, "Steps", unit="step", low=1, high=100, help="More steps make the pictures sharper; each takes time."
    )
    scale: float = guidance_field(1.5)
    seed: int = noise_seed_field()
    rounds: int = setting(
        5,
        "Noises in the sweep",
        unit="noise",
        low=1,
        high=20,
        more=True,
        help="More noises make the percentages more reliable; each takes time.",
    )
    model: str = model_field()


@dataclass(frozen=True)
class WordsStep(Step):
    """Pictures: of the prompt; of the changed one; the same with the maps of the first; of the prompt with its own maps
    put in again.
    """

    step: int = 0
    t: int = 0
    pixels: np.ndarray | None = None  # (4, 3, S, S) predicted now
    names: tuple[str, ...] = ()  # the words of the prompt, and what stands around them
    heat: np.ndarray | None = (
        None  # (rows, columns, h, w) of this step, relative to each word's mean; 1 where there is no word
    )
    over: np.ndarray | None = None  # (W, 3, S, S) the mean over the steps so far, on the picture
    shares: tuple[tuple[str, float, float], ...] = ()  # name, % of its heat so far on the object, % of all heat
    area: float = 0.0  # % of the picture that is the object
    told: tuple[str, ...] = ()  # of each of the four pictures, at the end
    sweep: tuple[
        tuple[str, float, float, float], ...
    ] = ()  # way, fraction of steps, % changed outside, % with the new colour and shape


# --- words and tokens -------------------------------------------------------------------------------------------------


def columns_of(denoiser: Latent, prompt: str) -> list[tuple[str, list[int]]]:
    """What the prompt's tokens belong to: its beginning, each word, its end, and the padding behind it."""
    words = prompt.split() if isinstance(denoiser, Real) else words_of(prompt)
    told, at = [("start", [0])], 1
    for number, word in enumerate(words):
        count = len(denoiser.tokenizer.tokenize(word)) if isinstance(denoiser, Real) else 1
        before = words[:number].count(word)
        told.append((f"{word} ({before + 1})" if before else word, list(range(at, at + count))))
        at += count
    total = len(ids_of(denoiser, prompt))
    return [*told, ("end", [at]), *([("padding", list(range(at + 1, total)))] if at + 1 < total else [])]


# --- heat -------------------------------------------------------------------------------------------------------------


def gathered(maps: Float[Tensor, "L h w"], columns: Sequence[tuple[str, list[int]]]) -> Float[Tensor, "W h w"]:
    """The heat of each word: the sum over its tokens."""
    return torch.stack([maps[places].sum(0) for _, places in columns])


def relative(heat: Float[Tensor, "W h w"]) -> Float[Tensor, "W h w"]:
    """1 where a word is read as much as on average."""
    return heat / heat.mean((1, 2), keepdim=True)


def in_rows(maps: Float[Tensor, "W h w"]) -> Float[Tensor, "R C h w"]:
    """In rows of at most four, the last one filled up with ones."""
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    return torch.cat([maps, torch.ones(rows * columns - len(maps), *maps.shape[1:])]).unflatten(0, (rows, columns))


def enlarged(maps: Float[Tensor, "W h w"], side: int) -> Float[Tensor, "W S S"]:
    return F.interpolate(maps[None], (side, side), mode="bilinear")[0]


def overlaid(picture: Float[Tensor, "3 S S"], heat: Float[Tensor, "W h w"]) -> Float[Tensor, "W 3 S S"]:
    """The picture in pale gray, and on it what a word is read more (orange) or less (blue) than on average; full color
    at twice the mean, or none.
    """
    more = enlarged(relative(heat), picture.shape[-1])[:, None] - 1
    grey = 0.35 + 0.5 * picture.mean(0).expand(3, -1, -1)
    tint = torch.where(more > 0, WARM.view(3, 1, 1), COLD.view(3, 1, 1))
    return torch.lerp(grey.expand(len(heat), -1, -1, -1), tint, more.abs().clamp(0, 1).expand(-1, 3, -1, -1))


def object_in(picture: Float[Tensor, "3 S S"], heat: Float[Tensor, "h w"] | None = None) -> Bool[Tensor, "S S"]:
    """The object's pixels: far from the median color of the rim; without a plain background, where a word's heat
    is above its mean.
    """
    if heat is not None:
        return enlarged(relative(heat[None]), picture.shape[-1])[0] > 1
    rim = torch.cat([picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1]], 1).median(1).values
    return (picture - rim.view(3, 1, 1)).abs().amax(0) > APART


def on_object(heat: Float[Tensor, "W h w"], inside: Bool[Tensor, "S S"]) -> Float[Tensor, "W"]:
    """The fraction of each word's heat that falls on the object."""
    large = enlarged(heat, inside.shape[-1])
    return (large * inside).sum((1, 2)) / large.sum((1, 2))


def changed_outside(
    first: Float[Tensor, "3 S S"], second: Float[Tensor, "3 S S"], inside: Bool[Tensor, "S S"]
) -> float:
    """% of the pixels that are farther than a pixel from the first picture's object and have changed."""
    near = F.max_pool2d(inside[None, None].float(), 3, 1, 1)[0, 0] > 0
    moved = (first - second).abs().amax(0) > FAR
    return 100 * float((moved & ~near).sum() / (~near).sum().clamp(min=1))


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("Where is each word read, and what if one word changes?")
def words(config: WordsConfig) -> Iterator[WordsStep]:
    """Draw both prompts at once and watch what is read where, then many noises."""
    denoiser = yield from denoiser_of(config.model, lambda told: WordsStep(doing=told))
    columns = columns_of(denoiser, config.prompt)
    ids_of(denoiser, config.changed)
    way = Reuse(config.keep, config.keep if config.maps == "both" else 0.0)
    network, moments = drawing(
        denoiser, config, config.seed, [Reuse(), Reuse(), way, replace(way, words=1.0)], again=True
    )
    state, total = WordsStep(names=tuple(name for name, _ in columns)), torch.zeros(0)
    for number, moment in enumerate(moments, 1):
        now = gathered(network.seen[0], columns)
        total = now if number == 1 else total + now
        pictures = denoiser.decode(moment.after if number == config.steps else moment.x0)
        column = changed_column(denoiser, config, columns) if isinstance(denoiser, Real) else None
        state = replace(
            state, step=number, t=moment.t, pixels=shown(pictures).numpy(), heat=in_rows(relative(now)).numpy()
        )
        state, inside = measured(state, total / number, pictures, column)
        best, share, _ = max(state.shares, key=lambda one: one[1])
        doing = (
            f"step {number} of {config.steps}: of the heat of '{best}' {share:.0f} % lies on the object, which has"
            f" {state.area:.0f} % of the area"
        )
        if number < config.steps:
            yield replace(state, doing=doing)
    state = replace(state, told=underneath(denoiser, pictures, inside))
    yield replace(state, doing=doing, figures=heat_figures(state, pictures))
    yield from sweep(denoiser, config, state)


def drawing(
    denoiser: Latent, config: WordsConfig, seed: int, plan: Sequence[Reuse], again: bool = False
) -> tuple[Watched, Iterator[Moment]]:
    """One batch from one noise: the prompt, then the changed one under each plan; `again`: the last is the prompt
    itself once more.
    """
    prompts = [config.prompt] + [config.changed] * (len(plan) - 1 - again) + [config.prompt] * again
    first = ids_of(denoiser, config.prompt)
    partners = [aligned(first, ids_of(denoiser, prompt)) for prompt in prompts]
    network = Watched(denoiser, denoiser.states(prompts).detach(), config.steps, plan, partners)
    noise = denoiser.noise(1, seed).expand(len(prompts), -1, -1, -1)
    return network, sampling(
        network,
        noise,
        (denoiser.schedule, denoiser.predicts),
        config.steps,
        config.scale,
        clip=denoiser.clip,
        offset=denoiser.offset,
    )


def measured(
    state: WordsStep, heat: Float[Tensor, "W h w"], pictures: Tensor, column: int | None
) -> tuple[WordsStep, Tensor]:
    """The mean heat so far against the first picture's object; column: of the word whose heat stands for the object
    where the background is not plain.
    """
    inside = object_in(pictures[0], None if column is None else heat[column])
    shares, part = 100 * on_object(heat, inside), 100 * heat.mean((1, 2))
    told = tuple((name, float(share), float(much)) for name, share, much in zip(state.names, shares, part, strict=True))
    return (
        replace(
            state,
            over=overlaid(shown(pictures[:1])[0], heat).numpy(),
            shares=told,
            area=100 * float(inside.float().mean()),
        ),
        inside,
    )


def changed_column(denoiser: Latent, config: WordsConfig, columns: Sequence[tuple[str, list[int]]]) -> int:
    """The word of the prompt that the other prompt does not have; the end, if it has all."""
    others = [name for name, _ in columns_of(denoiser, config.changed)]
    names = [name for name, _ in columns]
    return next((number for number, name in enumerate(names) if name not in others), names.index("end"))


def underneath(denoiser: Latent, pictures: Tensor, inside: Tensor) -> tuple[str, ...]:
    """What stands under each picture: what the judge sees (he knows only shapes), and how much changed."""
    names = [""] * len(pictures) if isinstance(denoiser, Real) else seen(pictures)
    moved = [changed_outside(pictures[0], one, inside) for one in pictures]
    return tuple(
        f"{name}, outside {much:.0f} %".lstrip(", ") if number else name
        for number, (name, much) in enumerate(zip(names, moved, strict=True))
    )


def heat_of(word: str) -> Figure:
    """The figure of a word's heat; that of the end is a headline."""
    return replace(HEAT.of(word=word), headline=word == END)


def of_way(family: Figure, way: str) -> Figure:
    """The member of a family; that of both kinds of maps is a headline."""
    return replace(family.of(way=WAYS[way]), headline=way == "both")


def heat_figures(state: WordsStep, pictures: Tensor) -> tuple[Result, ...]:
    """The first four words that say something, and the end, against even heat; the same prompt with its own maps
    against itself.
    """
    content = [name for name in state.names[1 : state.names.index(END)] if len(name) > 2][:4]
    heats = {name: share for name, share, _ in state.shares}
    most = float((pictures[0] - pictures[3]).abs().max())
    return (*(heat_of(name)(heats[name], state.area) for name in (*content, END)), OWN_MAPS(most, 0.0))


# --- many noises ------------------------------------------------------------------------------------------------------


def sweep(denoiser: Latent, config: WordsConfig, state: WordsStep) -> Iterator[WordsStep]:
    """Each noise with every fraction of the steps, one batch per noise."""
    shares = SHARES[-1:] if isinstance(denoiser, Real) else SHARES
    ways = [("", 0.0), *((way, share) for way in WAYS for share in shares)]
    plan = [Reuse(), *(Reuse(share, share if way == "both" else 0.0) for way, share in ways)]
    outside, right = np.zeros((config.rounds, len(ways))), np.full((config.rounds, len(ways)), np.nan)
    goal = None if isinstance(denoiser, Real) else asked_pair(config.changed)
    for number in range(config.rounds):
        network, moments = drawing(denoiser, config, config.seed + number, plan)
        for moment in moments:
            last = moment
            if network.step < config.steps:
                yield replace(
                    state, doing=f"noise {number + 1} of {config.rounds}, step {network.step} of {config.steps}"
                )
        pictures = denoiser.decode(last.after)
        column = changed_column(denoiser, config, columns := columns_of(denoiser, config.prompt))
        inside = object_in(
            pictures[0], gathered(network.seen[0], columns)[column] if isinstance(denoiser, Real) else None
        )
        outside[number] = [changed_outside(pictures[0], one, inside) for one in pictures[1:]]
        if goal:
            right[number] = [found == goal for found in verdicts(pictures[1:])]
        means = list(zip(100 * right[: number + 1].mean(0), outside[: number + 1].mean(0), strict=True))
        rows = [(way, share, float(much), float(sees)) for (way, share), (sees, much) in zip(ways, means, strict=True)]
        state = replace(state, sweep=tuple(rows))
        figures = sweep_figures(rows, bool(goal), number + 1) if number + 1 == config.rounds else ()
        yield replace(
            state,
            figures=figures,
            doing=(
                f"noise {number + 1} of {config.rounds}: outside {rows[0][2]:.0f} % change, with all maps"
                f" {rows[-1][2]:.0f} %"
            ),
        )


def sweep_figures(rows: Sequence[tuple[str, float, float, float]], judge: bool, count: int) -> tuple[Result, ...]:
    """Without the first one's maps against with them in all steps."""
    bare, figures = rows[0], []
    source = f"the same {count} noises without the first one's maps"
    for way, share, outside, sees in rows:
        if way and share == 1.0:
            figures.append(of_way(OUTSIDE, way)(outside, bare[2], source=source))
            if judge:
                figures.append(of_way(NEW_SEEN, way)(sees, bare[3], source=source))
    return tuple(figures)
