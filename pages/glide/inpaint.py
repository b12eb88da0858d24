"""The picture of `inpaint`: the brush, the hole as it fills, and fillings beside blind ones."""

from core.glide.inpaint import CELLS, InpaintConfig, InpaintStep
from pages._kit.charts import Panel, Sketch, axis, bars, picture, ranking
from pages._kit.player import player, view

VIEWS = ("given, with its hole", "x at this step", "predicted picture", "pasted together")
RIMS = ("given picture", "in its surroundings", "blind")


def inpaint_panels(config: InpaintConfig) -> list[Panel]:
    rims = ranking(axis("mean jump", "0 to 1"), axis("", ""), left=140)
    rims["yaxis"] |= {"title": None}
    film = [view("steps", "pictures", "The hole as it is filled, first filling", span=12, most=210, least=100)]
    return [
        view("brush", "brush", "Paint over what is to go (Shift erases)", span=4, most=300, radius=1),
        player("film", "", film, scrub="step", rate=4, bar_before=None) | {"span": 8},
        view(
            "finals",
            "pictures",
            "Above: filled in view of its surroundings. Below: blindly, from the same noise and words",
            span=8,
            most=130,
            least=76,
        ),
        view("rims", "plot", "Does it fit at the rim?", span=4, layout=rims, height=250),
        {"id": "note", "type": "text", "title": "", "span": 12, "height": 44},
    ]


def draw_inpaint(step: InpaintStep, sketch: Sketch) -> None:
    if step.given is not None:
        sketch.show("brush", {"picture": picture(step.given), "field": "painted", "cells": CELLS})
        sketch.show("finals", {"columns": 3, "pictures": [picture(step.views[0], "to be filled")]})
        sketch.text(
            "note", step.note or "A square of the brush is one pixel that the model paints; the picture has 32 x 32."
        )
    if step.views is not None:
        label = f"step {step.number}" if step.number else "the hole"
        sketch.frame(
            "film",
            label,
            steps={"columns": 4, "pictures": [picture(one, name) for one, name in zip(step.views, VIEWS, strict=True)]},
        )
    if step.rims:
        told = (step.rims[0], step.rims[-1] if len(step.rims) > 1 else 0.0, step.rims[1] if len(step.rims) > 2 else 0.0)
        sketch.show("rims", bars(RIMS, told, RIMS[1]))
    if step.finals is not None:
        rows = [(step.finals[1], step.verdicts[-1])] + (
            [(step.finals[0], step.verdicts[0])] if step.changed is not None else []
        )
        shown = [
            picture(one, under=name) for pictures, names in rows for one, name in zip(pictures, names, strict=True)
        ]
        sketch.show("finals", {"columns": len(step.finals[1]), "pictures": shown})
    if step.changed is not None:
        sketch.text("note", (step.note + ". " if step.note else "") + f"The kept pixels changed by {step.changed:g}.")
