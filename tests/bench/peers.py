"""The peers: nanoGPT's model and training loop at its CPU preset, and transformers' GPT-2 of the same shape.

nanoGPT is written down here anew, from its description: the same architecture (LayerNorm without bias, tied embeddings,
exact GELU, fused causal attention, no biases), the same procedure (random slices stacked into a batch, AdamW that
decays 2-D weights only and is not fused on a CPU, gradients clipped at norm 1, the loss read in every iteration) and
the numbers its README gives for a CPU. Left out: the memory-mapped file, which would only slow it down.
Source: github.com/karpathy/nanoGPT, train.py, model.py, config/train_shakespeare_char.py, README ("I only have a
macbook").
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.foundations.corpus import Corpus, batch_of


@dataclass(frozen=True)
class Preset:
    """nanoGPT's CPU preset."""

    n_layer: int = 4
    n_head: int = 4
    width: int = 128
    context: int = 64
    batch: int = 12
    iterations: int = 2000
    warmup: int = 100
    learning_rate: float = 1e-3
    least_learning_rate: float = 1e-4
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0

    def rate(self, iteration: float) -> float:
        """Up in a straight line, then half a cosine down to a tenth."""
        if iteration < self.warmup:
            return self.learning_rate * (iteration + 1) / (self.warmup + 1)
        over = min(1.0, (iteration - self.warmup) / (self.iterations - self.warmup))
        return self.least_learning_rate + 0.5 * (1 + math.cos(math.pi * over)) * (
            self.learning_rate - self.least_learning_rate
        )


PRESET = Preset()


# --- nanoGPT ----------------------------------------------------------------------------------------------------------


class LayerNorm(nn.Module):
    """LayerNorm with a weight and without a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)


class SelfAttention(nn.Module):
    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.n_head = preset.n_head
        self.c_attn = nn.Linear(preset.width, 3 * preset.width, bias=False)
        self.c_proj = nn.Linear(preset.width, preset.width, bias=False)
        self.resid_dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.size()
        q, k, v = (
            part.view(batch, tokens, self.n_head, width // self.n_head).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=True)
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).contiguous().view(batch, tokens, width)))


class MLP(nn.Module):
    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.c_fc = nn.Linear(preset.width, 4 * preset.width, bias=False)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * preset.width, preset.width, bias=False)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Layer(nn.Module):
    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.ln_1, self.attn = LayerNorm(preset.width), SelfAttention(preset)
        self.ln_2, self.mlp = LayerNorm(preset.width), MLP(preset)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    def __init__(self, vocabulary: int, preset: Preset = PRESET) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, preset.width), nn.Embedding(preset.context, preset.width)
        self.drop = nn.Dropout(0.0)
        self.h = nn.ModuleList(Layer(preset) for _ in range(preset.n_layer))
        self.ln_f = LayerNorm(preset.width)
        self.lm_head = nn.Linear(preset.width, vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                std = 0.02 / math.sqrt(2 * preset.n_layer) if name.endswith("c_proj.weight") else 0.02
                nn.init.normal_(weight, mean=0.0, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.size(1), dtype=torch.long, device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(places))
        for layer in self.h:
            x = layer(x)
        return self.lm_head(self.ln_f(x))


class NanoGPTLoop:
    """nanoGPT's training, one iteration per call."""

    def __init__(self, corpus: Corpus, device: torch.device, seed: int = 1337, preset: Preset = PRESET) -> None:
        torch.manual_seed(seed)
        self.preset, self.device = preset, device
        self.data = corpus.train_ids.numpy().astype(np.uint16)
        self.model = NanoGPT(len(corpus.symbols), preset).to(device)
        weights = list(self.model.parameters())
        groups = [
            {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": preset.weight_decay},
            {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
        ]
        extra = {"fused": True} if device.type == "cuda" else {}
        self.optimizer = torch.optim.AdamW(groups, lr=preset.learning_rate, betas=preset.betas, **extra)
        self.batch = self.get_batch()

    def get_batch(self) -> tuple[Tensor, Tensor]:
        size = self.preset.context
        starts = torch.randint(len(self.data) - size, (self.preset.batch,))
        x = torch.stack([torch.from_numpy(self.data[i : i + size].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(self.data[i + 1 : i + 1 + size].astype(np.int64)) for i in starts])
        return x.to(self.device), y.to(self.device)

    def one_step(self, iteration: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.preset.rate(iteration)
        self.model.train()
        x, y = self.batch
        logits = self.model(x)
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1), ignore_index=-1)
        self.batch = self.get_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.preset.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


# --- transformers -----------------------------------------------------------------------------------------------------


def gpt2(vocabulary: int, context: int, preset: Preset = PRESET, std: float = 0.02) -> nn.Module:
    """transformers' GPT-2 of the preset's shape, with random weights and without dropout."""
    import transformers

    transformers.logging.set_verbosity_error()
    config = transformers.GPT2Config(
        vocab_size=vocabulary,
        n_positions=context,
        n_embd=preset.width,
        n_layer=preset.n_layer,
        n_head=preset.n_head,
        initializer_range=std,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(config)


class TransformersLoop:
    """transformers' GPT-2 with our batches and our optimizer, the loss from its `labels`."""

    def __init__(self, corpus: Corpus, device: torch.device, seed: int = 0, preset: Preset = PRESET) -> None:
        self.preset, self.device, self.data = preset, device, corpus.train_ids
        self.rng = torch.Generator().manual_seed(seed)
        self.model = gpt2(len(corpus.symbols), preset.context).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), preset.learning_rate, betas=preset.betas, weight_decay=0.0, fused=True
        )

    def one_step(self) -> float:
        self.model.train()
        tokens = batch_of(self.data, self.preset.context, self.preset.batch, self.rng)[0].to(self.device)
        loss = self.model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()
