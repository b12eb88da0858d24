"""The tab "Pipeline parallelism": the bubble three times, a puzzle of layers, and schedules on many ranks."""

from pages._kit.page import Page, Picture
from pages.pipeline_parallel.balance import balance_panels, draw_balance
from pages.pipeline_parallel.big import big_panels, draw_big
from pages.pipeline_parallel.bubble import bubble_panels, draw_bubble
from pages.pipeline_parallel.diagram import diagram

THUMB = (
    ("rect", {"x": 14, "y": 7, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 25, "y": 7, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 36, "y": 7, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 47, "y": 7, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 25, "y": 17, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 36, "y": 17, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 47, "y": 17, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 58, "y": 17, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 36, "y": 27, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 47, "y": 27, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 58, "y": 27, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 69, "y": 27, "width": 10, "height": 8}, "a"),
    ("rect", {"x": 80, "y": 27, "width": 10, "height": 8}, "b"),
    ("rect", {"x": 88, "y": 17, "width": 10, "height": 8}, "b"),
    ("rect", {"x": 96, "y": 7, "width": 10, "height": 8}, "b"),
)

PAGE = Page(
    "pipeline_parallel",
    "Pipeline parallelism",
    {
        "bubble": Picture(bubble_panels, draw_bubble, folded=("parts", "raw")),
        "balance": Picture(balance_panels, draw_balance, folded=("map", "table")),
        "big": Picture(big_panels, draw_big, folded=("held", "zero")),
    },
    (
        ("Huang et al. 2018, GPipe", "https://arxiv.org/abs/1811.06965"),
        (
            "Narayanan et al. 2021, Efficient Large-Scale Language Model Training (interleaved 1F1B)",
            "https://arxiv.org/abs/2104.04473",
        ),
        ("Qi et al. 2023, Zero Bubble Pipeline Parallelism", "https://arxiv.org/abs/2401.10241"),
        ("Qi et al. 2024, Pipeline Parallelism with Controllable Memory", "https://arxiv.org/abs/2405.15362"),
        ("PyTorch, torch.distributed.pipelining", "https://docs.pytorch.org/docs/stable/distributed.pipelining.html"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
