r"""The prior of DALL·E 2: from the embedding of a caption to the embedding of a picture that would fit it.

A caption leaves most of a picture open: place, size, background. So there is no one right answer, and a network that
must give one gives the mean of all, which is no picture. A prior draws *one of the many*, $z_i \sim p(z_i \mid z_t)$.
Two ways, as in the paper:

**Diffusion.** Noise becomes an embedding in a few steps. The network sees the noised $z_i$, the text's $z_t$ and the
time, and predicts the clean $z_i$ itself; its loss is the plain squared error $|\hat z_i(z_i^{(t)}, t, z_t) - z_i|^2$.
One in ten texts is left out, for guidance.

**Autoregressive.** The embedding becomes a sentence: its first $k$ principal components, the largest first, each
rounded to one of 32 levels, and a small causal transformer that has read $z_t$ writes one level after the other.

An embedding is a unit vector of 64 numbers; both networks see it times 8, so that each number is about 1, and both
answers are brought back to length 1.

Train and save: python -m core.dalle2.prior --save assets/weights/shapes-dalle2 (both, at once)
Simpler than the paper: its diffusion prior is a causal transformer over the caption's tokens, this one a residual MLP;
its codes have 1,024 levels, these 32 quantiles; it drops one text in ten in both priors, here only the diffusion one
does. It needs few components because its CLIP was trained with SAM, and it found that guiding the prior hurts
(section 5.5).

Left out: the caption's tokens as a second condition, the token of the product $z_i \cdot z_t$, a choice between two
samples (`best_of` has it).
Source: Ramesh et al. 2022, arXiv:2204.06125, section 2.2.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.foundations.captioned_shapes import PAIRS, Scenes, captions, draw, prompt, render
from core.foundations.diffusion import STEPS, Moment, Network, noised, sampling, signal, trailing
from core.foundations.small_clip import EMBEDDING, shipped_clip
from core.foundations.small_diffusion import Average, Denoiser, agreement, asked_for, rate_at, roll
from core.foundations.weights import SHIPPED

FOLDER = SHIPPED / "shapes-dalle2"
UNIT = EMBEDDING**0.5  # a unit vector times this has numbers of about 1
SCHEDULE = ("squaredcos_cap_v2", "sample")
SAMPLED = 20  # steps of the diffusion prior
DROPPED = 0.1  # of the texts in training
KEPT = 32  # principal components that become codes
LEVELS = 32  # of each
BATCH = 192
FRESH, POOL = 64, 16_384  # drawings per update, and how many of the latest are learned from
FITTED = 4096  # drawings that the principal components are taken from

# --- diffusion --------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block; the condition shifts and scales what it sees."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.mix(F.silu(told)).chunk(2, -1)
        return x + self.down(F.gelu(self.up(self.norm(x) * (1 + scale) + shift)))  # type: ignore[no-any-return]


class DiffusionPrior(nn.Module):
    """Predicts the clean embedding from a noised one, the text's embedding and the time."""

    def __init__(self, rng: torch.Generator | None = None, width: int = 192, blocks: int = 4) -> None:
        super().__init__()
        self.read, self.text, self.clock = (
            nn.Linear(EMBEDDING, width),
            nn.Linear(EMBEDDING, width),
            nn.Linear(32, width),
        )
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, EMBEDDING)
        roll(self, rng or torch.Generator().manual_seed(0))

    def forward(
        self, x: Float[Tensor, "N E"], t: Int[Tensor, "N"], texts: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N E"]:
        """x: embeddings times 8 with noise. texts: unit vectors, a row of zeros says nothing."""
        turns = t[:, None].float() / STEPS * math.pi * 2.0 ** torch.linspace(-1, 6, 16)
        told = self.text(UNIT * texts) + self.clock(torch.cat([turns.sin(), turns.cos()], -1))
        x = self.read(x) + told
        for block in self.blocks:
            x = block(x, told)
        return self.out(self.norm(x))  # type: ignore[no-any-return]

    def loss(self, pictures: Float[Tensor, "N E"], texts: Float[Tensor, "N E"], rng: torch.Generator) -> Tensor:
        n, every = len(pictures), signal(SCHEDULE[0])
        t, noise = torch.randint(0, STEPS, (n,), generator=rng), torch.randn(pictures.shape, generator=rng)
        texts = texts * (torch.rand(n, 1, generator=rng) >= DROPPED)
        x0 = UNIT * pictures
        return (self(noised(x0, noise, every[t][:, None]), t, texts) - x0).square().mean()  # type: ignore[no-any-return]

    def network(self, texts: Float[Tensor, "N E"]) -> Network:
        """For `sampling`: predictions without and with the text, in one batch."""
        both = torch.cat([torch.zeros_like(texts), texts])

        def told(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                free, told = self(torch.cat([x, x]), torch.full((len(both),), t), both).chunk(2)
            return free, told

        return told

    def moments(
        self, texts: Float[Tensor, "N E"], seed: int, steps: int = SAMPLED, scale: float = 1.0
    ) -> Iterator[Moment]:
        """From noise to embeddings (times 8), step by step."""
        x = torch.randn(texts.shape, generator=torch.Generator().manual_seed(seed))
        yield from sampling(self.network(texts), x, SCHEDULE, steps, scale, visited=trailing(steps))

    def imagine(
        self, texts: Float[Tensor, "N E"], seed: int = 0, steps: int = SAMPLED, scale: float = 1.0
    ) -> Float[Tensor, "N E"]:
        """The embedding of one possible picture for each text."""
        *_, last = self.moments(texts, seed, steps, scale)
        return F.normalize(last.after, dim=-1)


# --- autoregressive ---------------------------------------------------------------------------------------------------


class AutoregressivePrior(nn.Module):
    """Writes an embedding as a row of codes, the coefficient of the largest principal component first."""

    mean: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, rng: torch.Generator | None = None, width: int = 96, layers: int = 2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(EMBEDDING))
        self.register_buffer("basis", torch.zeros(KEPT, EMBEDDING))  # rows: principal components
        self.register_buffer("levels", torch.zeros(KEPT, LEVELS))  # the number that a code stands for, ascending
        self.text, self.codes_in = nn.Linear(EMBEDDING, width), nn.Embedding(KEPT * LEVELS, width)
        self.places = nn.Parameter(torch.zeros(KEPT, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.body, self.norm = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False), nn.LayerNorm(width)
        self.out = nn.Linear(width, LEVELS)
        roll(self, rng or torch.Generator().manual_seed(0))

    @torch.no_grad()
    def fit(self, pictures: Float[Tensor, "N E"]) -> None:
        """Principal components of these embeddings; levels such that each is used equally often."""
        self.mean.copy_(pictures.mean(0))
        spread, vectors = torch.linalg.eigh(torch.cov((pictures - self.mean).T.double()))
        chosen = vectors[:, spread.argsort(descending=True)[:KEPT]].T
        chosen = (
            chosen * chosen.gather(1, chosen.abs().argmax(1, keepdim=True)).sign()
        )  # a sign that does not depend on the library
        self.basis.copy_(chosen)
        found = ((pictures - self.mean) @ self.basis.T).sort(0).values  # (N, K)
        self.levels.copy_(torch.stack([part.mean(0) for part in found.tensor_split(LEVELS)], 1))

    def codes(self, pictures: Float[Tensor, "*N E"]) -> Int[Tensor, "*N K"]:
        """The nearest level of each coefficient."""
        found = (pictures - self.mean) @ self.basis.T
        return (found[..., None] - self.levels).abs().argmin(-1)

    def vectors(self, codes: Int[Tensor, "N K"]) -> Float[Tensor, "N E"]:
        """Embeddings from codes; components not written yet (fewer than K codes) stay at their mean."""
        count = codes.shape[1]
        found = self.levels[:count].expand(len(codes), -1, -1).gather(2, codes[..., None])[..., 0]
        return F.normalize(self.mean + found @ self.basis[:count], dim=-1)

    def forward(self, texts: Float[Tensor, "N E"], codes: Int[Tensor, "N C"]) -> Float[Tensor, "N C+1 L"]:
        """Logits of each next code, after the text alone and after each code so far."""
        length = codes.shape[1] + 1
        before = self.codes_in(codes + LEVELS * torch.arange(length - 1))
        states = torch.cat([self.text(UNIT * texts)[:, None], before], 1) + self.places[:length]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.out(self.norm(self.body(states, mask=later)))  # type: ignore[no-any-return]

    def loss(self, pictures: Float[Tensor, "N E"], texts: Float[Tensor, "N E"], rng: torch.Generator) -> Tensor:
        """Nats per code."""
        codes = self.codes(pictures)
        return F.cross_entropy(self(texts, codes[:, :-1]).flatten(0, 1), codes.flatten())

    def written(
        self, texts: Float[Tensor, "N E"], seed: int
    ) -> Iterator[tuple[Int[Tensor, "N C"], Float[Tensor, "N L"]]]:
        """The codes so far, one more each time, and the probabilities that the latest was drawn from."""
        rng, codes = torch.Generator().manual_seed(seed), torch.zeros(len(texts), 0, dtype=torch.int64)
        for _ in range(KEPT):
            with torch.no_grad():
                shares = self(texts, codes)[:, -1].softmax(-1)
            codes = torch.cat([codes, torch.multinomial(shares, 1, generator=rng)], 1)
            yield codes, shares

    def imagine(self, texts: Float[Tensor, "N E"], seed: int = 0) -> Float[Tensor, "N E"]:
        """The embedding of one possible picture for each text."""
        *_, (codes, _) = self.written(texts, seed)
        return self.vectors(codes)


Prior = DiffusionPrior | AutoregressivePrior


def best_of(prior: Prior, texts: Float[Tensor, "N E"], seed: int = 0, tries: int = 2) -> Float[Tensor, "N E"]:
    """Of some imagined embeddings the one nearest to the text, as the paper does with two."""
    every = torch.stack([prior.imagine(texts, seed + 1000 * number) for number in range(tries)])
    best = (every * texts).sum(-1).argmax(0)
    return every[best, torch.arange(len(texts))]


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Update:
    step: int
    diffusion: float  # mean squared error of a number; 1 is about what saying the mean costs
    autoregressive: float  # nats per code; ln 32 = 3.47 is guessing


class Pool:
    """The latest pairs of an endless world: embeddings of drawings and of their captions."""

    def __init__(self, seed: int, first: int) -> None:
        self.rng, self.clip = np.random.default_rng(seed), shipped_clip()
        self.pictures, self.texts = torch.zeros(0, EMBEDDING), torch.zeros(0, EMBEDDING)
        for _ in range(math.ceil(first / FRESH)):
            self.grow()

    def grow(self) -> None:
        scenes = draw(self.rng, FRESH, two=0.15, grey=0.1)
        pictures, texts = self.clip.pictures(render(scenes)), self.clip.texts(captions(scenes, self.rng))
        self.pictures, self.texts = torch.cat([self.pictures, pictures])[-POOL:], torch.cat([self.texts, texts])[-POOL:]


def lessons(
    diffusion: DiffusionPrior, autoregressive: AutoregressivePrior, steps: int, seed: int = 0
) -> Iterator[tuple[Update, tuple[Average, Average]]]:
    """Train both in place on the same pairs; an Update each, and the averages of their weights."""
    pool, rng = Pool(seed, FITTED), torch.Generator().manual_seed(seed)
    autoregressive.fit(pool.pictures)
    priors: tuple[Prior, Prior] = (diffusion, autoregressive)
    optimizers = [torch.optim.AdamW(prior.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0.01) for prior in priors]
    averages = (Average(diffusion), Average(autoregressive))
    for step in range(steps):
        pool.grow()
        chosen, told = torch.randint(0, len(pool.pictures), (BATCH,), generator=rng), list[float]()
        for prior, optimizer, average in zip(priors, optimizers, averages, strict=True):
            loss = prior.loss(pool.pictures[chosen], pool.texts[chosen], rng)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, steps, 2e-3)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.follow(prior, step)
            told.append(loss.item())
        yield Update(step + 1, *told), averages


# --- files ------------------------------------------------------------------------------------------------------------


def save(prior: Prior, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().half().contiguous() for name, weight in prior.state_dict().items()},
        folder / FILES[type(prior)],
    )


def load(prior: Prior, folder: Path = FOLDER) -> Any:
    from safetensors.torch import load_file

    prior.load_state_dict({name: weight.float() for name, weight in load_file(folder / FILES[type(prior)]).items()})
    return prior.eval().requires_grad_(False)


FILES = {DiffusionPrior: "prior.safetensors", AutoregressivePrior: "autoregressive.safetensors"}


@cache
def shipped_prior() -> DiffusionPrior:
    """The diffusion prior that comes with the app."""
    return load(DiffusionPrior())  # type: ignore[no-any-return]


@cache
def shipped_autoregressive() -> AutoregressivePrior:
    """The autoregressive prior that comes with the app."""
    return load(AutoregressivePrior())  # type: ignore[no-any-return]


# --- quality ----------------------------------------------------------------------------------------------------------


def named(vectors: Float[Tensor, "N E"], scenes: Scenes) -> float:
    """The fraction of embeddings to which CLIP gives, among all 48 names, that of the scene's color and shape."""
    nearest = (vectors @ name_vectors().T).argmax(1).tolist()
    return float(np.mean([PAIRS[at] == scenes.pair(number) for number, at in enumerate(nearest)]))


@cache
def name_vectors() -> Float[Tensor, "48 E"]:
    return shipped_clip().texts([prompt(*pair) for pair in PAIRS])


def imagined_right(prior: Prior, n: int = 400) -> dict[str, float]:
    """How often CLIP sees in an imagined embedding what the prompt asked for."""
    told = {}
    for name, held_out in (("seen", False), ("never seen", True)):
        scenes, prompts = asked_for(n, held_out)
        told[name] = named(prior.imagine(shipped_clip().texts(prompts), 3), scenes)
    return told


def quality(
    decoder: Denoiser, prior: Callable[[Tensor], Tensor], n: int = 200, scale: float = 2.0, seed: int = 3
) -> dict[str, float]:
    """The whole chain: how often the judge sees in the picture the color and shape that the prompt asked for. prior:
    texts -> pictures.
    """
    told = {}
    for name, held_out in (("seen", False), ("never seen", True)):
        scenes, prompts = asked_for(n, held_out)
        told[name] = agreement(decoder.paint(prior(shipped_clip().texts(prompts)), scale=scale, seed=seed), scenes)
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train both priors.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    told = parser.parse_args()
    diffusion, autoregressive = DiffusionPrior(), AutoregressivePrior()
    trained: tuple[Prior, ...] = (diffusion, autoregressive)
    latest: tuple[Average, ...] = ()
    for update, averages in lessons(diffusion, autoregressive, told.steps):
        latest = averages
        if update.step % 50 == 0:
            print(update, flush=True)
    for prior, average in zip(trained, latest, strict=True):
        prior.load_state_dict(average.weights)
        prior.eval()
        print(type(prior).__name__, imagined_right(prior))
        if told.save:
            save(prior, told.save)
