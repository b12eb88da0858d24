r"""LoRA: adapt a big model by training a few numbers beside it.

Fine-tuning changes a weight $W$ of $d_{out} \times d_{in}$ to $W + \Delta W$, and a full $\Delta W$ is as big as $W$.
LoRA lets it be only a product of two thin matrices, so that its rank is at most $r$:

$$W + \Delta W = W + \frac{\alpha}{r} B A, \qquad B \in \mathbb{R}^{d_{out} \times r}, \quad A \in \mathbb{R}^{r \times d_{in}}.$$

$W$ is frozen. $A$ begins at random and $B$ at zero, so training starts from exactly the base model. $r (d_{in} + d_{out})$
numbers are trained instead of $d_{in} d_{out}$; gradients and the optimizer's memory exist for them alone, and what is
saved and passed on is them alone. The base can be had back at any time by leaving the product out, and for use the
product can be added to $W$ once, so that it costs no time.

The bet is that a change that is worth learning has low rank. The four experiments ask that question in turn: a task
whose change has a known rank (`toy`), a language model and another text (`text`), what rank buys (`sweep`), and what it
costs in models that do not fit here (`count`).

Read in this order: `adapter.py` (the trick, forty lines, equal to peft's layer), `toy.py`, `text.py`, `sweep.py`, `count.py`.

Code -> paper: `rank` -> r, `alpha` -> alpha, `A`, `B` -> A, B, `base` -> W_0, `change()` -> Delta W, `d_in` -> k, `d_out` -> d.
Left out: which layers to adapt when, adapters that share parts (VeRA, DoRA and the like), several adapters at once.
Source: Hu et al. 2021, arXiv:2106.09685; peft, github.com/huggingface/peft.
"""

from core.lora.toy import ToyConfig, ToyStep, toy  # noqa: I001 (the order is the order of the tab)
from core.lora.text import TextConfig, TextStep, text
from core.lora.sweep import SweepConfig, SweepStep, sweep
from core.lora.count import CountConfig, CountStep, count
from core.lora.controls import ControlsStep
from core.lora.predictions import PREDICTIONS

__all__ = [
    "PREDICTIONS", "ControlsStep", "CountConfig", "CountStep", "SweepConfig", "SweepStep", "TextConfig", "TextStep", "ToyConfig", "ToyStep", "count", "sweep",
    "text", "toy",
]  # fmt: skip
