"""The picture of `match`: pictures, the matrix of cosines, one picture at a time against random captions, templates."""

from core.clip.match import CELLS, EDGES, NAMES, PAPER_SCALE, MatchConfig, MatchStep
from pages._kit.charts import Panel, Sketch, axis, bars, chart, columns, dots, heat, picture, ranking
from pages._kit.player import player, view

MOST_NAME = 21  # characters of a caption beside a bar


SUM = "Each column adds up to 1."


def match_panels(config: MatchConfig) -> list[Panel]:
    shares = ranking(axis("probability", "%", 100), axis("", ""), left=146, legend=True)
    against = chart(axis("cosine", "1 is the same direction"), axis("random captions", "count"))
    against["xaxis"] |= {"range": [-1, 1]}
    accuracy = ranking(axis("named right", "%", 100), axis("", ""), left=186)
    accuracy["shapes"] = [
        {
            "type": "line",
            "x0": 100 / 48,
            "x1": 100 / 48,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"dash": "dash", "width": 1.5},
        }
    ]
    for one in (shares, accuracy):
        one["yaxis"] |= {"title": None}
    cosine = "{from}, picture {column}: cosine {value}"
    share = "{from}, picture {column}: {value}"
    film = [
        view(
            "against",
            "plot",
            "This picture's cosines",
            legend=[("level", "captions of others"), ("b", "its own caption")],
            span=7,
            layout=against,
            height=300,
        ),
        view("shares", "plot", "What a softmax makes of them", span=5, layout=shares, height=300),
    ]
    return [
        view("pictures", "pictures", "The pictures, and the caption each likes best", most=118, least=92),
        view(
            "cosines",
            "matrix",
            "Cosine of each caption with each picture",
            span=6,
            words=cosine,
            hint="A column is a picture, in the order above. Point at a cell.",
        ),
        view("softmax", "matrix", f"After a softmax at scale {PAPER_SCALE:.0f}", span=6, words=share, hint=SUM),
        player("film", "Is this cosine high?", film, scrub="picture", rate=1, bar_before=0),
        view(
            "templates",
            "plot",
            "Templates: held-out pictures with noise, named among 48",
            legend=[("text", "guessing", "dashed")],
            span=8,
            layout=accuracy,
            height=300,
        ),
        view("brush", "brush", "Paint a picture of your own, then Run", span=4, most=220, radius=1),
        {"id": "notes", "type": "text", "title": "", "span": 12, "height": 44},
    ]


def draw_match(step: MatchStep, sketch: Sketch) -> None:
    if step.pixels is None or step.cosines is None:
        return
    short = [name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…" for name in step.captions]
    if not step.templates:
        best = [(step.captions[row.argmax()], float(row.max())) for row in step.cosines]
        told = [
            picture(one, name, under=f"{cosine:.2f} {caption}")
            for one, name, (caption, cosine) in zip(step.pixels, step.names, best, strict=True)
        ]
        sketch.show("pictures", {"columns": len(told), "pictures": told})
        count = len(step.names)
        for panel, values in (("cosines", step.cosines), ("softmax", step.at_paper)):
            sketch.show(
                panel,
                heat(
                    values.T[None, None], [""], left=short, below="".join(str(number) for number in range(1, count + 1))
                ),
            )
        sketch.show("brush", {"picture": picture(step.canvas), "field": "painted", "cells": CELLS})
        sketch.text(
            "notes",
            "; ".join(step.notes)
            or f"The model's own scale is {step.scale:.1f}; its pictures are {step.pixels.shape[-1]} pixels on a side.",
        )
        sketch.film("film", [frame_of(step, number, short) for number in range(count)])
    draw_templates(step, sketch)


def frame_of(step: MatchStep, number: int, short: list[str]) -> tuple[str, dict[str, object]]:
    """One picture: its cosines over the histogram, and both softmaxes."""
    cosines, traces = [float(cosine) for cosine in step.cosines[number]], []
    tallest = 1.0
    if step.heights is not None:
        counts = [float(count) for count in step.heights[number]]
        traces.append(
            columns(
                [round(float(edge), 3) for edge in (EDGES[1:] + EDGES[:-1]) / 2],
                counts,
                "random captions",
                "level",
                width=0.02,
            )
        )
        tallest = max(1.0, *counts)
    ranked = sorted(range(len(short)), key=lambda at: cosines[at])
    heights = [tallest * (1.12 + 0.16 * place) for place in range(len(ranked))]
    marks = dots(
        [cosines[at] for at in ranked], heights, "yours", "b", names=[f"{short[at]} {cosines[at]:.2f}" for at in ranked]
    )
    marks["textposition"] = ["middle left" if cosines[at] > 0 else "middle right" for at in ranked]
    told = f"{step.names[number]}"
    both = bars(
        short, [100 * float(share) for share in step.at_own[number]], label=f"own scale, {step.scale:.0f}", colour="a"
    )
    both += bars(
        short, [100 * float(share) for share in step.at_paper[number]], label=f"scale {PAPER_SCALE:.0f}", colour="b"
    )
    return told, {"against": [*traces, marks], "shares": both}


def draw_templates(step: MatchStep, sketch: Sketch) -> None:
    """% right with each template so far."""
    rest = [name for name in NAMES if name not in [told for told, *_ in step.templates]]
    told = [*step.templates, *((name, 0.0, 0.0) for name in rest)]
    traces = bars([name for name, *_ in told], [share for _, share, _ in told], "mean of all")
    traces[0] |= {"error_x": {"type": "data", "array": [error for *_, error in told], "visible": True}}
    sketch.show("templates", traces)
