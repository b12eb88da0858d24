r"""QLoRA: fine-tuning a model whose weights are stored in 4 bits.
Code -> paper: x
Left out: x
Source: x
"""

from core.qlora.microscope import MicroscopeConfig, MicroscopeStep, microscope
