r"""Dedup: find the copies in a text without comparing everything with everything, and see what the copies cost.

A passage becomes the set of its shingles, all runs of $n$ words. Two passages are as alike as their sets overlap, the
Jaccard similarity $s = |A \cap B| / |A \cup B|$. Comparing all pairs of a billion passages is hopeless. **MinHash**
turns a set into numbers: the smallest hash value of its shingles under each of $b \cdot r$ hash functions; two sets
have the same smallest value with probability exactly $s$. **LSH** cuts the numbers into $b$ bands of $r$ and compares
only passages that agree in all $r$ numbers of a band at least once:

$$P(\text{found}) = 1 - \left(1 - s^r\right)^b$$

This is an S: nearly 0 below a threshold of about $(1/b)^{1/r}$, nearly 1 above it. More rows move it to the right, more
bands to the left. The defaults of datatrove, which cleaned FineWeb, are $n = 5$, $b = 14$, $r = 8$: half of the pairs
with $s = 0.685$ are found. Our passages have some 40 words, and one changed word breaks up to $n$ of their shingles, so
the defaults here are milder. datasketch does the hashing.

**What is measured.** Passages with some words changed are planted, from nearly the same to quite another; each pair is
hashed several times with other hash functions, and how often it is found stands beside the S. A few passages are
planted again and again, word for word. Then two fleets read the same number of characters: the text with the copies,
and with one of each cluster. Both are evaluated on unseen text, and both are given the start of each repeated passage:
how many characters do they continue word for word? Lee et al. found that models trained without copies emit memorised
text ten times less often. The 200 copies of two passages were chosen so that models this small learn something by
heart; with a few they do not.

Left out: exact copies of parts of a passage (suffix arrays); copies between the text to learn from and the text to be
evaluated on.
Source: Lee et al. 2022, arXiv:2107.06499; Broder 1997 (MinHash); huggingface/datatrove, `MinhashConfig`;
ekzhu/datasketch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import vmap

from core.data_efficiency.fleet import FLOPS_PER_SECOND, Fleet, spoken
from core.data_efficiency.minhash import Hit, clusters, neighbours, probability, rates, threshold
from core.data_efficiency.passages import TOLD, Collection, DedupConfig, collect
from core.foundations.corpus import Corpus, batch_of, character_ids
from core.foundations.experiment import Step, experiment
from core.foundations.figures import Figure, Result

KINDS = ("with", "without")
HASHINGS = 10  # times each pair is hashed, with other hash functions
LOOK, LOOKS = 4096, 6
WARM_SHARE = 0.05

S_CURVE = "1 - (1 - s^r)^b"
COPIES = Figure("passages that are copies", "passages", None, "word for word the same as another one", "computed")
FOUND = Figure("pairs of copies found", "%", "theory", f"{S_CURVE}, mean over the pairs", headline=True)
FOUND_STEEP = Figure("pairs found where the curve is steepest", "%", "theory")
THROWN = Figure("passages thrown away", "passages", "theory", f"exact copies, and {S_CURVE} for each near one")
LOSS_COPIES = Figure(
    "loss with copies", "nats per character", "baseline", "without copies: what the same budget buys", headline=True
)
RECALL_WITH = Figure(
    "continued word for word, with copies", "characters", "limit", "the whole passage by heart", headline=True
)
RECALL_WITHOUT = Figure(
    "continued word for word, without copies",
    "characters",
    "baseline",
    "trained with the copies; Lee et al. 2022 found ten times less without",
    headline=True,
)


@dataclass(frozen=True)
class Look:
    """Both fleets at one moment: first with copies, then without. Mean and standard deviation over the seeds."""

    tokens: int
    losses: tuple[float, ...]
    loss_spread: tuple[float, ...]
    recalled: tuple[float, ...]  # characters of a repeated passage continued word for word, mean over the passages
    recall_spread: tuple[float, ...]


@dataclass(frozen=True)
class Recall:
    """A repeated passage: its beginning, how it goes on, and what the first model of each kind says."""

    start: str
    truth: str
    said: tuple[str, ...]


@dataclass(frozen=True)
class DedupStep(Step):
    """A hashing, an optimizer step or a look; what did not happen in it is empty."""

    tokens: int = 0
    curve: tuple[tuple[float, float], ...] = ()  # (similarity, probability), while pairs are hashed
    pairs: tuple[float, ...] = ()  # the true similarities
    example: tuple[str, str, float] | None = None  # a pair and its similarity
    hits: tuple[Hit, ...] = ()
    removed: int = 0
    looks: tuple[Look, ...] = ()
    recalls: tuple[Recall, ...] = ()


# --- the experiment ---------------------------------------------------------------------------------------------------


@experiment("What do copies in a text cost, and how are they found?")
def dedup(config: DedupConfig) -> Iterator[DedupStep]:
    """Hash, throw away, train with and without."""
    corpus = config.read()
    collection = collect(config, corpus)
    if not any(similarity >= threshold(config.bands, config.rows) / 2 for _, _, similarity in collection.pairs):
        raise ValueError(
            "No two paragraphs of your text are alike: let copies be planted, or choose a text that has some"
        )
    yield opening(config, corpus, collection)
    counts, heads = [0] * len(collection.pairs), list[int]()
    for number in range(HASHINGS):
        found = neighbours(collection.shingles, config.bands, config.rows, config.seed % 2**31 + 1 + number)
        heads = heads or clusters(found)
        counts = [count + (b in found[a]) for count, (a, b, _) in zip(counts, collection.pairs, strict=True)]
        hits = rates(collection.pairs, counts, number + 1, config.bands, config.rows)
        removed = sum(head != at for at, head in enumerate(heads))
        told = (
            f"hashing {number + 1} of {HASHINGS}: {sum(b in found[a] for a, b, _ in collection.pairs)} of {len(counts)}"
            " pairs share a band"
        )
        yield DedupStep(curve=s_curve(config), hits=hits, removed=removed, doing=told)
    yield from trained(Pupils(config, corpus, collection, heads), hits, counts)


def s_curve(config: DedupConfig) -> tuple[tuple[float, float], ...]:
    return tuple((float(s), probability(float(s), config.bands, config.rows)) for s in np.linspace(0, 1, 61))


def opening(config: DedupConfig, corpus: Corpus, collection: Collection) -> DedupStep:
    """The start state: the curve, the true similarities, and a pair to look at."""
    pairs, near = collection.pairs, [pair for pair in collection.pairs if pair[2] < 1] or list(collection.pairs)
    a, b, similarity = min(near, key=lambda pair: abs(pair[2] - threshold(config.bands, config.rows)))
    shape = config.shape(corpus)
    work = (
        6 * (shape.matrix_parameters + 2 * shape.vocabulary * shape.width) * config.tokens * len(KINDS) * config.seeds
    )
    copies = len(collection.documents) - len(set(collection.documents))
    told = (
        f"{len(collection.documents)} passages, {copies} of them copies word for word, {len(pairs)} pairs to find:"
        f" {spoken(work / FLOPS_PER_SECOND)}"
    )
    return DedupStep(
        curve=s_curve(config),
        pairs=tuple(similarity for _, _, similarity in pairs),
        example=(collection.documents[a], collection.documents[b], similarity),
        figures=(COPIES(copies),),
        doing=told,
    )


class Pupils:
    """Two kinds of models, `seeds` of each: the text with copies, and with the first of each cluster."""

    def __init__(self, config: DedupConfig, corpus: Corpus, collection: Collection, heads: Sequence[int]) -> None:
        self.config, self.corpus, self.collection = config, corpus, collection
        kept = [text for at, text in enumerate(collection.documents) if heads[at] == at]
        self.removed = len(heads) - len(kept)
        if not self.removed:
            raise ValueError(
                "No two paragraphs share a band, so there is nothing to throw away: take more bands, fewer rows or"
                " shorter shingles"
            )
        self.texts = [character_ids("\n\n".join(part) + "\n", corpus.symbols) for part in (collection.documents, kept)]
        if len(kept) < 2 or len(self.texts[1]) < 2 * config.context:
            raise ValueError(f"All {len(heads)} paragraphs fall into {len(kept)} cluster{'s' * (len(kept) > 1)}: "
                             "without the copies too little text would be left to train on")  # fmt: skip
        self.fleet = Fleet(config.shape(corpus), config.every_seed * 2, config.learning_rate)
        self.rng = [torch.Generator().manual_seed(seed) for seed in config.every_seed * 2]
        sizes = {head: heads.count(head) for head in heads}
        often = sorted(sizes, key=lambda head: -sizes[head])[: config.repeated]
        self.repeated = [collection.documents[head] for head in often if sizes[head] > 1]
        shortest = min(len(text) for text in self.repeated)
        self.start = min(config.context, shortest // 2)
        self.goal = min(TOLD, shortest - self.start)

    def one_step(self) -> Iterator[Float[np.ndarray, "M"] | None]:
        config, at = self.config, self.fleet.steps
        pairs = [
            batch_of(self.texts[model // config.seeds], config.context, config.batch, rng)
            for model, rng in enumerate(self.rng)
        ]
        inputs, targets = (torch.stack(part) for part in zip(*pairs, strict=True))  # (M, B, T)
        progress = at / self.steps
        scale = max(0.02, min(1.0, progress / WARM_SHARE)) * 0.5 * (1 + math.cos(math.pi * progress))
        yield from self.fleet.step_in_parts(inputs, targets, scale)

    @property
    def steps(self) -> int:
        return self.config.tokens // (self.config.batch * self.config.context)

    @property
    def tokens(self) -> int:
        return self.fleet.steps * self.config.batch * self.config.context

    def recall(self) -> Iterator[Int[Tensor, "M P K"] | None]:
        """What every model says after the beginning of each repeated passage, always its most likely character."""
        starts = torch.stack(
            [character_ids(text[: self.start], self.corpus.symbols) for text in self.repeated]
        )  # (P, S)
        told = starts.expand(self.fleet.size, -1, -1)  # (M, P, S)
        for number in range(self.goal):
            if number % 8 == 7:
                yield None
            with torch.inference_mode():
                logits = vmap(self.fleet.logits)(self.fleet.weights, told[..., -self.config.context :])
                told = torch.cat([told, logits[:, :, -1].argmax(-1, keepdim=True)], dim=-1)
        yield told[..., self.start :]

    def truths(self) -> Int[Tensor, "P K"]:
        return torch.stack(
            [character_ids(text[self.start : self.start + self.goal], self.corpus.symbols) for text in self.repeated]
        )


def word_for_word(said: Int[Tensor, "M P K"], truth: Int[Tensor, "P K"]) -> Float[np.ndarray, "M P"]:
    """How many characters are right before the first wrong one."""
    return (said == truth).cumprod(-1).sum(-1).double().numpy()


def trained(pupils: Pupils, hits: Sequence[Hit], counts: Sequence[int]) -> Iterator[DedupStep]:
    """Both fleets read, and are evaluated now and then."""
    looks = list[Look]()
    for step in range(1, pupils.steps + 1):
        for now in pupils.one_step():
            told = (
                f"step {step} of {pupils.steps}: loss {now.mean():.3f} on what is being read"
                if now is not None and step % 20 == 0
                else ""
            )
            yield DedupStep(pupils.tokens, doing=told)
        if step * LOOKS // pupils.steps > (step - 1) * LOOKS // pupils.steps:
            losses, said = np.empty(0), torch.empty(0)
            for part in pupils.fleet.validate_in_parts(pupils.corpus.validation_ids, LOOK):
                yield DedupStep(pupils.tokens)
                losses = part if part is not None else losses
            for words in pupils.recall():
                yield DedupStep(pupils.tokens)
                said = words if words is not None else said
            looks.append(seen(pupils, losses, said))
            recalls = spoken_by(pupils, said)
            last = step == pupils.steps
            yield DedupStep(
                pupils.tokens,
                removed=pupils.removed,
                looks=tuple(looks),
                recalls=recalls,
                doing=summary(looks[-1], last),
                hits=tuple(hits) if last else (),
                figures=evaluated(pupils, hits, counts, looks[-1]) if last else (),
            )


def seen(pupils: Pupils, losses: Float[np.ndarray, "M"], said: Int[Tensor, "M P K"]) -> Look:
    by_kind = losses.reshape(2, -1)
    right = word_for_word(said, pupils.truths()).mean(1).reshape(2, -1)
    numbers: list[tuple[float, ...]] = [
        tuple(part.tolist()) for part in (by_kind.mean(1), by_kind.std(1, ddof=1), right.mean(1), right.std(1, ddof=1))
    ]
    return Look(pupils.tokens, *numbers)


def spoken_by(pupils: Pupils, said: Int[Tensor, "M P K"]) -> tuple[Recall, ...]:
    """The passages with the words of the first model of each kind."""
    letters, seeds = pupils.corpus.symbols, pupils.config.seeds
    words = [["".join(letters[i] for i in row) for row in said[model].tolist()] for model in (0, seeds)]
    parts = [(text[: pupils.start], text[pupils.start : pupils.start + pupils.goal]) for text in pupils.repeated]
    return tuple(Recall(start, truth, (one, other)) for (start, truth), one, other in zip(parts, *words, strict=True))


def summary(look: Look, last: bool) -> str:
    told = (
        f"with copies: loss {look.losses[0]:.3f}, {look.recalled[0]:.0f} characters word for word; without:"
        f" {look.losses[1]:.3f}, {look.recalled[1]:.0f}"
    )
    return ("done: " if last else f"{look.tokens} characters read, ") + told


def evaluated(pupils: Pupils, hits: Sequence[Hit], counts: Sequence[int], look: Look) -> tuple[Result, ...]:
    """The end: the S-curve against the tries, and what the copies cost."""
    config = pupils.config
    chances = [probability(similarity, config.bands, config.rows) for _, _, similarity in pupils.collection.pairs]
    figures = [FOUND(100 * sum(counts) / len(counts) / HASHINGS, 100 * float(np.mean(chances)))]
    if hits:  # the steepest part of the S tells most; the picture has them all
        hit = min(hits, key=lambda one: abs(one.predicted - 0.5))
        source = f"pairs of similarity {hit.similarity:.2f}: {S_CURVE}"
        figures.append(FOUND_STEEP(100 * hit.measured, 100 * hit.predicted, source=source))
    return (
        *figures,
        THROWN(pupils.removed, thrown(pupils)),
        LOSS_COPIES(look.losses[0], look.losses[1]),
        RECALL_WITH(look.recalled[0], float(pupils.goal)),
        RECALL_WITHOUT(look.recalled[1], look.recalled[0]),
    )


def thrown(pupils: Pupils) -> float:
    """How many passages should go: copies for sure, a near copy as the S-curve says of its most similar passage."""
    config, best = pupils.config, dict[int, float]()
    for a, b, similarity in pupils.collection.pairs:
        if similarity < 1:
            best[max(a, b)] = max(best.get(max(a, b), 0.0), similarity)
    copies = len(pupils.collection.shingles) - len(set(pupils.collection.shingles))
    return copies + sum(probability(similarity, config.bands, config.rows) for similarity in best.values())
