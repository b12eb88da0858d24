r"""QLoRA: fine-tuning a model whose weights are stored in 4 bits.

Most of what fine-tuning keeps in memory is the frozen model itself. QLoRA stores it in 4 bits per weight and trains
LoRA's small matrices beside it, in higher precision:

$$y = x \, \mathrm{dequant}(W^{4\text{-bit}}, c)^\top + \tfrac{\alpha}{r} \, x A^\top B^\top.$$

Three ideas make 4 bits enough. *NormalFloat*: the 16 levels lie where normally distributed weights are dense.
*Blocks*: 64 weights share one constant $c$, their largest absolute value, so one outlier spoils 64 weights and not a
layer. *Double quantization*: the constants are quantized, too, which saves 0.373 of their 0.5 bits per weight.

Nothing is computed in 4 bits: each layer's weights are brought back to 16 or 32 bits for the moment they are used.
4-bit weights save memory, not arithmetic, and what is rounded away stays lost; LoRA learns around it.

Read in this order: `codes.py` (the quantizer), `microscope.py` (one layer), `meter.py` (the memory of a whole model),
`damage.py` (what it does to the words).

Code -> paper: `levels` -> $q_i$, `absmax` -> $c_2$, `QuantisedConstants.absmax` -> $c_1$, `block` -> block size 64,
`CONSTANTS_BLOCK` -> 256.
Left out: paged optimizers (they need a GPU that runs out of memory).
Source: Dettmers et al. 2023, arXiv:2305.14314; Dettmers et al. 2022, arXiv:2110.02861 (blocks, 8-bit code); Hu et al.
2021, arXiv:2106.09685 (LoRA).
"""

from core.qlora.microscope import MicroscopeConfig, MicroscopeStep, microscope
from core.qlora.meter import MeterConfig, MeterStep, meter
from core.qlora.damage import DamageConfig, DamageStep, damage

__all__ = [
    "DamageConfig",
    "DamageStep",
    "MeterConfig",
    "MeterStep",
    "MicroscopeConfig",
    "MicroscopeStep",
    "damage",
    "meter",
    "microscope",
]
