"""The tab "KV caching": a cache that grows, smaller ones and their price, and the caches of real models."""

from pages._kit.page import Page, Picture
from pages.kv_cache.big import big_panels, draw_big
from pages.kv_cache.diagram import diagram
from pages.kv_cache.grow import draw_grow, grow_panels
from pages.kv_cache.shrink import draw_shrink, shrink_panels

THUMB = (
    ("rect", {"x": 16, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 28, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 40, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 52, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 64, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 76, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 88, "y": 10, "width": 10, "height": 12}, "a"),
    ("rect", {"x": 16, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 28, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 40, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 52, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 64, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 76, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 88, "y": 27, "width": 10, "height": 12}, "c"),
    ("rect", {"x": 100, "y": 10, "width": 10, "height": 12}, "b"),
    ("rect", {"x": 100, "y": 27, "width": 10, "height": 12}, "b"),
)

PAGE = Page(
    "kv_cache",
    "KV caching",
    {
        "grow": Picture(grow_panels, draw_grow, folded=("roof", "passes")),
        "shrink": Picture(shrink_panels, draw_shrink, folded=("harm", "nexts", "poisoned")),
        "big": Picture(big_panels, draw_big, folded=("steps",)),
    },
    (
        ("Pope et al. 2022, Efficiently Scaling Transformer Inference", "https://arxiv.org/abs/2211.05102"),
        (
            "Ainslie et al. 2023, GQA: Training Generalized Multi-Query Transformer Models",
            "https://arxiv.org/abs/2305.13245",
        ),
        (
            "Xiao et al. 2023, Efficient Streaming Language Models with Attention Sinks",
            "https://arxiv.org/abs/2309.17453",
        ),
        ("Kwon et al. 2023, Efficient Memory Management with PagedAttention", "https://arxiv.org/abs/2309.06180"),
        ("DeepSeek-AI 2024, DeepSeek-V2 (multi-head latent attention)", "https://arxiv.org/abs/2405.04434"),
        ("Carol Chen 2022, Transformer Inference Arithmetic", "https://kipp.ly/transformer-inference-arithmetic/"),
        ("Austin et al. 2025, How to Scale Your Model: Inference", "https://jax-ml.github.io/scaling-book/inference/"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
