r"""GLIDE: a picture from words, by taking noise away.

A network is shown pictures with noise, and the words that belong to them, and learns to say what the picture was
without the noise. That is all training does. To draw, begin with noise alone, ask the network what it sees in it, go a
small step there, and ask again.

$$x_t = \alpha_t\,x_0 + \sigma_t\,\varepsilon, \qquad \text{loss} = \mathbb E\,\lVert \hat x_0(x_t, t, c) - x_0 \rVert^2
\cdot
\text{weight}_t.$$

The model follows the prompt too loosely, so its influence is amplified. The paper compares two ways: **CLIP guidance**
follows the gradient of a CLIP's cosine, **classifier-free guidance** asks the network a second time without the words
and goes further in the direction of the difference. People prefer the second, although CLIP itself likes the pictures
of the first better. Both are measured here, with a judge (a classifier trained separately on the same drawings, right
on 100 % of 2,000) that neither of them knows.

The model has 1.5 million parameters (the paper's: 3.5 billion) and draws captioned shapes. Its U-Net paints 16 x 16
pixels, seen as 8 x 8 patches, and an upsampler doubles them, as the paper's goes from 64 to 256. It predicts $v$, a mix
of the noise, which the paper's predicts, and the clean picture: with $x_t$ each of the three gives the other two.

Read in this order: `unet.py` (the network), the questions to the trained model: `denoise.py`, `guidance.py`,
`inpaint.py`, then `train.py`, and last `noise.py` (schedules, for experts).

Code -> paper: `Glide.words` -> the text transformer of section 4.1, `guided` -> the equation of section 2.3, `pulled`
-> section 2.4, `keeping` -> the earlier practice of section 4.3.
Left out: an upsampler that is a diffusion itself, the filtered data, people as judges.
Source: Nichol et al. 2021, arXiv:2112.10741; Ho et al. 2020, arXiv:2006.11239; github.com/openai/glide-text2im.
"""

from core.glide.denoise import DenoiseConfig, DenoiseStep, denoise
from core.glide.guidance import GuidanceConfig, GuidanceStep, guidance
from core.glide.inpaint import InpaintConfig, InpaintStep, inpaint
from core.glide.train import TrainConfig, TrainStep, train
from core.glide.noise import NoiseConfig, NoiseStep, noise

__all__ = [
    "DenoiseConfig",
    "DenoiseStep",
    "GuidanceConfig",
    "GuidanceStep",
    "InpaintConfig",
    "InpaintStep",
    "NoiseConfig",
    "NoiseStep",
    "TrainConfig",
    "TrainStep",
    "denoise",
    "guidance",
    "inpaint",
    "noise",
    "train",
]
