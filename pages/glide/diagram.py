"""The diagram of the tab GLIDE: denoise step by step, asked with and without the words (Nichol et al. 2022)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix


def diagram(config: Any) -> Diagram:
    """With the steps and the guidance scale of the run."""
    drawing = hasattr(config, "prompt")
    steps, scale = getattr(config, "steps", 25) if drawing else 25, getattr(config, "scale", 2.0)
    shapes = [
        matrix(4, 96, 74, 66, "noise", "x at t = 1", color="level"),
        group(96, 6, 356, 212, f"{steps} steps, less noise in each"),
        box(120, 40, 112, 54, "U-Net", "with the caption", color="a"),
        box(120, 150, 112, 54, "U-Net", "without it", color="a"),
        arrow((78, 129), (104, 129), (104, 67), (118, 67)),
        arrow((104, 129), (104, 177), (118, 177)),
        label(176, 112, "the same network,"),
        label(176, 126, "asked twice"),
        arrow((232, 67), (262, 67), (262, 106)),
        arrow((232, 177), (262, 177), (262, 152)),
        box(244, 108, 92, 42, "guidance", f"w = {scale:g}", color="b"),
        arrow((336, 129), (354, 129)),
        box(356, 102, 86, 54, "one step", "less noise", color="c"),
        arrow((400, 156), (400, 200), (246, 200), (246, 212), (100, 212), (100, 140)),
        arrow((442, 129), (464, 129)),
        matrix(466, 96, 70, 66, "picture", "t = 0", color="d"),
    ]
    alt = (
        f"Noise goes through {steps} steps: a U-Net guesses the picture with and without the caption, guidance goes"
        f" {scale:g} times the difference, and a small step leads to a less noisy picture."
    )
    return Diagram(shapes, 540, 224, alt)
