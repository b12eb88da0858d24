"""The diagram of the tab Plan a training run: data, pipeline and tensor parallelism at once (Narayanan et al. 2021)."""

from typing import Any

from core.foundations.experiment import counted
from pages._kit.diagram import Diagram, arrow, box, group, label, stack

SHOWN = 4


def diagram(config: Any) -> Diagram:
    """With the plan's t, p and d."""
    data = config.data or max(1, config.gpus // (config.tensor * config.pipeline))
    columns, rows = min(SHOWN, config.pipeline), min(SHOWN, config.tensor)
    wide, high = 330 // columns, 128 // rows
    shapes = [group(4, 30, 368, 176, "one copy of the model")]
    for column in range(columns):
        for row in range(rows):
            x, y = 22 + wide * column, 58 + high * row
            shapes.append(box(x, y, wide - 8, high - 6, "GPU" if high > 26 else "", color="abce"[column]))
        if column + 1 < columns:
            shapes.append(arrow((14 + wide * (column + 1), 116), (22 + wide * (column + 1), 116)))
    shapes += [
        label(188, 20, f"p = {counted(config.pipeline, 'stage')} of layers: pipeline parallelism"),
        label(188, 192, f"t = {counted(config.tensor, 'GPU')} share each layer: tensor parallelism"),
        label(386, 122, "x"),
        stack(396, 84, 116, 72, min(data, 5), "copies", f"d = {data:,}", color="d"),
        label(458, 176, "data parallelism, with ZeRO"),
        label(270, 230, f"{config.gpus:,} GPUs = d x t x p"),
    ]
    alt = (
        f"{config.gpus:,} GPUs: {data:,} copies of the model, each cut into {counted(config.pipeline, 'stage')} of"
        f" layers, each layer shared by {counted(config.tensor, 'GPU')}."
    )
    return Diagram(shapes, 540, 240, alt)
