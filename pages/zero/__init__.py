"""The tab "ZeRO": who holds what, what dies with a rank, and how far down it goes."""

from pages._kit.page import Page, Picture
from pages.zero.diagram import diagram
from pages.zero.lose import draw_lose, lose_panels
from pages.zero.scale import draw_scale, scale_panels
from pages.zero.shards import draw_shards, shards_panels

THUMB = (
    ("rect", {"x": 18, "y": 8, "width": 18, "height": 8}, "a"),
    ("rect", {"x": 40, "y": 8, "width": 18, "height": 8}, "a"),
    ("rect", {"x": 62, "y": 8, "width": 18, "height": 8}, "a"),
    ("rect", {"x": 84, "y": 8, "width": 18, "height": 8}, "a"),
    ("rect", {"x": 18, "y": 21, "width": 18, "height": 8}, "level"),
    ("rect", {"x": 40, "y": 21, "width": 18, "height": 8}, "b"),
    ("rect", {"x": 62, "y": 21, "width": 18, "height": 8}, "level"),
    ("rect", {"x": 84, "y": 21, "width": 18, "height": 8}, "level"),
    ("rect", {"x": 18, "y": 34, "width": 18, "height": 8}, "level"),
    ("rect", {"x": 40, "y": 34, "width": 18, "height": 8}, "level"),
    ("rect", {"x": 62, "y": 34, "width": 18, "height": 8}, "c"),
    ("rect", {"x": 84, "y": 34, "width": 18, "height": 8}, "level"),
)

PAGE = Page(
    "zero",
    "ZeRO",
    {
        "shards": Picture(shards_panels, draw_shards, folded=("film", "written", "sent", "differs", "bits")),
        "lose": Picture(lose_panels, draw_lose),
        "scale": Picture(scale_panels, draw_scale),
    },
    (
        (
            "Rajbhandari et al. 2019, ZeRO: Memory Optimizations Toward Training Trillion Parameter Models",
            "https://arxiv.org/abs/1910.02054",
        ),
        ("Zhao et al. 2023, PyTorch FSDP", "https://arxiv.org/abs/2304.11277"),
        ("PyTorch: fully_shard", "https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html"),
        ("PyTorch: ZeroRedundancyOptimizer", "https://docs.pytorch.org/docs/stable/distributed.optim.html"),
        ("PyTorch: torch.distributed.checkpoint", "https://docs.pytorch.org/docs/stable/distributed.checkpoint.html"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
