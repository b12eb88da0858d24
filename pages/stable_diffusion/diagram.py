"""The diagram of the tab Stable Diffusion: diffusion on latents (Rombach et al. 2022, figure 3)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix


def diagram(config: Any) -> Diagram:
    """With the steps of the scheduler."""
    steps = getattr(config, "steps", 25)
    shapes = [
        group(150, 6, 268, 214, "in the latents: a small grid of numbers"),
        matrix(4, 34, 72, 70, "picture", "to change it", color="d"),
        arrow((76, 69), (96, 69)),
        box(98, 46, 44, 46, "E", color="c"),
        label(120, 108, "encoder"),
        arrow((142, 69), (166, 69)),
        matrix(168, 40, 62, 58, "z", "4 x h x w", color="a"),
        arrow((230, 69), (244, 69)),
        label(199, 28, "or pure noise"),
        box(246, 44, 76, 50, "U-Net", "noise in z?", color="a"),
        arrow((322, 69), (336, 69)),
        box(338, 44, 74, 50, "scheduler", color="b"),
        arrow((375, 94), (375, 116), (200, 116), (200, 100)),
        label(346, 130, f"{steps} steps: each takes"),
        label(346, 144, "a little noise away"),
        box(4, 166, 72, 46, "prompt", color="d"),
        arrow((76, 189), (158, 189)),
        box(160, 166, 92, 46, "text encoder", "of CLIP", color="e"),
        arrow((252, 189), (272, 189), (272, 96)),
        label(346, 184, "cross-attention:"),
        label(346, 198, "each place reads words"),
        arrow((412, 69), (432, 69)),
        box(434, 46, 38, 46, "D", color="c"),
        label(453, 108, "decoder"),
        arrow((472, 69), (488, 69)),
        matrix(490, 42, 50, 54, "picture", color="d"),
    ]
    alt = (
        f"An encoder turns a picture into latents. In {steps} steps a U-Net, which reads the prompt, predicts the"
        " noise in them and a scheduler takes it away; a decoder shows the picture."
    )
    return Diagram(shapes, 544, 226, alt)
