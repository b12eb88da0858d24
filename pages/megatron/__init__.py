"""The tab "Megatron tensor parallelism": a layer split over ranks, and when that pays."""

from pages._kit.page import Page, Picture
from pages.megatron.diagram import diagram
from pages.megatron.speedup import draw_speedup, speedup_panels
from pages.megatron.split import draw_split, split_panels

THUMB = (
    ("rect", {"x": 24, "y": 8, "width": 20, "height": 34}, "a"),
    ("rect", {"x": 44, "y": 8, "width": 20, "height": 34}, "b"),
    ("rect", {"x": 76, "y": 8, "width": 34, "height": 17}, "a"),
    ("rect", {"x": 76, "y": 25, "width": 34, "height": 17}, "b"),
)

PAGE = Page(
    "megatron",
    "Megatron tensor parallelism",
    {
        "split": Picture(split_panels, draw_split, folded=("errors", "counts", "ledger")),
        "speedup": Picture(speedup_panels, draw_speedup, folded=("share", "scale")),
    },
    (
        (
            (
                "Shoeybi et al. 2019, Megatron-LM: Training Multi-Billion Parameter Language Models Using Model"
                " Parallelism"
            ),
            "https://arxiv.org/abs/1909.08053",
        ),
        (
            "Narayanan et al. 2021, Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM",
            "https://arxiv.org/abs/2104.04473",
        ),
        (
            "Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models",
            "https://arxiv.org/abs/2205.05198",
        ),
        ("PyTorch: Tensor Parallelism", "https://docs.pytorch.org/docs/stable/distributed.tensor.parallel.html"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
