"""The diagram of the tab Data efficiency: what can be done to a text before a model reads it."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, stack

DEEDS = (
    ("repeat", "repeat", "the same text again"),
    ("dedup", "deduplicate", "drop the copies"),
    ("prune", "prune", "keep easy or hard"),
    ("curriculum", "order", "short or easy first"),
)


def diagram(config: Any) -> Diagram:
    """With the tokens and the seeds of the run; what its experiment does is marked."""
    active = type(config).__name__.removesuffix("Config").lower()
    tokens, seeds = getattr(config, "tokens", 65536), getattr(config, "seeds", 3)
    shapes = [
        stack(4, 96, 78, 56, 3, "text", "U tokens", color="d"),
        arrow((92, 124), (116, 124)),
        group(118, 6, 152, 228, "change one thing"),
        arrow((270, 124), (300, 124)),
        stack(302, 96, 98, 56, min(seeds, 4), "tiny GPTs", f"{seeds} seeds each", color="a"),
        label(356, 172, f"{tokens:,} tokens read"),
        arrow((416, 124), (440, 124)),
        box(442, 96, 94, 56, "loss", "on unseen text", color="b"),
        arrow((489, 96), (489, 68)),
        box(442, 14, 94, 52, "the law", "what papers say", color="c"),
    ]
    for row, (name, words, size) in enumerate(DEEDS):
        color = "e" if name == active else "level"
        shapes.append(box(130, 32 + 49 * row, 128, 42, words, size, color=color))
    alt = (
        f"A text is repeated, deduplicated, pruned or ordered; {seeds} tiny models read {tokens:,} tokens of it"
        " each, and their loss on unseen text is compared with a published law."
    )
    return Diagram(shapes, 540, 240, alt)
