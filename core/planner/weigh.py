r"""Weighed here: a small GPT that this machine really trains, beside what the planner says of it, and big models
counted without memory.

The small model is trained as the plan says: weights, gradients and optimizer in the plan's precision, its layers
recomputed or not. Two steps: the first creates the optimizer's state; in the second two micro-batches run one after the
other, so at the second's backward pass everything is there at once, as the planner's sum assumes. Bytes are those of
live storages (`LiveStorages`), each counted once.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.foundations.live_storages import LiveStorages
from core.foundations.machine import this_machine
from core.foundations.published_shapes import ModelShape, gpt
from core.foundations.transformer import Shape, Transformer
from core.planner.job import Job, Plan
from core.planner.memory import Memory, fullest, logits_bytes

SMALL = gpt("small GPT", 4, 128, 4, vocabulary=512, positions=64)
TOKENS, MICRO = 64, 4
KINDS = ("weights", "gradients", "optimizer", "activations", "peak")


class Scale(LiveStorages):
    """Bytes of all storages that live, and the most at once since `start`."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.most = 0

    def born(self, address: int, tensor: Tensor, nbytes: int) -> None:
        self.sizes[address] = nbytes if tensor.device.type == this_machine().device else 0
        self.now += self.sizes[address]
        self.most = max(self.most, self.now)

    def gone(self, address: int) -> None:
        self.now -= self.sizes.pop(address)


class Trained:
    """The small model with its optimizer, in one of the three precisions."""

    def __init__(self, precision: str, recompute: bool, seed: int) -> None:
        self.precision, self.again = precision, recompute
        device = this_machine().device
        shape = Shape(
            SMALL.vocabulary, SMALL.layers, SMALL.heads, SMALL.width, SMALL.positions, "gpt2", bias=True, tied=True
        )
        self.model = Transformer(shape, seed).to(device, torch.float32 if precision == "fp32" else torch.bfloat16)
        self.weights = list(self.model.parameters())
        self.master = (
            self.weights if precision == "fp32" else [nn.Parameter(weight.detach().float()) for weight in self.weights]
        )
        self.sums: list[Tensor] = []  # gradients in 32 bits, added up over micro-batches
        self.optimizer = torch.optim.AdamW(self.master, lr=1e-3, foreach=False)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Logits in 32 bits, as mixed precision has them; with recomputation a layer keeps its input alone."""
        model, place = self.model, self.model.place
        assert place is not None
        x = model.embed(ids) + place.weight[: ids.shape[1]]
        for block in model.blocks:
            x = (
                checkpoint(block, x, None, None, None, use_reentrant=False)
                if self.again
                else block(x, None, None, None)
            )
        return F.cross_entropy(F.linear(model.norm(x), model.embed.weight).float().flatten(0, 1), targets.flatten())

    def add_up(self) -> None:
        """After a micro-batch: 16-bit gradients go into sums of 32 bits where the plan has them."""
        if self.precision != "bf16-fp32":
            return
        if not self.sums:
            self.sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in self.weights]
        for weight, total in zip(self.weights, self.sums, strict=True):
            if weight.grad is not None:
                total += weight.grad
                weight.grad = None

    @torch.no_grad()
    def update(self) -> None:
        """Adam on the master copy, then back to 16 bits."""
        if self.precision == "fp32":
            self.optimizer.step()
        else:
            for number, (weight, master) in enumerate(zip(self.weights, self.master, strict=True)):
                master.grad = self.sums[number] if self.sums else weight.grad.float()  # type: ignore[union-attr]
            self.optimizer.step()
            for weight, master in zip(self.weights, self.master, strict=True):
                weight.copy_(master)
        self.sums = []
        for one in (*self.weights, *self.master):
            one.grad = None


def small_job(job: Job) -> Job:
    """The planner's side: the same precision, one GPU, two micro-batches of the small model. Its attention is fused,
    without dropout.
    """
    return replace(job, shape=SMALL, gpus=1, tokens=TOKENS, batch=2 * MICRO, attention="fused", dropout=False)


def small_plan(plan: Plan) -> Plan:
    return Plan(1, 1, 1, 1, 0, "full" if plan.recompute == "full" else "none", MICRO, False)


def predicted(job: Job, plan: Plan) -> dict[str, float]:
    """Kinds as they are weighed: what the forward pass keeps is activations and the kept part of the logits."""
    small, one = small_job(job), small_plan(plan)
    memory: Memory = fullest(small, one)
    weights, gradients, optimizer, activations, *_ = memory.items
    return {
        "weights": weights, "gradients": gradients, "optimizer": optimizer,
        "activations": activations + logits_bytes(small, one)[0], "peak": memory.total,
    }  # fmt: skip


def weigh(job: Job, plan: Plan, seed: int) -> Iterator[tuple[str, float] | None]:
    """What is really there, kind by kind; None between units of work."""
    scale, trained = Scale(), Trained(job.precision, small_plan(plan).recompute == "full", seed)
    rng, device = torch.Generator().manual_seed(seed), this_machine().device
    ids, targets = (torch.randint(SMALL.vocabulary, (MICRO, TOKENS), generator=rng).to(device) for _ in range(2))
    for weight in trained.weights:
        scale.see(weight)
    weights = scale.now
    yield "weights", weights
    for master in trained.master:
        scale.see(master)
    with scale:
        trained.loss(ids, targets).backward()
        trained.add_up()
        trained.update()
    states = [one for state in trained.optimizer.state.values() for one in state.values() if isinstance(one, Tensor)]
    masters = 0 if job.precision == "fp32" else sum(master.nbytes for master in trained.master)
    yield "optimizer", masters + sum(one.nbytes for one in states)
    before = scale.now
    with scale:
        loss = trained.loss(ids, targets)
    yield "activations", scale.now - before
    with scale:
        loss.backward()
        del loss
        trained.add_up()
    yield "gradients", scale.now - before
    scale.most = scale.now
    with scale:
        loss = trained.loss(ids, targets)
    yield None
    with scale:
        loss.backward()
    yield "peak", scale.most


# --- big models, counted ----------------------------------------------------------------------------------------------


def library_config(shape: ModelShape) -> Any:
    """transformers' configuration of that shape; None where it has no such model (GELU with shared keys, or with
    experts).
    """
    if shape.dialect == "gpt":
        if shape.key_heads != shape.heads or shape.experts:
            return None
        from transformers import GPT2Config

        return GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.positions,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.mlp,
            tie_word_embeddings=shape.tied,
        )
    from transformers import LlamaConfig, MixtralConfig

    told: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "tie_word_embeddings": shape.tied,
    }
    if shape.experts:
        return MixtralConfig(**told, num_local_experts=shape.experts, num_experts_per_tok=shape.chosen)
    return LlamaConfig(**told)


def counted(shape: ModelShape) -> Iterator[tuple[int, int] | None]:
    """(layers so far, weights so far): the model without layers, then each layer, built on the meta device, which has
    no memory.
    """
    from transformers import AutoModelForCausalLM

    config = library_config(shape)
    if config is None:
        return
    config.num_hidden_layers = 1
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = model.transformer.h if shape.dialect == "gpt" else model.model.layers
    first = layers[0]
    total = sum(weight.numel() for weight in model.parameters())
    yield 1, total
    for number in range(1, shape.layers):
        with torch.device("meta"):
            layer = type(first)(config, layer_idx=number)
        total += sum(weight.numel() for weight in layer.parameters())
        yield number + 1, total
