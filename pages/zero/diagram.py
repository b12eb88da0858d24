"""The diagram of the tab ZeRO: what one rank holds at each stage (Rajbhandari et al. 2020, figure 1)."""

from typing import Any

from core.zero.formulas import MIXED, STAGES, parts, per_weight
from pages._kit.diagram import Diagram, box, label

KINDS = (("weights", "a"), ("gradients", "b"), ("optimizer", "c"))
HIGH = 150  # units of the 16 bytes of stage 0
NAMES = ("stage 0: DDP", "stage 1", "stage 2", "stage 3: FSDP")


def diagram(config: Any) -> Diagram:
    """A bar per stage, in bytes per weight by the formula, for the ranks of the run."""
    ranks = getattr(config, "ranks", 4)
    shapes = [label(270, 16, f"What each of {ranks} ranks holds, in bytes per weight (mixed precision)")]
    for stage in STAGES:
        x, y = 20 + 132 * stage, 30 + HIGH
        for (name, color), nbytes in zip(KINDS, parts(stage, ranks, MIXED), strict=True):
            high = max(2, round(HIGH * nbytes / 16))
            y -= high
            whole = nbytes in (2, 12)
            words = name if high >= 17 else ""
            shapes.append(box(x, y, 104, high, words, "" if whole or high < 34 else f"1/{ranks} of them", color=color))
        shapes.append(label(x + 52, 46 + HIGH, NAMES[stage]))
        shapes.append(label(x + 52, 62 + HIGH, f"{per_weight(stage, ranks, MIXED):.3g} bytes"))
    shapes.append(label(270, 84 + HIGH, "What a rank does not hold it fetches from the others when it needs it."))
    alt = "; ".join(f"{NAMES[stage]} holds {per_weight(stage, ranks, MIXED):.3g} bytes per weight" for stage in STAGES)
    return Diagram(shapes, 544, 240, f"With {ranks} ranks: {alt}.")
