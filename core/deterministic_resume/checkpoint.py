r"""A checkpoint on disk that is either whole or not there, and that says so itself if it is damaged.

Tensors go into a safetensors file, all else into a JSON file beside it, which also holds the SHA-256 of the tensors
and, in a line of its own, of itself. Each file is written under another name, flushed to the disk (`fsync`) and only
then renamed: a rename either has happened or has not, also when the power goes. The JSON file is written last, so a
checkpoint exists from the moment its JSON file does. The one before it stays until then.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

KEPT = 2  # checkpoints: the newest, and the one before it in case the newest is damaged
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(ValueError):
    """The disk is full, or a limit on the size of files is reached."""


class Damaged(ValueError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run after `step`."""

    step: int
    tensors: Mapping[str, Tensor]
    rest: Mapping[str, Any]  # what fits into JSON


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tensors_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.safetensors"


def rest_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.json"


def save(folder: Path, checkpoint: Checkpoint, halfway: Callable[[], None] | None = None) -> int:
    """Write a checkpoint and return its bytes. `halfway` is called when half of the tensors' bytes are written."""
    tensors = safetensors.torch.save(
        {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
    )
    body = json.dumps(
        {"step": checkpoint.step, "rest": checkpoint.rest, "bytes": len(tensors), "sha256": sha256(tensors)}
    )
    rest = f"{body}\n{sha256(body.encode())}\n".encode()
    try:
        write(tensors_file(folder, checkpoint.step), tensors, halfway)
        write(rest_file(folder, checkpoint.step), rest)
    except OSError as problem:
        if problem.errno not in NO_ROOM:
            raise
        told = (
            f"There is no room on the disk for the checkpoint of step {checkpoint.step} ({len(tensors) / 1e6:.2f} MB);"
            " the checkpoints before it are kept"
        )
        raise NoRoom(told) from None
    for step in steps(folder)[KEPT:]:
        rest_file(folder, step).unlink()  # first the file that makes it a checkpoint
        tensors_file(folder, step).unlink(missing_ok=True)
    return len(tensors) + len(rest)


def write(path: Path, data: bytes, halfway: Callable[[], None] | None = None) -> None:
    """All of the data under that name, or nothing."""
    unfinished = path.with_suffix(path.suffix + ".unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            if halfway is not None:
                halfway()
            file.write(data[len(data) // 2 :])
            file.flush()
            os.fsync(file.fileno())  # the bytes are on the disk before the name is
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # and now the name, too
    finally:
        os.close(folder)


def steps(folder: Path) -> list[int]:
    """The steps of which there is a checkpoint, the newest first."""
    return sorted((int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.json")), reverse=True)


def load(folder: Path, step: int) -> Checkpoint:
    """Read a checkpoint and check it before anything of it is used."""
    try:
        body, seal, end = rest_file(folder, step).read_bytes().decode("utf-8", "replace").split("\n")
    except (OSError, ValueError):
        raise Damaged(f"The checkpoint of step {step} is cut short: its JSON file is not whole") from None
    if sha256(body.encode()) != seal or end:
        raise Damaged(
            f"The checkpoint of step {step} is damaged: its JSON file does not have the SHA-256 that was written"
            " below it"
        )
    told = json.loads(body)
    try:
        data = tensors_file(folder, step).read_bytes()
    except OSError:
        raise Damaged(f"The checkpoint of step {step} is not whole: its tensors are missing") from None
    if len(data) != told["bytes"]:
        raise Damaged(f"The checkpoint of step {step} is cut short: {len(data):,} of {told['bytes']:,} bytes are there")
    found = sha256(data)
    if found != told["sha256"]:
        raise Damaged(
            f"The checkpoint of step {step} is damaged: its SHA-256 is {found[:8]}…, and {told['sha256'][:8]}… was"
            " written down; a bit has changed"
        )
    return Checkpoint(told["step"], safetensors.torch.load(data), told["rest"])


def newest(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one that is not."""
    problems: list[str] = []
    for step in steps(folder):
        try:
            return load(folder, step), problems
        except Damaged as problem:
            problems.append(str(problem))
    raise ValueError(
        f"{problems[0]}, and there is no other to resume from" if problems else "There is no checkpoint to resume from"
    )
