"""The tab "GLIDE": noise, a denoiser that learns live, its sampling step by step, guidance, and painting into a
hole.
"""

from pages._kit.page import Page, Picture
from pages.glide.denoise import denoise_panels, draw_denoise
from pages.glide.diagram import diagram
from pages.glide.guidance import draw_guidance, guidance_panels
from pages.glide.inpaint import draw_inpaint, inpaint_panels
from pages.glide.noise import draw_noise, noise_panels
from pages.glide.train import draw_train, train_panels

THUMB = (
    ("circle", {"cx": 22, "cy": 12, "r": 1.6}, "level"),
    ("circle", {"cx": 25, "cy": 35, "r": 1.6}, "level"),
    ("circle", {"cx": 28, "cy": 31, "r": 1.6}, "level"),
    ("circle", {"cx": 31, "cy": 27, "r": 1.6}, "level"),
    ("circle", {"cx": 34, "cy": 23, "r": 1.6}, "level"),
    ("circle", {"cx": 37, "cy": 19, "r": 1.6}, "level"),
    ("circle", {"cx": 23, "cy": 15, "r": 1.6}, "level"),
    ("circle", {"cx": 26, "cy": 38, "r": 1.6}, "level"),
    ("circle", {"cx": 29, "cy": 34, "r": 1.6}, "level"),
    ("circle", {"cx": 32, "cy": 30, "r": 1.6}, "level"),
    ("circle", {"cx": 35, "cy": 26, "r": 1.6}, "level"),
    ("circle", {"cx": 38, "cy": 22, "r": 1.6}, "level"),
    ("circle", {"cx": 24, "cy": 18, "r": 1.6}, "level"),
    ("circle", {"cx": 27, "cy": 14, "r": 1.6}, "level"),
    ("path", {"d": "M48 25 H64 M60 21 L64 25 L60 29"}, "level"),
    ("circle", {"cx": 88, "cy": 25, "r": 13}, "b"),
)

PAGE = Page(
    "glide",
    "GLIDE",
    {
        "denoise": Picture(denoise_panels, draw_denoise, folded=("apart", "sizes")),
        "guidance": Picture(guidance_panels, draw_guidance, folded=("firsts", "price", "pull")),
        "inpaint": Picture(inpaint_panels, draw_inpaint),
        "train": Picture(train_panels, draw_train),
        "noise": Picture(noise_panels, draw_noise, folded=("errors", "spread", "note")),
    },
    (
        (
            (
                "Nichol et al. 2021, GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided"
                " Diffusion Models"
            ),
            "https://arxiv.org/abs/2112.10741",
        ),
        ("GLIDE's code", "https://github.com/openai/glide-text2im"),
        ("Ho et al. 2020, Denoising Diffusion Probabilistic Models", "https://arxiv.org/abs/2006.11239"),
        ("Song et al. 2020, Denoising Diffusion Implicit Models", "https://arxiv.org/abs/2010.02502"),
        ("Kingma et al. 2021, Variational Diffusion Models", "https://arxiv.org/abs/2107.00630"),
        ("Ho and Salimans 2022, Classifier-Free Diffusion Guidance", "https://arxiv.org/abs/2207.12598"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
