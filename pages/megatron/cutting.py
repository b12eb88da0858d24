"""The drawing above the film: what each rank holds, in its place in the whole matrix. One colour per rank, grey is
whole.
"""

from collections.abc import Iterator
from typing import Any

from core.megatron.film import ATTENTION, MLP, WRONG, Stage

Shape = dict[str, Any]
COLOURS = ("a", "b", "c", "d")
WIDE, HIGH, APART = 1.6, 0.7, 2.2  # of a matrix, and from one to the next
HEADS = {
    ATTENTION: ("X", "QKV", "heads", "O", "parts", "sum"),
    MLP: ("X", "A", "XA", "B", "parts", "sum"),
    WRONG: ("X", "A", "parts", "act.", "", "sum"),
}
ORDER = {key: number for number, key in enumerate(("input", "entered", "first", "middle", "partial", "sum", "error"))}


def box(
    id: str,
    place: int,
    row: float,
    fill: str,
    *,
    part: tuple[float, float] = (0, 1),
    strip: tuple[float, float] = (0, 1),
    text: str = "",
) -> Shape:
    """A piece of a matrix: part (from, to) of its width, strip (from, to) of its height, counted from the top."""
    x, y = APART * place + WIDE * part[0], row + HIGH * (1 - strip[1])
    told = {
        "id": id,
        "kind": "rect",
        "x": round(x, 3),
        "y": round(y, 3),
        "w": round(WIDE * (part[1] - part[0]), 3),
        "h": round(HIGH * (strip[1] - strip[0]), 3),
    }
    return told | {"fill": fill} | ({"text": text} if text else {})


def word(id: str, x: float, y: float, text: str, fill: str = "text") -> Shape:
    return {"id": id, "kind": "text", "x": round(x, 3), "y": round(y, 3), "text": text, "fill": fill}


def cutting(ranks: int, sequence: bool, stage: Stage | None, right: bool) -> list[Shape]:
    """All shapes of a frame. stage: None before anything is handed out. right: whether the sum is what it should be."""
    block, key = (stage.block, stage.key) if stage else (ATTENTION, "")
    names = list(HEADS[block])
    if block == MLP and ORDER.get(key, 0) >= ORDER["middle"]:
        names[2] = "Y"
    shapes = [
        word(f"head {place} {name}", APART * place + WIDE / 2, ranks + 0.1, name)
        for place, name in enumerate(names)
        if name
    ]
    shapes += [
        word(f"rank {rank}", -1.35, ranks - 1 - rank + HIGH / 2, f"rank {rank}", COLOURS[rank]) for rank in range(ranks)
    ]
    shapes += [word("corner", APART * 5 + WIDE, ranks + 0.1, "", "grid"), word("floor", -1.8, -0.1, "", "grid")]
    draw = wrong_way if block == WRONG else right_way
    return [*shapes, *draw(block, ranks, sequence, key, right)]


def share(rank: int, ranks: int) -> tuple[float, float]:
    return rank / ranks, (rank + 1) / ranks


def right_way(block: str, ranks: int, sequence: bool, key: str, right: bool) -> Iterator[Shape]:
    """Columns of A, columns of XA, rows of B, partial sums, their sum."""
    at, middle = ORDER.get(key, -1), (ranks - 1) / 2
    for rank in range(ranks):
        row, fill, mine = float(ranks - 1 - rank), COLOURS[rank], share(rank, ranks)
        for place in (1, 2, 3) if at >= 0 else ():
            yield box(f"{block} back {place} {rank}", place, row, "grid")
        own_tokens = sequence and key in ("", "input")
        yield box(f"{block} x {rank}", 0, row, fill if own_tokens else "level", strip=mine if own_tokens else (0, 1))
        home = row if at >= 0 else middle  # not handed out yet: the parts lie together as one matrix
        yield box(f"{block} a {rank}", 1, home, fill, part=mine)
        yield box(f"{block} y {rank}", 2, row, fill, part=mine if at >= ORDER["first"] else (mine[0], mine[0]))
        yield box(f"{block} b {rank}", 3, home, fill, strip=mine)
        yield box(f"{block} p {rank}", 4, row, fill, part=(0, 1) if at >= ORDER["partial"] else (0, 0))
    if at >= ORDER["partial"]:
        yield from summed(block, ranks, sequence, 4, at >= ORDER["sum"], right)


def wrong_way(block: str, ranks: int, sequence: bool, key: str, right: bool) -> Iterator[Shape]:
    """Columns of X, rows of A, partial sums, an activation of each, their sum."""
    at = ORDER[key]
    for rank in range(ranks):
        row, fill, mine = float(ranks - 1 - rank), COLOURS[rank], share(rank, ranks)
        for place in (0, 1):
            yield box(f"{block} back {place} {rank}", place, row, "grid")
        yield box(f"{block} x {rank}", 0, row, fill, part=mine)
        yield box(f"{block} a {rank}", 1, row, fill, strip=mine)
        yield box(f"{block} p {rank}", 2, row, fill, part=(0, 1) if key != "input" else (0, 0))
        yield box(f"{block} y {rank}", 3, row, fill, part=(0, 1) if key not in ("input", "partial") else (0, 0))
    if key not in ("input", "partial"):
        yield from summed(block, ranks, False, 3, at >= ORDER["sum"], right)


def summed(block: str, ranks: int, sequence: bool, start: int, done: bool, right: bool) -> Iterator[Shape]:
    """A piece of each rank's partial sum flies to every rank; a reduce-scatter brings each only its own tokens."""
    for here in range(ranks):
        for there in range(ranks):
            place, rank = (5, there) if done else (start, here)
            top, bottom = share(there, ranks) if sequence and done else (0.0, 1.0)
            slot = [top + (bottom - top) * edge for edge in share(here, ranks)]
            yield box(
                f"{block} fly {here} {there}",
                place,
                float(ranks - 1 - rank),
                COLOURS[here],
                part=(0.15, 0.85),
                strip=(slot[0], slot[1]),
            )
    for rank in range(ranks) if done else ():
        strip = share(rank, ranks) if sequence else (0, 1)
        sign = "" if sequence and ranks > 2 else "=" if right else "≠"
        yield box(f"{block} z {rank}", 5, float(ranks - 1 - rank), "level", strip=strip, text=sign)
