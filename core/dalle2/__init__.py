r"""DALL·E 2: a caption becomes an embedding of a picture, and that becomes a picture.

CLIP has two towers that end in one space. DALL·E 2 turns one of them round (its authors call it *unCLIP*). It needs two
new models:

$$p(x \mid y) = p(x \mid z_i, y)\; p(z_i \mid y).$$

The **prior** $p(z_i \mid y)$ imagines the embedding $z_i$ of a picture that fits the caption $y$: it knows the
caption's embedding $z_t$, and must choose what the caption leaves open. The **decoder** $p(x \mid z_i)$ is a diffusion
model like GLIDE that reads $z_i$ and draws.

The embedding in the middle can be used without any caption. A picture is encoded and decoded again: *variations*. Two
pictures are blended on the arc between their embeddings. The difference of two captions shows the direction in which to
move.

The world is small: drawings of eight colors and six shapes, 64 numbers per embedding (1,024 in the paper), pictures of
32 x 32 pixels. The paper's decoder paints 64 x 64 pixels, which two upsamplers enlarge; this one, like
Kandinsky, paints the 8 x 8 x 4 latents of an autoencoder, the one of the tab Stable Diffusion. It has 3.3 million
parameters (the paper's 3.5 billion), the diffusion prior 0.9 million, the autoregressive one 0.3 million (1 billion
each).

Read in this order: `prior.py` (both priors), `decoder.py`, `decoding.py`, then the experiments: `chain.py`,
`variations.py`, `blend.py`; `real.py` has an open model of the same build, Kandinsky 2.2.

Code -> paper: `text` -> $z_t$, `imagined`, `vector` -> $z_i$, `DiffusionPrior`, `AutoregressivePrior` -> section 2.2,
`Decoder` -> section 2.1, `slerp` -> sections 3.2 and 3.3.
Left out: the upsamplers to 256 and 1,024 pixels, and the caption as a second condition of the prior and of the decoder.
Source: Ramesh et al. 2022, arXiv:2204.06125 (its sizes: appendix C).
"""

from core.dalle2.chain import ChainConfig, ChainStep, chain
from core.dalle2.variations import VariationsConfig, VariationsStep, variations
from core.dalle2.blend import BlendConfig, BlendStep, blend

__all__ = [
    "BlendConfig",
    "BlendStep",
    "ChainConfig",
    "ChainStep",
    "VariationsConfig",
    "VariationsStep",
    "blend",
    "chain",
    "variations",
]
