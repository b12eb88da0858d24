r"""A thousand ranks on one machine: a process group that sends nothing, tensors that hold nothing, and PyTorch's own
count of the bytes.

`FSDPMemTracker` follows every tensor of a step of FSDP2 and sorts the bytes by what they are for. With fake tensors (a
shape and no memory) and the *fake* process group (rank 0 of any number of ranks, whose partners do not exist) a step of
a 7.5-billion model on 1,024 ranks is counted to the byte on a laptop. What is counted depends on shapes alone, not on
values; a test compares it with a step that is real.

Both are global states of a process, hence all this runs in processes of its own. The counts that take minutes are kept
in `counted.json`, made by

    python -m core.zero.count
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.foundations.transformer import Shape

KEPT = Path(__file__).with_name("counted.json")
BIG = Shape(54_272, 35, 32, 4096, 1024, dialect="gpt2")  # 7.50 billion weights; its rows can be cut into 1,024
COUNTED = ((3, 4), (3, 16), (3, 64), (3, 256), (3, 1024), (2, 64), (2, 1024))  # stage, ranks
GROUPS = {  # FSDPMemTracker's kinds of bytes, in the words of the lesson
    "weights, own slice": ("Sharded Param",),
    "gradients, own slice": ("Sharded Grad",),
    "optimizer, own slice": ("OptState",),
    "gathered weights": ("Unsharded Param",),
    "whole gradients": ("Unsharded Grad",),
    "buffers of all-gather": ("All Gather",),
    "buffers of reduce-scatter": ("Reduce Scatter",),
    "activations and the rest": ("Activation", "Temp", "Inputs", "Buffer", "Other"),
}


@dataclass(frozen=True)
class Count:
    """Bytes on rank 0 of `ranks`, by kind, at the moment when most is held, and at the end of the step."""

    stage: int
    ranks: int
    weights: int
    layer_weights: int  # of one layer
    peak: tuple[tuple[str, int], ...]
    after: tuple[tuple[str, int], ...]


@contextmanager
def imagined(ranks: int) -> Iterator[None]:
    """This process is rank 0 of `ranks`; nobody else exists."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def count(shape: Shape, stage: int, ranks: int, batch: int = 1) -> Count:
    """One step of FSDP2 with weights of 32 bits, gathered in 16 bits, on fake tensors; the second step, when the
    optimizer has its memory.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    from core.foundations.transformer import Transformer

    mesh = init_device_mesh("cpu", (ranks,))  # outside of FakeTensorMode, which cannot answer what a mesh asks
    with FakeTensorMode():
        model = bare(shape)
        weights, layer = (sum(weight.numel() for weight in part.parameters()) for part in (model, model.blocks[0]))
        for module in (*model.blocks, model):
            fully_shard(
                module,
                mesh=mesh,
                reshard_after_forward=stage == 3,
                mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32),
            )
        assert isinstance(model, Transformer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
        tokens = torch.zeros(batch, shape.context, dtype=torch.long)
        tracker = FSDPMemTracker(model, optimizer)
        tracker.track_inputs((tokens,))
        for step in range(2):
            with tracker:
                model.loss(tokens, tokens).backward()
                optimizer.step()
                after = by_kind(tracker.get_tracker_snapshot("current"))
                optimizer.zero_grad()
            if step == 0:
                tracker.reset_mod_stats()
        peak = by_kind(tracker.get_tracker_snapshot("peak"))
    return Count(stage, ranks, weights, layer, peak, after)


def bare(shape: Shape) -> Any:
    """The model as fake tensors: made plainly, since `skip_init` and drawing weights need real ones."""
    from unittest.mock import patch

    from core.foundations import transformer

    with (
        patch.object(transformer, "skip_init", lambda layer, *sizes, **more: layer(*sizes, **more)),
        patch.object(transformer.Transformer, "initialise"),
    ):
        return transformer.Transformer(shape)


def shapes(shape: Shape) -> tuple[tuple[int, ...], ...]:
    """The shapes of the model's tensors, of which none is made."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return tuple(tuple(weight.shape) for weight in bare(shape).parameters())


def by_kind(snapshot: Any) -> tuple[tuple[str, int], ...]:
    """Bytes of all devices by FSDPMemTracker's kinds, in the order and words of GROUPS."""
    found: Counter[str] = Counter()
    for device in snapshot.values():
        for kind, nbytes in device.items():
            found[str(getattr(kind, "value", kind))] += nbytes
    return tuple((group, sum(found[kind] for kind in kinds)) for group, kinds in GROUPS.items())


def kept() -> tuple[Count, ...]:
    """The counts of the 7.5-billion model that took minutes."""
    rows = json.loads(KEPT.read_text(encoding="utf-8"))["counts"]
    told = (
        {
            **row,
            **{moment: tuple((kind, nbytes) for kind, nbytes in row[moment].items()) for moment in ("peak", "after")},
        }
        for row in rows
    )
    return tuple(Count(**row) for row in told)


def keep() -> None:
    """Count the 7.5-billion model for all of COUNTED, and write the file."""
    rows = []
    for stage, ranks in COUNTED:
        started = time.process_time()
        with imagined(ranks):
            found = count(BIG, stage, ranks)
        rows.append(asdict(found) | {"peak": dict(found.peak), "after": dict(found.after)})
        print(
            f"stage {stage}, {ranks:>4} ranks: {sum(dict(found.peak).values()) / 1e9:.2f} GB at the peak,"
            f" {time.process_time() - started:.0f} CPU-seconds"
        )
    head = {"command": "python -m core.zero.count", "model": BIG.as_dict(), "batch": 1, "unit": "bytes on rank 0"}
    KEPT.write_text(json.dumps(head | {"counts": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    keep()
