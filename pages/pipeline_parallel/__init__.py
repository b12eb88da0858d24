"""The tab "Pipeline parallelism": the bubble three times, a puzzle of layers, and schedules on many ranks."""

from pages._kit.page import Page, Picture
from pages.pipeline_parallel.balance import balance_panels, draw_balance
from pages.pipeline_parallel.big import big_panels, draw_big
from pages.pipeline_parallel.bubble import bubble_panels, draw_bubble

PAGE = Page(
    "pipeline_parallel",
    "Pipeline parallelism",
    {
        "bubble": Picture(bubble_panels, draw_bubble),
        "balance": Picture(balance_panels, draw_balance),
        "big": Picture(big_panels, draw_big),
    },
    (
        ("Huang et al. 2018, GPipe", "https://arxiv.org/abs/1811.06965"),
        ("Narayanan et al. 2021, Efficient Large-Scale Language Model Training (interleaved 1F1B)", "https://arxiv.org/abs/2104.04473"),
        ("Qi et al. 2023, Zero Bubble Pipeline Parallelism", "https://arxiv.org/abs/2401.10241"),
        ("Qi et al. 2024, Pipeline Parallelism with Controllable Memory", "https://arxiv.org/abs/2405.15362"),
        ("PyTorch, torch.distributed.pipelining", "https://docs.pytorch.org/docs/stable/distributed.pipelining.html"),
    ),
)
