"""The texts: what is shipped, the ladder of entropies, and what is said about a text that cannot be learnt from."""

import gzip
import hashlib
import http.server
import itertools
import math
import re
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.foundations import corpus
from core.foundations.corpus import batch_of, check_length, ladder, load_corpus, own_text, split, the_play, windows_of

# --- the play ---------------------------------------------------------------------------------------------------------


def test_the_play_is_long_and_not_padded():
    """Text repeated to look long would pack to far less than English does."""
    raw = the_play().encode("ascii")
    assert len(raw) >= 60_000
    assert len(gzip.compress(raw, 9)) / len(raw) >= 0.38


def test_the_play_has_five_acts():
    assert re.findall(r"^ACT (\w+)$", the_play(), re.M) == ["I", "II", "III", "IV", "V"]


def test_each_text_is_judged_on_its_own_last_tenth():
    both = split("both", ["a" * 90 + "b" * 10, "c" * 45 + "d" * 5])
    assert (both.train, both.validation, both.symbols) == ("a" * 90 + "c" * 45, "b" * 10 + "d" * 5, "abcd")
    assert load_corpus("play").text == the_play()


# --- the ladder -------------------------------------------------------------------------------------------------------


def test_ladder_of_the_play_goes_down():
    rungs = list(ladder(the_play()).values())
    assert rungs == sorted(rungs, reverse=True)
    assert 1.5 < rungs[-1] < rungs[-2] - 0.1


def test_ladder_of_a_uniform_text():
    """Drawn evenly, a character tells nothing about the next: every rung is ln V, but for what few samples fake."""
    text = "".join("abcd"[i] for i in np.random.default_rng(0).integers(4, size=100_000))
    assert list(ladder(text).values()) == pytest.approx([math.log(4)] * 4, abs=1e-3)


def test_ladder_by_hand():
    """aabb...: half the characters are a; after either, a and b are equally likely; two characters decide the third."""
    rungs = ladder("aabb" * 5000)
    assert list(rungs) == ["ln V", "unigram", "bigram", "trigram"]
    assert list(rungs.values()) == pytest.approx([math.log(2), math.log(2), math.log(2), 0.0], abs=1e-3)


TRAINABLE = st.one_of(*[st.text(symbols, min_size=90, max_size=150) for symbols in ("ab", "abcdefgh")], st.integers(89, 300).map(lambda n: "b" + "a" * n))


@given(text=TRAINABLE)
def test_more_context_never_raises_the_entropy(text):
    """The inequalities of the module's docstring, for any text long enough to train on."""
    if len(set(text)) < 2:
        return
    rungs = list(ladder(text).values())
    assert all(high >= low - 1e-9 for high, low in itertools.pairwise(rungs)), rungs
    assert rungs[-1] >= -1e-9


# --- texts of the user ------------------------------------------------------------------------------------------------

BAD = {
    "empty": ("", b"", "Your own text is empty: paste some, or upload a .txt file"),
    "blank": (" \n\t ", b"", "Your own text is empty: paste some, or upload a .txt file"),
    "zeros": ("\x00" * 9, b"", "Your own text is empty: paste some, or upload a .txt file"),
    "one symbol": ("aaaa", b"", "Your text needs at least 2 different characters, got 1: there would be nothing to predict"),
    "long file": ("", b"ab" * 3_000_000, "Your text must be at most 5 MB, got 6.0 MB"),
    "long paste": ("ab" * 3_000_000, b"", "Your text must be at most 5 MB, got 6.0 MB"),
    "long in bytes": ("é" * 3_000_000, b"", "Your text must be at most 5 MB, got 6.0 MB"),
    "a picture": ("", b"\x89PNG\r\n\x1a\n\xff\xfe", "Your file must be plain text in UTF-8, and this one is not"),
    "too many symbols": ("".join(map(chr, range(0x4E00, 0x4E00 + 5001))), b"", "Your text may have at most 5,000 different characters, got 5,001"),
}


@pytest.mark.parametrize(("pasted", "uploaded", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_text_gets_one_sentence(pasted, uploaded, sentence, refusal):
    assert refusal(own_text, pasted, uploaded) == sentence


def test_half_a_character_gets_one_sentence(refusal):
    """JSON can carry a lone surrogate, and no encoding of Python takes it."""
    assert refusal(lambda: load_corpus("own", "ab\ud800" * 100).train_ids)


def test_a_context_longer_than_the_text_gets_one_sentence(refusal):
    text = split("own", ["ab" * 100])
    assert refusal(check_length, text, 64).endswith("with 200 characters context may be at most 19, got 64")
    check_length(text, 19)


@given(pasted=st.text(max_size=300), uploaded=st.binary(max_size=300))
def test_any_text_is_taken_or_refused_in_one_sentence(pasted, uploaded, refusal):
    try:
        text = own_text(pasted, uploaded)
    except ValueError:
        refusal(own_text, pasted, uploaded)
    else:
        assert len(set(text)) >= 2


@given(text=st.text(min_size=2, max_size=200))
def test_ids_stand_for_the_characters(text):
    one = split("own", [text])
    ids = one.train_ids.tolist() + one.validation_ids.tolist()
    assert ids == one.encode(text)
    assert "".join(one.symbols[i] for i in ids) == text
    assert one.encode(text + "\U0010fffe") == ids or "\U0010fffe" in text


def test_targets_are_the_next_characters():
    data = torch.arange(50)
    for inputs, targets in (batch_of(data, 8, 5, torch.Generator().manual_seed(0)), windows_of(data, 8)):
        assert torch.equal(inputs + 1, targets) and inputs.shape[1] == 8
    assert windows_of(data, 8)[0].flatten().tolist() == list(range(48))
    assert batch_of(data[:9], 8, 3, torch.Generator())[1].max() == 8


# --- Tiny Shakespeare, with and without a network ---------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty download cache, and nothing remembered before or after."""
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path)
    corpus.shipped_corpus.cache_clear()
    yield tmp_path
    corpus.shipped_corpus.cache_clear()


@pytest.fixture
def library(shelf, monkeypatch):
    """A web server that has one small text, which is set up as the one to expect."""
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n" * 40

    class Shelf(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *told):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(corpus, "TINY_SHAKESPEARE", f"http://127.0.0.1:{server.server_port}/input.txt")
        monkeypatch.setattr(corpus, "TINY_SHAKESPEARE_SHA256", hashlib.sha256(text.encode()).hexdigest())
        yield text
        server.shutdown()


def test_tiny_shakespeare_is_downloaded_once(library, monkeypatch):
    assert load_corpus("tinyshakespeare").text == library
    corpus.shipped_corpus.cache_clear()
    monkeypatch.setattr(corpus, "TINY_SHAKESPEARE", "http://127.0.0.1:9/")
    assert load_corpus("tinyshakespeare").text == library


def test_a_file_that_is_not_the_expected_one_is_refused(library, monkeypatch, refusal):
    monkeypatch.setattr(corpus, "TINY_SHAKESPEARE_SHA256", "0" * 64)
    assert refusal(load_corpus, "tinyshakespeare").startswith("Tiny Shakespeare could not be downloaded")


def test_without_a_network_tiny_shakespeare_says_so(shelf, monkeypatch, refusal):
    monkeypatch.setattr(corpus, "TINY_SHAKESPEARE", "http://127.0.0.1:9/")
    started = time.monotonic()
    assert refusal(load_corpus, "tinyshakespeare") == ("Tiny Shakespeare could not be downloaded: it needs the network once; please choose another text")
    assert time.monotonic() - started < 6
