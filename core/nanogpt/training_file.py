"""The training file: all that a run needs to go on as if it had never stopped.

The weights alone are not enough. Muon's mean gradients and AdamW's moments have to be there, or the next step goes
another way; so do the states of the random generators, or it learns from another batch; so does the number of steps, or
the learning rate is another. All numbers are kept as they are, in float32: a model to write with may be rounded to half
of that, but a run that goes on from rounded weights is another run.

It is one safetensors file; what is no tensor stands as JSON in its header. The settings and the SHA-256 of the text are
in it, too, since with others the run would not be the same one. `forking.py` measures that nothing is lost: two equal
runs, one of which goes through such a file, must end with the same bits.

Left out: the text, and the pictures of the steps before.
Source: PyTorch, "Saving and Loading Models", section "Saving & Loading a General Checkpoint" (what to save).
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from core.foundations.muon import Muon
from core.foundations.transformer import Block
from core.foundations.weights import LARGEST, MODEL_FILE_BYTES, opened
from core.nanogpt.trainer import Trainer

NAME = "training.safetensors"
FREE = {"steps", "seconds", "start", "start_file", "own_text", "own_file"}  # settings that may change on the way
MOMENTS = {"Muon": ("momentum_buffer",), "AdamW": ("step", "exp_avg", "exp_avg_sq")}  # what each keeps of a weight


@dataclasses.dataclass(frozen=True)
class Done:
    """How far a run had come."""

    step: int = 0
    busy: float = 0.0  # seconds of computing
    losses: tuple[float, ...] = ()  # of the latest steps, nats per character


def settings_of(trainer: Trainer) -> dict[str, Any]:
    """What must be the same for the run to be the same."""
    told = {
        field.name: getattr(trainer.config, field.name)
        for field in dataclasses.fields(trainer.config)
        if field.name not in FREE
    }
    return told | {"text": hashlib.sha256(trainer.corpus.text.encode()).hexdigest()}


def kinds_of(trainer: Trainer) -> Iterator[tuple[str, Any, tuple[str, ...]]]:
    """Each optimizer, what its tensors are called, and what it keeps of each weight."""
    for number, optimizer in enumerate(trainer.optimizers):
        plain = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        yield f"optimizer {number}", optimizer, MOMENTS["Muon" if isinstance(plain, Muon) else "AdamW"]


def generators_of(trainer: Trainer) -> dict[str, torch.Generator]:
    """The one that draws the batches, and each layer's for dropout."""
    told = {"batches": trainer.rng}
    for number, block in enumerate(trainer.model.blocks):
        assert isinstance(block, Block)
        assert block.rng is not None  # `Trainer` has rolled them
        told[f"dropout {number}"] = block.rng
    return told


def bytes_needed(trainer: Trainer) -> int:
    """Four bytes for a weight, and for each number that an optimizer keeps of it."""
    sizes = sum(4 * p.numel() for p in trainer.model.parameters())
    for _, optimizer, keys in kinds_of(trainer):
        sizes += sum(4 * p.numel() * sum(key != "step" for key in keys) for p in weights_of(optimizer))
    return sizes


def weights_of(optimizer: Any) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def fits(trainer: Trainer) -> bool:
    """Whether the file of a run may be uploaded again; the rest is for its header and the random generators."""
    return bytes_needed(trainer) <= 0.98 * MODEL_FILE_BYTES


def saved(trainer: Trainer, done: Done) -> bytes | None:
    """The run as a file; none where it would be larger than one that may be uploaded."""
    import safetensors.torch

    if not fits(trainer):
        return None
    tensors = {f"model {name}": tensor for name, tensor in trainer.model.state_dict().items()}
    for name, optimizer, _ in kinds_of(trainer):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name} {number} {key}": value for key, value in state.items()}
    tensors |= {name: rng.get_state() for name, rng in generators_of(trainer).items()}
    scaler = trainer.accelerator.scaler  # of a GPU that computes in float16
    told = dataclasses.asdict(done) | {
        "settings": settings_of(trainer),
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(kept, metadata={"training": json.dumps(told)})


def restored(trainer: Trainer, data: bytes) -> Done:
    """Put a new trainer where the run in the file was. Raises ValueError with one sentence where that cannot be."""
    tensors, header = opened(data, "training file")
    try:
        told = json.loads(header["training"])
        settings, scaler = told["settings"], told["scaler"]
        done = Done(told["step"], told["busy"], tuple(told["losses"]))
        numbers = (done.busy, *done.losses)
        sound = type(done.step) is int and 0 <= done.step < 10**7 and bool(done.step) <= len(done.losses) <= 100
        sound = sound and isinstance(settings, dict) and isinstance(scaler, dict)
        sound = sound and 0 <= done.busy < 1e7
        if not sound or not all(type(number) is float and math.isfinite(number) for number in numbers):
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(
            "The training file holds no run to go on with: upload a training.safetensors that was downloaded here"
        ) from None
    refuse_others(settings_of(trainer), settings)
    refuse_misfits(trainer, tensors, done)
    trainer.model.load_state_dict({name: tensors[f"model {name}"] for name in trainer.model.state_dict()})
    for name, optimizer, keys in kinds_of(trainer):
        numbered = range(len(weights_of(optimizer))) if done.step else ()
        state = {number: {key: tensors[f"{name} {number} {key}"] for key in keys} for number in numbered}
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
    try:
        for name, rng in generators_of(trainer).items():
            rng.set_state(tensors[name])
        if scaler and trainer.accelerator.scaler is not None:
            trainer.accelerator.scaler.load_state_dict(scaler)
    except (RuntimeError, KeyError, TypeError):
        raise ValueError("The training file is damaged: its random numbers cannot go on") from None
    return done


def refuse_others(here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """One sentence that names every setting with which the run would be another one."""
    wrong = [name for name in here if name != "text" and here[name] != there.get(name)]
    if wrong:
        wanted = ", ".join(f"{name} {str(there.get(name))[:40]}" for name in wrong)
        wanted = wanted.encode("utf-8", "replace").decode()  # half a character would stop the answer
        raise ValueError(f"To go on with this training file, set what its run had: {wanted}")
    if here["text"] != there.get("text"):
        raise ValueError("To go on with this training file, give the text that its run learned; this is another one")


def refuse_misfits(trainer: Trainer, tensors: Mapping[str, Tensor], done: Done) -> None:
    """One sentence where a tensor is missing, or has another shape or type than this run's."""
    wanted: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for name, tensor in trainer.model.state_dict().items():
        wanted[f"model {name}"] = (tuple(tensor.shape), tensor.dtype)
    for name, optimizer, keys in kinds_of(trainer):
        for number, weight in enumerate(weights_of(optimizer) if done.step else ()):
            for key in keys:
                wanted[f"{name} {number} {key}"] = (() if key == "step" else tuple(weight.shape), torch.float32)
    wanted |= {name: (tuple(rng.get_state().shape), torch.uint8) for name, rng in generators_of(trainer).items()}
    for name, (shape, dtype) in wanted.items():
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != dtype:
            raise ValueError(f"The training file is damaged: “{name}” is missing or has another shape")
        if dtype.is_floating_point and not tensor.abs().max() <= LARGEST:
            raise ValueError(f"The training file holds numbers beyond {LARGEST:,.0f} or none at all, in “{name}”")
