"""The tab "Gradient checkpointing": what autograd keeps, memory against time, and big models."""

from pages._kit.page import Page, Picture
from pages.gradient_checkpointing.big import big_panels, draw_big
from pages.gradient_checkpointing.diagram import diagram
from pages.gradient_checkpointing.kept import draw_kept, kept_panels
from pages.gradient_checkpointing.tradeoff import draw_tradeoff, tradeoff_panels

THUMB = (
    ("rect", {"x": 14, "y": 16, "width": 11, "height": 18}, "a"),
    ("rect", {"x": 29, "y": 16, "width": 11, "height": 18}, "level"),
    ("rect", {"x": 44, "y": 16, "width": 11, "height": 18}, "level"),
    ("rect", {"x": 59, "y": 16, "width": 11, "height": 18}, "a"),
    ("rect", {"x": 74, "y": 16, "width": 11, "height": 18}, "level"),
    ("rect", {"x": 89, "y": 16, "width": 11, "height": 18}, "level"),
    ("rect", {"x": 104, "y": 16, "width": 11, "height": 18}, "a"),
    ("path", {"d": "M64 40 C54 48 30 48 22 38"}, "b"),
)

PAGE = Page(
    "gradient_checkpointing",
    "Gradient checkpointing",
    {
        "kept": Picture(kept_panels, draw_kept, folded=("list", "context")),
        "tradeoff": Picture(tradeoff_panels, draw_tradeoff, folded=("sizes", "costs", "work")),
        "big": Picture(big_panels, draw_big),
    },
    (
        (
            "Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models",
            "https://arxiv.org/abs/2205.05198",
        ),
        ("Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost", "https://arxiv.org/abs/1604.06174"),
        ("torch.utils.checkpoint", "https://docs.pytorch.org/docs/stable/checkpoint.html"),
        (
            "Hooks for saved tensors",
            "https://docs.pytorch.org/tutorials/intermediate/autograd_saved_tensors_hooks_tutorial.html",
        ),
    ),
    diagram=diagram,
    thumb=THUMB,
)
