r"""Denoisers: a U-Net of diffusers, what tells it what to draw, and how it is trained.

The denoisers of this app work on a grid of 8 x 8 places: GLIDE's on patches of 2 x 2 pixels, 12 numbers each, those of
DALL·E 2 and Stable Diffusion on the latents of an autoencoder, 4 numbers each. The two levels of the U-Net have 64 and
128 channels; the condition is read by cross-attention at the upper one and in the middle. In GLIDE and DALL·E 2 a
summary of it is also added to the embedding of the step, as in their papers.

**What it predicts.** $v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0$, in which the picture and the
noise both have their part; the loss is its squared error. In one of eight captions the words are left out, so that one
network learns both $v(x_t, c)$ and $v(x_t)$ for guidance.

Left out: several resolutions, learned variances, mixed precision.
Source: Ho et al. 2020, arXiv:2006.11239; Salimans and Ho 2022, arXiv:2202.00512; Ho and Salimans 2022,
arXiv:2207.12598.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.foundations.captioned_shapes import (
    CONTEXT,
    END,
    PAD,
    START,
    Scenes,
    captions,
    draw,
    prompt,
    render,
    tokens_of,
)
from core.foundations.diffusion import STEPS, Network, noised, sampling, signal, velocity
from core.foundations.judge import shipped_judge

WIDTH = 96  # numbers per token of a condition
GRID = 8  # the U-Net sees 8 x 8 places
DROPPED = 0.12  # of the captions in training
BATCH = 24

EMPTY = [START, END] + [PAD] * (CONTEXT - 2)  # the tokens of no words at all


@torch.no_grad()
def roll(module: nn.Module, rng: torch.Generator) -> None:
    """Draw all weights from `rng`, as PyTorch would draw them: uniform within 1 / sqrt(inputs); norms stay as they are,
    words are normal.
    """
    words = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for name, weight in module.named_parameters():
        if id(weight) in words:
            weight.normal_(0, 1, generator=rng)
        elif weight.dim() > 1:
            reach = weight[0].numel() ** -0.5
            weight.uniform_(-reach, reach, generator=rng)
        elif name.endswith("bias"):
            weight.zero_()


def unet_of(channels: int, widths: tuple[int, int] = (64, 128), summary: bool = False, **more: Any) -> Any:
    """diffusers' U-Net on 8 x 8 places; cross-attention above and in the middle. summary: a vector is added to the
    embedding of the step.
    """
    from diffusers import UNet2DConditionModel

    if summary:
        more |= {"class_embed_type": "projection", "projection_class_embeddings_input_dim": WIDTH}
    return UNet2DConditionModel(
        sample_size=GRID,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **more,
    )


class Denoiser(nn.Module):
    """A denoiser. Subclasses say what it denoises (`encode`, `decode`) and what it reads (`states`, `nothing`)."""

    schedule = "scaled_linear"
    predicts = "v_prediction"
    clip = False  # keep predicted pictures between -1 and 1: pixels are, latents are not
    side = 32  # pixels of a picture's side
    offset = 0  # added to each visited step; Stable Diffusion's pipeline visits 1 rather than 0

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    @property
    def places(self) -> tuple[int, int, int]:
        """Shape of what is denoised: channels, height, width."""
        return self.unet.config.in_channels, GRID, GRID

    def scenes(self, rng: np.random.Generator, n: int) -> Scenes:
        """What it learns from."""
        return draw(rng, n, two=0.15, grey=0.1)

    def encode(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C 8 8"]:
        """Pictures from 0 to 1 -> what the U-Net sees."""
        raise NotImplementedError

    def decode(self, x: Float[Tensor, "N C 8 8"]) -> Float[Tensor, "N 3 H W"]:
        """... and back."""
        raise NotImplementedError

    def states(self, told: Any) -> Float[Tensor, "N L 96"]:
        """What the U-Net reads, from prompts (or, in the decoder of DALL·E 2, from embeddings); with a summary, that is
        the last row.
        """
        raise NotImplementedError

    def nothing(self, n: int) -> Float[Tensor, "N L 96"]:
        """... where nothing is said."""
        raise NotImplementedError

    def forward(self, x: Tensor, t: Tensor | int, states: Tensor) -> Tensor:
        if self.unet.config.class_embed_type is None:
            return self.unet(x, t, states).sample  # type: ignore[no-any-return]
        return self.unet(x, t, states[:, :-1], class_labels=states[:, -1]).sample  # type: ignore[no-any-return]

    def network(self, states: Tensor) -> Network:
        """For `sampling`: predictions without and with the condition, in one batch."""
        both = torch.cat([self.nothing(len(states)), states])

        def told(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                without, told = self(torch.cat([x, x]), t, both).chunk(2)
            return without, told

        return told

    def noise(self, n: int, seed: int) -> Float[Tensor, "N C 8 8"]:
        return torch.randn(n, *self.places, generator=torch.Generator().manual_seed(seed))

    def paint(self, told: Any, steps: int = 25, scale: float = 2.0, seed: int = 0) -> Float[Tensor, "N 3 H W"]:
        """A picture for each prompt, at once: DDIM from the noise of a seed."""
        states = self.states(told).detach()
        x = self.noise(len(states), seed)
        for moment in sampling(
            self.network(states), x, (self.schedule, self.predicts), steps, scale, clip=self.clip, offset=self.offset
        ):
            x = moment.after
        with torch.no_grad():
            return self.decode(x)


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lesson:
    step: int  # optimizer steps so far
    loss: float  # mean squared error of v
    errors: Float[np.ndarray, "N"]  # ... of each picture
    levels: Float[np.ndarray, "N"]  # alpha-bar of each picture


def rate_at(step: int, steps: int, rate: float) -> float:
    """Warm up for a sixteenth of the steps, 300 at most, while half a cosine falls to a hundredth."""
    return (
        rate
        * min(1.0, (step + 1) / min(300, max(1, steps // 16)))
        * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
    )


class Average:
    """The exponential moving average of the weights: what is sampled from, since single steps jitter."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        share = 1 - min(0.999, (1 + step) / (10 + step))
        for name, weight in model.state_dict().items():
            self.weights[name].lerp_(weight, share)


Conditions = Callable[[list[str], Tensor, Tensor], Tensor]  # captions, pictures, which of them are dropped -> states


def anywhere(n: int, rng: torch.Generator) -> Tensor:
    """Steps of the noise, all of them equally often."""
    return torch.randint(0, STEPS, (n,), generator=rng)


def teach(
    denoiser: Denoiser,
    conditions: Conditions,
    steps: int,
    batch: int = BATCH,
    rate: float = 1e-3,
    seed: int = 0,
    optimizer: Callable[[list[nn.Parameter], float], torch.optim.Optimizer] | None = None,
    times: Callable[[int, torch.Generator], Tensor] = anywhere,
) -> Iterator[tuple[Lesson, Average]]:
    """Train on endless drawings, one Lesson per step.

    conditions: what to read, with its gradients if it learns too; optimizer: instead of AdamW; times: which noise
    levels.
    """
    world, noises = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    learned = [weight for weight in denoiser.parameters() if weight.requires_grad]
    chosen = (
        optimizer(learned, rate)
        if optimizer
        else torch.optim.AdamW(learned, rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    )
    average, every = Average(denoiser), signal(denoiser.schedule)
    for step in range(steps):
        scenes = denoiser.scenes(world, batch)
        pictures, texts = render(scenes), captions(scenes, world)
        with torch.no_grad():
            x0 = denoiser.encode(pictures)
        noise = torch.randn(x0.shape, generator=noises)
        t = times(batch, noises)
        dropped = torch.rand(batch, generator=noises) < DROPPED
        errors = errors_of(denoiser, x0, noise, t, every, conditions(texts, pictures, dropped))
        for group in chosen.param_groups:
            group["lr"] = rate_at(step, steps, rate)
        errors.mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        chosen.step()
        chosen.zero_grad()
        average.follow(denoiser, step)
        yield Lesson(step + 1, errors.mean().item(), errors.detach().numpy(), every[t].numpy()), average


def taught(denoiser: Denoiser, lessons: Iterator[tuple[Lesson, Average]]) -> None:
    """Train to the end, with a line now and then; the denoiser then has the average weights."""
    average = None
    for lesson, latest in lessons:
        average = latest
        if lesson.step % 1000 == 0:
            print(lesson.step, round(lesson.loss, 4), flush=True)
    if average:
        denoiser.load_state_dict(average.weights)
    denoiser.eval()


def errors_of(
    denoiser: Denoiser, x0: Tensor, noise: Tensor, t: Tensor, every: Tensor, states: Tensor
) -> Float[Tensor, "N"]:
    """Each picture's squared error of v."""
    kept = every[t].view(-1, 1, 1, 1)
    told = denoiser(noised(x0, noise, kept), t, states)
    return (told - velocity(x0, noise, kept)).square().mean((1, 2, 3))


# --- prompts
# ------------------------------------------------------------------------------------------------------------


def tokens_or_nothing(texts: Sequence[str], dropped: Tensor | None = None) -> Tensor:
    """Tokens; those of no words at all for a dropped or an empty text."""
    empty = torch.tensor(EMPTY)
    rows = [empty if not text.strip() else tokens_of([text])[0] for text in texts]
    tokens = torch.stack(rows)
    return tokens if dropped is None else torch.where(dropped[:, None], empty, tokens)


# --- quality ----------------------------------------------------------------------------------------------------------


def asked_for(n: int, held_out: bool, seed: int = 11, side: int = 32) -> tuple[Scenes, list[str]]:
    """Scenes of one object and the prompts that name only its colour and shape."""
    scenes = draw(np.random.default_rng(seed), n, held_out=held_out, side=side)
    return scenes, [prompt(*scenes.pair(number)) for number in range(n)]


def right(pictures: Tensor, scenes: Scenes) -> Bool[np.ndarray, "N"]:
    """Whether the judge sees in each picture the colour and the shape that the scene has."""
    colour, shape = shipped_judge().verdict(pictures)
    return (colour == scenes.colour[:, 0]) & (shape == scenes.shape[:, 0])


def agreement(pictures: Tensor, scenes: Scenes) -> float:
    """The share of pictures in which it does."""
    return float(right(pictures, scenes).mean())
