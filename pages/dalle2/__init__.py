"""The tab "DALL·E 2": caption to embedding to picture, what an embedding keeps, and walks between embeddings."""

from pages._kit.page import Page, Picture
from pages.dalle2.blend import blend_panels, draw_blend
from pages.dalle2.chain import chain_panels, draw_chain
from pages.dalle2.diagram import diagram
from pages.dalle2.variations import draw_variations, variations_panels

THUMB = (
    ("path", {"d": "M14 18 H38 M14 26 H32"}, "b"),
    ("path", {"d": "M44 25 H54"}, "level"),
    ("rect", {"x": 58, "y": 19, "width": 3, "height": 6}, "d"),
    ("rect", {"x": 62, "y": 4, "width": 3, "height": 21}, "d"),
    ("rect", {"x": 66, "y": 9, "width": 3, "height": 16}, "d"),
    ("rect", {"x": 70, "y": 14, "width": 3, "height": 11}, "d"),
    ("rect", {"x": 74, "y": 19, "width": 3, "height": 6}, "d"),
    ("path", {"d": "M82 25 H90"}, "level"),
    ("path", {"d": "M94 38 L104 14 L114 38 Z"}, "a"),
)

PAGE = Page(
    "dalle2",
    "DALL·E 2",
    {
        "chain": Picture(chain_panels, draw_chain, folded=("nearest", "spread", "notes")),
        "variations": Picture(variations_panels, draw_variations, folded=("fewer", "shares")),
        "blend": Picture(blend_panels, draw_blend),
    },
    (
        (
            "Ramesh et al. 2022, Hierarchical Text-Conditional Image Generation with CLIP Latents",
            "https://arxiv.org/abs/2204.06125",
        ),
        ("Razzhigaev et al. 2023, Kandinsky", "https://arxiv.org/abs/2310.03502"),
        ("Liang et al. 2022, Mind the Gap: the modality gap", "https://arxiv.org/abs/2203.02053"),
        ("diffusers: Kandinsky 2.2", "https://huggingface.co/docs/diffusers/api/pipelines/kandinsky_v22"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
