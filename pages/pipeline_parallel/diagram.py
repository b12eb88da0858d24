"""The diagram of the tab Pipeline parallelism: stages, micro-batches, the bubble (Huang et al. 2019, figure 2c)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label

MOST = (4, 4)  # ranks and micro-batches that are drawn


def diagram(config: Any) -> Diagram:
    """A stage per rank, and the forward passes of the first micro-batches over time."""
    ranks = len(config.layout.split(",")) if hasattr(config, "layout") else getattr(config, "ranks", 4)
    micro = getattr(config, "micro", 8)
    rows, columns = min(ranks, MOST[0]), min(micro, MOST[1])
    wide = 300 // (2 * (rows + columns - 1))
    shapes = [group(4, 6, 160, 226, f"{ranks} ranks, a stage of layers each")]
    for rank in range(rows):
        y = 34 + 48 * rank
        shapes.append(box(16, y, 136, 34, f"rank {rank}", color="d"))
        if rank + 1 < rows:
            shapes.append(arrow((84, y + 34), (84, y + 47)))
        for k in range(columns):
            shapes.append(box(196 + wide * (rank + k), y + 2, wide - 2, 30, str(k + 1), color="a"))
            back = 196 + wide * (rows + columns - 1 + (rows - 1 - rank) + k)
            shapes.append(box(back, y + 2, wide - 2, 30, str(k + 1), color="b"))
    end = 196 + 2 * wide * (rows + columns - 1)
    shapes += [
        arrow((196, 228), (end, 228)),
        label((196 + end) // 2, 214, "time"),
        label(196 + wide * (rows + columns - 1) // 2, 26, "forward"),
        label(196 + 3 * wide * (rows + columns - 1) // 2, 26, "backward"),
        label(end + 24 if end < 500 else 512, 120, "bubble:"),
        label(end + 24 if end < 500 else 512, 134, "gaps"),
    ]
    alt = (
        f"{ranks} ranks hold a stage each. Micro-batch after micro-batch runs forward through them and then"
        " backward; at both ends ranks wait, which is the bubble."
    )
    return Diagram(shapes, 544, 240, alt)
