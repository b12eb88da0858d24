"""Painting: our sampling loop against diffusers' pipeline on the same weights, and pictures a second of each model.
python -m tests.bench.painting

Goals: our loop takes no longer than the pipeline for a picture of 25 steps, and that is there within 3 seconds. Before
a time is taken both must give the same picture. Every denoiser's peer is the same network in a loop around a scheduler
of diffusers.
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from core.dalle2.decoder import shipped_decoder
from core.foundations.small_clip import shipped_clip
from core.foundations.small_diffusion import Denoiser
from core.glide.model import shipped_glide
from core.stable_diffusion.model import pipeline, shipped_denoiser
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

PROMPTS = ["a red circle on the left", "a blue star", "a green triangle", "a small yellow cross"]
STEPS, SCALE = 25, 3.0
Way = Callable[[int], Tensor]  # how many pictures -> the pictures


def piped(denoiser: Any) -> Way:
    """diffusers' own pipeline around the same weights."""
    pipe = pipeline(denoiser)
    pipe.set_progress_bar_config(disable=True)

    def paint(n: int) -> Tensor:
        told = pipe(
            PROMPTS[:n], num_inference_steps=STEPS, guidance_scale=SCALE, latents=denoiser.noise(n, 0), output_type="pt"
        )
        return torch.as_tensor(told.images)

    return paint


def looped(denoiser: Denoiser, told: Any) -> Way:
    """The loop of a diffusers tutorial: the network, guidance, `scheduler.step`."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_schedule=denoiser.schedule,
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=denoiser.predicts,
        clip_sample=denoiser.clip,
        set_alpha_to_one=False,
        steps_offset=denoiser.offset,
    )

    @torch.no_grad()
    def paint(n: int) -> Tensor:
        states = torch.cat([denoiser.nothing(n), denoiser.states(told[:n])])
        scheduler.set_timesteps(STEPS)
        x = denoiser.noise(n, 0)
        for t in scheduler.timesteps:
            free, said = denoiser(torch.cat([x, x]), t, states).chunk(2)
            x = scheduler.step(free + SCALE * (said - free), t, x, use_clipped_model_output=denoiser.clip).prev_sample
        return denoiser.decode(x)

    return paint


def speed(way: Way, n: int) -> Callable[[], float]:
    """A contestant: pictures per second."""

    def measure() -> float:
        started = time.perf_counter()
        way(n)
        return n / (time.perf_counter() - started)

    return measure


def main() -> None:
    arguments = with_threads(options(__doc__))
    rounds, lines = 1 if arguments.quick else 9, []
    clip = shipped_clip().texts(PROMPTS)
    for name, denoiser, told in (
        ("Stable Diffusion", shipped_denoiser(), PROMPTS),
        ("GLIDE", shipped_glide(), PROMPTS),
        ("DALL·E 2's decoder", shipped_decoder(), clip),
    ):
        for n in (1, 4):
            peer = piped(denoiser) if name == "Stable Diffusion" else looped(denoiser, told)

            def ours(n: int, denoiser: Any = denoiser, told: Any = told) -> Tensor:
                return denoiser.paint(told[:n], STEPS, SCALE, 0)  # type: ignore[no-any-return]

            apart = float((ours(n) - peer(n)).abs().max())
            if apart > 1e-3:
                sys.exit(f"{name}: the pictures differ by {apart}, so the speeds are not compared")
            measured = in_turns(rounds, {"ours": speed(ours, n), "diffusers": speed(peer, n)})
            times = ratio(measured["ours"], measured["diffusers"])
            what = f"{name}, {STEPS} steps, {n} at a time, against diffusers'"
            lines.append(
                Line(
                    what,
                    "pictures/s",
                    median(measured["ours"]),
                    median(measured["diffusers"]),
                    times,
                    "at least 1",
                    times >= 1,
                )
            )
            if n == 1:
                seconds = 1 / median(measured["ours"])
                lines.append(Line(f"{name}, one picture", "s", seconds, None, None, "at most 3", seconds <= 3))
    report("painting", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
