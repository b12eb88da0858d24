"""Deduplication: the S-curve's golden numbers, the search against counting, and what is thrown away."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data_efficiency.dedup import COPIES, FOUND, LOSS_COPIES, Pupils, dedup, word_for_word
from core.data_efficiency.minhash import (
    ALIKE,
    alike,
    clusters,
    jaccard,
    neighbours,
    probability,
    shingles_of,
    threshold,
)
from core.data_efficiency.passages import DedupConfig, collect, passages_of, reworded
from core.foundations.corpus import load_corpus
from core.foundations.recorder import Recorder, drain

SMALL = {
    "tokens": 512,
    "batch": 2,
    "width": 8,
    "context": 16,
    "seeds": 2,
    "copies": 5,
    "passages": 20,
    "near": 10,
    "repeated": 2,
}
WORDS = "harbour lantern window river market garden letter winter captain village".split()  # noqa: SIM905
WORDS += "morning silver bread stone music yellow".split()  # noqa: SIM905


def sentence(seed, length=20):
    rng = torch.Generator().manual_seed(seed)
    return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=rng).tolist())


def end_of(config):
    return drain(dedup(config), Recorder(dedup.experiment, config))


def test_the_probabilities_of_datatrove():
    """n = 5, b = 14, r = 8."""
    told = {0.5: 0.053, 0.6: 0.211, 0.7: 0.565, 0.75: 0.772, 0.8: 0.924, 0.9: 0.9996}
    for similarity, chance in told.items():
        assert probability(similarity, 14, 8) == pytest.approx(chance, abs=6e-4)
    assert threshold(14, 8) == pytest.approx(0.719, abs=5e-4)


@given(st.integers(1, 60), st.integers(1, 20))
def test_the_curve_rises_from_0_to_1(bands, rows):
    heights = [probability(s, bands, rows) for s in np.linspace(0, 1, 20)]
    assert heights[0] == 0 and heights[-1] == 1 and heights == sorted(heights)


def test_shingles_ignore_case_and_punctuation():
    assert shingles_of("The cat, the CAT!", 2) == {"the cat", "cat the"}
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5


def test_similar_pairs_are_those_that_comparing_everything_finds():
    texts = [sentence(seed) for seed in range(12)]
    rng = torch.Generator().manual_seed(1)
    texts += [reworded(text, 0.15, WORDS, rng) for text in texts[:6]] + [texts[3]]
    shingles = [shingles_of(text, 2) for text in texts]
    found = {(a, b): s for a, b, s in alike(shingles)}
    for b, own in enumerate(shingles[:-1]):
        for a in range(b):
            similarity = jaccard(shingles[a], own)
            assert found.get((a, b), 0.0) == (similarity if similarity >= ALIKE else 0.0)
    assert found[3, len(texts) - 1] == 1.0


def test_minhash_finds_pairs_as_often_as_the_curve_says():
    """Many pairs of sets with one known similarity, hashed anew each time: within four standard errors."""
    shared, own = 30, 10  # 30 of 50 shingles: s = 0.6
    found = tries = 0
    for seed in range(1, 9):
        sets = []
        for pair in range(40):
            common = {f"{pair} {i}" for i in range(shared)}
            sets += [frozenset(common | {f"{pair} {side} {i}" for i in range(own)}) for side in "ab"]
        near = neighbours(sets, 10, 4, seed)
        found += sum(2 * pair + 1 in near[2 * pair] for pair in range(40))
        tries += 40
    chance = probability(0.6, 10, 4)
    assert found / tries == pytest.approx(chance, abs=4 * (chance * (1 - chance) / tries) ** 0.5)


def test_exact_copies_are_always_found_and_the_first_is_kept():
    shingles = [shingles_of(text, 3) for text in (sentence(0), sentence(1), sentence(0), sentence(2), sentence(0))]
    heads = clusters(neighbours(shingles, 2, 32, 5))
    assert heads == [0, 1, 0, 3, 0]


def test_neighbours_of_neighbours_are_one_cluster():
    assert clusters([{0, 1}, {0, 1, 2}, {1, 2}, {3}]) == [0, 0, 0, 3]


def test_planted_copies_are_in_the_text_as_often_as_asked():
    config = DedupConfig(**SMALL)
    collection = collect(config, load_corpus("reader"))
    counts = sorted((collection.documents.count(text) for text in set(collection.documents)), reverse=True)
    assert counts[: config.repeated + 1] == [config.copies] * config.repeated + [1]
    assert len(collection.documents) == config.passages + config.repeated * (config.copies - 1) + config.near
    assert collection == collect(config, load_corpus("reader"))


def test_word_for_word_stops_at_the_first_wrong_character():
    said, truth = (
        torch.tensor([[[1, 2, 3, 4], [1, 0, 3, 4]], [[0, 2, 3, 4], [1, 2, 3, 0]]]),
        torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]]),
    )
    assert word_for_word(said, truth).tolist() == [[4, 1], [0, 3]]


def test_the_fleet_goes_on_as_each_model_alone_would():
    config = DedupConfig(**SMALL)
    corpus = config.read()
    collection = collect(config, corpus)
    pupils = Pupils(config, corpus, collection, clusters(neighbours(collection.shingles, 20, 5, 1)))
    for _ in range(5):
        list(pupils.one_step())
    *_, said = pupils.recall()
    assert said.shape == (4, 2, pupils.goal)
    for number in range(4):
        model, told = pupils.fleet.alone(number), corpus.encode(pupils.repeated[1][: pupils.start])
        for _ in range(8):
            told.append(int(model(torch.tensor([told[-config.context :]]))[0, -1].argmax()))
        assert told[pupils.start :] == said[number, 1, :8].tolist()


def test_a_run_ends_with_hit_rates_and_losses_and_is_the_same_again():
    one, two = (end_of(DedupConfig(**SMALL)) for _ in range(2))
    assert one.last.looks == two.last.looks and one.last.hits == two.last.hits
    assert one.last.removed >= 2 * 4
    found = one.figures[FOUND]
    assert abs(found.gap) < 15
    assert one.figures[LOSS_COPIES].measured == one.last.looks[-1].losses[0]


def test_a_text_of_the_user_with_copies_of_its_own():
    text = "\n\n".join([sentence(0)] * 3 + [sentence(seed) for seed in range(30)])
    ended = end_of(DedupConfig(corpus="own", own_text=text, plant=False, **SMALL | {"passages": 100}))
    assert ended.figures[COPIES].measured == 3 and ended.last.removed == 3


def test_texts_that_cannot_be_used_are_refused(refusal):
    def own(text, **more):
        return refusal(lambda: list(dedup(DedupConfig(corpus="own", own_text=text, **SMALL | more))))

    different = "\n\n".join(" ".join(f"word{number}x{i}" for i in range(14)) for number in range(40))
    assert "No two paragraphs" in own(different, plant=False)
    assert "1 cluster:" in own("\n\n".join([sentence(0)] * 40), plant=False)
    assert "at least 8 paragraphs" in own("A short line.\n\n" * 40)
    assert "hash functions" in refusal(DedupConfig, bands=64, rows=32)
    assert refusal(passages_of, "")
