"""Decoding several sets of embeddings side by side from the same noise, one short unit of work at a time; and what a
re-encoding keeps.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from core.dalle2.decoder import Decoder
from core.foundations.diffusion import sampling, trailing


def decoding(
    decoder: Decoder, sets: Sequence[Float[Tensor, "_ E"]], noise: Float[Tensor, "_ C 8 8"], steps: int, scale: float
) -> Iterator[tuple[int, int, list[Float[Tensor, "_ 3 H W"]]]]:
    """(step, set, the pictures of all sets as they are predicted now): each set begins with the same noise and takes
    its step in turn.
    """
    runs = []
    for vectors in sets:
        network = decoder.network(decoder.states(vectors).detach())
        runs.append(
            sampling(
                network,
                noise[: len(vectors)],
                (decoder.schedule, decoder.predicts),
                steps,
                scale,
                clip=decoder.clip,
                visited=trailing(steps),  # from the very last step: pure noise is treated as pure noise
            )
        )
    shown = [decoder.decode(noise[: len(vectors)]) for vectors in sets]
    for step in range(steps):
        for number, run in enumerate(runs):
            moment = next(run)
            shown[number] = decoder.decode(moment.after if step == steps - 1 else moment.x0)
            yield step, number, list(shown)


def slerp(a: Float[Tensor, "... E"], b: Float[Tensor, "... E"], share: float) -> Float[Tensor, "... E"]:
    """From a (share 0) to b (share 1) along the great circle, at even speed; unit vectors in, unit vectors out."""
    angle = (a * b).sum(-1, keepdim=True).double().clamp(-1, 1).arccos()
    if float(angle.abs().max()) < 1e-4:
        return F.normalize(torch.lerp(a, b, share), dim=-1)
    mixed = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()
    return mixed.to(a.dtype)


def mean_cosine(vectors: Float[Tensor, "N E"]) -> float:
    """Of two different ones of these unit vectors: (|sum|^2 - N) / (N (N - 1))."""
    n = len(vectors)
    return float((vectors.double().sum(0).square().sum() - n) / (n * (n - 1)))
