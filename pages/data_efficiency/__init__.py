"""The tab "Data efficiency": what a token is worth."""

from pages._kit.page import Page, Picture
from pages.data_efficiency.curriculum import curriculum_panels, draw_curriculum
from pages.data_efficiency.dedup import dedup_panels, draw_dedup
from pages.data_efficiency.diagram import diagram
from pages.data_efficiency.prune import draw_prune, prune_panels
from pages.data_efficiency.repeat import draw_repeat, repeat_panels
from pages.data_efficiency.scaling import draw_scaling, scaling_panels

THUMB = (
    ("path", {"d": "M16 10 C30 34 50 38 104 40"}, "a"),
    ("path", {"d": "M16 10 C30 36 48 30 104 24"}, "b"),
    ("circle", {"cx": 40, "cy": 33, "r": 2.5}, "a"),
)

PAGE = Page(
    "data_efficiency",
    "Data efficiency",
    {
        "repeat": Picture(repeat_panels, draw_repeat),
        "dedup": Picture(dedup_panels, draw_dedup, folded=("recalls",)),
        "scaling": Picture(scaling_panels, draw_scaling),
        "prune": Picture(prune_panels, draw_prune),
        "curriculum": Picture(curriculum_panels, draw_curriculum),
    },
    (
        ("Muennighoff et al. 2023, Scaling Data-Constrained Language Models", "https://arxiv.org/abs/2305.16264"),
        (
            "Lovelace et al. 2026, Prescriptive Scaling Laws for Data Constrained Training",
            "https://arxiv.org/abs/2605.01640",
        ),
        ("Hoffmann et al. 2022, Training Compute-Optimal Large Language Models", "https://arxiv.org/abs/2203.15556"),
        ("Besiroglu et al. 2024, Chinchilla Scaling: A replication attempt", "https://arxiv.org/abs/2404.10102"),
        ("Kaplan et al. 2020, Scaling Laws for Neural Language Models", "https://arxiv.org/abs/2001.08361"),
        (
            "Lee et al. 2022, Deduplicating Training Data Makes Language Models Better",
            "https://arxiv.org/abs/2107.06499",
        ),
        ("Sorscher et al. 2022, Beyond neural scaling laws", "https://arxiv.org/abs/2206.14486"),
        ("Li et al. 2022, The Stability-Efficiency Dilemma", "https://arxiv.org/abs/2108.06084"),
        ("Yao et al. 2022, Random-LTD", "https://arxiv.org/abs/2211.11586"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
