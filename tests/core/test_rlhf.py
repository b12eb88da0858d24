"""RLHF: the world of postcards, the policy that writes them, choices, the reward model, the experiment
`preferences`.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from core.foundations.recorder import Recorder, drain
from core.foundations.turns import without_pauses
from core.rlhf.policy import Cards, answer_mask, card_log_probs, evaluated, load_policy, log_probs, prompts, sample
from core.rlhf.postcards import (
    CHEERFUL,
    END,
    GLOOMY,
    LENGTH,
    MOOD,
    MOST_POINTS,
    NUMBER,
    PROMPT,
    RULES,
    WORDS,
    Draws,
    gold,
    postcard,
    tokens_of,
    words_of,
)
from core.rlhf.preferences import (
    CORRELATION,
    FAR,
    FIRST_LOSS,
    NEW,
    ONE_OUT,
    SEEN,
    UNREAD,
    PreferencesConfig,
    agreement,
    effects_of,
    left_out,
    preferences,
    share_right,
)
from core.rlhf.reward import (
    PAIRS,
    YOU,
    RewardModel,
    TasteConfig,
    bradley_terry_loss,
    choices,
    choosing,
    labels,
    of,
    pairs,
    picked,
    reference_cards,
    text_of,
    train_reward,
    trained_reward,
)

rules = pytest.mark.parametrize("rule", RULES)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def said(text):
    return text.split(" ")


# --- the world --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_every_card_fits_and_ends(seed):
    words, surprise = postcard(rng(seed))
    assert len(words) <= LENGTH and words.count("<end>") == 1 and set(words) <= set(WORDS)
    assert surprise > math.log(18), "the greeting and the name alone are one of 18"
    assert words_of(tokens_of([words])[0]) == words[1:-1]


@given(st.integers(0, 200))
def test_nobody_is_told_the_mood(seed):
    """The surprisal is that of somebody who knows the grammar and not the mood: the moods' chances are added up."""
    draws = Draws(rng(seed))
    same = draws.cheerful() == draws.cheerful()
    assert draws.surprisal == pytest.approx(-math.log((MOOD**2 + (1 - MOOD) ** 2) / 2 if same else MOOD * (1 - MOOD)))


@given(st.integers(0, 200), st.sampled_from(sorted(RULES)))
def test_a_rule_values_a_word_once_and_nobody_likes_repetition(seed, rule):
    words = words_of(tokens_of([postcard(rng(seed))[0]])[0])
    wanted = max(RULES[rule].points, key=lambda word: RULES[rule].points[word])
    once, often = [*words[:-1], wanted, words[-1]], [*words[:-1], *[wanted] * 4, words[-1]]
    assert gold(once, rule) <= gold(words, rule) + RULES[rule].points[wanted]
    assert gold(often, rule) < gold(once, rule)
    assert gold(words, rule) <= MOST_POINTS


def test_the_rules_by_hand():
    card = said("dear anna , the sea is calm and the boat is sunny . thank you for everything !")
    assert {rule: gold(card, rule) for rule in RULES} == {"cheerful": 2.0, "gloomy": -2.0, "sailor": 2.0, "polite": 2.5}
    assert gold(card[:-1], "cheerful") == 0.0, "no end: two points less"
    assert gold([*card[:-1], *CHEERFUL, "."], "cheerful") == MOST_POINTS
    assert gold([*card[:-1], "sunny", "sunny", "."], "cheerful") == 0.0, "a third time, and twice in a row"


# --- the policy -------------------------------------------------------------------------------------------------------


def test_the_shipped_policy_writes_like_the_grammar():
    surprise, floor = evaluated(load_policy(), 400, 1)
    assert 0 < surprise - floor < 0.02


def test_the_shipped_policy_knows_the_moods():
    """No list was shown to it; in its embedding cheerful words are more like each other than like gloomy ones."""
    rows = F.normalize(F.layer_norm(load_policy().embed.weight.detach(), (64,)), dim=1)
    bright, dull = (rows[[NUMBER[word] for word in some]] for some in (CHEERFUL, GLOOMY))
    for k, word in enumerate(CHEERFUL):
        others = torch.cat([bright[:k], bright[k + 1 :]])
        assert (others @ bright[k]).mean() > (dull @ bright[k]).mean() + 0.05, word


def test_a_sampled_answer_has_the_probability_it_was_drawn_with():
    """Sampling keeps a cache of the past; log_probs reads the whole card at once."""
    model, asked = load_policy().requires_grad_(False), prompts(6, rng())
    cards = sample(model, asked, rng(1))
    assert torch.equal(cards.tokens[:, :PROMPT], asked)
    whole = log_probs(model, cards.tokens)
    for row, mask, total in zip(cards.tokens, cards.mask, card_log_probs(model, cards), strict=True):
        by_hand = sum(float(F.log_softmax(model(row[None, :at])[0, -1], -1)[row[at]]) for at in mask.nonzero()[:, 0])
        assert by_hand == pytest.approx(float(total), abs=1e-3)
    assert whole.shape == cards.tokens.shape and (whole[:, 0] == 0).all()


def test_the_mask_is_the_answer_with_its_end():
    row = tokens_of([said("<start> dear anna , i love the sea . <end>")])
    assert answer_mask(row)[0].nonzero()[:, 0].tolist() == list(range(PROMPT, 10)) and row[0, 9] == END


# --- choices ----------------------------------------------------------------------------------------------------------


def test_a_longer_list_begins_with_the_shorter_one():
    short, long = pairs(5, 3), pairs(60, 3)
    for a, b in zip(short, long, strict=True):
        assert torch.equal(a.tokens, b.tokens[:5]) and torch.equal(a.mask, b.mask[:5])
    first, second = long
    assert (first.tokens != second.tokens).any(1).all() and torch.equal(
        first.tokens[:, :PROMPT], second.tokens[:, :PROMPT]
    )
    assert not torch.equal(pairs(5, 4)[0].tokens, short[0].tokens)


def test_without_chance_there_is_no_pair(refusal):
    assert "temperature must be higher" in refusal(pairs, 3, 0, 0.0)


@rules
def test_a_rule_chooses_what_it_likes_better(rule):
    chosen = choices(TasteConfig(rule=rule))
    assert len(chosen) == PAIRS
    for won, lost in zip(chosen.won.tokens, chosen.lost.tokens, strict=True):
        assert gold(words_of(won), rule) > gold(words_of(lost), rule)


@rules
def test_who_clicks_like_a_rule_teaches_the_same(rule):
    """Your clicks and a rule's choices go the same way: equal letters, equal rows."""
    first, second = pairs(PAIRS, 7)
    better = labels(TasteConfig(rule=rule, seed=7), first, second)
    yours = choices(TasteConfig(rule=YOU, clicks="".join("a" if one else "b" for one in better), seed=7))
    theirs = choices(TasteConfig(rule=rule, seed=7))
    decided = [
        gold(words_of(a), rule) != gold(words_of(b), rule) for a, b in zip(first.tokens, second.tokens, strict=True)
    ]
    rows = torch.tensor(decided)
    assert torch.equal(yours.won.tokens[rows], theirs.won.tokens[: sum(decided)])
    assert torch.equal(yours.lost.tokens[rows], theirs.lost.tokens[: sum(decided)])


def test_there_are_as_many_labels_as_clicks():
    first, second = pairs(PAIRS, 0)
    assert labels(TasteConfig(rule=YOU, clicks="abb"), first, second).tolist() == [True, False, False]
    assert len(choices(TasteConfig(rule=YOU, clicks="abb"))) == 3


@pytest.mark.parametrize(
    ("clicks", "words"),
    [("abc", "letters a and b only"), ("ab a", "letters a and b only"), ("a" * 41, "at most 40"), ("😀", "letters a")],
)
def test_bad_clicks_get_one_sentence(clicks, words, refusal):
    assert words in refusal(TasteConfig, rule=YOU, clicks=clicks)


@pytest.mark.parametrize(("clicks", "got"), [("", "none"), ("a", "one")])
def test_one_preference_is_not_enough(clicks, got, refusal):
    config = PreferencesConfig(rule=YOU, clicks=clicks)
    run = preferences(config)
    assert len(next(run).pairs) == PAIRS, "the pairs are shown all the same"
    assert (
        refusal(next, run)
        == f"At least 2 choices are needed to learn from, there is {got}: click the better card of more pairs in"
        " preferences"
    )
    assert refusal(choices, config) == refusal(next, preferences_after_first(config))


def preferences_after_first(config):
    run = preferences(config)
    next(run)
    return run


def test_choices_that_contradict_each_other_get_one_sentence(refusal):
    first, second = pairs(3, 0)
    twice = [Cards(torch.cat([one.tokens, one.tokens]), torch.cat([one.mask, one.mask])) for one in (first, second)]
    both_ways = torch.tensor([True, False, True, False, True, False])
    assert "contradict each other" in refusal(of, *twice, both_ways)
    assert len(of(*twice, torch.tensor([True, False, True, False, True, True]))) == 6, "one pair is still decided"
    assert text_of(of(*twice, torch.ones(6, dtype=torch.bool)).won.tokens[0]) == text_of(first.tokens[0])


# --- the reward model -------------------------------------------------------------------------------------------------


@given(st.floats(-20, 20), st.integers(1, 9))
def test_a_tie_costs_ln_2(height, count):
    rewards = torch.full((count,), height)
    assert float(bradley_terry_loss(rewards, rewards)) == pytest.approx(math.log(2))


@given(st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=1, max_size=6), st.floats(-5, 5))
def test_bradley_terry_is_logistic_regression_on_differences(rewards, shift):
    won, lost = torch.tensor(rewards, dtype=torch.float64).T
    loss = float(bradley_terry_loss(won, lost))
    assert loss == pytest.approx(float(F.binary_cross_entropy_with_logits(won - lost, torch.ones_like(won))))
    assert loss == pytest.approx(float(bradley_terry_loss(won + shift, lost + shift))), "a constant changes nothing"


def test_before_training_all_cards_are_worth_the_same():
    cards = reference_cards(20, 0)
    assert (RewardModel()(cards.tokens, cards.mask) == 0).all()


def test_a_word_is_worth_its_value_wherever_it_stands():
    """Measured, by writing it into cards, against what the weights say; a sum does not care for order."""
    model = without_pauses(trained_reward(TasteConfig()))
    words, cards = torch.tensor([NUMBER[word] for word in ("sunny", "rainy", "sea")]), reference_cards(10, 2)
    torch.testing.assert_close(effects_of(model, cards, words), model.values()[words] / model.scale, atol=1e-5, rtol=0)
    shuffled = cards.tokens.clone()
    shuffled[:, PROMPT : PROMPT + 4] = cards.tokens[:, PROMPT : PROMPT + 4].flip(1)
    torch.testing.assert_close(model(shuffled, cards.mask), model(cards.tokens, cards.mask))


def test_a_trained_reward_is_normalised_and_can_be_paid_out():
    config = TasteConfig(rule="gloomy", seed=3)
    model, cards = without_pauses(trained_reward(config)), reference_cards(200, config.seed + 1)
    rewards = model(cards.tokens, cards.mask)
    assert float(rewards.mean()) == pytest.approx(0, abs=1e-5) and float(rewards.std()) == pytest.approx(1, abs=1e-5)
    assert not rewards.requires_grad
    again = without_pauses(trained_reward(config))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_reward_can_be_hacked():
    """The best-liked word, over and over: more reward than any card of the reference, and less than none for the
    rule.
    """
    model, cards = without_pauses(trained_reward(TasteConfig())), reference_cards(200, 5)
    best = WORDS[int(model.values()[[NUMBER[word] for word in CHEERFUL]].argmax()) + NUMBER[CHEERFUL[0]]]
    card = tokens_of([["<start>", "dear", "anna", ",", *[best] * 25, "<end>"]])
    assert float(model(card, answer_mask(card))) > float(model(cards.tokens, cards.mask).max()) + 3
    assert gold(words_of(card[0]), "cheerful") < -10


def test_leave_one_out_is_training_without_that_one():
    """Side by side in one product, or one after the other with one choice really taken away: the same answers."""
    chosen = choices(TasteConfig(rule="sailor"), 9)
    *_, share = left_out(RewardModel(), chosen, 12, 0.01)
    margins = []
    for k in range(len(chosen)):
        kept, out = torch.arange(len(chosen)) != k, torch.arange(len(chosen)) == k
        model = RewardModel()
        for _ in train_reward(model, type(chosen)(picked(chosen.won, kept), picked(chosen.lost, kept)), 12, 0.01):
            pass
        margins.append(
            model(chosen.won.tokens[out], chosen.won.mask[out]) - model(chosen.lost.tokens[out], chosen.lost.mask[out])
        )
    assert share == pytest.approx(share_right(torch.cat(margins).detach()))


def test_no_preference_is_right_half_the_time():
    assert share_right(torch.tensor([0.0, 0.0, 3.0, -1.0])) == 0.5
    assert share_right(torch.tensor([0.1, 2.0])) == 1.0


# --- the experiment ---------------------------------------------------------------------------------------------------


def ran(config):
    steps = list(preferences(config))
    return steps, drain(iter(steps), Recorder(preferences.experiment, config)).figures


@rules
def test_a_model_learns_a_rule_from_forty_choices(rule):
    _, figures = ran(PreferencesConfig(rule=rule))
    assert figures[FIRST_LOSS].measured == pytest.approx(math.log(2), abs=1e-6) and abs(figures[FIRST_LOSS].gap) < 1e-6
    assert figures[NEW].measured > 70 > figures[NEW].expected == 50
    assert figures[SEEN].measured > 95
    assert figures[UNREAD].expected == figures[ONE_OUT].expected == figures[NEW].measured
    assert 0.3 < figures[CORRELATION].measured < figures[CORRELATION].expected == 1


def test_what_the_policy_knows_of_words_helps():
    """Forty choices say little about twenty words one by one; a policy that knows which of them keep company needs
    fewer.
    """
    fresh, gaps = without_pauses(choosing(TasteConfig(), 120, FAR)), []
    for seed in range(4):
        chosen, right = choices(TasteConfig(seed=seed)), []
        for model in (RewardModel(), RewardModel(pretrained=False)):
            for _ in train_reward(model, chosen, 60):
                pass
            right.append(agreement(model, fresh))
        gaps.append(right[0] - right[1])
    assert min(gaps) > 0.05 and sum(gaps) / len(gaps) > 0.1


def test_a_user_is_scored_by_their_own_choices():
    first, second = pairs(PAIRS, 0)
    clicks = "".join("a" if one else "b" for one in labels(TasteConfig(rule="polite"), first, second))
    steps, figures = ran(PreferencesConfig(rule=YOU, clicks=clicks))
    assert steps[0].whose == "you" and steps[0].picks == "" and "40 of 40" in steps[0].doing
    assert figures[NEW].measured > 60
    assert ONE_OUT not in figures and CORRELATION not in figures


def test_the_first_step_shows_the_pairs_and_what_the_rule_likes():
    start = next(preferences(PreferencesConfig(rule="sailor")))
    for (one, other), pick in zip(start.pairs, start.picks, strict=True):
        points = [
            gold(text.replace(",", " ,").replace(".", " .").replace("!", " !").split(), "sailor")
            for text in (one, other)
        ]
        assert pick == ("a" if points[0] > points[1] else "b" if points[1] > points[0] else "-")


def test_the_same_seed_gives_the_same_run():
    (one, figures), (other, again) = (ran(PreferencesConfig(rule=YOU, clicks="abbab", steps=8)) for _ in range(2))
    assert figures == again and [step.loss for step in one] == [step.loss for step in other]
    assert (one[-1].look.rewards == other[-1].look.rewards).all() and one[-1].look.words == other[-1].look.words


def test_a_word_that_was_never_compared_says_so():
    steps, _ = ran(PreferencesConfig(rule=YOU, clicks="ab", steps=4))
    look = steps[-1].look
    assert not all(look.compared) and any(look.compared)
    assert any(effect != 0 for effect, compared in zip(look.effects, look.compared, strict=True) if not compared), (
        "it has its neighbors' value"
    )


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_fresh_pairs_are_not_those_it_learnt_from(seed):
    """A generator takes 32 bits of its seed: a distance of 2 ** 32 would give the same pairs again."""
    learned = {text_of(row) for cards in pairs(PAIRS, seed) for row in cards.tokens}
    fresh = without_pauses(choosing(TasteConfig(seed=seed), PAIRS, seed + FAR))
    shared = learned & {text_of(row) for row in fresh.won.tokens}
    assert len(shared) < len(learned) / 20, shared  # the same draws would share all; chance shares a few short ones
