"""The diagram of the tab Megatron: an MLP cut into columns, then rows (Shoeybi et al. 2019, figure 3a)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix

SHOWN = 4  # ranks that are drawn


def diagram(config: Any) -> Diagram:
    """A row per rank, with the widths of the run."""
    ranks = int(getattr(config, "ranks", 4))
    width = getattr(config, "width", 64)
    drawn = max(1, min(SHOWN, ranks))
    high = 200 // drawn
    shapes = [
        matrix(4, 90, 60, 60, "X", f"b s x {width}", color="d"),
        box(84, 98, 30, 44, "f", color="level"),
        arrow((64, 120), (82, 120)),
        box(424, 98, 30, 44, "g", color="level"),
        arrow((454, 120), (472, 120)),
        matrix(474, 90, 62, 60, "Z", f"b s x {width}", color="d"),
        group(126, 4, 288, 232, f"{ranks} rank{'s' * (ranks > 1)}, each with its part"),
    ]
    for rank in range(drawn):
        middle = 24 + high * rank + high // 2
        tall = min(40, high - 8)
        top = middle - tall // 2
        color = "abce"[rank]
        shapes += [
            arrow((114, 120), (120, 120), (120, middle), (138, middle)),
            matrix(
                140, top, 74, tall, f"A{rank + 1}", "" if tall < 34 else f"{width} x {4 * width // ranks}", color=color
            ),
            arrow((214, middle), (230, middle)),
            box(232, top + 4, 56, tall - 8, "GeLU", color=color),
            arrow((288, middle), (304, middle)),
            matrix(
                306, top, 74, tall, f"B{rank + 1}", "" if tall < 34 else f"{4 * width // ranks} x {width}", color=color
            ),
            arrow((380, middle), (404, middle), (404, 120), (422, 120)),
        ]
    shapes += [label(99, 160, "copy"), label(456, 160, "all-reduce:"), label(456, 174, "the sum")]
    alt = (
        f"X goes to {ranks} ranks. Each multiplies it with its columns of A, applies GeLU and multiplies with its"
        " rows of B; an all-reduce adds the results to Z."
    )
    return Diagram(shapes, 540, 240, alt)
