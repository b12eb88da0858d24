"""The tab "LoRA": a change of known rank, a real text, rank against what it buys, and the count for big models."""

from pages._kit.page import Page, Picture
from pages.lora.count import count_panels, draw_count
from pages.lora.sweep import draw_sweep, sweep_panels
from pages.lora.text import draw_text, text_panels
from pages.lora.toy import draw_toy, toy_panels

PAGE = Page(
    "lora",
    "LoRA",
    {
        "toy": Picture(toy_panels, draw_toy),
        "text": Picture(text_panels, draw_text),
        "sweep": Picture(sweep_panels, draw_sweep),
        "count": Picture(count_panels, draw_count),
    },
    (
        ("Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models", "https://arxiv.org/abs/2106.09685"),
        ("peft, the library", "https://github.com/huggingface/peft"),
        ("Kalajdzievski 2023, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", "https://arxiv.org/abs/2312.03732"),
        ("The authors' own code", "https://github.com/microsoft/LoRA"),
        ("The notebooks this tab grew from", "https://github.com/tianlinxu312/Everything-about-LLMs"),
    ),
    hand_over={"adapter_model.safetensors": ("text", "adapter_file")},
)
