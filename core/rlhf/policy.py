r"""The policy: a small transformer that writes postcards, and what every method here needs of it.

Step 1 of RLHF is supervised fine-tuning: the model learns to write cards at all, from the grammar's own cards. What it
writes then is the *reference*; preferences change it from there. Its loss can be checked exactly: no model can be less
surprised per word than the grammar that draws the cards.

Made by: `python -m core.rlhf.policy --save-to assets/weights/postcards.safetensors`.
Source: Ouyang et al. 2022, arXiv:2203.02155, section 3 (the three steps of InstructGPT).
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.foundations.sampling import Choice, probabilities
from core.foundations.transformer import Cache, Shape, Transformer
from core.foundations.weights import SHIPPED
from core.rlhf.postcards import END, GREETINGS, LENGTH, NAMES, NUMBER, PROMPT, START, WORDS, postcard, tokens_of

SHAPE = Shape(vocabulary=len(WORDS), n_layer=2, n_head=4, width=64, context=LENGTH)
FILE = SHIPPED / "postcards.safetensors"


@dataclass(frozen=True)
class Cards:
    """Cards that a policy wrote: rows of word numbers with their prompts, and which of them are the policy's own
    words.
    """

    tokens: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]  # True on the answer's tokens, `<end>` included; False on the prompt and after `<end>`

    def __len__(self) -> int:
        return len(self.tokens)


def prompts(count: int, rng: torch.Generator) -> Int[Tensor, "N P"]:
    """`<start> dear anna ,`: greetings and names at random."""
    greetings = torch.tensor([NUMBER[word] for word in GREETINGS])[
        torch.randint(len(GREETINGS), (count,), generator=rng)
    ]
    names = torch.tensor([NUMBER[word] for word in NAMES])[torch.randint(len(NAMES), (count,), generator=rng)]
    return torch.stack([torch.full((count,), START), greetings, names, torch.full((count,), NUMBER[","])], 1)


def answer_mask(tokens: Int[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
    """True from the end of the prompt to the first `<end>`, both of the answer's ends included."""
    ended = (tokens == END).long().cumsum(1) - (tokens == END).long()  # how many <end>s stand before each place
    mask = ended == 0
    mask[:, :PROMPT] = False
    return mask


@torch.no_grad()
def sample(model: Transformer, asked: Int[Tensor, "N P"], rng: torch.Generator, temperature: float = 1.0) -> Cards:
    """Answer each prompt, all side by side, one word per pass."""
    model.eval()
    count = len(asked)
    tokens = torch.full((count, LENGTH), END)
    tokens[:, :PROMPT] = asked
    cache, new, done = (
        Cache(model.shape, count, LENGTH, model.embed.weight),
        asked,
        torch.zeros(count, dtype=torch.bool),
    )
    for at in range(PROMPT, LENGTH):
        p = probabilities(model(new, cache)[:, -1], Choice(temperature))  # (N, V)
        drawn = torch.multinomial(p, 1, generator=rng)[:, 0].masked_fill(done, END)
        tokens[:, at], done = drawn, done | (drawn == END)
        if done.all():
            break
        new = drawn[:, None]
    return Cards(tokens, answer_mask(tokens))


def log_probs(model: Transformer, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """ln of the probability the model gives each token after those before it; 0 for the first, which has none."""
    logits = model(tokens[:, :-1])  # (N, T-1) -> (N, T-1, V)
    chosen = F.log_softmax(logits, -1).gather(2, tokens[:, 1:, None])[..., 0]
    return F.pad(chosen, (1, 0))


def card_log_probs(model: Transformer, cards: Cards) -> Float[Tensor, "N"]:
    """ln pi(answer | prompt) of each card: the sum over its own words."""
    return (log_probs(model, cards.tokens) * cards.mask).sum(1)


# --- step 1: supervised fine-tuning -----------------------------------------------------------------------------------


def train(
    steps: int = 3000, batch: int = 64, cards: int = 60_000, seed: int = 0
) -> Iterator[tuple[int, float, Transformer]]:
    """Learn to write cards; yields the step, the loss in nats per word of the answer and the model."""
    rng = torch.Generator().manual_seed(seed)
    data = tokens_of([postcard(rng)[0] for _ in range(cards)])
    masks, model = answer_mask(data), Transformer(SHAPE, seed)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = 4e-3 * min(1.0, step / 50) * max(0.01, 1 - step / steps)
        rows = torch.randint(len(data), (batch,), generator=rng)
        mask = masks[rows]
        loss = -(log_probs(model, data[rows]) * mask).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield step, float(loss.detach()), model


@torch.no_grad()
def evaluated(model: Transformer, count: int, seed: int) -> tuple[float, float]:
    """Nats per answer word on fresh cards: the model's surprisal and the grammar's own, which is the floor."""
    rng = torch.Generator().manual_seed(seed)
    drawn = [postcard(rng) for _ in range(count)]
    tokens = tokens_of([words for words, _ in drawn])
    mask = answer_mask(tokens)
    prompt_surprise = float(torch.tensor(float(len(GREETINGS) * len(NAMES))).log())
    floor = sum(surprise - prompt_surprise for _, surprise in drawn) / float(mask.sum())
    return float(-(log_probs(model.eval(), tokens) * mask).sum() / mask.sum()), floor


def load_policy() -> Transformer:
    """A fresh copy of the shipped reference policy."""
    model = Transformer(SHAPE)
    model.load_state_dict(stored_policy())
    return model.eval()


@cache
def stored_policy() -> dict[str, Tensor]:
    """The shipped weights, read once."""
    import safetensors
    import safetensors.torch

    with safetensors.safe_open(FILE, "pt") as file:
        words = json.loads(file.metadata()["words"])
    if tuple(words) != WORDS:
        raise ValueError("The shipped policy knows other words than this version of the postcards: make it again")
    return {name: tensor.float() for name, tensor in safetensors.torch.load_file(FILE).items()}


def main(save_to: Path, steps: int = 3000) -> None:
    """Train, judge on fresh cards, and write the file."""
    import safetensors.torch

    model = Transformer(SHAPE)
    for step, loss, model in train(steps):  # noqa: B007 (the last one is kept)
        if step % 100 == 0:
            print(f"step {step}: {loss:.3f} nats per word", file=sys.stderr)
    surprise, floor = evaluated(model, 2000, 1)
    print(f"fresh cards: {surprise:.4f} nats per word, the grammar itself {floor:.4f}", file=sys.stderr)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, save_to, metadata={"words": json.dumps(WORDS)})


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
