"""The diagram of the tab QLoRA: 4-bit weights that are read back, and an adapter beside them (Dettmers et al. 2023)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix


def diagram(config: Any) -> Diagram:
    """With the block size and the rank of the run."""
    block, rank = getattr(config, "block", "64"), getattr(config, "rank", 8)
    shapes = [
        group(4, 6, 222, 142, "stored: 4 bits a weight"),
        matrix(18, 32, 106, 84, "codes", "0 to 15", color="a"),
        matrix(146, 32, 66, 84, "scales", "largest", color="e"),
        label(115, 136, f"one scale for each block of {block} weights"),
        arrow((226, 78), (254, 78)),
        box(256, 52, 96, 52, "dequantize", "level x scale", color="c"),
        arrow((352, 78), (374, 78)),
        matrix(376, 40, 74, 76, "W", "frozen", color="level"),
        arrow((450, 78), (476, 78), (476, 112)),
        box(4, 176, 66, 46, "x", color="d"),
        arrow((70, 199), (142, 199)),
        matrix(144, 182, 90, 34, "A", f"rank {rank}", color="b"),
        arrow((234, 199), (258, 199)),
        matrix(260, 168, 40, 62, "B", color="b"),
        label(222, 236, "the adapter: trained in full precision"),
        arrow((300, 199), (476, 199), (476, 158)),
        box(452, 114, 48, 42, "+", color="c"),
        arrow((500, 135), (516, 135)),
        label(528, 139, "y"),
    ]
    alt = (
        f"Weights are stored as 4-bit codes with one scale for each block of {block}; they are read back to compute,"
        f" and stay frozen. A trained adapter of rank {rank} adds its own product."
    )
    return Diagram(shapes, 540, 244, alt)
