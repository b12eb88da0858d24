"""The picture of `count`: what is trained at each rank beside the whole model, and the sum matrix by matrix."""

from typing import Any

from core.lora import CountConfig, CountStep
from core.lora.published import MODELS
from pages._kit.charts import Panel, Sketch, axis, bars, ranking, text
from pages._kit.player import view

RANKS = ranking(axis("numbers", "count, log scale"), axis("trained", "LoRA rank"), left=92)
RANKS["xaxis"] |= {"type": "log", "range": [4.7, 13.2], "dtick": 2, "exponentformat": "power", "showgrid": False}
KINDS = ranking(axis("trained numbers", "million"), axis("matrix", "all layers"), left=118) | {"barmode": "overlay"}
KINDS["xaxis"] |= {"rangemode": "tozero"}
for layout, wide in ((RANKS, 52), (KINDS, 82)):
    layout["yaxis"]["showgrid"] = False  # the bars' own words stand there
    layout["yaxis"]["title"]["standoff"] = wide  # left of the labels


def count_panels(config: CountConfig) -> list[Panel]:
    name = MODELS[config.model].label
    return [
        view("ranks", "plot", f"{name}: all its numbers, and those LoRA trains", span=7, layout=RANKS, height=380),
        view(
            "kinds",
            "plot",
            f"r = {config.rank}: numbers per matrix, by formula and counted",
            span=5,
            layout=KINDS,
            height=380,
        ),
        text("sum", "The sum, matrix by matrix: the formula, and peft's count"),
    ]


def draw_count(step: CountStep, sketch: Sketch) -> None:
    sketch.show("ranks", rank_bars(step))
    sketch.show("kinds", kind_bars(step))
    sketch.text("sum", sum_of(step))


def rank_bars(step: CountStep) -> list[dict[str, Any]]:
    """The whole model on top, then a bar per rank: by the formula, the chosen one as far as it is counted."""
    base = step.total - step.trained
    rows = [("all of it", base, f"{brief(base)}")]
    for rank, by_formula in step.ranks:
        numbers = step.trained if rank == step.rank else by_formula
        rows.append((f"r = {rank}", numbers, f"{brief(numbers)}, {100 * numbers / (base + numbers):.3g} %"))
    [trace] = bars(
        [name for name, _, _ in rows], [float(numbers) for _, numbers, _ in rows], f"r = {step.rank}", label="numbers"
    )
    return [trace | {"text": [words for _, _, words in rows], "textposition": "outside", "cliponaxis": False}]


def brief(number: float) -> str:
    for size, letter in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"


def kind_bars(step: CountStep) -> list[dict[str, Any]]:
    """Counted so far over what the formula says, which is drawn pale behind it."""
    told = [(name, by_formula / 1e6, counted / 1e6) for name, _, _, _, by_formula, counted in step.kinds]
    if step.embeddings:
        done = step.layers == step.of_layers
        told.append(("embeddings", step.embeddings / 1e6, step.embeddings / 1e6 if done else 0.0))
    names = [name.replace(".", "\n.") if len(name) > 14 else name for name, _, _ in told]
    [formula] = bars(names, [by_formula for _, by_formula, _ in told], label="by the formula", colour="level")
    [counted] = bars(names, [count for _, _, count in told], label="counted by peft", colour="b")
    return [formula | {"opacity": 0.35}, counted]


def sum_of(step: CountStep) -> str:
    """A line per kind of matrix: how it is computed, and what peft has counted so far."""
    wide = max(len(name) for name, *_ in step.kinds)
    told = [step.verdict or f"rank {step.rank}: {step.layers} of {step.of_layers} layers counted", ""]
    for name, d_in, d_out, number, by_formula, counted in step.kinds:
        told.append(
            f"{name:<{wide}}  {number} × {step.rank} × ({d_in:,} + {d_out:,}) = {by_formula:,}   peft: {counted:,}"
        )
    if step.embeddings:
        told.append(f"embeddings, trained whole: {step.embeddings:,}")
    return "\n".join([*told, "", f"peft's count so far: {step.trained:,} trained of {step.total:,}"])
