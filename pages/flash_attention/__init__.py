"""The tab "FlashAttention": attention tile by tile, broken on purpose, and raced."""

from pages._kit.page import Page, Picture
from pages.flash_attention.diagram import diagram
from pages.flash_attention.race import draw_race, race_panels
from pages.flash_attention.rescale import draw_rescale, rescale_panels
from pages.flash_attention.tiles import draw_tiles, tiles_panels

THUMB = (
    ("rect", {"x": 36, "y": 3, "width": 44, "height": 44}, "level"),
    ("rect", {"x": 36, "y": 3, "width": 11, "height": 11}, "a"),
    ("rect", {"x": 47, "y": 14, "width": 11, "height": 11}, "a"),
    ("rect", {"x": 47, "y": 3, "width": 11, "height": 11}, "b"),
)

PAGE = Page(
    "flash_attention",
    "FlashAttention",
    {
        "tiles": Picture(tiles_panels, draw_tiles),
        "rescale": Picture(rescale_panels, draw_rescale, folded=("sweep", "table")),
        "race": Picture(race_panels, draw_race, folded=("forward", "ratio", "kernels")),
    },
    (
        (
            "Dao et al. 2022, FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness",
            "https://arxiv.org/abs/2205.14135",
        ),
        (
            "Dao 2023, FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning",
            "https://arxiv.org/abs/2307.08691",
        ),
        ("Milakov and Gimelshein 2018, Online normalizer calculation for softmax", "https://arxiv.org/abs/1805.02867"),
        ("flash-attention, the authors' kernels", "https://github.com/Dao-AILab/flash-attention"),
        (
            "PyTorch, scaled_dot_product_attention",
            "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html",
        ),
    ),
    diagram=diagram,
    thumb=THUMB,
)
