"""The diagram of the tab Gradient checkpointing: what is saved on the way forward (Chen et al. 2016)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, label, matrix

SHOWN = 4  # layers that are drawn


def diagram(config: Any) -> Diagram:
    """Above everything is saved, below only what enters a layer."""
    layers = getattr(config, "n_layer", 4)
    shapes = [
        label(270, 14, f"forward through {layers} layers, then backward"),
        label(112, 44, "without: all that is inside stays saved"),
        label(184, 164, "with checkpoints: only what enters a layer; the rest is computed twice"),
    ]
    for row, y in enumerate((54, 174)):
        for k in range(SHOWN):
            x = 8 + 134 * k
            again = row and k == SHOWN - 2
            shapes.append(box(x, y, 78, 40, "layer", "twice" if again else "", color="e" if again else "a"))
            shapes.append(matrix(x + 84, y + 6, 28, 28, "", color="c"))
            if k + 1 < SHOWN:
                shapes.append(arrow((x + 112, y + 20), (x + 132, y + 20)))
            if not row or again:
                shapes.append(matrix(x, y + 46, 78, 22, "inside", color="b"))
    shapes += [arrow((530, 132), (12, 132)), label(270, 142, "backward: needs what each layer computed inside")]
    alt = (
        f"Without checkpoints each of {layers} layers saves all that it computes inside. With them only the input of"
        " each layer is saved, and the backward pass computes the layer a second time."
    )
    return Diagram(shapes, 540, 246, alt)
