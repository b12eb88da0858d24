"""One rank's part of a training run: its share of each batch, one step of the model, and what it holds, to the byte.

Where the weights, the gradients and AdamW's moments lie is another matter: `library.py` and `written.py` decide that,
each for the stages 0 to 3. Every rank draws the whole batch from the same seed and takes its own share of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from core.foundations.corpus import Corpus, batch_of, load_corpus
from core.foundations.ranks import device
from core.foundations.transformer import Shape, Transformer

MOMENTS = ("after the forward pass", "after the backward pass", "after the update", "between two steps")
PADS = 16  # numbers: a tensor in a flat row begins at a multiple of 64 bytes, as if it had been allocated by itself


@dataclass(frozen=True)
class Size:
    """The model and the batch, without the way they are shared."""

    n_layer: int
    width: int
    context: int
    windows: int  # of all ranks together
    learning_rate: float
    seed: int

    def shape(self, corpus: Corpus) -> Shape:
        return Shape(len(corpus.symbols), self.n_layer, 2, self.width, self.context, dialect="gpt2")

    def model(self) -> Transformer:
        return Transformer(self.shape(load_corpus("play")), self.seed)


@dataclass(frozen=True)
class Held:
    """Bytes of one rank, each storage counted once."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer


Share = tuple[
    float, float, float
]  # of a unit's weights, gradients and optimizer memory that is here: 1 whole, 0 nothing


@dataclass(frozen=True)
class Frame:
    """A moment of a step on one rank."""

    doing: str  # forward, backward, or one of MOMENTS
    unit: int  # 0: outside of the layers; -1: none
    shares: tuple[Share, ...]  # by unit
    held: tuple[int, int, int]  # bytes of weights, gradients and optimizer
    sent: int  # numbers so far, as the paper counts

    @property
    def nbytes(self) -> int:
        return sum(self.held)


class Trainee(ABC):
    """What one rank does. A subclass places the model (`place`), and knows what this rank holds."""

    def __init__(self, size: Size, rank: int, ranks: int) -> None:
        self.size, self.rank, self.ranks = size, rank, ranks
        self.text = load_corpus("play").train_ids
        self.rng = torch.Generator().manual_seed(size.seed)
        self.model = size.model().to(device(rank))

    def share(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """This rank's sequences of the next batch."""
        batch = batch_of(self.text, self.size.context, self.size.windows, self.rng)
        own = slice(self.rank * self.size.windows // self.ranks, (self.rank + 1) * self.size.windows // self.ranks)
        return batch[0][own].to(device(self.rank)), batch[1][own].to(device(self.rank))

    def one_step(self, pause: Callable[[str], None] = lambda moment: None) -> float:
        """The loss of this rank's share before the step, in nats per character.

        `pause` is called at each of MOMENTS.
        """
        inputs, targets = self.share()
        loss = F.cross_entropy(self.logits(inputs).flatten(0, 1).float(), targets.flatten())
        pause(MOMENTS[0])
        loss.backward()
        pause(MOMENTS[1])
        self.update()
        pause(MOMENTS[2])
        self.forget()
        pause(MOMENTS[3])
        return float(loss.detach())

    def held(self) -> Held:
        return Held(nbytes(self.weights()), nbytes(self.gradients()), nbytes(self.means()))

    @abstractmethod
    def logits(self, inputs: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]: ...

    @abstractmethod
    def update(self) -> None:
        """The gradients are there: change the weights, so that every rank can go on."""

    @abstractmethod
    def forget(self) -> None:
        """Free the gradients."""

    @abstractmethod
    def weights(self) -> Iterable[Tensor]: ...

    @abstractmethod
    def gradients(self) -> Iterable[Tensor]: ...

    @abstractmethod
    def means(self) -> Iterable[Tensor]:
        """What the optimizer keeps, with its own copy of the weights if it has one."""

    @abstractmethod
    def flat(self) -> Float[np.ndarray, "P"]:
        """All weights in a row, gathered from all ranks. Every rank must call it."""


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages, each once, however many tensors look at it; a storage that was emptied counts 0."""
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())
