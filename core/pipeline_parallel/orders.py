"""In which order each rank does its work: GPipe, 1F1B, interleaved 1F1B, the same with a split backward pass, and ZBV.

A model is cut into *stages*, one after the other; rank $r$ of $p$ has one of them, or $v$. A batch is cut into $m$
micro-batches. What a rank does with one micro-batch on one stage is an action (stage, kind, micro-batch):

    F  forward                                     needs F of the stage before
    B  backward, gradients of inputs and weights   needs B (or I) of the stage behind
    I  only the gradient of the inputs             needs I (or B) of the stage behind; the rank before waits for it
    W  only the gradients of the weights           needs I of the same stage, and nobody waits for it

A schedule is nothing but the order in which each rank takes its actions; when each starts follows from what it needs.
They are the orders in which torch.distributed.pipelining works (tested).
"""

from collections import Counter
from collections.abc import Callable

Action = tuple[int, str, int]  # stage, kind, micro-batch


def gpipe(rank: int, ranks: int, micro: int, chunks: int = 1) -> list[Action]:
    """All forward passes, then all backward passes."""
    return [(rank, "F", i) for i in range(micro)] + [(rank, "B", i) for i in range(micro)]


def one_f_one_b(rank: int, ranks: int, micro: int, chunks: int = 1) -> list[Action]:
    """As few forward passes as it takes to fill the ranks behind, then one backward pass for every forward pass."""
    ahead = min(ranks - 1 - rank, micro)
    order = [(rank, "F", i) for i in range(ahead)]
    for i in range(micro - ahead):
        order += [(rank, "F", ahead + i), (rank, "B", i)]
    return order + [(rank, "B", i) for i in range(micro - ahead, micro)]


def interleaved(rank: int, ranks: int, micro: int, chunks: int, *, split: bool = False) -> list[Action]:
    """1F1B where rank r has the stages r, r + p, r + 2p ...: p micro-batches through one, the same p through the next.

    split: backward passes are split, and W is put off by `rank` actions, so that the ranks before get their I sooner.
    """
    total = micro * chunks
    ahead = min((chunks - 1) * ranks + (1 if split else 2) * (ranks - 1 - rank), total)

    def stage_and_micro(k: int, backward: bool) -> tuple[int, int]:
        turn, chunk = k // ranks // chunks, k // ranks % chunks
        return (chunks - 1 - chunk if backward else chunk) * ranks + rank, turn * ranks + k % ranks

    def action(k: int, kind: str) -> Action:
        stage, i = stage_and_micro(k, kind != "F")
        return stage, kind, i

    order, weighed = [action(k, "F") for k in range(ahead)], 0
    for k in range(total):
        if ahead + k < total:
            order.append(action(ahead + k, "F"))
        order.append(action(k, "I" if split else "B"))
        if split and k >= rank:
            order.append(action(weighed, "W"))
            weighed += 1
    return order + ([action(k, "W") for k in range(weighed, total)] if split else [])


def split_interleaved(rank: int, ranks: int, micro: int, chunks: int) -> list[Action]:
    """With one chunk per rank this is ZB-H1."""
    return interleaved(rank, ranks, micro, chunks, split=True)


def zbv(rank: int, ranks: int, micro: int, chunks: int = 2) -> list[Action]:
    """Stages go down the ranks and up again, as a V: rank r has r and 2p - 1 - r, so rank 0 has the first and the
    last.
    """
    down, up = rank, 2 * ranks - 1 - rank
    order, count = list[Action](), Counter[tuple[int, str]]()

    def add(*actions: tuple[int, str]) -> None:
        for stage, kind in actions:
            order.append((stage, kind, count[stage, kind]))
            count[stage, kind] += 1

    for _ in range(2 * (ranks - rank) - 1):
        add((down, "F"))
    for _ in range(rank):
        add((up, "F"), (down, "F"))
    for _ in range(ranks - rank):
        add((up, "F"), (up, "I"), (up, "W"))
    while count[up, "F"] < micro:
        if count[down, "F"] < micro:
            add((down, "F"))
        add((down, "I"), (down, "W"), (up, "F"), (up, "I"), (up, "W"))
    for _ in range(rank):
        add((down, "I"), (up, "I"))
    for _ in range(ranks - rank):
        add((down, "I"), (down, "W"))
    for stage in (up, down):
        while count[stage, "W"] < count[stage, "I"]:
            add((stage, "W"))
    return order


ORDERS: dict[str, Callable[[int, int, int, int], list[Action]]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "interleaved": interleaved,
    "split": split_interleaved,
    "zbv": zbv,
}
NAMES = {
    "gpipe": "GPipe",
    "1f1b": "1F1B",
    "interleaved": "interleaved 1F1B",
    "split": "interleaved, backward split",
    "zbv": "zero bubble (ZBV)",
}
SHORT = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "interleaved", "split": "split", "zbv": "ZBV"}
CHUNKED = ("interleaved", "split")  # whose number of chunks per rank can be chosen


def chunks_of(schedule: str, chosen: int) -> int:
    """Stages per rank."""
    return chosen if schedule in CHUNKED else 2 if schedule == "zbv" else 1


def check(schedule: str, ranks: int, micro: int, chunks: int = 2) -> None:
    """One sentence where a schedule cannot be."""
    if schedule == "interleaved" and chunks < 2:
        raise ValueError(f"interleaved 1F1B needs at least 2 stages per rank, got {chunks}")
    if schedule == "1f1b" and micro < ranks:
        raise ValueError(f"1F1B needs at least as many micro-batches as ranks, got {micro} for {ranks} ranks")
    if schedule in CHUNKED and micro % ranks:
        raise ValueError(f"{NAMES[schedule]} needs a multiple of {ranks} micro-batches on {ranks} ranks, got {micro}")
    if schedule == "zbv" and micro < 2 * ranks - 1:
        raise ValueError(
            f"ZBV needs at least 2 x {ranks} - 1 = {2 * ranks - 1} micro-batches on {ranks} ranks, got {micro}"
        )


def stages_of(schedule: str, rank: int, ranks: int, chunks: int) -> list[int]:
    """Which stages a rank has, in the order in which its model pieces are built."""
    return [rank, 2 * ranks - 1 - rank] if schedule == "zbv" else [rank + ranks * chunk for chunk in range(chunks)]


def orders_of(schedule: str, ranks: int, micro: int, chunks: int) -> list[list[Action]]:
    """All ranks' orders."""
    check(schedule, ranks, micro, chunks)
    return [ORDERS[schedule](rank, ranks, micro, chunks) for rank in range(ranks)]
