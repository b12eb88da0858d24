"""The tab "Megatron tensor parallelism": a layer split over ranks, and when that pays."""

from pages._kit.page import Page, Picture
from pages.megatron.speedup import draw_speedup, speedup_panels
from pages.megatron.split import draw_split, split_panels

PAGE = Page(
    "megatron",
    "Megatron tensor parallelism",
    {
        "split": Picture(split_panels, draw_split),
        "speedup": Picture(speedup_panels, draw_speedup),
    },
    (
        ("Shoeybi et al. 2019, Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism", "https://arxiv.org/abs/1909.08053"),
        ("Narayanan et al. 2021, Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", "https://arxiv.org/abs/2104.04473"),
        ("Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models", "https://arxiv.org/abs/2205.05198"),
        ("PyTorch: Tensor Parallelism", "https://docs.pytorch.org/docs/stable/distributed.tensor.parallel.html"),
    ),
)
