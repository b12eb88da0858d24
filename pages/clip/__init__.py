"""The tab "CLIP": two towers learning to agree, and what a trained pair can and cannot do."""

from pages._kit.page import Page, Picture
from pages.clip.binding import binding_panels, draw_binding
from pages.clip.diagram import diagram
from pages.clip.gap import draw_gap, gap_panels
from pages.clip.match import draw_match, match_panels
from pages.clip.see import draw_see, see_panels
from pages.clip.train import draw_train, train_panels

THUMB = (
    ("rect", {"x": 26, "y": 6, "width": 38, "height": 38}, "level"),
    ("rect", {"x": 27, "y": 7, "width": 11, "height": 11}, "a"),
    ("rect", {"x": 39, "y": 19, "width": 11, "height": 11}, "a"),
    ("rect", {"x": 51, "y": 31, "width": 11, "height": 11}, "a"),
    ("path", {"d": "M74 12 H100 M74 25 H100 M74 38 H92"}, "b"),
)

PAGE = Page(
    "clip",
    "CLIP",
    {
        "match": Picture(match_panels, draw_match, folded=("templates", "notes", "brush")),
        "train": Picture(train_panels, draw_train, folded=("scale",)),
        "see": Picture(see_panels, draw_see, folded=("parts", "grows")),
        "gap": Picture(gap_panels, draw_gap),
        "binding": Picture(binding_panels, draw_binding, folded=("film",)),
    },
    (
        (
            "Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision",
            "https://arxiv.org/abs/2103.00020",
        ),
        ("OpenCLIP", "https://github.com/mlfoundations/open_clip"),
        ("Liang et al. 2022, Mind the Gap: the modality gap", "https://arxiv.org/abs/2203.02053"),
        (
            "Yuksekgonul et al. 2022, When and why vision-language models behave like bags-of-words",
            "https://arxiv.org/abs/2210.01936",
        ),
        ("Goh et al. 2021, Multimodal neurons (typographic attacks)", "https://distill.pub/2021/multimodal-neurons/"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
