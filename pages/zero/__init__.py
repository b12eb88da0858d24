"""The tab "ZeRO": who holds what, what dies with a rank, and how far down it goes."""

from pages._kit.page import Page, Picture
from pages.zero.lose import draw_lose, lose_panels
from pages.zero.scale import draw_scale, scale_panels
from pages.zero.shards import draw_shards, shards_panels

PAGE = Page(
    "zero",
    "ZeRO",
    {
        "shards": Picture(shards_panels, draw_shards),
        "lose": Picture(lose_panels, draw_lose),
        "scale": Picture(scale_panels, draw_scale),
    },
    (
        ("Rajbhandari et al. 2019, ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", "https://arxiv.org/abs/1910.02054"),
        ("Zhao et al. 2023, PyTorch FSDP", "https://arxiv.org/abs/2304.11277"),
        ("PyTorch: fully_shard", "https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html"),
        ("PyTorch: ZeroRedundancyOptimizer", "https://docs.pytorch.org/docs/stable/distributed.optim.html"),
        ("PyTorch: torch.distributed.checkpoint", "https://docs.pytorch.org/docs/stable/distributed.checkpoint.html"),
    ),
)
