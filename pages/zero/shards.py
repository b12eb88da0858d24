"""The picture of `shards`: what every rank holds, one step of all stages at once, what is sent, and whether the bits
are the same.
"""

from collections.abc import Sequence
from typing import Any

from core.zero import ShardsConfig, ShardsStep
from core.zero.formulas import FULL, MIXED, STAGES, VOLUME, between_steps, per_weight, words
from core.zero.shards import LIBRARY, PAPER, WRITTEN
from core.zero.training import MOMENTS, Frame
from pages._kit.charts import Panel, Sketch, axis, chart, columns, curve, dots, text
from pages._kit.player import player, view

Shape = dict[str, Any]
KINDS = (("weights", "a"), ("gradients", "b"), ("optimizer", "c"))
HOLDS = [("a", "weights"), ("b", "gradients"), ("c", "optimizer states")]
LINES = dict(zip(STAGES, "dbac", strict=True))  # colours of the stages
LEFT, RIGHT = 1.4, 1.5  # room for names beside the units
HIGH = 17.5  # bytes per weight


def shards_panels(config: ShardsConfig) -> list[Panel]:
    held = upright("held", "bytes per weight", FULL, config.ranks)
    written = upright("held", "bytes per weight", MIXED, 2)
    for layout in (held, written):
        layout["yaxis"] |= {"range": [0, HIGH]}
    sent = upright("sent", "elements per weight", None, 2)
    sent["yaxis"] |= {"range": [0, 3.7]}
    over = chart(axis("moment of the step", "number"), axis("held by rank 0", "bytes per weight"))
    moments = 5 * config.n_layer + 2
    over["xaxis"] |= {"range": [0, 1.13 * moments]}
    over["yaxis"] |= {"range": [0, HIGH]}
    views = [
        view(
            "units",
            "draw",
            "On rank 0; at the right: bytes held (B) and elements sent (S) per weight",
            legend=HOLDS,
            aspect=1.0,
            height=440,
        ),
        view("over", "plot", "The same step in bytes per weight", layout=over, height=270),
    ]
    return [
        view(
            "held",
            "plot",
            f"After the backward pass, {config.ranks} ranks of PyTorch",
            legend=[*HOLDS, ("text", "formula", "frame")],
            layout=held,
            height=330,
        ),
        player(
            "film", "One step, all stages at the same moment", views, scrub="moment of the step", rate=2.0, bar_before=1
        ),
        view(
            "written",
            "plot",
            "Written out, fullest rank: left in 32 bits, right mixed (16 and 32), and the paper's formula",
            span=6,
            layout=written,
            height=320,
        ),
        view(
            "sent",
            "plot",
            "Sent: left PyTorch, right written out",
            legend=[("level", "all-reduce"), ("b", "reduce-scatter"), ("a", "all-gather"), ("c", "broadcast")],
            span=6,
            layout=sent,
            height=320,
        ),
        text("differs", "Where PyTorch is not as in the paper", span=6, height=340),
        text("bits", f"Weights after {config.steps} steps: SHA-256, far from stage 0?", span=6, height=340),
    ]


def upright(title: str, unit: str, kinds: tuple[int, int, int] | None, wide: int) -> dict[str, Any]:
    """The layout of groups of bars, a group of `wide` bars per stage, with its formula below."""
    layout = chart(axis("", ""), axis(title, unit), stacked=True)
    names = [
        f"stage {stage}" + ("\n" + words(stage, kinds).replace(" + ", "\n+ ") if kinds else "") for stage in STAGES
    ]
    places = [stage * (wide + 1) + (wide - 1) / 2 for stage in STAGES]
    layout["xaxis"] = {
        "title": None,
        "tickvals": places,
        "ticktext": names,
        "tickangle": 0,
        "range": [-0.8, 4 * (wide + 1) - 1.2],
        "showgrid": False,
    }
    layout["margin"] |= {"b": 64 if kinds else 30}
    return layout


def draw_shards(step: ShardsStep, sketch: Sketch) -> None:
    if not step.weights:
        return
    sketch.show("held", held_of(step))
    sketch.show("written", written_of(step))
    sketch.show("sent", sent_of(step))
    sketch.text("bits", bits_of(step))
    if not step.held:
        start = [
            Frame("by formula", -1, (between_steps(stage, step.ranks),) * step.units, (0, 0, 0), 0) for stage in STAGES
        ]
        sketch.frame(
            "film", "between two steps, by formula", units=row_shapes(step, start), over=over_of(step, [[]] * 4, 0)
        )
    if step.films or not step.held:
        sketch.text("differs", differs(step))
    if step.films:
        films = [frames for _, frames in step.films]
        for moment, now in enumerate(zip(*films, strict=True)):
            sketch.frame("film", caption(now[3]), units=row_shapes(step, now), over=over_of(step, films, moment))


# --- bars -------------------------------------------------------------------------------------------------------------


def outline(low: float, high: float, height: float, colour: str = "text") -> dict[str, Any]:
    """A box that stands on the axis: what the formula says."""
    return curve([low, low, high, high], [0.0, height, height, 0.0], "formula", colour)


def above(x: float, y: float, words_: str) -> dict[str, Any]:
    return dots([x], [y + 0.015 * HIGH], "", "text", names=[words_]) | {
        "mode": "text",
        "textposition": "top center",
        "cliponaxis": False,
    }


def stack(places: Sequence[float], rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return [
        columns(list(places), [row[kind] for row in rows], name, colour, width=0.86)
        for kind, (name, colour) in enumerate(KINDS)
    ]


def held_of(step: ShardsStep) -> list[dict[str, Any]]:
    """A bar per rank in a box per stage."""
    places, rows, traces = list[float](), list[list[float]](), list[dict[str, Any]]()
    found = {stage: everyone for code, stage, everyone in step.held if code == LIBRARY}
    for stage in STAGES:
        low, formula = stage * (step.ranks + 1) - 0.5, per_weight(stage, step.ranks)
        for rank, nbytes in enumerate(found.get(stage, ())):
            places.append(stage * (step.ranks + 1) + rank)
            rows.append([size / step.weights for size in nbytes])
        traces.append(outline(low, low + step.ranks, formula))
        most = max((sum(nbytes) / step.weights for nbytes in found.get(stage, ())), default=None)
        told = (
            f"{formula:.3g}"
            if most is None
            else f"{most:.3g}"
            if abs(most - formula) < 0.05
            else f"{most:.3g}, not {formula:.3g}"
        )
        traces.append(above(low + step.ranks / 2, max(formula, most or 0.0), told))
    return stack(places, rows) + traces


def written_of(step: ShardsStep) -> list[dict[str, Any]]:
    """The fullest rank, for both precisions."""
    places, rows, traces = list[float](), list[list[float]](), list[dict[str, Any]]()
    for which, (code, kinds) in enumerate(((WRITTEN, FULL), (PAPER, MIXED))):
        for stage in STAGES:
            place, formula = 3.0 * stage + which, per_weight(stage, step.ranks, kinds)
            for everyone in (everyone for name, other, everyone in step.held if (name, other) == (code, stage)):
                places.append(place)
                rows.append([max(nbytes[kind] for nbytes in everyone) / step.weights for kind in range(3)])
            traces += [outline(place - 0.5, place + 0.5, formula), above(place, formula, f"{formula:.3g}")]
    return stack(places, rows) + traces


SENDS = {"all-reduce": (2, "level"), "reduce-scatter": (1, "b"), "all-gather": (1, "a"), "broadcast": (1, "c")}


def sent_of(step: ShardsStep) -> list[dict[str, Any]]:
    """Stacked by collective, in the boxes of the paper."""
    traces, heights = list[dict[str, Any]](), dict[tuple[float, str], float]()
    for which, code in enumerate((LIBRARY, WRITTEN)):
        for name, stage, counted, _ in step.sent:
            if name == code:
                for kind, _, numbers in counted:
                    heights[3.0 * stage + which, kind] = SENDS[kind][0] * numbers / step.weights
    for kind, (_, colour) in SENDS.items():
        here = {place: height for (place, other), height in heights.items() if other == kind}
        traces.append(columns(list(here), list(here.values()), kind, colour, width=0.86))
    highest = {
        stage: max([numbers for _, other, _, numbers in step.sent if other == stage] + [VOLUME[stage]]) - 0.2
        for stage in STAGES
    }
    for stage in STAGES:
        traces += [
            outline(3 * stage - 0.5, 3 * stage + 1.5, VOLUME[stage]),
            above(3 * stage + 0.5, highest.get(stage, 0.0), f"{VOLUME[stage]}P"),
        ]
    return traces


def bits_of(step: ShardsStep) -> str:
    """The states of all runs, by the first twelve digits of their hashes."""
    lines = list[str]()
    for in_order, title in ((False, "sums as gloo's ring adds them"), (True, "sums in the order of the ranks")):
        lines.append(f"{title}:")
        rows = [one for one in step.trained if one.in_order == in_order]
        for one in rows:
            apart = "same bits" if not one.differing else f"{one.distance:.0e} apart"
            lines.append(f" stage {one.stage} {'' if one.code == LIBRARY else 'written':<8}{one.hash[:8]} {apart}")
        if not rows:
            lines.append(" the same on paper; the runs will tell")
    return "\n".join(lines)


def differs(step: ShardsStep) -> str:
    """What the bars and the film show, in words and numbers per weight."""
    if not step.films:
        return "\n\n".join(f"stage {stage}: {told}" for stage, told in zip((1, 2, 3), PLANS, strict=True))
    means = ", ".join(
        f"{nbytes[2] / step.weights:.2f}"
        for code, stage, everyone in step.held
        if (code, stage) == (LIBRARY, 1)
        for nbytes in everyone
    )
    counted = next((counted for code, stage, counted, _ in step.sent if (code, stage) == (LIBRARY, 1)), ())
    sends = ", ".join(
        f"{SENDS[kind][0] * numbers / step.weights:.2f} by {count} {kind}" for kind, count, numbers in counted
    )
    lines = [f"stage 1: {PLANS[0]} Moments by rank: {means}; even: {8 / step.ranks:.2f}. Sent: {sends}."]
    for stage, frames in step.films[2:]:
        top = max(frames, key=lambda frame: frame.nbytes)
        parts = " + ".join(f"{size / step.weights:.2f}" for size in top.held)
        lines.append(
            f"stage {stage}: {PLANS[stage - 1]} Fullest ({caption(top)}): {top.nbytes / step.weights:.2f} = {parts}"
            f" (weights, gradients, optimizer); between steps {frames[-1].nbytes / step.weights:.2f}."
        )
    return "\n\n".join(lines)


PLANS = (
    (
        "whole tensors are dealt out, so shares are uneven; gradients are summed for everybody, then new weights are"
        " broadcast."
    ),
    "whole weights are there from the forward to the backward pass only, beside the own slices.",
    "whole: one layer at a time and what is outside of the layers, beside the own slices.",
)


# --- the film ---------------------------------------------------------------------------------------------------------


def caption(frame: Frame) -> str:
    unit = "outside of the layers" if frame.unit == 0 else f"layer {frame.unit}"
    return frame.doing if frame.doing in MOMENTS else f"{frame.doing}, {unit}"


def row_shapes(step: ShardsStep, now: Sequence[Frame]) -> list[Shape]:
    """A line per stage, a place per unit, three bars in it."""
    units = len(now[3].shares)
    shapes: list[Shape] = [
        written(
            "h", LEFT / 2, 4.12, {"f": "→", "b": "←"}.get(now[3].doing[0], " ") if now[3].unit >= 0 else " ", "text"
        )
    ]
    for unit in range(units):
        active = unit == now[3].unit
        name = "rest" if unit == 0 else f"{unit}"
        shapes.append(
            written(f"n{unit}", LEFT + unit + 0.5, 4.12, f"[{name}]" if active else name, "b" if active else "text")
        )
    for stage, frame in enumerate(now):
        y = 3.0 - stage
        shapes.append(written(f"s{stage}", LEFT / 2, y + 0.4, f"stage {stage}", "text"))
        for unit, held in enumerate(frame.shares):
            for bar, (share, (_, colour)) in enumerate(zip(held, KINDS, strict=True)):
                x = LEFT + unit + 0.1 + 0.28 * bar
                box = {"kind": "rect", "x": round(x, 3), "y": round(y, 3), "w": 0.24}
                shapes.append(box | {"id": f"g{stage} {unit} {bar}", "h": 0.8, "fill": "grid"})
                shapes.append(box | {"id": f"b{stage} {unit} {bar}", "h": round(0.8 * share, 3), "fill": colour})
        if frame.nbytes:
            shapes.append(
                written(f"t{stage}", LEFT + units + RIGHT / 2, y + 0.55, f"{frame.nbytes / step.weights:.1f} B", "text")
            )
            shapes.append(
                written(f"c{stage}", LEFT + units + RIGHT / 2, y + 0.25, f"{frame.sent / step.weights:.1f} S", "text")
            )
    shapes.append({"id": "edge", "kind": "line", "x": 0, "y": 0, "w": LEFT + units + RIGHT, "h": 0, "fill": "grid"})
    return shapes


def written(id: str, x: float, y: float, words_: str, fill: str) -> Shape:
    return {"id": id, "kind": "text", "x": round(x, 3), "y": round(y, 3), "text": words_, "fill": fill}


def over_of(step: ShardsStep, films: Sequence[Sequence[Frame]], moment: int) -> list[dict[str, Any]]:
    """Bytes over the step, a line per stage, and where we are."""
    last = max(len(films[0]) - 1, 1)
    traces = [curve([moment, moment], [0.0, HIGH], "now", "level")]
    for stage, frames in zip(STAGES, films, strict=True):
        formula = per_weight(stage, step.ranks)
        end = last if frames else 5 * (step.units - 1) + 2
        heights = [frame.nbytes / step.weights for frame in frames] or [formula] * (end + 1)
        traces.append(curve(list(range(len(heights))), heights, f"stage {stage}", LINES[stage], dash=not frames))
        nudge = 0.0 if stage < 2 or not frames else 1.1 if stage == 2 else -0.9
        label = dots([end], [0.0], "", LINES[stage], names=[f" stage {stage}"]) | {
            "y": [heights[-1] + nudge],
            "mode": "text",
            "textposition": "middle right",
        }
        traces.append(label | {"cliponaxis": False})
    return traces
