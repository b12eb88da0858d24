r"""Tuning: a model with some trainable weights, an optimizer and a random generator; `one_step` is all of it.

Fine-tuning all weights and training an adapter differ in one thing only: which weights ask for a gradient. Of the
$2 + 2 + 2$ FLOPs per weight and token (forward, gradient of the input, gradient of the weight) a frozen weight saves
the last two, so LoRA's step costs about two thirds of a full one, and its optimizer keeps two numbers per *adapter*
weight instead of two per weight of the model.

Left out: dropout on the adapter's input, weight decay, gradient clipping.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.foundations.base_model import Base, cross_entropy, drawn, validate, windows_at_once
from core.foundations.corpus import Corpus, batch_of
from core.foundations.experiment import counted
from core.foundations.sampling import Choice

TARGETS = {
    "all": "all linear layers (attention and MLP)",
    "attention": "attention: q, k, v and o",
    "qv": "attention: q and v, as in the paper",
    "mlp": "MLP: gate, up and down",
}
PROJECTIONS = {
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "qv": ("q_proj", "v_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
CHARACTERS_AT_ONCE = 100_000  # tokenised in one unit of work: about 0.1 s
TOKENS_AT_ONCE = 12  # written in one unit of work, at most
READ_AT_ONCE = 5e8  # weights: each token reads all of them, and half a billion take about 0.2 s
WARM_UP = 3  # steps until the learning rate is reached
LOSS_SCALE = 1024.0  # float16 has no numbers below 6e-8, and gradients of a mean over many tokens are small


# --- the adapter, by peft ---------------------------------------------------------------------------------------------


def layer_shapes(model: Any, targets: str) -> dict[str, tuple[int, int]]:
    """The linear layers an adapter goes into: name -> (d_in, d_out). Read before peft wraps the model."""
    found = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.split(".")[-1] in PROJECTIONS[targets]
    }
    if not found:
        raise ValueError(f"targets must name layers of the model, and it has none of {', '.join(PROJECTIONS[targets])}")
    return {name: (layer.in_features, layer.out_features) for name, layer in found.items()}


def check_rank(rank: int, shapes: dict[str, tuple[int, int]]) -> None:
    """A rank above the smaller side of a layer buys nothing that this side does not already hold."""
    most = min(min(shape) for shape in shapes.values())
    if rank > most:
        raise ValueError(f"rank must be at most {most}, the shorter side of the smallest layer it adapts, got {rank}")


def adapter_parameters(rank: int, shapes: dict[str, tuple[int, int]]) -> int:
    """r (d_in + d_out) per layer, by formula."""
    return sum(rank * (d_in + d_out) for d_in, d_out in shapes.values())


def adapter_weights(model: Any) -> int:
    """The adapter's weights as they are, counted."""
    return sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)


def adapt(
    model: Any, rank: int, alpha: float, layers: list[str], seed: int, *, called: str = "", **switches: Any
) -> Any:
    """The model with peft's LoRA layers in place of the named ones; A from the seed, B zero, so nothing has changed
    yet.

    called: the base model's name in the adapter's config. switches: of peft, for LoRA's variants; with
    `init_lora_weights` A and B begin as peft makes them.
    """
    from peft import LoraConfig, get_peft_model

    plan = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=layers,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        **switches,
    )
    adapted: Any = get_peft_model(model, plan)
    adapted.peft_config["default"].base_model_name_or_path = called or None
    rng = torch.Generator().manual_seed(seed)
    for layer in () if "init_lora_weights" in switches else lora_layers(adapted).values():
        fill(layer.lora_A["default"].weight, rng)
    return adapted.eval()


@torch.no_grad()
def fill(weight: Tensor, rng: torch.Generator) -> None:
    """peft's own start for A, uniform within 1/sqrt(d_in), from our random generator (peft uses the process's)."""
    bound = weight.shape[1] ** -0.5
    weight.copy_((2 * torch.rand(weight.shape, generator=rng) - 1) * bound)


def lora_layers(model: Any) -> dict[str, Any]:
    """The adapted layers of a peft model, by the names they have in the bare model."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def dial(model: Any, times: float) -> None:
    """Multiply alpha at inference: 0 is the base, 1 what was trained, beyond 1 more of it, below 0 the opposite."""
    for layer in lora_layers(model).values():
        layer.set_scale("default", times)


# --- text in and out, in units of work --------------------------------------------------------------------------------


def pieces(text: str) -> Iterator[str]:
    """The text cut at line breaks into parts that are tokenised in one unit of work each."""
    first = 0
    while first < len(text):
        cut = (
            text.rfind("\n", first, first + CHARACTERS_AT_ONCE) + 1
            if first + CHARACTERS_AT_ONCE < len(text)
            else len(text)
        )
        cut = cut if cut > first else first + CHARACTERS_AT_ONCE
        yield text[first:cut]
        first = cut


def encoded(base: Base, text: str) -> Generator[None, None, Int[Tensor, "N"]]:
    """The token ids of the whole text; yields between parts."""
    parts = list[Tensor]()
    for piece in pieces(text):
        if parts:
            yield
        parts.append(base.ids(piece))
    return torch.cat(parts)


def validation_start(base: Base, corpus: Corpus, context: int, most: int) -> Int[Tensor, "N"]:
    """The first `most` tokens (and one to predict) of the text kept for judging, or one sentence if there are too
    few.
    """
    ids = base.ids(corpus.validation[: 8 * most])[: most + 1]
    if len(ids) < context + 1:
        characters_each = len(corpus.text) / max(1, len(base.ids(corpus.text[: 8 * most])))
        need = math.ceil(10 * (context + 1) * max(1.0, 1.2 * characters_each) / 100) * 100
        raise ValueError(
            f"Your text is too short: 10 % of it is kept for judging, which gives {counted(len(ids), 'token')}, and"
            f" context {context} needs {context + 1}; use about {need:,} characters or more, or a smaller context"
        )
    return ids


def check_windows(ids: Int[Tensor, "N"], context: int) -> None:
    """The text to learn must hold a window and the token after it."""
    if len(ids) <= context:
        raise ValueError(f"context must be less than the {len(ids)} tokens of the text to learn, got {context}")


def written(
    base: Base, model: Any, prompt: str, length: int, seed: int, temperature: float
) -> Generator[None, None, str]:
    """The prompt and how the model goes on; the same seed gives the same text. Yields between parts."""
    ids, rng = base.ids(prompt).tolist() or [0], torch.Generator().manual_seed(seed)
    new: list[int] = []
    at_once = max(1, min(TOKENS_AT_ONCE, int(READ_AT_ONCE / sum(weight.numel() for weight in model.parameters()))))
    for token in drawn(model, ids, length, Choice(temperature), rng):
        new.append(token)
        if len(new) % at_once == 0 and len(new) < length:
            yield
    return base.text(ids + new)


# --- the tuner --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldBytes:
    """What training keeps in memory, by kind, from live tensors: each storage once."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.gradients + self.optimizer


class Tuner:
    """A model whose free weights learn a text. All free: full fine-tuning. Only the adapter's: LoRA."""

    def __init__(
        self,
        model: Any,
        train_ids: Int[Tensor, "N"],
        *,
        context: int,
        batch: int,
        learning_rate: float,
        steps: int,
        seed: int,
        faster: float = 1.0,
    ) -> None:
        """faster: how many times as fast as the rest the matrices B learn (LoRA+)."""
        self.model, self.train_ids, self.context, self.batch = model, train_ids, context, batch
        self.learning_rate, self.steps, self.taken = learning_rate, steps, 0
        self.free = [weight for weight in model.parameters() if weight.requires_grad]
        b = {id(weight) for name, weight in model.named_parameters() if "lora_B" in name and faster != 1}
        groups = [([weight for weight in self.free if (id(weight) in b) == own], faster if own else 1.0)
                  for own in (False, True)]  # fmt: skip
        kinds = [{"params": weights, "times": times} for weights, times in groups if weights]
        self.optimizer = torch.optim.AdamW(kinds, learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.rng = torch.Generator().manual_seed(seed)
        self.device = next(model.parameters()).device
        weights = list(model.parameters())
        self.loss_scale = LOSS_SCALE if any(weight.dtype == torch.float16 for weight in weights) else 1.0
        self.at_once = windows_at_once(model, context, 6 if len(self.free) == len(weights) else 4)
        self.held: HeldBytes | None = None  # measured at the first step

    def one_step(self) -> Generator[None, None, float]:
        """One optimizer step; returns its loss in nats per token. Yields between parts of the batch."""
        rate = self.learning_rate * schedule(self.taken, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]
        inputs, targets = (ids.to(self.device) for ids in batch_of(self.train_ids, self.context, self.batch, self.rng))
        self.model.train()
        total = 0.0
        for first in range(0, len(inputs), self.at_once):
            if first:
                yield
            part = slice(first, first + self.at_once)
            loss = cross_entropy(self.model, inputs[part], targets[part]) * (len(inputs[part]) / len(inputs))
            (loss * self.loss_scale).backward()
            total += loss.item()
        if self.loss_scale != 1:
            for weight in self.free:
                if weight.grad is not None:
                    weight.grad /= self.loss_scale
        self.optimizer.step()
        if self.held is None:
            self.held = held_bytes(self.model, self.optimizer)
        self.optimizer.zero_grad()
        self.model.eval()
        self.taken += 1
        return total

    def validate(self, ids: Int[Tensor, "N"]) -> Generator[None, None, float]:
        """The mean loss in nats per token; yields between parts."""
        return validate(self.model, ids, self.context)


def schedule(step: int, steps: int) -> float:
    """The learning rate's scale: a few steps up, then half a cosine down."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


def held_bytes(model: Any, optimizer: torch.optim.Optimizer) -> HeldBytes:
    """Weigh what is alive after a step, before the gradients are let go."""
    named = dict(model.named_parameters())
    adapters = [weight for name, weight in named.items() if "lora_" in name]
    weights = [weight for name, weight in named.items() if "lora_" not in name]
    gradients = [weight.grad for weight in named.values() if weight.grad is not None]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return HeldBytes(*(storage_bytes(tensors) for tensors in (weights, adapters, gradients, states)))


def storage_bytes(tensors: list[Tensor]) -> int:
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@torch.inference_mode()
def logits_of(model: Any, ids: Int[Tensor, "T"]) -> Float[Tensor, "T V"]:
    """The scores of every next token, in float32, to compare two models by."""
    device = next(model.parameters()).device
    return model(input_ids=ids[None].to(device), use_cache=False).logits[0].float().clone()


def largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
