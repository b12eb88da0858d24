"""The tab "Plan a training run": memory of a GPU, the step, the best plans, and what the formulas are worth."""

from pages._kit.page import Page, Picture
from pages.planner.diagram import diagram
from pages.planner.plan import draw_plan, plan_panels

THUMB = (
    ("rect", {"x": 14, "y": 34, "width": 92, "height": 9}, "level"),
    ("rect", {"x": 14, "y": 34, "width": 30, "height": 9}, "a"),
    ("rect", {"x": 44, "y": 34, "width": 20, "height": 9}, "b"),
    ("rect", {"x": 64, "y": 34, "width": 22, "height": 9}, "c"),
    ("path", {"d": "M14 26 L38 18 L62 22 L100 8"}, "d"),
)

PAGE = Page(
    "planner",
    "Plan a training run",
    {"plan": Picture(plan_panels, draw_plan, folded=("true", "checked", "others", "formulas"))},
    (
        (
            "Narayanan et al. 2021, Efficient Large-Scale Language Model Training on GPU Clusters",
            "https://arxiv.org/abs/2104.04473",
        ),
        (
            "Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models",
            "https://arxiv.org/abs/2205.05198",
        ),
        ("Rajbhandari et al. 2019, ZeRO", "https://arxiv.org/abs/1910.02054"),
        ("Shoeybi et al. 2019, Megatron-LM", "https://arxiv.org/abs/1909.08053"),
        ("The Ultra-Scale Playbook", "https://huggingface.co/spaces/nanotron/ultrascale-playbook"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
