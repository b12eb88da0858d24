r"""Questions with answers out of Python's own documentation, and the template that makes one text of both.

`help(str.upper)` prints “Return a copy of the string converted to uppercase.”; so the question “What does str.upper
do?” has a true answer, written by people, on every machine that has Python.

A *chat template* joins question and answer with marks that no ordinary text holds, and ends the answer with another:

    ⟨user⟩What does str.upper do?⟨answer⟩Return a copy of the string converted to uppercase.⟨end⟩

The base has no tokens for that; three bytes that it has never read stand in for them, the control characters 1, 2 and 3
(ASCII names them start of heading, start of text and end of text). SmolLM2 has its own template, ChatML.

Source: Python's docstrings; transformers, chat templates (huggingface.co/docs/transformers/chat_templating).
"""

import builtins
import calendar
import collections
import functools
import heapq
import inspect
import itertools
import math
import operator
import os
import random
import re
import shutil
import statistics
import tempfile
import textwrap
import threading
import time
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from core.foundations import real_model
from core.foundations.base_model import Base

USER, ANSWER, END = "\x01", "\x02", "\x03"
NAMES = {USER: "⟨user⟩", ANSWER: "⟨answer⟩", END: "⟨end⟩"}
TYPES = (str, list, dict, set, int, float, bytes, bytearray, complex)
MODULES = (
    *(math, random, itertools, statistics, operator, calendar, os, os.path, shutil, textwrap, functools),
    *(collections, inspect, heapq, re, tempfile, threading, time),
)
SHORTEST, LONGEST = 15, 90  # characters of an answer
IGNORED = -100  # the label of a token that does not count, as in torch's and transformers' losses


class Pair(NamedTuple):
    question: str
    answer: str


class Example(NamedTuple):
    """A pair as token ids in the template; the first `asked` of them are the question's."""

    ids: list[int]
    asked: int


@cache
def manual() -> tuple[Pair, ...]:
    """A question for every function whose docstring begins with one short sentence; no two have the same answer."""
    answers = dict[str, str]()
    for home, thing in ((("", builtins)), *((one.__name__, one) for one in (*TYPES, *MODULES))):
        home = "os.path" if thing is os.path else home
        for name in sorted(dir(thing)):
            function: Any = getattr(thing, name)
            if name.startswith("_") or not callable(function) or is_exception(function):
                continue
            answer = first_sentence(inspect.getdoc(function) or "")
            if answer and answer not in answers:
                answers[answer] = f"What does {home + '.' if home else ''}{name} do?"
    return tuple(Pair(question, answer) for answer, question in answers.items())


def is_exception(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseException)


def first_sentence(docstring: str) -> str:
    """The first sentence if it is a short one in plain words, else nothing."""
    found = re.match(r".+?\.(?=\s|$)", " ".join(docstring.split("\n\n")[0].split()))
    sentence = found.group() if found else ""
    plain = sentence[:1].isupper() and "->" not in sentence
    return sentence if plain and SHORTEST <= len(sentence) <= LONGEST else ""


# --- the template -----------------------------------------------------------------------------------------------------


def end_of(base: Base) -> str:
    return real_model.END if base.name == real_model.NAME else END


def asked(base: Base, question: str) -> str:
    """The question in the base's template, up to where the answer begins. Marks in the question itself are removed:
    nobody may end a turn that is not his own.
    """
    for mark in (*NAMES, "<|im_start|>", real_model.END):
        question = question.replace(mark, "")
    return real_model.asked(question) if base.name == real_model.NAME else f"{USER}{question}{ANSWER}"


def readable(text: str) -> str:
    """The text with names in place of marks that cannot be seen."""
    for mark, name in NAMES.items():
        text = text.replace(mark, name)
    return text


def example_of(base: Base, pair: Pair) -> Example:
    question = base.ids(asked(base, pair.question)).tolist()
    return Example(question + base.ids(pair.answer + end_of(base)).tolist(), len(question))


def batched(examples: list[Example], everything: bool) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Token ids, padded at the end, and labels: what each place should predict next, or `IGNORED`.

    everything: the question's tokens count as well; else only the answer's, its end included.
    """
    length = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        first = 1 if everything else example.asked
        labels[row, first - 1 : len(example.ids) - 1] = torch.tensor(example.ids[first:])
    return ids, labels


def in_common(answer: str, wanted: str) -> float:
    """F1 of the words that two answers share, from 0 to 1 (Rajpurkar et al. 2016, section 6.1)."""
    one, other = (collections.Counter(re.findall(r"\w+", text.lower())) for text in (answer, wanted))
    shared = sum((one & other).values())
    return 2 * shared / (sum(one.values()) + sum(other.values())) if shared else 0.0
