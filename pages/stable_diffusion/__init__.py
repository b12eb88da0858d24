"""The tab "Stable Diffusion": the autoencoder, one step of denoising with all its numbers, solvers, and the last step's
flaw.
"""

from pages._kit.page import Page, Picture
from pages.stable_diffusion.denoise import denoise_panels, draw_denoise
from pages.stable_diffusion.diagram import diagram
from pages.stable_diffusion.img2img import draw_img2img, img2img_panels
from pages.stable_diffusion.latents import draw_latents, latents_panels
from pages.stable_diffusion.schedulers import draw_schedulers, schedulers_panels
from pages.stable_diffusion.terminal_snr import draw_terminal_snr, terminal_snr_panels
from pages.stable_diffusion.words import draw_words, words_panels

THUMB = (
    ("rect", {"x": 16, "y": 9, "width": 32, "height": 32}, "a"),
    ("rect", {"x": 62, "y": 19, "width": 12, "height": 12}, "d"),
    ("rect", {"x": 88, "y": 9, "width": 20, "height": 32}, "b"),
    ("path", {"d": "M50 25 H60 M76 25 H86"}, "level"),
)

PAGE = Page(
    "stable_diffusion",
    "Stable Diffusion",
    {
        "latents": Picture(latents_panels, draw_latents, folded=("counted", "kinds")),
        "denoise": Picture(denoise_panels, draw_denoise),
        "schedulers": Picture(schedulers_panels, draw_schedulers, folded=("table",)),
        "words": Picture(words_panels, draw_words, folded=("outside", "sees")),
        "img2img": Picture(img2img_panels, draw_img2img, folded=("note",)),
        "terminal_snr": Picture(terminal_snr_panels, draw_terminal_snr, folded=("numbers",)),
    },
    (
        (
            "Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models",
            "https://arxiv.org/abs/2112.10752",
        ),
        ("Song et al. 2020, Denoising Diffusion Implicit Models", "https://arxiv.org/abs/2010.02502"),
        ("Lu et al. 2022, DPM-Solver++", "https://arxiv.org/abs/2211.01095"),
        (
            "Karras et al. 2022, Elucidating the Design Space of Diffusion-Based Generative Models",
            "https://arxiv.org/abs/2206.00364",
        ),
        (
            "Lin et al. 2023, Common Diffusion Noise Schedules and Sample Steps are Flawed",
            "https://arxiv.org/abs/2305.08891",
        ),
        (
            "Tang et al. 2022, What the DAAM: interpreting Stable Diffusion with cross-attention",
            "https://arxiv.org/abs/2210.04885",
        ),
        (
            "Hertz et al. 2022, Prompt-to-prompt image editing with cross-attention control",
            "https://arxiv.org/abs/2208.01626",
        ),
        ("Meng et al. 2021, SDEdit", "https://arxiv.org/abs/2108.01073"),
        ("diffusers", "https://github.com/huggingface/diffusers"),
    ),
    diagram=diagram,
    thumb=THUMB,
)
