"""The diagram of the tab Checkpointing: the state of a run, a step, and the checkpoint on disk."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label

PARTS = (
    ("weights", "weights", "a"),
    ("optimizer", "optimizer", "b"),
    ("schedule", "learning rate", "c"),
    ("rng", "random numbers", "d"),
    ("data", "place in the data", "e"),
)


def diagram(config: Any) -> Diagram:
    """With what the run puts back; what it leaves out is gray."""
    shapes = [group(4, 6, 180, 226, "the state of a run")]
    for row, (name, words, color) in enumerate(PARTS):
        back = getattr(config, name, True) if name != "data" or isinstance(getattr(config, name, True), bool) else True
        size = "" if back else "not put back"
        shapes.append(box(18, 32 + 39 * row, 152, 33, words, size, color=color if back else "level"))
    every = f"every {config.every} steps" if hasattr(config, "every") else "now and then"
    shapes += [
        arrow((184, 64), (230, 64)),
        box(232, 36, 120, 56, "training step", "the next state", color="a"),
        arrow((292, 36), (292, 16), (204, 16), (204, 50), (186, 50)),
        arrow((184, 160), (390, 160)),
        label(288, 147, f"save {every}"),
        box(392, 128, 140, 64, "checkpoint", "on disk, with its hash", color="c"),
        arrow((462, 192), (462, 220), (186, 220)),
        label(322, 207, "after a failure: load, and go on"),
        box(408, 36, 124, 56, "failure", "memory is gone", color="b"),
        arrow((352, 64), (406, 64)),
    ]
    alt = (
        "The state of a run is its weights, optimizer states, learning rate, random numbers and place in the data. Each"
        " step makes the next state; a checkpoint saves it to disk, and after a failure it is loaded."
    )
    return Diagram(shapes, 540, 240, alt)
