"""The picture of `lose`: a grid of tensors and ranks for every way, what died, and how the model does afterwards."""

from typing import Any

from core.zero import LoseConfig, LoseStep
from core.zero.holders import PARTS, RANKS, WAYS
from pages._kit.charts import Panel, Sketch, axis, chart, curve, dots, heat, text
from pages._kit.player import player, view

LINES = {  # name at the line's end, colour
    "nothing lost": ("nothing lost", "a"),
    "stage 1": ("stage 1", "b"),
    "stage 2": ("stage 2", "d"),
    "stage 3": ("stage 3", "text"),
    "checkpoint": ("checkpoint", "c"),
}
SHORT = {"embed": "embed", "place": "place", "head": "head"}
BELOW = "".join(f"{mark}".center(PARTS + 1, "\u00a0") for mark in (*range(RANKS), "∪"))[: (RANKS + 1) * (PARTS + 1) - 1]
MOST_TOLD = 40


def lose_panels(config: LoseConfig) -> list[Panel]:
    after = chart(axis("steps after the loss of the rank", "step"), axis("validation loss", "nats per character"))
    after["xaxis"] |= {"range": [-0.03 * config.steps, 1.5 * config.steps]}
    hint = "Columns: ranks 0 to 3 with four parts of each tensor, and ∪ what is left."
    words = "{name}: {row}"
    grid = view(
        "grid",
        "matrix",
        "Who holds which tensor: above weights, below AdamW's moments",
        signed=True,
        hint=hint,
        words=words,
        height=560,
        legend=[("a", "there are copies"), ("a", "the only one", "pale"), ("b", "lost")],
    )
    return [
        player("ranks", "", [grid], scrub="before and after", rate=0.7),
        view("after", "plot", "The model with what is left, and how it goes on", span=7, layout=after, height=220),
        text("dead", f"What died with rank {config.lost}", span=5, height=220),
    ]


def draw_lose(step: LoseStep, sketch: Sketch) -> None:
    if step.grid is not None:
        labels = [*WAYS[:4], "3, twice"] * 2
        maps = heat(
            step.grid, labels, left=[short(name) for name, shape in step.tensors if len(shape) > 1], below=BELOW
        )
        sketch.frame("ranks", step.doing, grid=maps)
        sketch.text("dead", dead_of(step))
        if step.evaluated is not None:
            sketch.show("after", after_of(step))
    elif step.dead or step.evaluated is not None:
        sketch.show("after", after_of(step))
    if step.dead:
        sketch.text("dead", dead_of(step))


def short(name: str) -> str:
    """'blocks.0.attention.qkv.weight' -> '1 qkv'."""
    parts = name.split(".")
    return parts[0] if parts[0] in SHORT else f"{int(parts[1]) + 1} {parts[-2]}"


def after_of(step: LoseStep) -> list[dict[str, Any]]:
    """A line per way, with its name at its end; before, the loss of the model that trains."""
    found = {line: losses for line, losses in step.losses if line in LINES}
    if not found:
        words = "untrained" if not step.trained else f"{step.trained} steps" if not step.dead else "before"
        return (
            []
            if step.evaluated is None
            else [
                dots([0], [step.evaluated], words, "level", names=[f" {words}: {step.evaluated:.2f}"])
                | {"textposition": "middle right"}
            ]
        )
    every = [loss for losses in found.values() for loss in losses]
    traces, height, gap = list[dict[str, Any]](), float("-inf"), 0.075 * max(max(every) - min(every), 0.2)
    for line, losses in sorted(found.items(), key=lambda told: told[1][-1]):
        name, colour = LINES[line]
        height = max(losses[-1], height + gap)  # names are apart, also where lines meet
        traces.append(curve(list(range(len(losses))), list(losses), name, colour))
        label = dots([len(losses) - 1], [height], "", colour, names=[f" {name}"])
        traces.append(label | {"mode": "text", "textposition": "middle right", "cliponaxis": False})
    return traces


def dead_of(step: LoseStep) -> str:
    """Way by way; of stage 3 every tensor has a gap."""
    if not step.dead:
        return "\n".join(f"{way:<16}{guess}" for way, guess in zip(WAYS, GUESSES, strict=True))
    shapes, lines = dict(step.tensors), list[str]()
    for way, dead in step.dead:
        weights = [gap for gap in dead if not gap[1]]
        lines.append(f"{way}: nothing" if not dead else f"{way}, weights and means:" if weights else f"{way}, means:")
        for name, _, low, high in (weights or list(dead))[:MOST_TOLD]:
            lines.append(f" {short_any(name):<9}{rows_of(shapes[name], low, high)}")
    return "\n".join(lines)


GUESSES = (
    "nothing will be lost",
    "the moments of some tensors",
    "a quarter of the moments",
    "a quarter of everything",
    "nothing will be lost",
)


def short_any(name: str) -> str:
    parts = name.split(".")
    return short(name) if parts[0] == "blocks" else parts[0]


def rows_of(shape: tuple[int, ...], low: int, high: int) -> str:
    """'rows 48–71 of 96', or numbers where rows are not whole."""
    wide = 1
    for size in shape[1:]:
        wide *= size
    if low % wide or high % wide:
        return f"numbers {low}–{high - 1} of {shape[0] * wide}"
    return f"rows {low // wide}–{high // wide - 1} of {shape[0]}"
