r"""Stable Diffusion: diffusion in the small space of an autoencoder.

A picture has many numbers, and most of them say what their neighbors say. An autoencoder is trained once to write a
picture as a small grid of *latents* and to read it back; all of the diffusion then happens on that grid:

$$z = \mathcal{E}(x), \qquad z_t = \sqrt{\bar\alpha_t}\,z + \sqrt{1-\bar\alpha_t}\,\varepsilon, \qquad \hat x =
\mathcal{D}(\hat z_0).$$

**Three networks.** The autoencoder ($512 \times 512 \times 3$ numbers become $64 \times 64 \times 4$, 48 times fewer).
The text tower of a CLIP, which turns a prompt into one vector per token (77, padding included). A U-Net, which looks at
$z_t$, at $t$ and, by cross-attention, at the words, and predicts the noise (or $v$, from which the noise follows).
Beside them stands a *scheduler*: the arithmetic, without any weights, that takes the prediction and makes a slightly
less noisy $z$ of it.

**Small, and the same.** Pictures here have $32 \times 32$ pixels, latents $8 \times 8 \times 4$ (12 times fewer), the
U-Net has 3.2 million parameters instead of 860 million; the classes, the scheduler's settings and the layout of the
files are those of the real one, and `StableDiffusionPipeline.from_pretrained` of diffusers reads the folder (with
transformers 5). It was trained on captioned shapes and draws nothing else.

Read in this order: `core/foundations/diffusion.py` (all of the arithmetic, written out), `autoencoder.py`, `model.py`,
then the experiments `latents.py`, `denoise.py`, `schedulers.py`, `words.py`, `img2img.py`, `terminal_snr.py`.

Code -> paper: `encode`, `decode` -> $\mathcal{E}$, $\mathcal{D}$ of section 3.1; `states` -> $\tau_\theta$ of section
3.3; `guided` -> equation 6 of Ho and Salimans 2022, whose $w$ is one less; `ddim_step` -> equation 12 of Song et al.
2020.
Left out: the adversarial and the perceptual loss of the autoencoder, the safety checker, several resolutions.
Source: Rombach et al. 2022, arXiv:2112.10752; huggingface/diffusers.
"""

from core.stable_diffusion.latents import LatentsConfig, LatentsStep, latents
from core.stable_diffusion.denoise import DenoiseConfig, DenoiseStep, denoise
from core.stable_diffusion.schedulers import SchedulersConfig, SchedulersStep, schedulers
from core.stable_diffusion.words import WordsConfig, WordsStep, words
from core.stable_diffusion.img2img import Img2imgConfig, Img2imgStep, img2img
from core.stable_diffusion.terminal_snr import TerminalSnrConfig, TerminalSnrStep, terminal_snr

__all__ = [
    "DenoiseConfig",
    "DenoiseStep",
    "Img2imgConfig",
    "Img2imgStep",
    "LatentsConfig",
    "LatentsStep",
    "SchedulersConfig",
    "SchedulersStep",
    "TerminalSnrConfig",
    "TerminalSnrStep",
    "WordsConfig",
    "WordsStep",
    "denoise",
    "img2img",
    "latents",
    "schedulers",
    "terminal_snr",
    "words",
]
