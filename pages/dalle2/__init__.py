"""The tab "DALL·E 2": caption to embedding to picture, what an embedding keeps, and walks between embeddings."""

from pages._kit.page import Page, Picture
from pages.dalle2.blend import blend_panels, draw_blend
from pages.dalle2.chain import chain_panels, draw_chain
from pages.dalle2.variations import draw_variations, variations_panels

PAGE = Page(
    "dalle2",
    "DALL·E 2",
    {
        "chain": Picture(chain_panels, draw_chain),
        "variations": Picture(variations_panels, draw_variations),
        "blend": Picture(blend_panels, draw_blend),
    },
    (
        ("Ramesh et al. 2022, Hierarchical Text-Conditional Image Generation with CLIP Latents", "https://arxiv.org/abs/2204.06125"),
        ("Razzhigaev et al. 2023, Kandinsky", "https://arxiv.org/abs/2310.03502"),
        ("Liang et al. 2022, Mind the Gap: the modality gap", "https://arxiv.org/abs/2203.02053"),
        ("diffusers: Kandinsky 2.2", "https://huggingface.co/docs/diffusers/api/pipelines/kandinsky_v22"),
    ),
)
