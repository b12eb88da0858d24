"""The diagram of the tab LoRA: two thin matrices beside a frozen one (Hu et al. 2021, figure 1)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, label, matrix


def diagram(config: Any) -> Diagram:
    """With the rank of the run; the sweep tries several."""
    rank = getattr(config, "rank", 8)
    shapes = [
        box(4, 92, 78, 46, "x", "activations", color="d"),
        arrow((82, 115), (110, 115), (110, 66), (136, 66)),
        matrix(138, 10, 130, 112, "W", "frozen", color="level"),
        label(203, 136, "d x k: the model's own weights"),
        arrow((110, 115), (110, 196), (136, 196)),
        matrix(138, 166, 92, 40, "A", f"r x k, r = {rank}", color="b"),
        arrow((230, 186), (256, 186)),
        matrix(258, 156, 46, 84, "B", "d x r", color="b"),
        label(186, 224, "trained: the adapter"),
        arrow((268, 66), (346, 66), (346, 94)),
        arrow((304, 196), (346, 196), (346, 138)),
        label(396, 168, "times alpha / r"),
        box(318, 96, 56, 40, "+", color="c"),
        arrow((374, 116), (412, 116)),
        box(414, 92, 122, 46, "W' x", "= W x + (alpha/r) B A x", color="d"),
    ]
    alt = (
        f"The input goes through a frozen weight matrix W and, beside it, through two thin trained matrices A and B of"
        f" rank {rank}; both results are added."
    )
    return Diagram(shapes, 540, 244, alt)
