r"""PPO: the policy writes cards, the reward model scores them, and what scored well becomes more probable.

Step 3 of RLHF. We want a policy $\pi$ that earns high reward $r$ but stays close to the reference $\pi_{ref}$:

$$\max_\pi \; \mathbb{E}_{y\sim\pi}\left[r(y)\right] - \beta\,\mathrm{KL}(\pi \,\|\, \pi_{ref})$$

PPO gets there in rounds. The policy answers a batch of prompts; each word gets an *advantage* $A$, how much better the
card went than expected when it was written; then the probabilities are moved, for several epochs on the same cards, as
long as the ratio $\rho = \pi_{new}/\pi_{old}$ of a word stays within a clip $\varepsilon$:

$$L = \min\left(\rho A,\; \mathrm{clip}(\rho,\, 1-\varepsilon,\, 1+\varepsilon)\, A\right)$$

A word that has already moved further than $\varepsilon$ the way its advantage wants has gradient 0: it waits for the
next round. The details that make it work, by the numbers that stand in the code:

1. Logits are divided by the temperature everywhere, not only when drawing (N 1).
2. One network for policy and value, with a head each (37, 13); the value head starts at 0 (N 2).
3. No dropout (N 4), so the first ratio of every round is 1.
4. The penalty is paid word by word, $-\beta(\ln\pi - \ln\pi_{ref})$; the score comes at the card's last word (Ziegler,
  eq. 2; N 8).
5. Advantages by GAE with $\lambda = 0.95$ (Schulman 2016, eq. 16; 37, 5) and no discount, $\gamma = 1$ (N 6).
6. Epochs over the same cards in newly shuffled minibatches (37, 6; N 7).
7. Advantages whitened in each minibatch: mean 0, variance 1 (37, 7; N 9).
8. The clipped objective above (Schulman 2017, eq. 7; 37, 8).
9. The value loss is clipped alike (37, 9; N 10) and weighs 0.1 (lm-human-preferences, `vf_coef`).
10. Adam with $\epsilon = 10^{-5}$ (37, 3), the learning rate falling to 0 in a line (37, 4).
11. The norm of all gradients is cut to 0.5 (37, 11).
12. Entropy and the clipped share are measured (37, 12); no bonus is paid for entropy, the KL penalty holds it up.

Code -> paper: `ratio` -> r_t (here rho), `clip` -> epsilon, `gae_lambda` -> lambda, `score` -> r(x, y), `reference` ->
rho of Ziegler.
Left out: an adaptive beta (N 11), whitened rewards (N 9; our reward model's scores have variance 1), TensorFlow's Adam,
whose epsilon acts otherwise.
Source: Schulman et al. 2017, arXiv:1707.06347 (PPO); Schulman et al. 2016, arXiv:1506.02438 (GAE); Ziegler et al. 2019,
arXiv:1909.08593, code: github.com/openai/lm-human-preferences; "37, n": Huang et al. 2022, The 37 Implementation
Details of PPO, core detail n; "N n": Huang et al. 2023, The N Implementation Details of RLHF with PPO, policy training,
detail n.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.foundations.experiment import Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.transformer import Transformer
from core.foundations.turns import with_pauses
from core.rlhf.policy import Cards, answer_mask, load_policy, prompts, sample
from core.rlhf.postcards import RULES, WORDS, Judge, gold_of, readable, words_of
from core.rlhf.ppo_parts import Actor, clipped_objective, exact_kl, gae, is_clipped, rewards_of, value_loss, whitened
from core.rlhf.reward import RewardModel, TasteConfig, choosing, train_reward

VALUE_WEIGHT, MOST_GRADIENT, ADAM_EPSILON = 0.1, 0.5, 1e-5
SHOWN = 6  # prompts whose answers are shown before and after
EVALUATED = 160  # answers for the figures
PROXY = Figure(
    "learned reward after PPO",
    "standard deviations",
    "baseline",
    "the reference's mean, to which the reward model is shifted",
    headline=True,
)
GOLD = Figure(
    "true reward after PPO", "points of the rule", "baseline", "the reference, on the same prompts", headline=True
)
KL = Figure(
    "KL to the reference, sampled",
    "nats per card",
    "theory",
    "exact, over the whole vocabulary; sampled: on the words that were drawn",
    headline=True,
)
FIRST_RATIO = Figure(
    "ratios before the first update (largest distance from 1)",
    "new / old",
    "theory",
    "the policy that wrote the words has not changed yet",
)


@dataclass(frozen=True)
class PpoConfig(TasteConfig):
    """The knobs of PPO. One step is one round: a batch of answers, and a few epochs of learning from them."""

    steps: int = setting(
        30,
        "Steps",
        unit="step",
        low=1,
        high=1000,
        help="More rounds of answers and updates raise the learned reward further; each takes time.",
    )
    beta: float = setting(
        0.3,
        "Beta (KL penalty)",
        low=0.0,
        high=2.0,
        help="Higher keeps the policy closer to the reference; lower lets it chase the reward further.",
        slider=True,
    )
    clip: float = setting(
        0.2,
        "Clip",
        low=0.01,
        high=1.0,
        help="Higher lets a word's probability change more in one round; lower makes each round more careful.",
        slider=True,
    )
    learning_rate: float = setting(
        0.003,
        "Learning rate",
        low=1e-6,
        high=0.1,
        help="Higher makes each update larger; too high and the policy breaks.",
    )
    pairs: int = setting(
        200,
        "Choices to learn from",
        low=2,
        high=2048,
        more=True,
        help="More choices make the reward model a better copy of the taste. This is for a rule; yours are as "
        "many as you clicked.",
    )
    batch: int = setting(
        64,
        "Answers per step",
        unit="answer",
        low=2,
        high=256,
        more=True,
        help="More answers per round make the updates steadier; each round takes longer.",
    )
    epochs: int = setting(
        3,
        "Epochs per step",
        unit="epoch",
        low=1,
        high=16,
        more=True,
        help="More epochs learn more from the same answers, and more words hit the clip.",
        slider=True,
    )
    minibatches: int = setting(
        1,
        "Minibatches per epoch",
        low=1,
        high=8,
        more=True,
        help="More minibatches make more, smaller updates of each epoch.",
        slider=True,
    )
    temperature: float = setting(
        1.0,
        "Temperature",
        low=0.2,
        high=3.0,
        more=True,
        help="Higher makes the policy try more unusual words; lower makes it repeat its favorites.",
        slider=True,
    )
    gamma: float = setting(
        1.0,
        "Discount gamma",
        low=0.0,
        high=1.0,
        more=True,
        help="Lower counts reward that comes later for less; 1 counts all of it.",
        slider=True,
    )
    gae_lambda: float = setting(
        0.95,
        "GAE lambda",
        low=0.0,
        high=1.0,
        more=True,
        help="Lower trusts the value estimate more: less noise in the advantages, more bias.",
        slider=True,
    )


# --- one round --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollout:
    """A batch of answers with what was known when they were written.

    S = T-1 places, each before the word it is about.
    """

    tokens: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N S"]
    log_p: Float[Tensor, "N S"]  # of the drawn words, under the policy that drew them
    values: Float[Tensor, "N S"]
    kl: Float[Tensor, "N S"]  # ln pi - ln pi_ref of the drawn words: the penalty
    kl_exact: Float[Tensor, "N S"]
    entropy: Float[Tensor, "N S"]
    score: Float[Tensor, "N"]
    advantages: Float[Tensor, "N S"]

    @property
    def mean_score(self) -> float:
        return float(self.score.mean())

    @property
    def mean_entropy(self) -> float:
        """Nats per word of the answers."""
        return float(self.entropy[self.mask].mean())


@dataclass(frozen=True)
class Look:
    """One word in the last minibatch of a round, right before the update: all that PPO knows of it. Words begin and end
    cards.
    """

    word: str
    ratio: float
    advantage: float  # whitened
    clipped: bool
    slope: float  # of the objective, by ln of the word's probability: A times the ratio, or 0


@dataclass(frozen=True)
class Round:
    """What one round measured."""

    proxy: float
    kl: float  # nats per card, from the drawn words
    kl_exact: float
    entropy: float  # nats per word
    clipped: float  # fraction of the words of all minibatches
    tokens: Int[Tensor, "N T"]
    looks: tuple[tuple[Look, ...], ...]  # of a few cards
    first_ratio: float  # the largest distance from 1 before the first update


class Ppo:
    """A policy in training against a judge."""

    def __init__(self, config: PpoConfig, judge: Judge) -> None:
        self.config, self.judge = config, judge
        self.rng = torch.Generator().manual_seed(config.seed)
        self.reference, self.actor = Actor(load_policy()), Actor(load_policy())
        self.optimizer = torch.optim.Adam(self.actor.parameters(), config.learning_rate, eps=ADAM_EPSILON)  # (10)
        self.actor.eval()  # (3)

    @property
    def sound(self) -> bool:
        """Whether all weights are numbers still."""
        return all(bool(weight.isfinite().all()) for weight in self.actor.parameters())

    @torch.no_grad()
    def roll_out(self, cards: Cards) -> Rollout:
        """Judge cards that the policy has just written, word by word."""
        config, longest = self.config, int(cards.mask.any(0).nonzero().max()) + 1  # nobody wrote beyond that place
        tokens, mask = cards.tokens[:, :longest], cards.mask[:, 1:longest]
        all_p, values = self.actor(tokens, config.temperature)
        all_q, _ = self.reference(tokens, config.temperature)
        log_p, log_q = (p.gather(2, tokens[:, 1:, None])[..., 0] for p in (all_p, all_q))
        kl, values, score = (log_p - log_q) * mask, values * mask, self.judge(cards.tokens)
        rewards = rewards_of(score, kl, mask, config.beta)
        advantages = gae(rewards, values, config.gamma, config.gae_lambda) * mask
        entropy = -(all_p.exp() * all_p).sum(-1) * mask
        return Rollout(tokens, mask, log_p, values, kl, exact_kl(all_p, all_q) * mask, entropy, score, advantages)

    def learn(self, rollout: Rollout, rows: Int[Tensor, "M"]) -> tuple[Tensor, Tensor]:
        """One update on some of the cards. Gives each word's ratio and whitened advantage, as they were before it."""
        clip, mask = self.config.clip, rollout.mask[rows]
        all_p, values = self.actor(rollout.tokens[rows], self.config.temperature)
        log_p = all_p.gather(2, rollout.tokens[rows][:, 1:, None])[..., 0]
        ratio = ((log_p - rollout.log_p[rows]) * mask).exp()
        advantage = whitened(rollout.advantages[rows], mask)
        objective = clipped_objective(ratio, advantage, clip)
        returns = rollout.advantages[rows] + rollout.values[rows]
        missed = value_loss(values, rollout.values[rows], returns, clip)
        loss = (VALUE_WEIGHT * missed - objective)[mask].mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), MOST_GRADIENT)  # (11)
        self.optimizer.step()
        return ratio.detach(), advantage

    def one_step(self, step: int) -> Iterator[Round | None]:
        """Answers, then `epochs` times `minibatches` updates (6); None between the parts, at the end what was
        measured.
        """
        config = self.config
        self.optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - (step - 1) / config.steps)  # (10)
        cards = sample(self.actor.policy, prompts(config.batch, self.rng), self.rng, config.temperature)
        yield None
        rollout, clipped, first_ratio = self.roll_out(cards), list[Tensor](), 0.0
        yield None
        for _ in range(config.epochs):
            for rows in torch.randperm(config.batch, generator=self.rng).chunk(config.minibatches):
                ratio, advantage = self.learn(rollout, rows)
                mask = rollout.mask[rows]
                first_ratio = first_ratio if clipped else float((ratio - 1).abs().max())
                clipped.append(is_clipped(ratio, advantage, config.clip)[mask].float().mean())
                yield None
        looks = tuple(
            looked(rollout.tokens[row], mask[i], ratio[i], advantage[i], config.clip) for i, row in enumerate(rows[:3])
        )
        kl, kl_exact = (float(each.sum(1).mean()) for each in (rollout.kl, rollout.kl_exact))
        share = float(torch.stack(clipped).mean())  # (12)
        yield Round(rollout.mean_score, kl, kl_exact, rollout.mean_entropy, share, cards.tokens, looks, first_ratio)


def looked(
    tokens: Int[Tensor, "T"],
    mask: Bool[Tensor, "S"],
    ratio: Float[Tensor, "S"],
    advantage: Float[Tensor, "S"],
    clip: float,
) -> tuple[Look, ...]:
    """The words of one answer, with the gradient that autograd gives for each."""
    log_ratio = ratio.log().requires_grad_()
    (slope,) = torch.autograd.grad(clipped_objective(log_ratio.exp(), advantage, clip).sum(), log_ratio)
    rows = zip(tokens[1:], ratio, advantage, is_clipped(ratio, advantage, clip), slope, strict=True)
    told = [Look(WORDS[int(word)], float(r), float(a), bool(c), float(s)) for word, r, a, c, s in rows]
    return tuple(look for look, own in zip(told, mask, strict=True) if own)


# --- the experiment ---------------------------------------------------------------------------------------------------

Answer = tuple[str, float | None, float | None]  # a card, its proxy and its gold reward


@dataclass(frozen=True)
class PpoStep(Step):
    """One part of a round; what was not measured in it is None. Rewards in standard deviations of the reference's
    cards.
    """

    step: int  # the round; the rewards are those of its answers, before it learns from them
    clip: float = 0.0  # what the words in `looks` are held to
    proxy: float | None = None
    gold: float | None = None
    kl: float | None = None  # nats per card
    entropy: float | None = None  # nats per word
    clipped: float | None = None  # fraction of words
    before: tuple[Answer, ...] = ()
    now: tuple[Answer, ...] = ()
    looks: tuple[tuple[Look, ...], ...] = ()  # cards of words


def proxy_judge(config: PpoConfig, reference: Cards) -> Generator[None, None, Judge]:
    """Train the reward model; the learned reward, in standard deviations above the mean of these cards of the
    reference.
    """
    chosen = yield from choosing(config, config.pairs)
    model = RewardModel()
    for _ in train_reward(model, chosen):
        yield
    model.requires_grad_(False).normalise(reference)
    return lambda tokens: model(tokens, answer_mask(tokens))


def gold_judge(rule: str, tokens: Int[Tensor, "N T"]) -> Judge | None:
    """The hidden rule, in standard deviations above these cards' mean.

    None where the user chooses: nobody knows that rule.
    """
    if rule not in RULES:
        return None
    points = gold_of(tokens, rule)
    mean, std = points.mean(), points.std()
    return lambda cards: (gold_of(cards, rule) - mean) / std


def mean_of(judge: Judge | None, tokens: Int[Tensor, "N T"]) -> float | None:
    return None if judge is None else float(judge(tokens).mean())


def answers(tokens: Int[Tensor, "N T"], proxy: Judge | None, gold: Judge | None) -> tuple[Answer, ...]:
    """Cards as text with their rewards."""
    scores = [[None] * len(tokens) if judge is None else judge(tokens).tolist() for judge in (proxy, gold)]
    return tuple((readable(words_of(row)), *both) for row, *both in zip(tokens, *scores, strict=True))


def same_draw(model: Transformer, count: int, config: PpoConfig, salt: int) -> Cards:
    """Answers to prompts that depend on the seed alone: the same prompts and random numbers, whoever answers."""
    rng = torch.Generator().manual_seed(1000 * config.seed + 500 + salt)
    return sample(model, prompts(count, rng), rng, config.temperature)


@experiment("Can a learned reward pull a language model towards your taste?")
def ppo(config: PpoConfig) -> Iterator[PpoStep]:
    """The reference answers; a reward model is trained; PPO, round by round; the same prompts again."""
    start, shown = same_draw(load_policy(), EVALUATED, config, 1), same_draw(load_policy(), SHOWN, config, 2)
    gold = gold_judge(config.rule, start.tokens)
    trainer, first_ratio = Ppo(config, judge=lambda tokens: torch.zeros(len(tokens))), 0.0  # nobody can say yet
    entropy = trainer.roll_out(start).mean_entropy
    yield PpoStep(
        0, config.clip, None, 0.0 if gold else None, 0.0, entropy, 0.0, before=answers(shown.tokens, None, gold)
    )
    trainer.judge = yield from with_pauses(
        proxy_judge(config, start), PpoStep(0, doing="training the reward model on the choices")
    )
    before, judge = trainer.roll_out(start), trainer.judge
    yield PpoStep(0, config.clip, before.mean_score, before=answers(shown.tokens, judge, gold))
    for step in range(1, config.steps + 1):
        for part in trainer.one_step(step):
            if part is None:
                yield PpoStep(step)
                continue
            first_ratio = part.first_ratio if step == 1 else first_ratio
            looks = part.looks if step in (1, (config.steps + 1) // 2) else ()  # where all is new, and halfway
            told = (
                f"step {step}: proxy {part.proxy:+.2f}, KL {part.kl_exact:.2f} nats per card, {part.clipped:.1%} of the"
                " words clipped"
            )
            score = mean_of(gold, part.tokens)
            yield PpoStep(
                step,
                config.clip,
                part.proxy,
                score,
                part.kl_exact,
                part.entropy,
                part.clipped,
                looks=looks,
                doing=told,
                diverged=not trainer.sound,
            )
        if not trainer.sound:
            return
        if step % max(1, config.steps // 12) == 0 or step == config.steps:
            yield PpoStep(step, now=answers(same_draw(trainer.actor.policy, SHOWN, config, 2).tokens, judge, gold))
    end = same_draw(trainer.actor.policy, EVALUATED, config, 1)
    yield PpoStep(config.steps, doing="judging the policy on new answers")
    after = trainer.roll_out(end)
    results = figures(config.rule, before, after, first_ratio)
    yield PpoStep(config.steps, figures=results, doing=f"done: proxy {after.mean_score:+.2f}")


def figures(rule: str, before: Rollout, after: Rollout, first_ratio: float) -> tuple[Result, ...]:
    """The reference and the policy on the same prompts."""
    kl, kl_exact = (float(each.sum(1).mean()) for each in (after.kl, after.kl_exact))
    figures = [PROXY(after.mean_score, 0.0), KL(kl, kl_exact), FIRST_RATIO(first_ratio, 0.0)]
    if rule in RULES:
        reference, policy = (float(gold_of(rollout.tokens, rule).mean()) for rollout in (before, after))
        figures.insert(1, GOLD(policy, reference))
    return tuple(figures)
