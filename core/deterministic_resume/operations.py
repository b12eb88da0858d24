"""Operations whose order of sums is open or fixed: the same one again and again, and how many results there are."""

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from core.deterministic_resume.ribbon import hash_of

TERMS, PLACES = 500_000, 500  # of the sums by index
OPERATIONS = {"index": "add up by index", "norm": "gradient of a LayerNorm", "matmul": "matrix multiplication"}


@dataclass(frozen=True)
class Trial:
    """An operation repeated with a number of threads, deterministic algorithms off or on."""

    operation: str
    where: str  # 1 thread, 2 threads, GPU
    fixed: bool  # torch.use_deterministic_algorithms
    different: int  # results, by hash
    first_hash: str
    milliseconds: float  # best
    sample: tuple[float, ...]  # one number of each result


def terms(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers, and for each the place it is added to."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(TERMS, generator=rng), torch.randint(PLACES, (TERMS,), generator=rng)


def trials(rank: int, ranks: int, repeats: int, seed: int) -> Iterator[Trial]:
    """Every operation with 1 and 2 threads, and on a GPU if there is one, free and deterministic.

    Global flags are this process's own.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it a GPU's matrix products may change from run to run
    wheres = {"1 thread": (1, "cpu"), "2 threads": (2, "cpu")} | (
        {"GPU": (1, "cuda")} if torch.cuda.is_available() else {}
    )
    for operation in OPERATIONS:
        for where, (threads, device) in wheres.items():
            for fixed in (False, True):
                torch.set_num_threads(threads)
                torch.use_deterministic_algorithms(fixed)
                yield trial(operation, where, device, fixed, repeats, seed)


def trial(operation: str, where: str, device: str, fixed: bool, repeats: int, seed: int) -> Trial:
    """One operation, again and again: the best time, and how many results there are."""
    call, results, best = work(operation, device, seed), [], math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        result = call().detach().flatten().cpu()  # a GPU is waited for here
        best = min(best, time.perf_counter() - started)
        results.append(result.numpy())
    hashes = [hash_of(result)[:8] for result in results]
    return Trial(
        operation, where, fixed, len(set(hashes)), hashes[0], 1e3 * best, tuple(float(result[0]) for result in results)
    )


def work(operation: str, device: str, seed: int) -> Callable[[], torch.Tensor]:
    """The operation as a call, with its numbers ready on the device."""
    values, places = (part.to(device) for part in terms(seed))
    rng = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(384, 384, generator=rng).to(device) for _ in range(2))

    def norm_gradient() -> torch.Tensor:
        weight = torch.ones(384, requires_grad=True, device=device)
        return torch.autograd.grad(F.layer_norm(a, (384,), weight).pow(3).sum(), weight)[0]

    calls = {"index": lambda: add_by_index(values, places), "norm": norm_gradient, "matmul": lambda: a @ b}
    return calls[operation]


def add_by_index(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The operation whose order is open on this device.

    On a CPU threads share `index_put_`; on a GPU that one sorts first, and `index_add_` adds with atomics.
    """
    sums = torch.zeros(PLACES, device=values.device)
    if values.device.type == "cuda":
        return sums.index_add_(0, places, values)
    return sums.index_put_((places,), values, accumulate=True)
