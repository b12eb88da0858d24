"""The film of `inside`: where it stops on the way from the text to the next token, and what it says there.

Each sentence is written by the numbers of the pass itself, for the layer and the head that the film goes through, and
for the last token of the text.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from core.foundations.experiment import counted, quoted
from core.foundations.transformer import Shape, Transformer
from core.nanogpt.forward_pass import Layer, Pass


@dataclass(frozen=True)
class Stage:
    """One stop of the film: where it is in the picture, and what it says of the last token."""

    name: str
    says: str
    place: str


def at_first(tokens: tuple[str, ...], whole: Pass) -> Stage:
    """The model from far."""
    return Stage(
        "the whole model",
        f"{counted(len(tokens), 'token')} in, and a probability for each of {len(whole.p):,} possible next ones out."
        " Each square is a head: the stronger a cell's colour, the more its row's token takes from its column's.",
        "whole",
    )


def stages(model: Transformer, tokens: tuple[str, ...], whole: Pass, chosen: tuple[int, int]) -> Iterator[Stage]:
    """The pass through the chosen layer and head, from the text to the next token."""
    yield at_first(tokens, whole)
    number, last = chosen[0] + 1, len(tokens) - 1
    layer = whole.layers[chosen[0]]
    places = model.place is not None
    equal = "To it the row of its position is added." if places else "Equal tokens have equal rows."
    yield Stage(
        "from tokens to rows of numbers",
        f"Each token becomes a row of {whole.embedded.shape[1]} numbers, its embedding. {equal}",
        "in",
    )
    times = f"{ratio(layer.came[last], whole.embedded[last]):.1f} times as large as its embedding"
    yield Stage(
        f"what reaches layer {number}",
        f"The layers before have worked on each row. The last token's row is now {times}."
        if chosen[0]
        else "No layer has worked on the rows yet: they are as they came in.",
        "came",
    )
    yield from of_a_head(layer, chosen[1], tokens)
    yield from of_a_layer(layer, number, model.shape)
    best = int(whole.p.argmax())
    yield Stage(
        "the next token",
        "After the last layer the last token's row is multiplied by a table with a column for each possible token. That"
        " gives each of them a score, its logit, and the softmax turns the scores into probabilities. The largest is"
        f" {float(whole.p[best]):.0%}.",
        "out",
    )


def of_a_head(layer: Layer, head: int, tokens: tuple[str, ...]) -> Iterator[Stage]:
    """What one attention head does."""
    last, width = len(tokens) - 1, layer.q.shape[-1]
    yield Stage(
        "query, key and value",
        f"From its row every token gets three short rows of {width} numbers: q, with which it asks, k, with which it"
        " answers, and v, which it gives.",
        "qkv",
    )
    scores = layer.scores[head]
    best = int(scores[last].argmax())
    yield Stage(
        "scores",
        f"Each q meets each k: q · k / √{width}; the root keeps wide rows from giving huge scores. Of the last token's"
        f" scores the largest is {float(scores[last, best]):.2f}, with {quoted(tokens[best])}. So far the future is"
        " still in it.",
        "scores",
    )
    shares = layer.shares[head]
    order = shares[last].topk(min(3, len(tokens)))
    most = ", ".join(
        f"{quoted(tokens[at])} {share:.0%}"
        for share, at in zip(order.values.tolist(), order.indices.tolist(), strict=True)
    )
    yield Stage(
        "mask and softmax",
        "The mask takes the future away, and the softmax turns the scores of a line into shares that add up to 1. The"
        f" last token takes most from: {most}.",
        "shares",
    )
    yield Stage(
        "the weighted sum",
        f"The shares mix the rows v: head {head + 1} hands on {width} numbers for each token.",
        "mixed",
    )


def of_a_layer(layer: Layer, number: int, shape: Shape) -> Iterator[Stage]:
    """What the heads add together, and then the MLP."""
    last = len(layer.came) - 1
    does = "is added to the row" if shape.residual else "takes the place of the row"
    heads = "the head hands" if shape.n_head == 1 else f"the {shape.n_head} heads hand"
    yield Stage(
        "the residual connection" if shape.residual else "no residual connection",
        f"What {heads} on, side by side, is multiplied by a table of weights, and the"
        f" result {does}. For the last token it is {ratio(layer.attended[last], layer.came[last]):.2f} times as large"
        " as the row was.",
        "added",
    )
    yield Stage(
        "inside the MLP",
        f"Each row alone goes through a small network, the MLP: {layer.hidden.shape[1]} patterns that it may find in"
        f" the row, and what to add for each. {of_the_patterns(layer.hidden[last], shape.dialect)}",
        "hidden",
    )
    then = "The next layer does the same with other weights." if number < shape.n_layer else "This was the last layer."
    yield Stage(
        f"what leaves layer {number}",
        f"What the MLP made {does}, too: it is {ratio(layer.thought[last], layer.middle[last]):.2f} times as large as"
        f" the last token's row was. {then}",
        "left",
    )


def of_the_patterns(hidden: Float[Tensor, "M"], dialect: str) -> str:
    """How many patterns the last token has: a gated MLP's numbers count below 0, too."""
    if dialect == "llama":
        squares = hidden.square().sort(descending=True).values
        share = float(squares[: len(squares) // 10].sum() / squares.sum())
        return f"For the last token the strongest tenth of them makes {share:.0%} of the sum of squares."
    others = "nothing" if dialect == "modern" else "little"
    return f"For the last token {float((hidden > 0).float().mean()):.0%} of them are above 0, the others add {others}."


def ratio(a: Float[Tensor, "C"], b: Float[Tensor, "C"]) -> float:
    """How many times as long a is as b."""
    return float(a.norm() / b.norm().clamp(min=1e-9))
