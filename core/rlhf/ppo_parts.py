r"""The parts of PPO, each a plain function of tensors: advantages, the clipped objective, the value loss, the exact KL.

The numbers in the comments are those of the details listed in `ppo.py`.
Source: Schulman et al. 2017, arXiv:1707.06347; Schulman et al. 2016, arXiv:1506.02438.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init

from core.foundations.transformer import Transformer


class Actor(nn.Module):
    """The policy with a second head (2): after each word, one number, the reward still to come."""

    def __init__(self, policy: Transformer) -> None:
        super().__init__()
        self.policy = policy
        self.value = skip_init(nn.Linear, policy.shape.width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(
        self, tokens: Int[Tensor, "N T"], temperature: float
    ) -> tuple[Float[Tensor, "N S V"], Float[Tensor, "N S"]]:
        """ln of each next word's probability, and the value, at each of the S = T-1 places before a word."""
        policy, x = self.policy, self.policy.embed(tokens[:, :-1])
        for block in policy.blocks:
            x = block(x, policy.turns[: x.shape[1]], None, None)
        x = policy.norm(x)
        assert policy.head is not None
        return F.log_softmax(policy.head(x) / temperature, -1), self.value(x)[..., 0]  # (1)


def rewards_of(
    score: Float[Tensor, "N"], kl: Float[Tensor, "N S"], mask: Bool[Tensor, "N S"], beta: float
) -> Float[Tensor, "N S"]:
    """What each word earns (4): its fraction of the KL penalty, and the last word the card's score as well."""
    last = (torch.arange(mask.shape[1]) * mask).argmax(1)
    return (-beta * kl).scatter_add(1, last[:, None], score[:, None])


def gae(
    rewards: Float[Tensor, "N S"], values: Float[Tensor, "N S"], gamma: float, gae_lambda: float
) -> Float[Tensor, "N S"]:
    """Advantages (5): from the card's end backwards, A_t = delta_t + gamma lambda A_(t+1), delta_t = r_t + gamma
    V_(t+1) - V_t.
    """
    advantages, later, next_value = (
        torch.zeros_like(rewards),
        rewards.new_zeros(len(rewards)),
        rewards.new_zeros(len(rewards)),
    )
    for t in reversed(range(rewards.shape[1])):
        later = rewards[:, t] + gamma * next_value - values[:, t] + gamma * gae_lambda * later
        advantages[:, t], next_value = later, values[:, t]
    return advantages


def whitened(x: Float[Tensor, "N S"], mask: Bool[Tensor, "N S"]) -> Float[Tensor, "N S"]:
    """Mean 0 and variance 1 over the answers' words (7)."""
    centred = (x - x[mask].mean()) * mask
    return centred * torch.rsqrt(centred[mask].square().mean() + 1e-8)


def clipped_objective(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """What is to be made large (8), word by word."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def objective_at(ratio: float, advantage: float, clip: float) -> float:
    """The same for one word."""
    return float(clipped_objective(torch.tensor(ratio), torch.tensor(advantage), clip))


def is_clipped(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """True where the clipped term is the smaller one, so that the gradient is 0."""
    return ratio.clamp(1 - clip, 1 + clip) * advantage < ratio * advantage


def value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error (9); a value that has moved further than the clip gains nothing by moving on."""
    near = old + (new - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((new - returns).square(), (near - returns).square())


def exact_kl(log_p: Float[Tensor, "N S V"], log_q: Float[Tensor, "N S V"]) -> Float[Tensor, "N S"]:
    """KL(p || q) at each place, summed over the whole vocabulary: what ln p - ln q of the drawn word is on average."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)
