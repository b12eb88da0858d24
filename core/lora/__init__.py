r"""LoRA: adapt a big model by training a few numbers beside it.

Fine-tuning changes a weight $W$ of $d_{out} \times d_{in}$ to $W + \Delta W$, and a full $\Delta W$ is as big as $W$.
LoRA lets it be only a product of two thin matrices, so that its rank is at most $r$:

$$W + \Delta W = W + \frac{\alpha}{r} B A, \qquad B \in \mathbb{R}^{d_{out} \times r}, \quad A \in \mathbb{R}^{r \times
d_{in}}.$$

$W$ is frozen. $A$ begins at random and $B$ at zero, so training starts from exactly the base model. $r (d_{in} +
d_{out})$ numbers are trained instead of $d_{in} d_{out}$; gradients and optimizer states exist for them alone, and
only they are saved and shared. Drop the product and you have the original model again; add it to $W$ once, and it costs
no time.

The bet is that a change that is worth learning has low rank. The experiments ask that question in turn: a language
model and another text (`text`), a task whose change has a known rank (`toy`), what LoRA costs in models that do not fit
here (`count`), what its descendants change (`variants`), what more rank buys (`sweep`), and why little is enough
(`spectrum`).

Read in this order: `adapter.py` (the trick, forty lines, equal to peft's layer), `text.py`, `toy.py`, `count.py`,
`variants.py`, `sweep.py`, `spectrum.py`.

Code -> paper: `rank` -> r, `alpha` -> alpha, `A`, `B` -> A, B, `base` -> W_0, `change()` -> Delta W, `d_in` -> k,
`d_out` -> d.
Left out: which layers to adapt when; adapters that share A and B over layers (VeRA); several adapters at once.
Source: Hu et al. 2021, arXiv:2106.09685; peft, github.com/huggingface/peft.
"""

from core.lora.text import TextConfig, TextStep, text
from core.lora.toy import ToyConfig, ToyStep, toy
from core.lora.count import CountConfig, CountStep, count
from core.lora.variants import VariantsConfig, VariantsStep, variants
from core.lora.sweep import SweepConfig, SweepStep, sweep
from core.lora.spectrum import SpectrumConfig, SpectrumStep, spectrum
from core.lora.controls import ControlsStep

__all__ = [
    "ControlsStep",
    "CountConfig",
    "CountStep",
    "SpectrumConfig",
    "SpectrumStep",
    "SweepConfig",
    "SweepStep",
    "TextConfig",
    "TextStep",
    "ToyConfig",
    "ToyStep",
    "VariantsConfig",
    "VariantsStep",
    "count",
    "spectrum",
    "sweep",
    "text",
    "toy",
    "variants",
]
