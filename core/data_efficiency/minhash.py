r"""MinHash and LSH: which passages are alike, by hashes (datasketch's) and by counting, and how often the two agree.

Two sets have the same smallest hash value with probability $s$, their Jaccard similarity, so a band of $r$ values
agrees with probability $s^r$, and at least one of $b$ bands with $1 - (1 - s^r)^b$.

Left out: joining the clusters of many machines; comparing the found pairs once more before one is thrown away.
Source: Broder 1997; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter 3; ekzhu/datasketch.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 0.1  # pairs below this similarity are not counted: there are too many, and none is found
BINS = 10  # of similarities, for the measured rates


@dataclass(frozen=True)
class Hit:
    """All pairs of about the same similarity: how often they are found."""

    similarity: float  # mean over the pairs
    measured: float  # share of the tries
    error: float  # its standard error
    predicted: float  # mean of the S-curve
    tries: int  # pairs times hashings


def probability(similarity: float, bands: int, rows: int) -> float:
    """The S-curve: how likely two passages share a band."""
    return 1 - (1 - similarity**rows) ** bands


def threshold(bands: int, rows: int) -> float:
    """About where the S is steepest."""
    return (1 / bands) ** (1 / rows)


def shingles_of(text: str, n: int) -> frozenset[str]:
    """All runs of n words; case and punctuation do not count."""
    words = re.findall(r"\w+", text.lower())
    return frozenset(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


def alike(shingles: Sequence[frozenset[str]]) -> list[tuple[int, int, float]]:
    """All pairs of different shingle sets that overlap, and each set with its first copy; by counting, without
    hashes.
    """
    first, pairs = dict[frozenset[str], int](), dict[tuple[int, int], float]()
    seen = set[frozenset[str]]()
    for at, own in enumerate(shingles):
        if own in first and own not in seen:
            pairs[first[own], at] = 1.0
            seen.add(own)
        first.setdefault(own, at)
    where = dict[str, list[int]]()
    for own, at in first.items():
        for shingle in own:
            where.setdefault(shingle, []).append(at)
    close = {(a, b) for holders in where.values() for place, b in enumerate(holders) for a in holders[:place]}
    for a, b in sorted(close):
        if (similarity := jaccard(shingles[a], shingles[b])) >= ALIKE:
            pairs[a, b] = similarity
    return [(a, b, similarity) for (a, b), similarity in sorted(pairs.items())]


def neighbours(shingles: Sequence[frozenset[str]], bands: int, rows: int, seed: int) -> list[set[int]]:
    """For each document: the documents that share a band with it, itself among them."""
    from datasketch import MinHash, MinHashLSH

    different = list(dict.fromkeys(shingles))
    at = {own: number for number, own in enumerate(different)}
    hashes = bands * rows
    minima = MinHash.bulk(
        [[shingle.encode() for shingle in sorted(own)] for own in different], num_perm=hashes, seed=seed
    )
    index = MinHashLSH(params=(bands, rows), num_perm=hashes)
    for number, minimum in enumerate(minima):
        index.insert(number, minimum)
    found = [set(index.query(minimum)) for minimum in minima]
    holders = [[number for number, own in enumerate(shingles) if at[own] == one] for one in range(len(different))]
    return [{holder for one in found[at[own]] for holder in holders[one]} for own in shingles]


def clusters(found: Sequence[set[int]]) -> list[int]:
    """The first document of each document's cluster: neighbours of neighbours belong together."""
    heads = [-1] * len(found)
    for start in range(len(found)):
        waiting = [start] if heads[start] < 0 else []
        while waiting:
            one = waiting.pop()
            if heads[one] < 0:
                heads[one] = start
                waiting += [other for other in found[one] if heads[other] < 0]
    return heads


def rates(
    pairs: Sequence[tuple[int, int, float]], counts: Sequence[int], hashings: int, bands: int, rows: int
) -> tuple[Hit, ...]:
    """How often pairs of about the same similarity were found; those with s = 1 stand by themselves."""
    bins: dict[int, list[tuple[float, int]]] = {}
    for (_, _, similarity), count in zip(pairs, counts, strict=True):
        bins.setdefault(int(similarity * BINS), []).append((similarity, count))
    hits = []
    for _, members in sorted(bins.items()):
        tries, found = len(members) * hashings, sum(count for _, count in members)
        smooth = (found + 1) / (tries + 2)  # so that a rate of 0 or 1 has an error too
        predicted = float(np.mean([probability(similarity, bands, rows) for similarity, _ in members]))
        error = math.sqrt(smooth * (1 - smooth) / tries)
        hits.append(
            Hit(float(np.mean([similarity for similarity, _ in members])), found / tries, error, predicted, tries)
        )
    return tuple(hits)
