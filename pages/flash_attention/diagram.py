"""The diagram of the tab FlashAttention: tiles of scores in fast memory (Dao et al. 2022, figure 1, left)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix


def diagram(config: Any) -> Diagram:
    """With the tokens of the run."""
    tokens = getattr(config, "most_n", 0) or len(getattr(config, "text", "")) or 101
    shapes = [
        group(4, 6, 282, 228, "slow memory: large"),
        matrix(20, 84, 34, 120, "Q", color="a"),
        matrix(78, 34, 150, 32, "K", color="b"),
        box(78, 84, 150, 120, "", color="level"),
        label(153, 186, f"{tokens:,} x {tokens:,} scores: never stored"),
        matrix(116, 114, 38, 30, "", color="e"),
        matrix(242, 84, 34, 120, "V", color="c"),
        label(150, 220, "Q, K, V and the output: a row per token"),
        group(316, 6, 220, 228, "fast memory: small"),
        arrow((135, 114), (135, 75), (300, 75), (300, 129), (330, 129)),
        matrix(332, 100, 74, 58, "tile", "of scores", color="e"),
        arrow((406, 129), (426, 129)),
        box(428, 76, 98, 106, "per row", color="d"),
        label(477, 146, "m: largest so far"),
        label(477, 162, "l: sum so far"),
        label(426, 52, "one tile after the other;"),
        label(426, 66, "m and l correct what was summed"),
        arrow((477, 182), (477, 212), (290, 212)),
        label(384, 199, "the output, exact"),
    ]
    alt = (
        f"Queries, keys and values of {tokens:,} tokens lie in slow memory. Tile by tile their scores are computed"
        " in fast memory; per row the largest score and the sum so far are kept, and the exact output goes back."
    )
    return Diagram(shapes, 540, 240, alt)
