"""The picture of `inside`: an opened model as a map, with a film through one layer and head of it."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from core.nanogpt.inside import NEEDS, InsideConfig, InsideStep
from pages._kit.charts import Panel, Sketch, heat, numbers
from pages._kit.player import player, view


def inside_panels(config: InsideConfig) -> list[Panel]:
    film = [
        view("says", "text", "", height=66, narrow=116, prose=True),
        view(
            "map",
            "anatomy",
            "",
            hint="Click to go closer; point at a cell to see where its number comes from.",
            legend=[("a", "below 0"), ("b", "above 0"), ("c", "share: the stronger, the more")],
        ),
    ]
    return [player("pass", "", film, scrub="stage", rate=0.3, bar_before=0)]


def draw_inside(step: InsideStep, sketch: Sketch) -> None:
    if not step.stages:
        return
    give = told_first(step) | (told_later(step) if step.tensors else {})
    frames: list[tuple[str, dict[str, Any]]] = []
    for stage in step.stages:
        at: dict[str, Any] = {"place": stage.place, "layer": step.layer, "head": step.head}
        frames.append(
            (
                stage.name,
                {"says": f"{stage.name.capitalize()}: {stage.says}", "map": at | ({} if frames else {"give": give})},
            )
        )
    sketch.film("pass", frames, opens=0)


def told_first(step: InsideStep) -> dict[str, Any]:
    """What is seen from far: the text, where each head looks, what each layer would write, the next tokens."""
    assert step.shares is not None
    layers, heads, tokens, _ = step.shares.shape
    shares = heat(step.shares.reshape(layers, heads, tokens, tokens), ())
    return {
        "tokens": list(step.tokens),
        "shape": dict(step.shape),
        "shares": {"shape": [layers, heads, tokens], "bytes": shares["bytes"]},
        "candidates": [list(one) for one in step.candidates],
        "lens": [list(one) for one in step.lens],
    }


def told_later(step: InsideStep) -> dict[str, Any]:
    """What is seen from close by: the tensors of the layers that can be opened, and what each part is good for."""
    return {
        "tensors": {
            str(layer): {name: numbers(values, coarse=name == "hidden") for name, values in tensors.items()}
            for layer, tensors in step.tensors.items()
        },
        "knocked": [asdict(one) for one in step.knocked],
        "needs": NEEDS,
    }


def lit_inside(step: InsideStep) -> Mapping[str, str]:
    return {step.part: ""} if step.part else {}
