"""The texts: what is shipped, the n-gram baselines, and what is said about a text that cannot be learned from."""

import gzip
import hashlib
import http.server
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
from core.foundations.corpus import (
    batch_of,
    check_length,
    load_corpus,
    ngram_baselines,
    own_text,
    split,
    the_play,
    windows_of,
)

# --- the play ---------------------------------------------------------------------------------------------------------


def test_the_play_is_long_and_not_padded():
    """Text repeated to look long would pack to far less than English does."""
    raw = the_play().encode("ascii")
    assert len(raw) >= 60_000
    assert len(gzip.compress(raw, 9)) / len(raw) >= 0.38


def test_the_play_has_five_acts():
    assert re.findall(r"^ACT (\w+)$", the_play(), re.M) == ["I", "II", "III", "IV", "V"]


def test_each_text_is_evaluated_on_its_own_last_tenth():
    both = split("both", ["a" * 90 + "b" * 10, "c" * 45 + "d" * 5])
    assert (both.train, both.validation, both.symbols) == ("a" * 90 + "c" * 45, "b" * 10 + "d" * 5, "abcd")
    assert load_corpus("play").text == the_play()


# --- the n-gram baselines ---------------------------------------------------------------------------------------------


def by_counting(train, evaluated, size):
    """The same smoothing, one character at a time: each P(x | h) from the counts of h in the training text."""

    def probability(history, x):
        if history is None:
            return 1 / size
        n = len(history)
        followers = [train[i + n] for i in range(len(train) - n) if train[i : i + n] == history]
        shorter = probability(history[1:] if history else None, x)
        if not followers:
            return shorter
        kinds = len(set(followers))
        return (followers.count(x) + kinds * shorter) / (len(followers) + kinds)

    return [
        -sum(math.log(probability(evaluated[i - n : i], evaluated[i])) for i in range(n, len(evaluated)))
        / (len(evaluated) - n)
        for n in range(3)
    ]


@pytest.mark.parametrize("text", ["abracadabra alakazam " * 12, "aabb" * 60, the_play()[:900]])
def test_the_tables_equal_a_count_one_character_at_a_time(text):
    one = split("own", [text])
    losses = list(ngram_baselines(one).values())
    assert losses[1:] == pytest.approx(by_counting(one.train, one.validation, len(one.symbols)), abs=1e-9)


def test_the_baselines_of_the_play_go_down():
    """Evaluated on text the tables have not counted. On their own text the triples would seem to reach 1.698."""
    baselines = ngram_baselines(load_corpus("play"))
    assert list(baselines) == ["ln V", "unigram", "bigram", "trigram"]
    assert list(baselines.values()) == pytest.approx([4.094, 3.285, 2.354, 1.776], abs=1e-3)


def test_a_short_text_flatters_no_table():
    """Scored on the text they were counted in, triples of 2,000 characters would reach 1.17 nats."""
    assert ngram_baselines(split("own", [the_play()[:2000]]))["trigram"] == pytest.approx(2.24, abs=0.01)


def test_baselines_of_a_uniform_text():
    """Drawn evenly, a character tells nothing about the next: every table is at ln V."""
    text = "".join("abcd"[i] for i in np.random.default_rng(0).integers(4, size=100_000))
    assert list(ngram_baselines(split("own", [text])).values()) == pytest.approx([math.log(4)] * 4, abs=2e-3)


TRAINABLE = st.one_of(
    *[st.text(symbols, min_size=90, max_size=150) for symbols in ("ab", "abcdefgh")],
    st.integers(89, 300).map(lambda n: "b" + "a" * n),
)


@given(text=TRAINABLE)
def test_any_text_has_finite_baselines(text):
    if len(set(text)) < 2:
        return
    assert all(math.isfinite(loss) and loss >= 0 for loss in ngram_baselines(split("own", [text])).values())


# --- texts of the user ------------------------------------------------------------------------------------------------

BAD = {
    "empty": ("", b"", "Your own text is empty: paste some, or upload a .txt file"),
    "blank": (" \n\t ", b"", "Your own text is empty: paste some, or upload a .txt file"),
    "zeros": ("\x00" * 9, b"", "Your own text is empty: paste some, or upload a .txt file"),
    "one symbol": (
        "aaaa",
        b"",
        "Your text needs at least 2 different characters, got 1: there would be nothing to predict",
    ),
    "long file": ("", b"ab" * 3_000_000, "Your text must be at most 5 MB, got 6.0 MB"),
    "long paste": ("ab" * 3_000_000, b"", "Your text must be at most 5 MB, got 6.0 MB"),
    "long in bytes": ("é" * 3_000_000, b"", "Your text must be at most 5 MB, got 6.0 MB"),
    "a picture": (
        "",
        b"\x89PNG\r\n\x1a\n\xff\xfe",
        "Your file must be plain text in UTF-8, and this one is not: open it in an editor and save it as UTF-8 (in"
        " Notepad: Save as, Encoding: UTF-8)",
    ),
    "too many symbols": (
        "".join(map(chr, range(0x4E00, 0x4E00 + 5001))),
        b"",
        "Your text may have at most 5,000 different characters, got 5,001",
    ),
}


@pytest.mark.parametrize(("pasted", "uploaded", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_text_gets_one_sentence(pasted, uploaded, sentence, refusal):
    assert refusal(own_text, pasted, uploaded) == sentence


def test_half_a_character_gets_one_sentence(refusal):
    """JSON can carry a lone surrogate, and no encoding of Python takes it."""
    assert refusal(lambda: load_corpus("own", "ab\ud800" * 100).train_ids)


def test_a_context_longer_than_the_text_gets_one_sentence(refusal):
    text = split("own", ["ab" * 100])
    assert refusal(check_length, text, 64) == (
        "Your text is too short: it has 200 characters, and a context of 64 needs 641, since a tenth is kept for judging; "
        "paste more, or set the context to at most 19"
    )
    check_length(text, 19)
    check_length(split("own", ["a" * 641]), 64)


def test_the_advice_about_a_short_text_can_be_followed(refusal):
    """Of 42 characters even the shortest context that the tab offers is too long."""
    told = refusal(check_length, split("own", ["ab" * 21]), 64)
    assert told.endswith("paste at least 81 characters and set the context to 8")
    check_length(split("own", ["a" * 81]), 8)


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfone\r\ntwo", b"one\rtwo", b"one\ntwo"])
def test_marks_and_line_ends_of_editors_are_no_characters(raw):
    assert own_text("", raw) == "one\ntwo"
    assert own_text("\ufeffone\r\ntwo", b"") == "one\ntwo"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_refused_with_the_way_out(encoding, refusal):
    told = refusal(own_text, "", "Ein schöner Übermut".encode(encoding))
    assert "save it as UTF-8" in told
    assert ("without its mark" in told) == encoding.startswith("utf-16")


@pytest.mark.parametrize("text", ["Привет, мир\n", "Γειά σου Κόσμε\n"])
def test_another_alphabet_in_utf_16_without_its_mark_is_no_text(text, refusal):
    """Every byte of it is valid UTF-8: control characters between letters."""
    assert "save it as UTF-8" in refusal(own_text, "", (text * 50).encode("utf-16-le"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_a_file_that_says_its_encoding_is_read(encoding):
    assert own_text("", "Ein schöner\r\nÜbermut 港口".encode(encoding)) == "Ein schöner\nÜbermut 港口"


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
    assert (
        refusal(load_corpus, "tinyshakespeare")
        == "Tiny Shakespeare could not be downloaded: it needs the network once; please choose another text"
    )
    assert time.monotonic() - started < 6
