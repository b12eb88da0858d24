"""The tab "CLIP": two towers learning to agree, and what a trained pair can and cannot do."""

from pages._kit.page import Page, Picture
from pages.clip.binding import binding_panels, draw_binding
from pages.clip.gap import draw_gap, gap_panels
from pages.clip.match import draw_match, match_panels
from pages.clip.see import draw_see, see_panels
from pages.clip.train import draw_train, train_panels

PAGE = Page(
    "clip",
    "CLIP",
    {
        "train": Picture(train_panels, draw_train),
        "match": Picture(match_panels, draw_match),
        "see": Picture(see_panels, draw_see),
        "gap": Picture(gap_panels, draw_gap),
        "binding": Picture(binding_panels, draw_binding),
    },
    (
        ("Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision", "https://arxiv.org/abs/2103.00020"),
        ("OpenCLIP", "https://github.com/mlfoundations/open_clip"),
        ("Liang et al. 2022, Mind the Gap: the modality gap", "https://arxiv.org/abs/2203.02053"),
        ("Yuksekgonul et al. 2022, When and why vision-language models behave like bags-of-words", "https://arxiv.org/abs/2210.01936"),
        ("Goh et al. 2021, Multimodal neurons (typographic attacks)", "https://distill.pub/2021/multimodal-neurons/"),
    ),
)
