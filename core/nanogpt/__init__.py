r"""nanoGPT: a language model, from nothing, one character at a time.

A language model does one thing: given the characters so far, it gives every possible next character a probability.
Training makes the character that really came next more probable, a batch of random sequences at a time. The loss is the
mean surprisal in nats,

$$\mathcal{L} = -\frac{1}{T}\sum_t \ln p_\theta(x_{t+1} \mid x_1 \ldots x_t).$$

A model that knows nothing gives each of $V$ characters $1/V$, so the loss before training must be $\ln V$; that is the
first figure to check in any training run. The dashed lines on the chart are what tables of single characters, pairs and
triples reach on the same text (`core/foundations/corpus.py`): a curve that falls through them shows what was learned. e
to the loss is the number of equally likely characters the model is as unsure as.

Read in this order: `core/foundations/transformer.py` (the model), `trainer.py` (one training step), `training.py` (the
run), `forward_pass.py`, `film.py` and `inside.py` (one pass, number by number), `tokens.py` (how a text is cut),
`forking.py` (two runs that part ways), `training_file.py` (a run that goes on later), `generating.py` (one character
after the other), `decoding.py` and `beams.py` (who chooses it).

Code -> paper: `n_layer` -> L, `width` -> C (d_model), `context` -> T, `qkv` -> W_Q, W_K, W_V, `out` -> W_O.
Left out: training on sub-word tokens (each character is a token), mixed precision on CPUs (slower here at this size).
Source: Karpathy, nanoGPT, github.com/karpathy/nanoGPT (README: validation loss 1.88 with its CPU preset and 1.4697
with its GPU preset on Tiny Shakespeare); Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""

from core.nanogpt.inside import InsideConfig, InsideStep, inside
from core.nanogpt.training import TrainConfig, TrainStep, train
from core.nanogpt.tokens import TokensConfig, TokensStep, tokens
from core.nanogpt.generating import GenerateConfig, GenerateStep, generate
from core.nanogpt.decoding import DecodeConfig, DecodeStep, decode
from core.nanogpt.forking import ForkConfig, ForkStep, fork

__all__ = [
    "DecodeConfig",
    "DecodeStep",
    "ForkConfig",
    "ForkStep",
    "GenerateConfig",
    "GenerateStep",
    "InsideConfig",
    "InsideStep",
    "TokensConfig",
    "TokensStep",
    "TrainConfig",
    "TrainStep",
    "decode",
    "fork",
    "generate",
    "inside",
    "tokens",
    "train",
]
