"""SFT: the pairs, which tokens count, the loss against transformers' own, and what it teaches."""

import pytest
import torch

from core.foundations import real_model
from core.foundations.base_model import load_base
from core.foundations.figures import by_figure
from core.foundations.turns import without_pauses
from core.rlhf.questions import (
    END,
    IGNORED,
    LONGEST,
    Pair,
    asked,
    batched,
    end_of,
    example_of,
    first_sentence,
    in_common,
    manual,
    readable,
)
from core.rlhf.sft import COMMON, EVERYTHING, LOSS, OF_EVERYTHING, SAME, STOPS, School, SftConfig, losses_of, sft

QUICK = {"pairs": 30, "steps": 2, "batch": 4}


@pytest.fixture(scope="module")
def base():
    return without_pauses(load_base())


def test_the_pairs_are_the_manual_s_and_no_two_answers_are_alike():
    pairs = manual()
    assert len(pairs) > 540  # 500 to learn from and 40 that nobody learns from
    assert Pair("What does str.upper do?", "Return a copy of the string converted to uppercase.") in pairs
    assert len({pair.answer for pair in pairs}) == len({pair.question for pair in pairs}) == len(pairs)
    assert all(pair.answer.endswith(".") and len(pair.answer) <= LONGEST for pair in pairs)


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the sum.  It is\nexact.\n\nMore.", "Return the sum."),
        ("Round to 0.5 or up, as you like it.", "Round to 0.5 or up, as you like it."),
        ("upper() -> str. Return it.", ""),
        ("Nothing that ends", ""),
        ("Return " + "very " * 30 + "long.", ""),
        ("", ""),
    ],
)
def test_an_answer_is_one_short_sentence(docstring, sentence):
    assert first_sentence(docstring) == sentence


def test_only_the_answer_and_its_end_count(base):
    pair = Pair("What does abs do?", "Return it.")
    example = example_of(base, pair)
    for everything in (False, True):
        ids, labels = batched([example, example_of(base, Pair("Why?", "Because."))], everything)
        assert base.text(ids[0, : len(example.ids)].tolist()) == asked(base, pair.question) + pair.answer + END
        counted = labels[0][labels[0] != IGNORED].tolist()
        told = base.text(counted)
        assert told == (asked(base, pair.question)[1:] if everything else "") + pair.answer + END
        at = (labels[0] != IGNORED).nonzero().flatten()
        assert torch.equal(labels[0, at], torch.tensor(example.ids)[at + 1])  # the label is the next token
        assert (labels[1, len(example_of(base, Pair("Why?", "Because.")).ids) - 1 :] == IGNORED).all()  # padding


@pytest.mark.parametrize("everything", [False, True])
def test_the_loss_is_transformers_own(base, everything):
    examples = [example_of(base, pair) for pair in manual()[:5]]
    ids, labels = batched(examples, everything)
    ours = losses_of(base.model, ids, labels).sum() / (labels != IGNORED).sum()
    theirs = torch.full_like(ids, IGNORED)
    theirs[:, 1:] = labels[:, :-1]  # transformers shifts by itself
    assert float(ours) == pytest.approx(float(base.model(input_ids=ids, labels=theirs).loss), rel=1e-5)


def test_marks_in_a_question_do_not_end_it(base):
    assert asked(base, "Hi\x02\x03there<|im_end|>") == "\x01Hithere\x02"
    assert readable("\x01Hi\x02") == "⟨user⟩Hi⟨answer⟩"


def test_f1_is_that_of_shared_words():
    assert in_common("Return the cosine of x.", "Return the sine of x.") == pytest.approx(2 * 4 / 10)
    assert in_common("No.", "Yes.") == 0 and in_common("Same words", "words, same!") == 1


def test_your_question_is_never_learned_from(base):
    school = School(SftConfig(question="What does math.cos do?", pairs=500), base)
    assert school.own and school.held_out[0].question == "What does math.cos do?"
    learned = {tuple(example.ids) for example in school.learned}
    assert len(learned) == 500 and not learned & {tuple(example.ids) for example in school.new}
    assert not School(SftConfig(question="Who are you?"), base).own


def test_it_learns_the_form_and_invents_the_rest():
    run = by_figure([result for step in sft(SftConfig(steps=24, control=True)) for result in step.figures])
    assert run[STOPS].expected == 0 and run[STOPS].measured > 80
    assert run[LOSS].measured < run[LOSS].expected - 1.5
    assert run[SAME].measured < 10 and run[COMMON].measured > run[COMMON].expected
    assert run[OF_EVERYTHING].measured < run[OF_EVERYTHING].expected - 0.1  # the training loss is lower
    assert abs(run[EVERYTHING].measured - run[EVERYTHING].expected) < 0.3  # and the answers are not better by that


def test_before_training_both_columns_are_alike_and_an_answer_is_interrupted():
    steps = list(sft(SftConfig(**QUICK)))
    opening, first = steps[0], next(step for step in steps if step.before)
    assert all(token.before == token.now for token in opening.tokens) and first.before == first.now
    assert first.before[0].question == "What does str.upper do?" and not first.before[0].stopped
    assert "".join(token.text for token in opening.tokens if token.counts).endswith(".⟨end⟩")
    last = [step for step in steps if step.tokens][-1]
    assert any(token.before != token.now for token in last.tokens)


def test_the_same_seed_gives_the_same_run():
    told = [[(step.loss, step.held_out, step.now) for step in sft(SftConfig(**QUICK))] for _ in range(2)]
    assert told[0] == told[1]


def test_the_real_model_learns_beside_the_weights_that_all_runs_share():
    config = SftConfig(model=real_model.NAME, pairs=8, steps=1, batch=1, control=False, question="")
    steps = list(sft(config))
    run = by_figure([result for step in steps for result in step.figures])
    assert run[LOSS].measured != run[LOSS].expected and EVERYTHING not in run
    base = without_pauses(load_base(real_model.NAME))
    assert base.ids(end_of(base)).numel() == 1 and not any(w.requires_grad for w in base.model.parameters())
