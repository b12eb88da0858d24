"""The tab "QLoRA": a layer under the microscope, a memory meter, and what 4 bits do to the words."""

from pages._kit.page import Page, Picture
from pages.qlora.damage import damage_panels, draw_damage
from pages.qlora.diagram import diagram
from pages.qlora.meter import draw_meter, meter_panels
from pages.qlora.microscope import draw_microscope, microscope_panels

THUMB = (
    ("rect", {"x": 24, "y": 8, "width": 18, "height": 36}, "a"),
    ("rect", {"x": 50, "y": 26, "width": 18, "height": 18}, "a"),
    ("rect", {"x": 76, "y": 35, "width": 18, "height": 9}, "a"),
)

PAGE = Page(
    "qlora",
    "QLoRA",
    {
        "microscope": Picture(microscope_panels, draw_microscope, folded=("used", "price")),
        "meter": Picture(meter_panels, draw_meter, folded=("big", "fits")),
        "damage": Picture(damage_panels, draw_damage),
    },
    (
        ("Dettmers et al. 2023, QLoRA: Efficient Finetuning of Quantized LLMs", "https://arxiv.org/abs/2305.14314"),
        ("Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization", "https://arxiv.org/abs/2110.02861"),
        (
            "Yoshida 2023, NF4 Isn't Information Theoretically Optimal (and that's Good)",
            "https://arxiv.org/abs/2306.06965",
        ),
        ("Dettmers et al. 2022, LLM.int8()", "https://arxiv.org/abs/2208.07339"),
        ("bitsandbytes", "https://github.com/bitsandbytes-foundation/bitsandbytes"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
