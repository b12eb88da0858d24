r"""GRPO: groups of answers to the same prompt, compared with each other; a program says which are right.

Some tasks need neither clicks nor a reward model: a program can check the answer (a number, a proof, code that passes
its tests). Here it checks a postcard: exactly two words of the sea, say, and an end. The reward $r$ is 1 or 0.

PPO needs a second network, the critic, to know what was to be expected. GRPO asks the policy itself: it writes $G$
answers to the same prompt, and an answer is as good as it is better than the others of its group,

$$A_i = \frac{r_i - \text{mean}(r_1 \ldots r_G)}{\text{std}(r_1 \ldots r_G)}.$$

Every word of answer $i$ gets this $A_i$. Where all answers of a group are right, or all wrong, every $A_i$ is 0: such a
group teaches nothing. The objective is PPO's, with the clip, and the distance from the reference in it as k3, which is
never below 0 and right on average:

$$J = \frac{1}{G}\sum_i \frac{1}{|o_i|} \sum_t \Big( \min\big(\rho A_i,\ \mathrm{clip}(\rho, 1 \pm \varepsilon)
A_i\big) - \beta\, k_3 \Big), \qquad k_3 = \frac{\pi_{ref}}{\pi} - \ln\frac{\pi_{ref}}{\pi} - 1.$$

Two of its divisions are disputed. By $|o_i|$, a long wrong answer is pushed down less per word than a short one; by the
std, groups that are nearly all right or nearly all wrong count more than those in the middle. Dr. GRPO leaves out both:
$A_i = r_i - \text{mean}$, and every answer's sum is divided by the same number, the longest length. The last picture
puts one group through both, and through PPO's whitening.

Code -> paper: `group` -> G, `advantages` -> A-hat, `k3` -> equation 4, `objective` -> equation 3.
Left out: asking again where a group has no signal (DAPO, section 3.2), a clip that is wider above, several turns.
Source: Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300, section 4.1, equations 3 and 4; Liu et al. 2025 (Dr. GRPO),
arXiv:2503.20783, section 3; Guo et al. 2025 (DeepSeek-R1), arXiv:2501.12948, section 2.2 (rewards by rules); Schulman
2020, joschu.net/blog/kl-approx.html (k3); Yu et al. 2025 (DAPO), arXiv:2503.14476.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.foundations.experiment import Config, Step, experiment, setting
from core.foundations.figures import Figure, Result
from core.foundations.settings import seed_field
from core.foundations.transformer import Transformer
from core.rlhf.policy import Cards, load_policy, prompts, sample
from core.rlhf.postcards import FAREWELLS, LENGTH, MARKS, PROMPT, SEA, readable, words_of
from core.rlhf.ppo import ADAM_EPSILON, MOST_GRADIENT, Look, looked
from core.rlhf.ppo_parts import clipped_objective, exact_kl, is_clipped, whitened

LONGEST = LENGTH - PROMPT  # words of an answer, its end included
STD_FLOOR = 1e-4  # added to a group's std, so that a group without signal gives 0 and not 0 / 0
EVALUATED = 160  # answers for the figures
SHOWN = 6  # prompts whose answers are shown before and after


def ended(words: Sequence[str]) -> bool:
    return bool(words) and words[-1] in (".", "!") and len(words) < LENGTH - 1


def said(words: Sequence[str]) -> list[str]:
    """The words after the prompt, without marks."""
    return [word for word in words[PROMPT - 1 :] if word not in MARKS]


TASKS: dict[str, tuple[str, Callable[[list[str]], bool]]] = {
    "sea": ("exactly two words of the sea, and an end", lambda words: sum(w in SEA for w in said(words)) == 2),
    "short": ("at most six words, and an end", lambda words: len(said(words)) <= 6),
    "farewell": ("a farewell, and nothing said twice but “the”", lambda words: parting(words) and not again(words)),
}
METHODS = {"grpo": "GRPO", "dr": "Dr. GRPO: no division by length and std"}
SIDES = ("PPO's whitening", "GRPO", "Dr. GRPO")

RIGHT = Figure("right answers after training", "%", "baseline", "the reference, on the same prompts", headline=True)
SILENT = Figure("groups without signal, last three steps", "%", "baseline", "in the first three steps", headline=True)
KL = Figure(
    "KL to the reference, k3", "nats per card", "theory", "exact; k3, on the words drawn, is that on average",
    headline=True,
)  # fmt: skip
BELOW = Figure("words whose k3 is below 0", "words", "theory", "x - ln x - 1 is never below 0")
K1_BELOW = Figure("words whose plain estimate ln(pi / pi_ref) is below 0", "%")


def again(words: Sequence[str]) -> bool:
    counted = [word for word in said(words) if word != "the"]
    return len(set(counted)) < len(counted)


def parting(words: Sequence[str]) -> bool:
    return any(tuple(words[-1 - len(line) : -1]) == line for line in FAREWELLS)


def right(words: list[str], task: str) -> bool:
    """What the program says of a card."""
    return ended(words) and TASKS[task][1](words)


@dataclass(frozen=True)
class GrpoConfig(Config):
    """The task, the size of the groups, and how far each update goes."""

    task: str = setting(
        "sea",
        "What the program checks",
        choices={name: what for name, (what, _) in TASKS.items()},
        help="A card is right or wrong; there is nothing in between.",
    )
    group: int = setting(
        8,
        "Answers in a group",
        unit="answer",
        low=2,
        high=32,
        slider=True,
        help="Answers to the same prompt, compared with each other. In a larger group one is more often right.",
    )
    method: str = setting(
        "grpo", "Method", choices=METHODS, help="What an answer's reward is divided by before it pushes its words."
    )
    beta: float = setting(
        0.04,
        "Beta (KL penalty)",
        low=0.0,
        high=2.0,
        help="Higher keeps the policy closer to the reference.",
        slider=True,
    )
    steps: int = setting(
        30, "Steps", unit="step", low=1, high=1000, help="Rounds of answers and updates; each takes time."
    )
    questions: int = setting(
        8,
        "Prompts per step",
        unit="prompt",
        low=1,
        high=64,
        more=True,
        help="Each gets a group of answers; more prompts make the updates steadier.",
    )
    epochs: int = setting(
        3,
        "Epochs per step",
        unit="epoch",
        low=1,
        high=16,
        more=True,
        slider=True,
        help="How often the same answers are learned from, in one step.",
    )
    clip: float = setting(
        0.2,
        "Clip",
        low=0.01,
        high=1.0,
        more=True,
        slider=True,
        help="How far a word's probability may move in one step before its gradient becomes 0.",
    )
    learning_rate: float = setting(
        0.003, "Learning rate", low=1e-6, high=0.1, more=True, help="Higher makes each update larger."
    )
    seed: int = seed_field()

    def check(self) -> None:
        if self.group * self.questions > 512:
            raise ValueError(
                "group x questions must be at most 512 answers per step, got"
                f" {self.group} x {self.questions} = {self.group * self.questions}"
            )


# --- the method -------------------------------------------------------------------------------------------------------


def advantages(rewards: Float[Tensor, "Q G"], method: str) -> Float[Tensor, "Q G"]:
    """How much better each answer is than the others of its group."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + STD_FLOOR) if method == "grpo" else centred


def k3(log_p: Float[Tensor, "N S"], log_ref: Float[Tensor, "N S"]) -> Float[Tensor, "N S"]:
    """An estimate of KL(pi || pi_ref) at each drawn word: never below 0, right on average."""
    log_ratio = log_ref - log_p
    return log_ratio.exp() - log_ratio - 1


def objective(
    log_p: Float[Tensor, "N S"],
    old: Float[Tensor, "N S"],
    log_ref: Float[Tensor, "N S"],
    advantage: Float[Tensor, "N"],
    mask: Bool[Tensor, "N S"],
    config: GrpoConfig,
) -> Tensor:
    """What is made large: the mean over answers of each one's mean over its words; Dr. GRPO: of each one's sum."""
    ratio = ((log_p - old) * mask).exp()
    words = clipped_objective(ratio, advantage[:, None], config.clip) - config.beta * k3(log_p, log_ref)
    lengths = mask.sum(1) if config.method == "grpo" else torch.full((len(mask),), LONGEST)
    return ((words * mask).sum(1) / lengths).mean()


def pushes(rewards: Float[Tensor, "Q G"], mask: Bool[Tensor, "N S"]) -> Float[Tensor, "3 N"]:
    """The gradient of the objective by ln p of any one word of each answer, at ratio 1 and without the penalty, times
    the number of words in the batch: by PPO's whitening (its critic still at 0), by GRPO, by Dr. GRPO.
    """
    words, lengths = mask.sum(), mask.sum(1)
    ppo = whitened(rewards.flatten()[:, None] * mask, mask).gather(1, mask.long().argmax(1, keepdim=True))[:, 0]
    each = words / len(mask)
    return torch.stack(
        (
            ppo,
            advantages(rewards, "grpo").flatten() * each / lengths,
            advantages(rewards, "dr").flatten() * each / LONGEST,
        )
    )


@dataclass(frozen=True)
class Batch:
    """Groups of answers with what was known when they were written; S = T-1 places, each before its word."""

    tokens: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N S"]
    log_p: Float[Tensor, "N S"]  # of the drawn words, under the policy that drew them
    log_ref: Float[Tensor, "N S"]  # ... and under the reference
    kl: Float[Tensor, "N S"]  # exact
    rewards: Float[Tensor, "Q G"]

    @property
    def silent(self) -> float:
        """The fraction of groups whose answers are all right or all wrong."""
        return float((self.rewards.amax(1) == self.rewards.amin(1)).float().mean())


class Grpo:
    """A policy in training against a program."""

    def __init__(self, config: GrpoConfig) -> None:
        self.config, self.rng = config, torch.Generator().manual_seed(config.seed)
        self.reference, self.policy = load_policy().requires_grad_(False), load_policy()
        self.optimizer = torch.optim.Adam(self.policy.parameters(), config.learning_rate, eps=ADAM_EPSILON)

    @property
    def sound(self) -> bool:
        """Whether all weights are numbers still."""
        return all(bool(weight.isfinite().all()) for weight in self.policy.parameters())

    def write(self, questions: Int[Tensor, "Q P"], group: int, rng: torch.Generator) -> Cards:
        """`group` answers to each prompt."""
        return sample(self.policy, questions.repeat_interleave(group, 0), rng)

    @torch.no_grad()
    def checked(self, cards: Cards, group: int) -> Batch:
        """The program's rewards, and how probable each word was."""
        longest = int(cards.mask.any(0).nonzero().max()) + 1  # nobody wrote beyond that place
        tokens, mask = cards.tokens[:, :longest], cards.mask[:, 1:longest]
        all_p, all_q = (distribution(model, tokens) for model in (self.policy, self.reference))
        rewards = torch.tensor([float(right(words_of(row), self.config.task)) for row in cards.tokens])
        kl = exact_kl(all_p, all_q) * mask
        return Batch(tokens, mask, drawn(all_p, tokens), drawn(all_q, tokens), kl, rewards.view(-1, group))

    def learn(self, batch: Batch) -> Float[Tensor, "N S"]:
        """One update. Gives each word's ratio before it."""
        log_p = drawn(distribution(self.policy, batch.tokens), batch.tokens)
        advantage = advantages(batch.rewards, self.config.method).flatten()
        gain = objective(log_p, batch.log_p, batch.log_ref, advantage, batch.mask, self.config)
        self.optimizer.zero_grad()
        (-gain).backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), MOST_GRADIENT)
        self.optimizer.step()
        return ((log_p.detach() - batch.log_p) * batch.mask).exp()


def distribution(model: Transformer, tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N S V"]:
    """ln of each next word's probability, at each place before a word."""
    return F.log_softmax(model(tokens[:, :-1]), -1)


def drawn(log_p: Float[Tensor, "N S V"], tokens: Int[Tensor, "N T"]) -> Float[Tensor, "N S"]:
    return log_p.gather(2, tokens[:, 1:, None])[..., 0]


# --- the experiment ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """One answer of a group: its card, what the program says, and the push on each of its words in three ways."""

    card: str
    reward: float
    words: int
    advantage: float
    pushes: tuple[float, ...] = ()  # in the order of `SIDES`
    looks: tuple[Look, ...] = ()  # its words, right before an update


@dataclass(frozen=True)
class GrpoStep(Step):
    """One part of a step; what was not measured in it is None."""

    step: int
    clip: float = 0.0
    right: float | None = None  # fraction of the step's answers
    silent: float | None = None  # fraction of its groups without signal
    kl: float | None = None  # nats per card, exact
    k3: float | None = None  # ... estimated
    clipped: float | None = None  # fraction of words
    before: tuple[tuple[str, bool], ...] = ()
    now: tuple[tuple[str, bool], ...] = ()
    group: tuple[Answer, ...] = ()  # one group, looked at closely
    mean: float = 0.0  # of that group's rewards
    std: float = 0.0


def same_draw(trainer: Grpo, count: int, salt: int) -> Cards:
    """Answers to prompts that depend on the seed alone."""
    rng = torch.Generator().manual_seed(1000 * trainer.config.seed + 700 + salt)
    return trainer.write(prompts(count, rng), 1, rng)


def shown(trainer: Grpo) -> tuple[tuple[str, bool], ...]:
    """Answers to the same few prompts, and whether each is right."""
    cards = [words_of(row) for row in same_draw(trainer, SHOWN, 2).tokens]
    return tuple((readable(words), right(words, trainer.config.task)) for words in cards)


def closely(batch: Batch, ratio: Float[Tensor, "N S"], config: GrpoConfig) -> tuple[tuple[Answer, ...], float, float]:
    """The group with the most signal: its answers, the mean and the std of their rewards."""
    number = int(batch.rewards.std(1).argmax())
    rewards = batch.rewards[number]
    every, push = advantages(batch.rewards, config.method).flatten(), pushes(batch.rewards, batch.mask)
    answers = []
    for at in range(number * len(rewards), (number + 1) * len(rewards)):
        mask = batch.mask[at]
        looks = looked(batch.tokens[at], mask, ratio[at], every[at].expand(len(mask)), config.clip)
        card = readable(words_of(batch.tokens[at]))
        side = tuple(round(float(p), 4) for p in push[:, at])
        answers.append(Answer(card, float(batch.rewards.flatten()[at]), int(mask.sum()), float(every[at]), side, looks))
    return tuple(answers), float(rewards.mean()), float(rewards.std())


@experiment("Can a policy learn from a program that only says right or wrong?")
def grpo(config: GrpoConfig) -> Iterator[GrpoStep]:
    """The reference answers; then GRPO, step by step; the same prompts again."""
    trainer = Grpo(config)
    first = shown(trainer)
    yield GrpoStep(0, config.clip, before=first, now=first)
    start = trainer.checked(same_draw(trainer, EVALUATED, 1), 1)
    share = float(start.rewards.mean())
    yield GrpoStep(0, config.clip, share, doing=f"the reference is right in {share:.0%} of its cards")
    silent, group = list[float](), tuple[Answer, ...]()
    for step in range(1, config.steps + 1):
        # groups of answers, and what the program says of them
        trainer.optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - (step - 1) / config.steps)
        cards = trainer.write(prompts(config.questions, trainer.rng), config.group, trainer.rng)
        yield GrpoStep(step)
        batch, clipped = trainer.checked(cards, config.group), list[Tensor]()
        silent.append(batch.silent)
        yield GrpoStep(step)
        # a few updates from the same answers
        advantage = advantages(batch.rewards, config.method).flatten()[:, None]
        for _ in range(config.epochs):
            ratio = trainer.learn(batch)
            clipped.append(is_clipped(ratio, advantage, config.clip)[batch.mask].float().mean())
            yield GrpoStep(step)
        looks = step in (1, (config.steps + 1) // 2) and batch.silent < 1
        group, mean, std = closely(batch, ratio, config) if looks else ((), 0.0, 0.0)
        share, estimate = float(batch.rewards.mean()), k3(batch.log_p, batch.log_ref) * batch.mask
        yield GrpoStep(
            step,
            config.clip,
            share,
            batch.silent,
            float(batch.kl.sum(1).mean()),
            float(estimate.sum(1).mean()),
            float(torch.stack(clipped).mean()),
            group=group,
            mean=mean,
            std=std,
            diverged=not trainer.sound,
            doing=f"step {step}: {share:.0%} right, {batch.silent:.0%} of the groups without signal",
        )
        if not trainer.sound:
            return
        if step % max(1, config.steps // 12) == 0 or step == config.steps:
            yield GrpoStep(step, now=shown(trainer))
    yield GrpoStep(config.steps, doing="the same prompts again")
    end = trainer.checked(same_draw(trainer, EVALUATED, 1), 1)
    yield GrpoStep(
        config.steps, figures=figures(start, end, silent), doing=f"done: {float(end.rewards.mean()):.0%} right"
    )


def figures(start: Batch, end: Batch, silent: list[float]) -> tuple[Result, ...]:
    """The reference and the policy on the same prompts, and the estimator beside the exact distance."""
    estimate = k3(end.log_p, end.log_ref)[end.mask]
    plain = (end.log_p - end.log_ref)[end.mask]
    last = silent[-3:]
    return (
        RIGHT(100 * float(end.rewards.mean()), 100 * float(start.rewards.mean())),
        SILENT(100 * sum(last) / len(last), 100 * sum(silent[:3]) / len(silent[:3])),
        KL(float(estimate.sum()) / len(end.mask), float(end.kl.sum(1).mean())),
        BELOW(float((estimate < -1e-6).sum()), 0.0),
        K1_BELOW(100 * float((plain < 0).float().mean())),
    )
