"""The picture of `kept`: saved activations as blocks in columns of layers, their list, the formula over the context."""

from collections.abc import Sequence
from typing import Any

from core.foundations.activation_bytes import DROPPED, INPUT, LOG_SUMS, MAP_MASK, SOFTMAX
from core.gradient_checkpointing import KeptConfig, KeptStep
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, text
from pages._kit.player import player, view

Shape = dict[str, Any]
Block = tuple[str, float, float, str]  # name, from, height, colour

CORE = (SOFTMAX, MAP_MASK, DROPPED, LOG_SUMS)
HEAD = ("last norm", "head input", "log-probabilities")
MOST_SMOOTH = 8  # layers; of more, not every unit is a frame


def kept_panels(config: KeptConfig) -> list[Panel]:
    across = chart(axis("context", "tokens"), axis("saved by one layer", "bytes per s b h"))
    across["yaxis"] |= {"rangemode": "tozero"}
    across["xaxis"] |= {"range": [0, 1.32 * config.context]}  # the names of the lines stand at their right ends
    blocks = "Saved by autograd, in bytes per s b h. F: a layer by formula; *: checkpointed in pass 2"
    parts = [("a", "attention"), ("b", "its core"), ("c", "MLP")]
    return [
        player(
            "film",
            "",
            [view("blocks", "draw", blocks, aspect=1.25, height=500, legend=parts)],
            scrub="unit of the step",
            rate=2.5,
        ),
        text(
            "list", "What layer 1 saves: kB, bytes per s b h, the paper's rule, shape and how many", span=7, height=330
        ),
        view(
            "context",
            "plot",
            "Bytes over the context",
            legend=[("text", "formula", "line"), ("text", "measured", "dot")],
            span=5,
            layout=across,
            height=330,
        ),
    ]


def draw_kept(step: KeptStep, sketch: Sketch) -> None:
    if step.forwards and shown(step):
        sketch.frame("film", label(step), blocks=blocks_of(step))
    if step.table:
        sketch.text("list", list_of(step))
    if step.curves:
        sketch.show("context", lines_of(step))


def shown(step: KeptStep) -> bool:
    """Every unit of a small model, some of a large one."""
    layers = len(step.forwards)
    return layers <= MOST_SMOOTH or step.phase in ("formula", "loss") or step.layer % (1 + layers // MOST_SMOOTH) == 0


def label(step: KeptStep) -> str:
    return "by formula" if step.phase == "formula" else step.doing  # the caption of the frame


# --- blocks -----------------------------------------------------------------------------------------------------------


def colour_of(names: Sequence[str]) -> list[str]:
    """Attention comes before its core or after it, the MLP from its norm on."""
    middle = names.index("norm 2 input") if "norm 2 input" in names else len(names)
    return ["b" if name in CORE else "a" if place < middle else "c" for place, name in enumerate(names)]


def places(formula: Sequence[tuple[str, float]]) -> list[Block]:
    """Where each block of a layer stands: on those made before it."""
    names, stack, height = [name for name, _ in formula], list[Block](), 0.0
    for (name, size), colour in zip(formula, colour_of(names), strict=True):
        stack.append((name, height, size, colour))
        height += size
    return stack


def blocks_of(step: KeptStep) -> list[Shape]:
    """All columns: the formula's with the names of its activations, the layers', the head's; counters below."""
    layers, stack = len(step.forwards), places(step.formula)
    whole = sum(size for _, size in step.formula)
    names_wide, gap = 0.6 * (layers + 2), 0.004 * whole
    alive = {(layer, name): size for layer, name, size in step.tensors}
    shapes = column("f", names_wide, dict(step.formula), stack, gap)
    for (name, _, _, colour), y in zip(
        stack, apart([low + size / 2 for _, low, size, _ in stack], whole / 27), strict=True
    ):
        shapes.append(written(f"n {name}", names_wide / 2, y, name, colour))
    for layer in range(layers):
        sizes = {name: alive.get((layer, name), 0.0) for name, *_ in stack}
        if (layer, INPUT) in alive:  # a checkpoint's input is what its first norm would keep
            sizes[stack[0][0]] = alive[layer, INPUT]
        shapes += column(f"{layer}", names_wide + 1 + layer, sizes, stack, gap)
    head, low = [], 0.0
    for name in HEAD:
        size = alive.get((layers, name), 0.0)
        head.append((name, low, size, "d"))
        low += size
    shapes += column("h", names_wide + 1 + layers, {name: size for name, _, size, _ in head}, head, gap)
    return shapes + footer(step, names_wide, whole, alive)


def column(id: str, x: float, sizes: dict[str, float], stack: Sequence[Block], gap: float) -> list[Shape]:
    """One rectangle per block; those that are not there have no height, so that they grow and shrink."""
    rectangle = {"kind": "rect", "x": round(x + 0.06, 3), "w": 0.88}
    heights = {name: round(max(0.0, sizes[name] - 2 * gap), 3) for name, *_ in stack}
    return [
        rectangle | {"id": f"{id} {name}", "y": round(low + gap, 3), "h": heights[name], "fill": fill}
        for name, low, _, fill in stack
    ]


def footer(step: KeptStep, left: float, whole: float, alive: dict[tuple[int, str], float]) -> list[Shape]:
    """Under each column: which layer, how often it went forward, and the sum of its activations."""
    layers, line = len(step.forwards), 0.055 * whole
    sums = [sum(size for (layer, _), size in alive.items() if layer == number) for number in range(layers + 1)]
    every = 1 + (layers - 1) // 12  # of many layers, not all can be written below
    told = [("layer", "forward", "kept"), ("F", "", short(whole))]
    told += [
        (
            (f"{number + 1}{'*' if number in step.chosen else ''}", f"{step.forwards[number]}×", short(sums[number]))
            if number % every == 0
            else ("", "", "")
        )
        for number in range(layers)
    ]
    told.append(("head", "", short(sums[-1])))
    centres = [left / 2, *(left + 0.5 + number for number in range(layers + 2))]
    shapes = [{"id": "floor", "kind": "line", "x": left, "y": 0, "w": layers + 2, "h": 0, "fill": "grid"}]
    for x, words in zip(centres, told, strict=True):
        shapes += [
            written(f"w {x:.2f} {row}", x, -line * (row + 0.7), word, "text") for row, word in enumerate(words) if word
        ]
    return [*shapes, {"id": "foot", "kind": "line", "x": 0, "y": -3.2 * line, "w": 0, "h": 0, "fill": "grid"}]


def written(id: str, x: float, y: float, words: str, fill: str) -> Shape:
    return {"id": id, "kind": "text", "x": round(x, 3), "y": round(y, 3), "text": words, "fill": fill}


def short(number: float) -> str:
    """Whole bytes: a phone's column is four digits wide. The list below has the decimals."""
    return f"{number:.0f}"


def apart(heights: Sequence[float], least: float) -> list[float]:
    """The same heights, moved up as far as needed to be `least` apart, and down again where the top is passed."""
    moved = list[float]()
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    top = heights[-1] + least / 2
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], top)
        top = moved[place] - least
    return moved


# --- list and lines ---------------------------------------------------------------------------------------------------


def list_of(step: KeptStep) -> str:
    """One line per tensor; before the run, the paper's count alone."""
    lines = [f"{'':<12}{'kB':>5}{'sbh':>5}{'rule':>5} shape"]
    for name, shape, size, per_sbh, paper in step.table:
        counted = f"{size / 1e3:>5.0f}{per_sbh:>5.1f}" if size else f"{'?':>5}{'?':>5}"
        lines.append(
            f"{name.replace('statistics', 'stats'):<12}{counted}{paper:>5.3g}"
            f" {shape.replace(' x ', '×').replace(' of them', '')}".rstrip()
        )
    sizes, sums, paper_sums = (sum(row[place] for row in step.table) for place in (2, 3, 4))
    total = f"{sizes / 1e3:>5.0f}{sums:>5.1f}" if sizes else f"{'?':>5}{'?':>5}"
    return "\n".join([*lines, f"{'sum':<12}{total}{paper_sums:>5.3g}"])


def lines_of(step: KeptStep) -> list[dict[str, Any]]:
    """Formulas as lines with their names at the right end, measurements as dots."""
    names = {"paper": "paper", "here": "here", "fused": "fused", "checkpointed": "checkpoint"}
    colours = {"paper": "level", "here": "b", "fused": "a", "checkpointed": "c"}
    xs, traces, same = (
        [0, *step.contexts],
        list[dict[str, Any]](),
        dict(step.curves)["paper"] == dict(step.curves)["here"],
    )
    for name, ys in step.curves:
        if name == "paper" and same:
            continue
        traces.append(curve(xs, list(ys), names[name], colours[name], dash=name == "paper"))
        label = {"type": "scatter", "mode": "text", "x": [xs[-1]], "y": [ys[-1]], "text": [f" {names[name]} "]}
        label["textposition"] = "top left" if name == "checkpointed" else "middle right"
        traces.append(label | {"name": "", "colour": colours[name]})
    for attention, colour in (("written", "b"), ("fused", "a")):
        found = [(context, size) for which, context, size in step.measured if which == attention]
        traces.append(
            dots([context for context, _ in found], [size for _, size in found], f"measured, {attention}", colour)
        )
    return traces
