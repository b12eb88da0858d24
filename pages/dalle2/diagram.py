"""The diagram of the tab DALL·E 2: from a caption to a picture by way of CLIP (Ramesh et al. 2022, figure 2)."""

from typing import Any

from pages._kit.diagram import Diagram, arrow, box, group, label, matrix


def diagram(config: Any) -> Diagram:
    """With the steps of the prior and of the decoder."""
    prior, steps = getattr(config, "prior_steps", 20), getattr(config, "steps", 25)
    shapes = [
        group(4, 6, 532, 92, "CLIP, trained before and frozen"),
        box(16, 34, 92, 50, "caption", color="d"),
        arrow((108, 59), (128, 59)),
        box(130, 34, 104, 50, "text tower", color="b"),
        arrow((234, 59), (256, 59)),
        matrix(258, 34, 52, 50, "z_t", "64", color="b"),
        box(334, 34, 108, 50, "picture tower", color="a"),
        arrow((442, 59), (458, 59)),
        matrix(460, 34, 52, 50, "z_i", "64", color="a"),
        label(388, 116, "only to train, to vary and to blend"),
        arrow((284, 84), (284, 128), (72, 128), (72, 148)),
        box(16, 150, 112, 54, "prior", f"{prior} steps from noise", color="c"),
        arrow((128, 177), (152, 177)),
        matrix(154, 150, 56, 54, "z_i", "imagined", color="a"),
        arrow((210, 177), (242, 177)),
        box(244, 150, 128, 54, "decoder", f"{steps} steps from noise", color="c"),
        arrow((372, 177), (400, 177)),
        matrix(402, 142, 96, 70, "picture", color="d"),
        label(182, 222, "many fit: a caption leaves much open"),
    ]
    alt = (
        "CLIP's text tower turns the caption into a vector z_t. The prior imagines from it the vector z_i of a picture,"
        " and the decoder draws a picture from z_i."
    )
    return Diagram(shapes, 540, 230, alt)
