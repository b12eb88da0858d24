"""SmolLM2 in the app against transformers and llama.cpp: writing, and a LoRA training step. python -m
tests.bench.real_model

Batch 1, greedy, 32 new tokens behind a question; all must write the same, but for llama.cpp, which computes with the
file's own 4-bit weights (and is left out where llama_cpp is not installed). The LoRA step: rank 8 on all layers, 2
windows of 32 tokens, ours against peft in transformers' Trainer. Goal: not slower than the library.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from core.foundations import real_model
from core.foundations.base_model import Base, drawn, load_base
from core.foundations.corpus import load_corpus
from core.foundations.sampling import Choice, write
from core.foundations.turns import without_pauses
from core.lora.tuning import Tuner, adapt, layer_shapes
from core.nanogpt.generating import llama_writer
from tests.bench.ledger import Line, in_turns, options, ratio, report, with_threads

QUESTION, NEW, CONTEXT, BATCH, RANK = "What is the capital of France, and what is it known for?", 32, 32, 2, 8


def speed(writer: Callable[[], list[int]]) -> Callable[[], float]:
    """Tokens a second."""

    def measure() -> float:
        started = time.perf_counter()
        return len(writer()) / (time.perf_counter() - started)

    return measure


def writers(base: Base, threads: int) -> dict[str, Callable[[], list[int]]]:
    """Each writes the same number of tokens behind the same prompt."""
    prompt, greedy = base.ids(real_model.asked(QUESTION)), Choice(0.0)
    room = llama_writer(real_model.folder()).model

    def theirs() -> list[int]:
        ids = prompt[None]
        written = base.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        return written[0, len(prompt) :].tolist()

    found = {
        "ours": lambda: list(drawn(base.model, prompt.tolist(), NEW, greedy, torch.Generator())),
        "our transformer": lambda: [one.token for one in write(room, prompt.tolist(), NEW, greedy, torch.Generator())],
        "transformers": theirs,
    }
    if len({tuple(writer()) for writer in found.values()}) > 1:
        sys.exit("greedy texts differ: they do not compute the same, so their speeds are not compared")
    if importlib.util.find_spec("llama_cpp"):
        from llama_cpp import Llama

        path = str(real_model.packaged())
        model = Llama(path, n_ctx=256, n_threads=threads, n_threads_batch=threads, verbose=False)

        def llama_cpp() -> list[int]:
            model.reset()
            told = model.generate(prompt.tolist(), temp=0.0)
            return [next(told) for _ in range(NEW)]

        found["llama.cpp"] = llama_cpp
    return found


def steps(base: Base) -> dict[str, Callable[[], float]]:
    """Training steps a second, forward, backward and AdamW, on the same text."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    names = list(layer_shapes(base.model, "all"))
    ids, count = base.ids(load_corpus("play").train[:20_000]), 4
    mine = Tuner(
        adapt(base.model, RANK, 16.0, names, 0),
        ids,
        context=CONTEXT,
        batch=BATCH,
        learning_rate=1e-3,
        steps=10**6,
        seed=0,
    )

    def ours() -> float:
        started = time.perf_counter()
        for _ in range(count):
            without_pauses(mine.one_step())
        return count / (time.perf_counter() - started)

    second = without_pauses(load_base(real_model.NAME)).model
    plan = LoraConfig(r=RANK, lora_alpha=16, target_modules=names, lora_dropout=0.0, task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(second, plan)
    windows = ids[: CONTEXT * (len(ids) // CONTEXT)].view(-1, CONTEXT)
    rows = [{"input_ids": window, "labels": window} for window in windows]
    folder = tempfile.mkdtemp()
    how = TrainingArguments(
        folder,
        per_device_train_batch_size=BATCH,
        max_steps=count,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )

    def theirs() -> float:
        trainer = Trainer(model=adapted, args=how, train_dataset=rows)
        started = time.perf_counter()
        trainer.train()
        return count / (time.perf_counter() - started)

    return {"ours": ours, "Trainer": theirs}


def main() -> None:
    arguments = with_threads(options(__doc__))
    rounds = 1 if arguments.quick else 5
    base = without_pauses(load_base(real_model.NAME))
    contestants = {name: speed(writer) for name, writer in writers(base, arguments.threads).items()}
    measured = in_turns(rounds, contestants)
    lines = []
    for who in ("ours", "our transformer"):
        for peer in [name for name in ("transformers", "llama.cpp") if name in measured]:
            times = ratio(measured[who], measured[peer])
            goal = ("at least 1", times >= 1) if peer == "transformers" else ("", None)
            what = f"SmolLM2 writes, {who} against {peer}"
            lines.append(Line(what, "tokens/s", median(measured[who]), median(measured[peer]), times, *goal))
    learned = steps(base)
    in_turns(1, learned)  # warm
    trained = in_turns(rounds, learned)
    times = ratio(trained["ours"], trained["Trainer"])
    what = f"LoRA step on SmolLM2, {BATCH} windows of {CONTEXT}, ours against peft with Trainer"
    peers = median(trained["ours"]), median(trained["Trainer"])
    lines.append(Line(what, "steps/s", *peers, times, "at least 1", times >= 1))
    report("real_model", lines, arguments, rounds=rounds)


if __name__ == "__main__":
    main()
