"""The tab "GLIDE": noise, a denoiser that learns live, its sampling step by step, guidance, and painting into a hole."""

from pages._kit.page import Page, Picture
from pages.glide.denoise import denoise_panels, draw_denoise
from pages.glide.guidance import draw_guidance, guidance_panels
from pages.glide.inpaint import draw_inpaint, inpaint_panels
from pages.glide.noise import draw_noise, noise_panels
from pages.glide.train import draw_train, train_panels

PAGE = Page(
    "glide",
    "GLIDE",
    {
        "noise": Picture(noise_panels, draw_noise),
        "train": Picture(train_panels, draw_train),
        "denoise": Picture(denoise_panels, draw_denoise),
        "guidance": Picture(guidance_panels, draw_guidance),
        "inpaint": Picture(inpaint_panels, draw_inpaint),
    },
    (
        (
            "Nichol et al. 2021, GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models",
            "https://arxiv.org/abs/2112.10741",
        ),
        ("GLIDE's code", "https://github.com/openai/glide-text2im"),
        ("Ho et al. 2020, Denoising Diffusion Probabilistic Models", "https://arxiv.org/abs/2006.11239"),
        ("Song et al. 2020, Denoising Diffusion Implicit Models", "https://arxiv.org/abs/2010.02502"),
        ("Kingma et al. 2021, Variational Diffusion Models", "https://arxiv.org/abs/2107.00630"),
        ("Ho and Salimans 2022, Classifier-Free Diffusion Guidance", "https://arxiv.org/abs/2207.12598"),
    ),
)
