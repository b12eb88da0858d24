r"""Three caches: one that grows, one that forgets, one that rounds. All keep rows of keys and values per layer and
head.

Bytes, with $L$ layers, $G$ heads of keys and values, head width $D$, $b$ bytes per number, $T$ tokens and batch $B$:

$$2 \, L \, G \, D \, b \, T \, B .$$

`Growing` asks for memory in blocks of tokens, so it holds at most one block too much. `Window` keeps the newest tokens,
and with `sinks` also the first few (StreamingLLM). The sinks stand right before the window, not where they once were:
as rotations add up, each time the window moves they are turned by one place more. `Rounded` keeps whole numbers of 8 or
4 bits and one 16-bit scale per row, and brings the rows back each time they are needed.

Left out: blocks shared between texts through a table (PagedAttention); 2-bit schemes with scales per channel (KIVI).
Source: Kwon et al. 2023, arXiv:2309.06180 (blocks); Xiao et al. 2023, arXiv:2309.17453 (sinks).
"""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from core.kv_cache.llama import Llama, Rows, angles, rotate


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind tensors, each piece counted once."""
    return sum(
        {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in tensors
            if tensor.numel()
        }.values()
    )


class Growing:
    """Everything is kept. Memory comes in blocks of `block` tokens."""

    def __init__(self, model: Llama, block: int = 16) -> None:
        self.layers, self.block = len(model.layers), block
        self.buffers: list[Tensor] = []  # per layer (2, B, G, capacity, D)
        self.seen = 0

    def add(self, layer: int, k: Float[Tensor, "B G T D"], v: Float[Tensor, "B G T D"]) -> Rows:
        past, now = self.seen, self.seen + k.shape[2]
        if layer == len(self.buffers):
            self.buffers.append(k.new_empty((2, *k.shape[:2], 0, k.shape[3])))
        if now > self.buffers[layer].shape[3]:
            self.buffers[layer] = self.longer(self.buffers[layer], now)
        buffer = self.buffers[layer]
        buffer[0, :, :, past:now], buffer[1, :, :, past:now] = k, v
        if layer == self.layers - 1:
            self.seen = now
        return buffer[0, :, :, :now], buffer[1, :, :, :now]

    def longer(self, buffer: Tensor, tokens: int) -> Tensor:
        """As many whole blocks as `tokens` need, with the old rows in them."""
        capacity = -(-tokens // self.block) * self.block
        grown = buffer.new_zeros((*buffer.shape[:3], capacity, buffer.shape[4]))
        grown[:, :, :, : buffer.shape[3]] = buffer
        return grown

    @property
    def nbytes(self) -> int:
        return storage_bytes(self.buffers)

    def rewind(self, tokens: int) -> None:
        """Forget all but the first `tokens`: what comes next is written over the old rows."""
        self.seen = tokens

    def times(self, batch: int) -> "Growing":
        """Another cache that holds the same rows for `batch` texts, so that a text can go on in several ways."""
        twin = copy.copy(self)
        twin.buffers = [buffer.repeat(1, batch, 1, 1, 1) for buffer in self.buffers]
        return twin


class Window:
    """The last `size` tokens are kept; of them, `sinks` places belong to the very first tokens. One token at a time."""

    def __init__(self, model: Llama, size: int, sinks: int = 0) -> None:
        self.layers, self.size, self.sinks = len(model.layers), size, sinks
        self.buffers: list[Tensor] = []  # per layer (2, B, G, tokens, D)
        self.one_on = angles(model, 1, 1)
        self.seen = 0

    def add(self, layer: int, k: Float[Tensor, "B G 1 D"], v: Float[Tensor, "B G 1 D"]) -> Rows:
        new = torch.stack((k, v))
        if layer == len(self.buffers):
            self.buffers.append(new[:, :, :, :0])
        kept = self.buffers[layer]
        if kept.shape[3] == self.size:
            sinks = kept[:, :, :, : self.sinks].clone()
            sinks[0] = rotate(sinks[0], self.one_on)  # they move along with the window
            kept = torch.cat((sinks, kept[:, :, :, self.sinks + 1 :]), 3)
        self.buffers[layer] = torch.cat((kept, new), 3)
        if layer == self.layers - 1:
            self.seen += 1
        return self.buffers[layer][0], self.buffers[layer][1]

    @property
    def nbytes(self) -> int:
        return storage_bytes(self.buffers)


class Rounded:
    """Each row of D numbers becomes whole numbers from -127 to 127 (4 bits: -7 to 7, two per byte) and a 16-bit
    scale.
    """

    def __init__(self, model: Llama, bits: int) -> None:
        self.layers, self.top, self.packed = len(model.layers), 2 ** (bits - 1) - 1, bits == 4
        self.codes: list[Tensor] = []  # per layer (2, B, G, tokens, D) or half as wide
        self.scales: list[Tensor] = []  # per layer (2, B, G, tokens, 1)
        self.seen = 0

    def add(self, layer: int, k: Float[Tensor, "B G T D"], v: Float[Tensor, "B G T D"]) -> Rows:
        codes, scales = self.rounded(torch.stack((k, v)))
        if layer == len(self.codes):
            self.codes.append(codes[:, :, :, :0])
            self.scales.append(scales[:, :, :, :0])
        self.codes[layer], self.scales[layer] = (
            torch.cat((self.codes[layer], codes), 3),
            torch.cat((self.scales[layer], scales), 3),
        )
        if layer == self.layers - 1:
            self.seen += k.shape[2]
        back = self.back(self.codes[layer], self.scales[layer]).to(k.dtype)
        return back[0], back[1]

    def rounded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        scales = (
            (rows.abs().amax(-1, keepdim=True) / self.top).clamp(min=6e-8).half()
        )  # 6e-8 is the smallest number of 16 bits
        codes = (rows / scales.float()).round().clamp(-self.top, self.top).to(torch.int8)
        return (codes[..., ::2] * 16 + codes[..., 1::2] + 8 if self.packed else codes), scales

    def back(self, codes: Tensor, scales: Tensor) -> Tensor:
        if self.packed:
            first = codes >> 4
            codes = torch.stack((first, codes - first * 16 - 8), -1).flatten(-2)
        return codes.float() * scales.float()

    @property
    def nbytes(self) -> int:
        return storage_bytes([*self.codes, *self.scales])
