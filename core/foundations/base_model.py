r"""The base model that fine-tuning starts from: a small Llama of our own, or an allow-listed one from the hub.

Ours has the Llama architecture of transformers (RMSNorm, rotary positions, SwiGLU, nothing but `nn.Linear` in its
layers), reads sub-word tokens (byte-level BPE) and lies in `assets/weights/harbour_llama/` in the hub's own format, so
the same three lines load it and any model of the hub. It has learned Python's manual and *The Harbour Reader*, modern
prose written for this app, and has never seen the play.

Loss is counted in nats per *token*; a token of ours is 2 to 3 characters, so the numbers are higher than those of the
nanoGPT tab, which are per character.

Made by: `python -m core.foundations.base_model --steps 900 --save-to assets/weights/harbour_llama`.
Source: Touvron et al. 2023, arXiv:2302.13971 (the architecture); Sennrich et al. 2016, arXiv:1508.07909 (BPE).
"""

import math
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from core.foundations import real_model
from core.foundations.corpus import ASSETS, Corpus, batch_of, load_corpus, windows_of
from core.foundations.hub import HUB, fetched, in_thread, of_kind
from core.foundations.machine import this_machine
from core.foundations.sampling import Choice, draw, probabilities
from core.foundations.turns import without_pauses

FOLDER = ASSETS / "weights" / "harbour_llama"
CONTEXT = 128  # tokens
VOCABULARY = 1024
BASES = {"shipped": "the shipped base, 2.3 M parameters", real_model.NAME: real_model.WHAT} | {
    name: model.what for name, model in of_kind("llama").items()
}
UNIT_FLOPS = {"cpu": 6e9, "cuda": 4e11}  # most work between two yields: about 0.15 s


@dataclass(frozen=True)
class Base:
    """A causal language model of transformers with its tokenizer, of one run's own."""

    name: str
    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # tokenizers.Tokenizer

    def ids(self, text: str) -> Int[Tensor, "N"]:
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.long)

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


def from_folder(folder: Path, name: str, **how: Any) -> Base:
    """A model in the hub's format: safetensors only, no code of the hub's, no network. `how` goes to transformers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    how = {"dtype": torch.float32} | how
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **how
    )
    if "quantization_config" not in how and "device_map" not in how:
        model = model.to(this_machine().device)
    return Base(name, model.eval(), tokenizer_of(folder))


def load_base(name: str = "shipped", own: bool = False, **how: Any) -> Generator[None, None, Base]:
    """The base model by name; yields while its file is fetched or made. `how`: dtype, quantization_config.

    own: for a run that changes its weights. Without it, the weights of the real model are those of all runs.
    """
    if name == "shipped":
        return from_folder(FOLDER, name, **how)
    check_memory(parameters_of(name) * bytes_per_weight(how), f"{BASES[name]}, to be loaded,")
    folder = yield from folder_of(name)
    if name == real_model.NAME and not own and "quantization_config" not in how:
        return Base(name, real_model.model_of(folder, how.get("dtype", torch.float32)), tokenizer_of(folder))
    return from_folder(folder, name, **how)


def fetching_words(name: str) -> str:
    """What a run says while `folder_of` waits."""
    return real_model.MAKING if name == real_model.NAME else "fetching the model from the hub, once"


def folder_of(name: str) -> Generator[None, None, Path]:
    """Where the files of a base lie; yields while they are fetched or made, beside the runs that take turns."""
    if name == "shipped":
        return FOLDER
    return (yield from (in_thread(real_model.folder, None) if name == real_model.NAME else fetched(name)))


def parameters_of(name: str) -> float:
    """How many weights a base has; of ours, counted when it is loaded."""
    return {"shipped": 2.3e6, real_model.NAME: real_model.PARAMETERS}.get(name) or HUB[name].parameters


def tokenizer_of(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def bytes_per_weight(how: dict[str, Any]) -> float:
    """What loading keeps per weight: 4-bit with its constants, 8-bit, or the dtype's own size."""
    quantised = how.get("quantization_config")
    if quantised is not None:
        return 0.57 if getattr(quantised, "load_in_4bit", False) else 1.05
    return float(how.get("dtype", torch.float32).itemsize)


def free_bytes() -> float:
    """Memory that could be had now: the GPU's if there is one."""
    if this_machine().gpu:
        return float(torch.cuda.mem_get_info()[0])
    import psutil

    return float(psutil.virtual_memory().available)


def check_memory(need: float, what: str) -> None:
    """Refuse, before anything is loaded, what cannot fit."""
    free = free_bytes()
    if need > free:
        raise ValueError(
            f"{what} needs {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free here: choose a smaller model"
            " or fewer bits"
        )


# --- looking at a model -----------------------------------------------------------------------------------------------


def cross_entropy(
    model: Any, inputs: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], reduction: str = "mean"
) -> Tensor:
    """Surprise in nats per token at what really came next."""
    logits = model(input_ids=inputs, use_cache=False).logits  # (B, T) -> (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)


def windows_at_once(model: Any, context: int, flops_per_weight: int) -> int:
    """How many windows one unit of work takes: 2 FLOPs per weight and token forward, 4 more for the whole backward
    pass.
    """
    weights = sum(weight.numel() for weight in model.parameters())
    device = next(model.parameters()).device.type
    return max(1, int(UNIT_FLOPS[device] / (flops_per_weight * weights * context)))


def validate(model: Any, ids: Int[Tensor, "N"], context: int, most: int | None = None) -> Generator[None, None, float]:
    """The mean loss in nats per token over (the first `most` tokens of) a text; yields between parts."""
    inputs, targets = windows_of(ids, context, most)
    total, at_once = 0.0, windows_at_once(model, context, 2)
    for first in range(0, len(inputs), at_once):
        if first:
            yield
        part = slice(first, first + at_once)
        total += summed_loss(model, inputs[part], targets[part])
    return total / targets.numel()


@torch.inference_mode()
def summed_loss(model: Any, inputs: Tensor, targets: Tensor) -> float:
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    total = float(cross_entropy(model, inputs.to(device), targets.to(device), "sum"))
    model.train(was_training)
    return total


def write(base: Base, model: Any, prompt: str, length: int, choice: Choice, seed: int) -> str:
    """Continue the prompt by `length` tokens; `model` is the base's own, or an adapted one. Gives the new text only."""
    ids, rng = base.ids(prompt).tolist() or [0], torch.Generator().manual_seed(seed)
    written: list[int] = []
    for token in drawn(model, ids, length, choice, rng):
        written.append(token)
    return base.text(ids + written)[len(base.text(ids)) :]


def drawn(model: Any, ids: list[int], length: int, choice: Choice, rng: torch.Generator) -> Iterator[int]:
    """Tokens, one after the other, each from one pass over one position."""
    cache, new, device = None, ids, next(model.parameters()).device
    model.eval()
    for _ in range(length):
        logits, cache = next_logits(model, torch.tensor([new], device=device), cache)
        token = draw(probabilities(logits, choice), rng)
        yield token
        new = [token]


@torch.inference_mode()
def next_logits(model: Any, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
    answer = model(input_ids=tokens, past_key_values=cache, use_cache=True)
    return answer.logits[0, -1].float(), answer.past_key_values


# --- how ours was made ------------------------------------------------------------------------------------------------


def pretraining_corpora() -> list[Corpus]:
    return [load_corpus("python"), load_corpus("reader")]


def learn_tokens(text: str) -> Any:
    """A byte-level BPE tokenizer: 256 bytes and the merges that shorten this text most, so that nothing is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    return tokenizer


def new_model(seed: int) -> Any:
    """A Llama of 2.3 million parameters whose weights come from the seed alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model, rng = LlamaForCausalLM(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (weight for weight in model.parameters() if weight.ndim == 2):
            weight.copy_(
                torch.randn(weight.shape, generator=rng)
                * (0.02 if weight.shape[0] == VOCABULARY else weight.shape[1] ** -0.5)
            )
    return model


def pretrain(steps: int, learning_rate: float = 0.02, batch: int = 12, seed: int = 0, log: Any = sys.stderr) -> Base:
    """Train our base: Muon for the layers' matrices, AdamW for the rest, half a cosine down."""
    corpora = pretraining_corpora()
    tokenizer = learn_tokens("\n\n".join(corpus.train for corpus in corpora))
    base = Base("shipped", new_model(seed).to(this_machine().device), tokenizer)
    train_ids = torch.cat([base.ids(corpus.train) for corpus in corpora])
    matrices = [weight for name, weight in base.model.named_parameters() if weight.ndim == 2 and "layers" in name]
    others = [weight for name, weight in base.model.named_parameters() if not (weight.ndim == 2 and "layers" in name)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, learning_rate, weight_decay=0.1, adjust_lr_fn="original"),
        torch.optim.AdamW(others, learning_rate / 5, betas=(0.9, 0.98), weight_decay=0.1),
    ]
    rates, rng = [learning_rate, learning_rate / 5], torch.Generator().manual_seed(seed)
    for step in range(steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        inputs, targets = batch_of(train_ids, CONTEXT, batch, rng)
        loss = cross_entropy(base.model, inputs.to(base.device), targets.to(base.device))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 100 == 99:
            told = {
                corpus.name: round(without_pauses(validate(base.model, base.ids(corpus.validation), CONTEXT, 8192)), 3)
                for corpus in corpora
            }
            print(f"step {step + 1}: loss {loss.item():.3f}, validation {told}", file=log, flush=True)
    return base


def save(base: Base, folder: Path) -> None:
    """In the hub's format, float16: config.json, model.safetensors, tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    base.model.half().save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").unlink(missing_ok=True)
    base.tokenizer.save(str(folder / "tokenizer.json"))


def main(save_to: Path, steps: int = 900) -> None:
    """Train our base and write it with its card."""
    base = pretrain(steps)
    for corpus in [*pretraining_corpora(), load_corpus("play")]:
        ids = base.ids(corpus.validation)
        loss = without_pauses(validate(base.model, ids, CONTEXT))
        print(
            f"{corpus.name}: {loss:.4f} nats per token, {loss * len(ids) / len(corpus.validation):.4f} per character",
            file=sys.stderr,
        )
    save(base, save_to)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
