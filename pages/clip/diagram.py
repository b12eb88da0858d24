"""The diagram of the tab CLIP: two towers and the table of cosines (Radford et al. 2021, figure 1)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, label, matrix, stack


def diagram(config: Any) -> Diagram:
    """With the pairs of a training batch."""
    batch = getattr(config, "batch", 64)
    shapes = [
        stack(4, 36, 88, 56, 3, "pictures", f"N = {batch} pairs", color="d"),
        arrow((102, 64), (122, 64)),
        box(124, 36, 98, 56, "picture tower", "a network", color="a"),
        arrow((222, 64), (244, 64)),
        matrix(246, 36, 60, 56, "x", "vectors", color="a"),
        stack(4, 158, 88, 56, 3, "captions", "the same pairs", color="d"),
        arrow((102, 186), (122, 186)),
        box(124, 158, 98, 56, "text tower", "another one", color="b"),
        arrow((222, 186), (244, 186)),
        matrix(246, 158, 60, 56, "y", "vectors", color="b"),
        arrow((306, 64), (340, 64), (340, 100), (356, 100)),
        arrow((306, 186), (340, 186), (340, 146), (356, 146)),
        matrix(358, 60, 130, 126, "", color="c"),
        label(423, 44, "cosine of every x with every y"),
        *(box(360 + 32 * k, 62 + 31 * k, 29, 28, "=", color="c") for k in range(4)),
        label(423, 204, "a pair (diagonal): high"),
        label(423, 220, "all others: low"),
    ]
    alt = (
        f"Two towers turn the pictures and the captions of {batch} pairs into vectors. In the table of all cosines the"
        " diagonal, the pairs, should be high and the rest low."
    )
    return Diagram(shapes, 540, 240, alt)
