r"""KV caching: what a model has computed for old tokens is kept, so that a new token costs one token's work.

A decoder-only transformer writes a token, appends it, and asks itself again. Of all it computed for the old tokens it
needs only their keys and values in each layer:

$$o_t = \sum_{s \le t} \mathrm{softmax}_s\!\left(\frac{q_t \cdot k_s}{\sqrt{D}}\right) v_s .$$

These depend on what came before them and never change. Kept, they save the work that grows with the text; in return
they take memory that grows with the text:

$$\text{bytes} = 2 \, L \, G \, D \, b \, T \, B$$

for $L$ layers, $G$ heads of keys and values, head width $D$, $b$ bytes per number, $T$ tokens and $B$ texts. Every
factor has been attacked: $G$ by grouped queries, $G D$ by latent attention, $b$ by rounding, $T$ by windows.

Read in this order: `llama.py` (a model written out to the line where the cache comes in), `cache.py` (caches that grow,
forget and round), `grow.py` (off and on, side by side), `shrink.py` (what smaller caches cost in the text), `big.py`
(real models on real cards).

Code -> paper: `kept_heads` -> $G$, `head_width` -> $D$, `Window.sinks` -> attention sinks, `latent` -> $d_c + d_h^R$
(MLA).
Left out: sharing of blocks and prefixes between texts (PagedAttention, prompt caching), speculative decoding, caches on
another machine or disk.
Source: Shazeer 2019, arXiv:1911.02150; Pope et al. 2022, arXiv:2211.05102; Ainslie et al. 2023, arXiv:2305.13245; Xiao
et al. 2023, arXiv:2309.17453; Kwon et al. 2023, arXiv:2309.06180; DeepSeek-AI 2024, arXiv:2405.04434.
"""

from core.kv_cache.grow import GrowConfig, GrowStep, grow
from core.kv_cache.shrink import ShrinkConfig, ShrinkStep, shrink
from core.kv_cache.big import BigConfig, BigStep, big

__all__ = ["BigConfig", "BigStep", "GrowConfig", "GrowStep", "ShrinkConfig", "ShrinkStep", "big", "grow", "shrink"]
