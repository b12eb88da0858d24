"""The lesson of the tab RLHF."""

from core.foundations.figures import Outcome, band
from core.foundations.lesson import Ask, Card, Lesson, Look
from core.rlhf.best import BEST_KL, BEST_KL_THREE, CAP
from core.rlhf.best import GOLD as BEST_GOLD
from core.rlhf.best import PROXY as BEST_PROXY
from core.rlhf.dpo import ACCURACY, TARGET_KL
from core.rlhf.dpo import GOLD as DPO_GOLD
from core.rlhf.grpo import KL as GRPO_KL
from core.rlhf.grpo import RIGHT, SILENT
from core.rlhf.hacking import GOLD_END, LARGE_BETA, PROXY_END
from core.rlhf.ppo import GOLD as PPO_GOLD
from core.rlhf.ppo import KL
from core.rlhf.ppo import PROXY as PPO_PROXY
from core.rlhf.preferences import CORRELATION, NEW, SEEN, UNREAD
from core.rlhf.reward import YOU
from core.rlhf.sft import COMMON, EVERYTHING, OF_EVERYTHING, SAME, STOPS, extent_of

TURNED = 0.3  # standard deviations that the true reward must lose from its peak


# --- preferences ------------------------------------------------------------------------------------------------------


def preferences_agreement(run: Outcome) -> str:
    new = run[NEW].measured
    verdict = "hardly better than a coin" if new < 60 else "clearly better than a coin" if new < 80 else "mostly right"
    seen = "choices left out of its training" if run.config.rule == YOU else "pairs it has never seen"
    return (
        f"The reward model agrees with {run[SEEN].measured:.0f} % of the choices it learned from and with {new:.0f} %"
        f" of {seen}: {verdict}."
    )


def preferences_language(run: Outcome) -> str:
    unread = run[UNREAD]
    gain = -unread.difference
    helps = gain > 2 and unread.expected > 55
    meaning = "so knowing which words keep company helps" if helps else "so knowing the words gains little here"
    return f"A model that can only tell words apart reaches {unread.measured:.0f} %, {meaning}."


def preferences_copy(run: Outcome) -> str:
    likeness = run[CORRELATION].measured
    meaning = "a close copy" if likeness > 0.9 else "only a rough copy" if likeness > 0.5 else "a poor copy"
    return f"Its reward is {meaning} of the hidden rule: their correlation is {likeness:.2f}."


# --- sft --------------------------------------------------------------------------------------------------------------


def sft_form(run: Outcome) -> str:
    stops = run[STOPS]
    if stops.difference > 10:
        meaning = "It has learned that an answer ends."
    elif stops.expected > 90:
        meaning = "It could do that before: it has been taught to answer."
    else:
        meaning = "It has not learned that an answer ends."
    return (
        f"Before training {stops.expected:.0f} % of its answers ended by themselves within"
        f" {extent_of(run.config).longest} tokens, after {run.config.steps} steps {stops.measured:.0f} %. {meaning}"
    )


def sft_knowledge(run: Outcome) -> str:
    common = run[COMMON]
    return (
        f"Of the questions it has never seen it answers {run[SAME].measured:.0f} % word for word as the manual does; it"
        f" shares {common.measured:.0f} % of the words (F1; {common.expected:.0f} % before). A few steps teach the form"
        " of an answer, not what is true: read them."
    )


def sft_counts(run: Outcome) -> str:
    every, trained = run[EVERYTHING], run[OF_EVERYTHING]
    better = "about as good" if abs(every.difference) < 0.1 else "better" if every.difference < 0 else "worse"
    return (
        f"With every token counted, the training loss was {trained.measured:.2f} instead of {trained.expected:.2f}, yet"
        f" the answers are {better}: {every.measured:.2f} against {every.expected:.2f} nats per token on new ones."
        " Losses over different tokens cannot be compared."
    )


# --- ppo --------------------------------------------------------------------------------------------------------------


def ppo_rewards(run: Outcome) -> str:
    proxy, gold = run[PPO_PROXY].measured, run[PPO_GOLD]
    gain = gold.difference
    verdict = "likes the new cards better, too" if gain > 0.1 else "does not like the new cards better"
    return (
        f"The learned reward went from 0 to {proxy:+.1f} standard deviations. The true rule {verdict}: its points went"
        f" from {gold.expected:+.2f} to {gold.measured:+.2f}."
    )


def ppo_yours(run: Outcome) -> str:
    if run.config.rule != YOU:
        return ""
    return (
        f"The reward learned from your clicks went from 0 to {run[PPO_PROXY].measured:+.1f} standard deviations;"
        " whether the cards are better, only you can judge."
    )


def ppo_distance(run: Outcome) -> str:
    exact = run[KL].expected
    return (
        f"For that the policy moved {exact:.1f} nats per card away from the reference; beta = {run.config.beta:g} is"
        " the price of that distance."
    )


# --- hacking ----------------------------------------------------------------------------------------------------------


def hacking_turn(run: Outcome) -> str:
    if GOLD_END not in run:
        return hacking_yours(run)
    gold, proxy = run[GOLD_END], run[PROXY_END]
    rose = "rose" if proxy.difference > 0.1 else "fell" if proxy.difference < -0.1 else "hardly changed"
    if gold.difference < -TURNED:
        turn = (
            f"The true reward peaked at {gold.expected:+.1f} and ended at {gold.measured:+.1f}; meanwhile the learned"
            f" one {rose}, from {proxy.expected:+.1f} to {proxy.measured:+.1f}"
        )
        return f"{turn}: the policy found mistakes of the reward model." if rose == "rose" else f"{turn}."
    return (
        f"In this run the true reward did not turn over: it ended at {gold.measured:+.1f}, near its peak of"
        f" {gold.expected:+.1f}, and the learned one at {proxy.measured:+.1f}."
    )


def hacking_yours(run: Outcome) -> str:
    return (
        f"The reward learned from your clicks went from {run[PROXY_END].expected:+.1f} to"
        f" {run[PROXY_END].measured:+.1f}. It looks like success; read the cards to see whether it is."
    )


def hacking_penalty(run: Outcome) -> str:
    large = run[LARGE_BETA.of(beta=f"{max(run.config.betas):g}")]
    way = "higher than" if large.difference > 0.2 else "lower than" if large.difference < -0.2 else "about the same as"
    return (
        f"With beta {max(run.config.betas):g} the true reward ended at {large.measured:+.1f}, {way} that of the run"
        f" with beta {min(run.config.betas):g} when it was as far from the reference ({large.expected:+.1f})."
    )


def hacking_story(run: Outcome) -> str:
    story = getattr(run.last, "story", ())
    changed = story[1] if len(story) > 1 else ""
    return f"What changed most in the cards: {changed}" if any(symbol.isdigit() for symbol in changed) else ""


# --- grpo -------------------------------------------------------------------------------------------------------------


def grpo_right(run: Outcome) -> str:
    share = run[RIGHT]
    learned = "It has learned the task" if share.measured > 90 else "It has learned part of it"
    learned = learned if share.difference > 10 else "It has hardly learned anything"
    return (
        f"{learned}: {share.measured:.0f} % of its cards are right, where the reference's were {share.expected:.0f} %."
        " Nobody clicked, and no reward model was trained: a program said right or wrong."
    )


def grpo_silent(run: Outcome) -> str:
    silent = run[SILENT]
    meaning = "so it learned from fewer and fewer of them" if silent.difference > 10 else "so most still taught it"
    return (
        f"At the start {silent.expected:.0f} % of the groups were all right or all wrong, at the end"
        f" {silent.measured:.0f} %: such a group pushes nothing, {meaning}."
    )


def grpo_distance(run: Outcome) -> str:
    kl = run[GRPO_KL]
    return (
        f"It moved {kl.expected:.1f} nats per card away from the reference. k3 estimates that from the drawn words"
        f" alone, right on average: here it says {kl.measured:.1f}."
    )


# --- best of n --------------------------------------------------------------------------------------------------------


def best_rewards(run: Outcome) -> str:
    proxy, n = run[BEST_PROXY].measured, run.config.most_n
    chosen = f"The best of {n} earns {proxy:+.1f} standard deviations of the learned reward, without any training"
    if run.config.rule == YOU:
        return f"{chosen}. Read the cards to see whether you like them better."
    gold = run[BEST_GOLD].measured
    share = "about as much" if gold > 0.8 * proxy else "less" if gold > 0 else "nothing"
    return f"{chosen}, and {gold:+.1f} of the true one: {share} of what the reward model promised."


def best_distance(run: Outcome) -> str:
    kl = run[BEST_KL]
    return (
        f"That is {kl.measured:.2f} nats from the reference; ln n - (n-1)/n says {kl.expected:.2f}, whatever is"
        " rewarded."
    )


def best_few(run: Outcome) -> str:
    return (
        f"Where there are only three answers, the formula's {run[BEST_KL_THREE].expected:.2f} nats are an upper bound:"
        f" it is {run[BEST_KL_THREE].measured:.2f}, and can never be more than {run[CAP].measured:.2f}."
    )


# --- dpo --------------------------------------------------------------------------------------------------------------


def dpo_accuracy(run: Outcome) -> str:
    accuracy = run[ACCURACY].measured
    verdict = "clearly better than a guess" if accuracy > 60 else "hardly better than a guess"
    return (
        f"Without any reward model, the policy itself ranks {accuracy:.0f} % of unseen pairs the right way round:"
        f" {verdict}."
    )


def dpo_rewards(run: Outcome) -> str:
    gold = run[DPO_GOLD]
    way = "more than" if gold.difference > 0.1 else "less than" if gold.difference < -0.1 else "about as much as"
    return (
        f"The rule gives DPO's cards {gold.measured:+.2f} standard deviations, {way} the best of n at the same distance"
        f" from the reference ({gold.expected:+.2f})."
    )


def dpo_target(run: Outcome) -> str:
    kl = run[TARGET_KL]
    verdict = "DPO has arrived there" if abs(kl.ratio - 1) < 0.1 else "DPO has not arrived there yet"
    return (
        f"With three answers the best policy is known exactly: {kl.expected:.3f} nats from the reference. {verdict}"
        f" ({kl.measured:.3f})."
    )


def hacking_because(run: Outcome) -> str:
    gold, proxy = run[GOLD_END], run[PROXY_END]
    return (
        f"At its peak the true reward was {gold.expected:+.1f} and at the end {gold.measured:+.1f} standard deviations"
        f" from the reference's; meanwhile the learned one went from {proxy.expected:+.1f} to {proxy.measured:+.1f}."
    )


def hacking_right(run: Outcome) -> int:
    """0: still near its peak, 1: fallen, but above the start, 2: below the start."""
    gold = run[GOLD_END]
    return 0 if gold.difference > -TURNED else 1 if gold.measured > 0 else 2


LESSON = Lesson(
    question="How does a model learn what people like?",
    idea=(
        "Nobody can write down what makes a good answer, but anybody can say which of two is better. From such choices"
        " a reward model learns to give answers points. Then the language model, called the policy, is trained to earn"
        " points without moving far from where it began. Here everything happens on short postcards, and the taste is"
        " yours or that of a hidden rule."
    ),
    formula=(
        r"\max_\pi \; \mathbb{E}_{y \sim \pi}[r(y)] - \beta\, \mathrm{KL}(\pi \,\|\, \pi_\mathrm{ref}), \qquad"
        r" p(\text{won}) = \sigma(r(\text{won}) - r(\text{lost}))"
    ),
    experiments=(
        Card(
            "preferences",
            "Teach it your taste by clicks",
            "start",
            4,
            "pairs of postcards and a reward model",
            (preferences_agreement, preferences_language, preferences_copy),
            ("rlhf.reward", "rlhf.postcards", "rlhf.policy"),
        ),
        Card(
            "sft",
            "Teach it to answer, and to stop",
            "start",
            20,
            "questions out of Python's manual; the small base or SmolLM2",
            (sft_form, sft_knowledge, sft_counts),
            ("rlhf.questions", "foundations.base_model"),
        ),
        Card(
            "ppo",
            "Train the writer on the learned reward",
            "deeper",
            8,
            "PPO, word by word",
            (ppo_rewards, ppo_yours, ppo_distance),
            ("rlhf.ppo_parts", "rlhf.policy", "rlhf.reward", "rlhf.postcards"),
        ),
        Card(
            "hacking",
            "Watch it cheat the reward model",
            "deeper",
            12,
            "three penalties, and the true reward beside the learned one",
            (hacking_turn, hacking_penalty, hacking_story),
            ("rlhf.ppo", "rlhf.reward", "rlhf.postcards"),
        ),
        Card(
            "grpo",
            "Let a program check the answers",
            "deeper",
            13,
            "groups of answers, right or wrong, and no critic",
            (grpo_right, grpo_silent, grpo_distance),
            ("rlhf.ppo_parts", "rlhf.policy", "rlhf.postcards"),
        ),
        Card(
            "best",
            "Keep the best of many answers",
            "deeper",
            5,
            "a reward model chooses, and nothing is trained",
            (best_rewards, best_distance, best_few),
            ("rlhf.best_of_n", "rlhf.answers", "rlhf.reward", "rlhf.policy"),
        ),
        Card(
            "dpo",
            "Learn from the choices directly",
            "expert",
            8,
            "DPO, without a reward model, beside the best of n",
            (dpo_accuracy, dpo_rewards, dpo_target),
            ("rlhf.answers", "rlhf.best_of_n", "rlhf.reward", "rlhf.policy"),
        ),
    ),
    steps=(
        Look(
            "Three steps: a model learns to write cards, a reward model learns from choices, and the policy learns from"
            " the reward model.",
            "diagram",
        ),
        Ask(
            "Before there is anything to choose from, a model must learn to answer at all. This one learns 500"
            " questions with answers out of Python's manual. How many new questions will it answer word for word as the"
            " manual does?",
            "sft",
            {},
            ("hardly any: less than a tenth", "a tenth to a half", "more than half"),
            lambda run: band(run[SAME].measured, 10, 50),
            lambda run: (
                f"It answers {run[SAME].measured:.0f} % of them as the manual does, yet {run[STOPS].measured:.0f} % of"
                f" its answers end by themselves, where {run[STOPS].expected:.0f} % did. The form is learned first."
            ),
        ),
        Look(
            "Two cards, one question: which do you like better? Click it, six times over, and a model learns your"
            " taste. If you do not click, a simulated person who likes cheerful cards chooses.",
            "pairs",
            "preferences",
        ),
        Ask(
            "40 choices between two cards: how often is the reward model right about pairs it has not seen?",
            "preferences",
            {"rule": "cheerful", "asked": 40},
            ("under 60 %, hardly better than a coin", "60 to 80 %", "over 80 %"),
            lambda run: band(run[NEW], 60, 80),
            lambda run: (
                f"It is right about {run[NEW].measured:.0f} % of new pairs; a model that can only tell words apart,"
                f" about {run[UNREAD].measured:.0f} % with the same choices."
            ),
        ),
        Ask(
            "The policy is trained on a reward model that learned from 40 choices. Will the rule itself like the new"
            " cards better?",
            "ppo",
            {"rule": "cheerful", "pairs": 40},
            ("hardly: by less than 0.4 points", "yes, by 0.4 to 1.2 points", "yes, by more than 1.2 points"),
            lambda run: band(run[PPO_GOLD].difference, 0.4, 1.2),
            lambda run: (
                f"The rule gave the reference's cards {run[PPO_GOLD].expected:+.2f} points on average, and gives the"
                f" new policy's {run[PPO_GOLD].measured:+.2f}."
            ),
        ),
        Ask(
            "With almost no penalty for moving away, the learned reward rises to the end. What does the true one do?",
            "hacking",
            {"rule": "cheerful"},
            (
                "it rises as well",
                "it falls from its peak, but stays above where it began",
                "it falls below where it began",
            ),
            hacking_right,
            hacking_because,
        ),
        Look("Read the cards of the end: this is how it cheats.", "now", "hacking"),
        Ask(
            "Where a program can check the answer, no reward model can be cheated. Here it asks for exactly two words"
            " of the sea. GRPO compares eight answers to the same prompt with each other. At the end, when nearly all"
            " are right: how many groups still teach it something?",
            "grpo",
            {},
            ("under a third", "a third to four fifths", "more than four fifths"),
            lambda run: band(100 - run[SILENT].measured, 100 / 3, 80),
            lambda run: (
                f"In the last three steps {100 - run[SILENT].measured:.0f} % of the groups held both right and wrong"
                f" answers, in the first three {100 - run[SILENT].expected:.0f} %. Where all are alike, none is better"
                f" than its group. Of its cards {run[RIGHT].measured:.0f} % are right now, {run[RIGHT].expected:.0f} %"
                " were."
            ),
        ),
    ),
)
