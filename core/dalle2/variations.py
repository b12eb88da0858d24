r"""Variations: what an embedding keeps of a picture.

A picture is encoded once, and the embedding $z_i$ is decoded many times, each time from other noise. What all decodings
share is what $z_i$ says; what differs between them is what it left out and the decoder has to invent. Each decoding is
encoded again: its cosine with $z_i$ tells whether CLIP would take it for the same picture.

**How many numbers are needed?** Write $z_i$ in the principal components of many pictures' embeddings, keep only the
first $k$, and decode:

$$z^{(k)} = \frac{\bar z + \sum_{j \le k} \big((z_i - \bar z) \cdot u_j\big)\, u_j}{|\cdot|}.$$

The first components hold what varies most between pictures, the last nearly nothing. DALL·E 2 found that 319 of CLIP's
1,024 dimensions hold nearly all, which is why its autoregressive prior has to write 319 numbers only. Here it is
counted on the small CLIP: how many of its 64 hold 99 % of the variance? And which property is lost first as $k$ falls,
shape or color? (Place would be a third, but the judge does not look at it.)

Left out: inverting the decoder, so that the first decoding is the picture itself.
Source: Ramesh et al. 2022, arXiv:2204.06125, sections 2.2 and 3.1, figures 3 and 7.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.dalle2.decoder import shipped_decoder
from core.dalle2.decoding import decoding, mean_cosine
from core.dalle2.prior import name_vectors
from core.foundations.captioned_shapes import COLOURS, GROUNDS, PAIRS, SHAPES, Scenes, draw, render
from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure
from core.foundations.judge import verdicts
from core.foundations.pictures import take
from core.foundations.settings import noise_seed_field, picture_field
from core.foundations.small_clip import EMBEDDING, shipped_clip

BANK = 640  # pictures that the principal components are taken from
TESTED = 192  # others, whose shortened embeddings are named
PART = 32
KEEPS = (1, 2, 4, 8, 16, 32, 64)  # components of the decoded sweep
EACH = 3  # decodings of each
VARIANCE = 0.99
PAPER = (319, 1024)  # components that hold nearly all, of how many
NEEDED = Figure(
    f"components for {VARIANCE:.0%} of the variance",
    "% of all",
    "paper",
    f"DALL·E 2: {PAPER[0]} of {PAPER[1]:,} hold nearly all",
    headline=True,
)
ENOUGH_NAMES = Figure(
    "components until pictures keep their names", "components", "baseline", f"those with {VARIANCE:.0%} of the variance"
)
ENOUGH_DECODER = Figure(
    "components until the decoder is as right as with all",
    "components",
    "baseline",
    f"those with {VARIANCE:.0%} of the variance",
    headline=True,
)
SAME = Figure(
    "variations with the same color and shape",
    "%",
    "limit",
    "all of color and shape is in the embedding",
    headline=True,
)
AGAIN = Figure(
    "cosine of a variation, encoded again",
    "cosine",
    "limit",
    "1: all of the embedding is in the picture",
    headline=True,
)
TWO = Figure("cosine of two variations, encoded again", "cosine", "limit", "1: nothing but the embedding decides")
DIFFER = Figure("difference of two variations", "% of the range", None, "mean over their pixels")


@dataclass(frozen=True)
class VariationsConfig(Config):
    """A picture, and how it is decoded."""

    picture: bytes = picture_field()
    colour: str = setting(
        "green", "Color", choices={name: name for name in COLOURS}, help="The color of the drawn object."
    )
    shape: str = setting(
        "triangle", "Shape", choices={name: name for name in SHAPES}, help="The shape of the drawn object."
    )
    ground: str = setting(
        "white",
        "Background",
        choices={name: name for name in GROUNDS},
        more=True,
        help="The background of the drawn picture.",
    )
    pictures: int = setting(
        6,
        "Variations",
        low=2,
        high=12,
        help="More variations show better what the embedding leaves open; each takes time.",
        slider=True,
    )
    keep: int = setting(
        EMBEDDING,
        "Components kept in them",
        low=1,
        high=EMBEDDING,
        help="Fewer components keep less of the picture: shape and color get lost.",
    )
    scale: float = setting(
        2.0,
        "Guidance of the decoder",
        low=0.0,
        high=20.0,
        help="Higher makes the picture follow the embedding more strongly and vary less.",
    )
    steps: int = setting(
        20,
        "Steps of the decoder",
        low=1,
        high=100,
        help="More steps of the decoder make the pictures sharper; each takes time.",
    )
    seed: int = noise_seed_field()


@dataclass(frozen=True)
class VariationsStep(Step):
    """All that is known so far; what is not known yet is None or empty."""

    picture: np.ndarray | None = None  # (3, 32, 32)
    sees: tuple[str, str] = ("", "")  # what the judge sees in it
    vector: np.ndarray | None = None  # (64,) its embedding
    kept: np.ndarray | None = None  # (64,) what is left of it
    pixels: np.ndarray | None = None  # (N, 3, 32, 32) the variations
    seen: tuple[tuple[str, str], ...] = ()
    cosines: tuple[float, ...] = ()  # of each variation, encoded again, with the embedding
    variance: np.ndarray | None = None  # (64,) % of the variance in the first k components
    named: np.ndarray | None = (
        None  # (3, 64) % of other pictures whose shortened embedding has the right name, color, shape
    )
    sweep: tuple[
        tuple[int, float, float], ...
    ] = ()  # components kept, cosine with the whole embedding, % as the judge saw the picture
    sweep_pixels: tuple[np.ndarray, ...] = ()  # (EACH, 3, 32, 32) for each of them
    sweep_seen: tuple[tuple[tuple[str, str], ...], ...] = ()
    note: str = ""


# --- principal components ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """Directions in the order of how much embeddings vary along them."""

    mean: Float[Tensor, "E"]
    directions: Float[Tensor, "E E"]  # rows
    variances: Float[Tensor, "E"]

    @classmethod
    def of(cls, vectors: Float[Tensor, "N E"]) -> "Components":
        mean = vectors.double().mean(0)
        variances, columns = torch.linalg.eigh(torch.cov((vectors.double() - mean).T))
        order = variances.argsort(descending=True)
        rows = columns[:, order].T
        rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
        return cls(mean.float(), rows.float(), variances[order].clamp(min=0).float())

    def cut(self, vectors: Float[Tensor, "N E"], k: int) -> Float[Tensor, "N E"]:
        """Only the first k components, on the sphere again."""
        first = self.directions[:k]
        return F.normalize(self.mean + (vectors - self.mean) @ first.T @ first, dim=-1)

    @property
    def share(self) -> Float[np.ndarray, "E"]:
        """The variance in the first 1, 2, ... components."""
        told: np.ndarray = (self.variances.double().cumsum(0) / self.variances.double().sum()).numpy()
        return told

    def needed(self, share: float) -> int:
        """How many components hold this fraction of the variance."""
        return int(np.searchsorted(self.share, share - 1e-9)) + 1


def named_after(components: Components, vectors: Float[Tensor, "N E"], scenes: Scenes) -> Float[np.ndarray, "3 E"]:
    """% of the pictures whose first k components CLIP still gives the right name, the right color, the right shape,
    for each k.
    """
    told, names = np.zeros((3, EMBEDDING)), name_vectors()
    right = [scenes.pair(number) for number in range(len(scenes))]
    for k in range(1, EMBEDDING + 1):
        found = [PAIRS[at] for at in (components.cut(vectors, k) @ names.T).argmax(1).tolist()]
        told[0, k - 1] = 100 * np.mean([a == b for a, b in zip(found, right, strict=True)])
        for place in range(2):
            told[1 + place, k - 1] = 100 * np.mean([a[place] == b[place] for a, b in zip(found, right, strict=True)])
    return told


# --- the experiment ---------------------------------------------------------------------------------------------------


def picture_of(config: VariationsConfig) -> tuple[Float[Tensor, "1 3 32 32"], str]:
    """The user's picture, or a drawn one, a little off the middle."""
    if config.picture:
        taken = take(config.picture)
        return taken.pixels[None], taken.note
    scene = draw(np.random.default_rng(0), 1, held_out=None, pairs=[(config.colour, config.shape)])
    ground = np.array([tuple(GROUNDS).index(config.ground)])
    return (
        render(
            replace(scene, radius=np.full((1, 2), 8.5), x=np.full((1, 2), 12.0), y=np.full((1, 2), 19.0), ground=ground)
        ),
        "",
    )


@experiment("What does an embedding keep of a picture, and in how many numbers?")
def variations(config: VariationsConfig) -> Iterator[VariationsStep]:
    """Encode, find the components, decode many times, then with fewer and fewer components."""
    shown, note = picture_of(config)
    vector, decoder = shipped_clip().pictures(shown), shipped_decoder()
    sees, noise = verdicts(shown)[0], decoder.noise(config.pictures, config.seed)
    state = VariationsStep(
        picture=shown[0].numpy(),
        sees=sees,
        vector=vector[0].numpy(),
        kept=vector[0].numpy(),
        note=note,
        pixels=decoder.decode(noise).numpy(),
    )
    yield replace(
        state,
        doing=f"the picture is {EMBEDDING} numbers now; the judge sees a {' '.join(sees)}; decoding begins with noise",
    )
    state, components = yield from components_stage(config, state)
    kept = components.cut(vector, config.keep)
    state = replace(state, kept=kept[0].numpy())
    for step, _, (pictures, *_) in decoding(
        decoder, [kept.expand(config.pictures, -1)], noise, config.steps, config.scale
    ):
        state = replace(state, pixels=pictures.numpy())
        if step < config.steps - 1:
            yield replace(
                state,
                doing=f"decoder, step {step + 1} of {config.steps}: {config.pictures} pictures from other noise each",
            )
    assert state.pixels is not None
    state = told_variations(config, state, vector, torch.from_numpy(state.pixels))
    yield state
    yield from sweep_stage(config, replace(state, figures=()), vector, components)


def components_stage(
    config: VariationsConfig, state: VariationsStep
) -> Generator[VariationsStep, None, tuple[VariationsStep, Components]]:
    """The principal components of many pictures, and what other pictures' first k are still called."""
    scenes = draw(np.random.default_rng(config.seed + 1), BANK + TESTED, held_out=None)
    parts = list[Tensor]()
    for first in range(0, BANK + TESTED, PART):
        parts.append(shipped_clip().pictures(render(scenes[first : first + PART])))
        yield replace(state, doing=f"embeddings for the principal components: {first + PART} of {BANK + TESTED}")
    vectors = torch.cat(parts)
    components = Components.of(vectors[:BANK])
    needed = components.needed(VARIANCE)
    named = named_after(components, vectors[BANK:], scenes[BANK:])
    state = replace(state, variance=100 * components.share, named=named)
    enough = int(np.argmax(named[0] >= named[0, -1] - 1)) + 1
    figures = (NEEDED(100 * needed / EMBEDDING, 100 * PAPER[0] / PAPER[1]), ENOUGH_NAMES(float(enough), float(needed)))
    yield replace(
        state,
        figures=figures,
        doing=(
            f"{needed} of {EMBEDDING} components hold {VARIANCE:.0%} of the variance; {enough} are enough for CLIP's"
            " names"
        ),
    )
    return state, components


def told_variations(
    config: VariationsConfig, state: VariationsStep, vector: Float[Tensor, "1 E"], pictures: Float[Tensor, "N 3 32 32"]
) -> VariationsStep:
    """What the judge and CLIP say of the variations."""
    seen, again = verdicts(pictures), shipped_clip().pictures(pictures)
    cosines = tuple(float(cosine) for cosine in again @ vector[0])
    same = 100 * sum(one == state.sees for one in seen) / len(seen)
    figures = (
        SAME(same, 100.0),
        AGAIN(float(np.mean(cosines)), 1.0),
        TWO(mean_cosine(again), 1.0),
        DIFFER(100 * apart(pictures)),
    )
    doing = (
        f"in {same:.0f} % of the variations the judge sees what it saw in the picture; encoded again their cosine is"
        f" {np.mean(cosines):.2f}"
    )
    return replace(state, seen=seen, cosines=cosines, figures=figures, doing=doing)


def apart(pictures: Float[Tensor, "N 3 H W"]) -> float:
    """Mean difference of a pixel between two of the pictures, from 0 to 1."""
    n = len(pictures)
    return float(sum((pictures[a] - pictures[b]).abs().mean() for a in range(n) for b in range(a)) / (n * (n - 1) / 2))


def sweep_stage(
    config: VariationsConfig, state: VariationsStep, vector: Float[Tensor, "1 E"], components: Components
) -> Iterator[VariationsStep]:
    """The same noise, more and more components."""
    decoder = shipped_decoder()
    noise = decoder.noise(EACH, config.seed)
    for k in KEEPS:
        kept, pictures = components.cut(vector, k), noise
        for step, _, shown in decoding(decoder, [kept.expand(EACH, -1)], noise, config.steps, config.scale):
            pictures = shown[0]
            if step % 2 and step < config.steps - 1:
                yield replace(state, doing=f"{k} components, decoder, step {step + 1} of {config.steps}")
        seen = verdicts(pictures)
        same = 100 * sum(one == state.sees for one in seen) / EACH
        cosine = float((kept * vector).sum())
        state = replace(
            state,
            sweep=(*state.sweep, (k, cosine, same)),
            sweep_pixels=(*state.sweep_pixels, pictures.numpy()),
            sweep_seen=(*state.sweep_seen, seen),
        )
        if k < KEEPS[-1]:
            yield replace(
                state,
                doing=(
                    f"{k} components: cosine {cosine:.2f} with the whole embedding; the judge sees"
                    f" {', '.join(' '.join(one) for one in seen)}"
                ),
            )
    whole = state.sweep[-1][2]
    enough = next(k for k, _, same in state.sweep if same >= whole)
    figure = ENOUGH_DECODER(float(enough), float(components.needed(VARIANCE)))
    yield replace(
        state,
        figures=(figure,),
        doing=f"with {enough} of {EMBEDDING} components the decodings are as right as with all",
    )
