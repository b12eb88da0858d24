"""The tab "LoRA": a change of known rank, a real text, rank against what it buys, and the count for big models."""

from pages._kit.page import Page, Picture
from pages.lora.count import count_panels, draw_count
from pages.lora.diagram import diagram
from pages.lora.spectrum import draw_spectrum, spectrum_panels
from pages.lora.sweep import draw_sweep, sweep_panels
from pages.lora.text import draw_text, text_panels
from pages.lora.toy import draw_toy, toy_panels
from pages.lora.variants import draw_variants, variants_panels

THUMB = (
    ("rect", {"x": 28, "y": 8, "width": 34, "height": 34}, "a"),
    ("rect", {"x": 74, "y": 8, "width": 8, "height": 34}, "b"),
    ("rect", {"x": 88, "y": 21, "width": 24, "height": 8}, "b"),
)

PAGE = Page(
    "lora",
    "LoRA",
    {
        "text": Picture(text_panels, draw_text),
        "toy": Picture(toy_panels, draw_toy),
        "count": Picture(count_panels, draw_count),
        "variants": Picture(variants_panels, draw_variants),
        "sweep": Picture(sweep_panels, draw_sweep),
        "spectrum": Picture(spectrum_panels, draw_spectrum),
    },
    (
        ("Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models", "https://arxiv.org/abs/2106.09685"),
        ("peft, the library", "https://github.com/huggingface/peft"),
        (
            "Kalajdzievski 2023, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
            "https://arxiv.org/abs/2312.03732",
        ),
        (
            "Eckart and Young 1936, The approximation of one matrix by another of lower rank",
            "https://doi.org/10.1007/BF02288367",
        ),
        ("Hayou et al. 2024, LoRA+", "https://arxiv.org/abs/2402.12354"),
        ("Liu et al. 2024, DoRA: Weight-Decomposed Low-Rank Adaptation", "https://arxiv.org/abs/2402.09353"),
        ("Meng et al. 2024, PiSSA", "https://arxiv.org/abs/2404.02948"),
        ("Biderman et al. 2024, LoRA Learns Less and Forgets Less", "https://arxiv.org/abs/2405.09673"),
        ("The authors' own code", "https://github.com/microsoft/LoRA"),
        ("The notebooks this tab grew from", "https://github.com/tianlinxu312/Everything-about-LLMs"),
    ),
    hand_over={"adapter_model.safetensors": ("text", "adapter_file")},
    diagram=diagram,
    thumb=THUMB,
)
