"""The tab "Checkpointing and deterministic training": pull the plug, chaos, another number of ranks, how often to
save.
"""

from pages._kit.page import Page, Picture
from pages.deterministic_resume.chaos import chaos_panels, draw_chaos
from pages.deterministic_resume.diagram import diagram
from pages.deterministic_resume.interval import draw_interval, interval_panels
from pages.deterministic_resume.reshard import draw_reshard, reshard_panels
from pages.deterministic_resume.unplug import draw_unplug, unplug_panels

THUMB = (
    ("path", {"d": "M12 32 L40 24"}, "a"),
    ("path", {"d": "M46 16 L58 38 M58 16 L46 38"}, "b"),
    ("path", {"d": "M64 22 L108 12"}, "a"),
)

PAGE = Page(
    "deterministic_resume",
    "Checkpointing and deterministic training",
    {
        "unplug": Picture(unplug_panels, draw_unplug, folded=("news", "ledger", "loss")),
        "chaos": Picture(chaos_panels, draw_chaos, folded=("same", "trials")),
        "reshard": Picture(reshard_panels, draw_reshard, folded=("apart", "files")),
        "interval": Picture(interval_panels, draw_interval),
    },
    (
        ("PyTorch: Reproducibility", "https://docs.pytorch.org/docs/stable/notes/randomness.html"),
        ("PyTorch: torch.distributed.checkpoint", "https://docs.pytorch.org/docs/stable/distributed.checkpoint.html"),
        (
            "Young 1974, A first order approximation to the optimum checkpoint interval",
            "https://doi.org/10.1145/361147.361115",
        ),
        (
            "Daly 2006, A higher order estimate of the optimum checkpoint interval",
            "https://doi.org/10.1016/j.future.2004.11.016",
        ),
        ("The Llama 3 Herd of Models, 2024, section 3.3.4", "https://arxiv.org/abs/2407.21783"),
        ("Higham 2002, Accuracy and Stability of Numerical Algorithms", "https://doi.org/10.1137/1.9780898718027"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
