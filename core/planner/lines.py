"""Every number with its formula: its name, the formula in letters, the formula with this plan's numbers put in, its
value, its source.
"""

from dataclasses import dataclass

from core.planner.job import Job, Plan
from core.planner.memory import Memory, again_bytes, gathered_bytes, layer_bytes, logits_bytes
from core.planner.timing import StepTime, head_flops, layer_flops, layer_seconds, link_rate, stage_rate, tensor_message

ZERO_PAPER, ACTIVATION_PAPER, NARAYANAN = "Rajbhandari 2019", "Korthikanti 2022", "Narayanan 2021"
GB = 1e9


@dataclass(frozen=True)
class Line:
    """One number of the plan."""

    name: str
    letters: str
    numbers: str
    value: str
    source: str

    def row(self) -> tuple[str, str, str, str, str]:
        return self.name, self.letters, self.numbers, self.value, self.source


def big(number: float) -> str:
    """12.3 billion, 1,536, 0.27."""
    for size, word in ((1e15, "e15"), (1e12, "e12"), (1e9, "e9"), (1e6, "e6")):
        if abs(number) >= size:
            return f"{number / size:.4g}{word}"
    return f"{number:,.4g}" if number % 1 else f"{number:,.0f}"


def lines(job: Job, plan: Plan, memory: Memory, time: StepTime) -> tuple[Line, ...]:
    """All numbers of a plan, in the order in which they are computed."""
    return (*size_lines(job, plan, memory), *memory_lines(job, plan, memory), *time_lines(job, plan, time))


def size_lines(job: Job, plan: Plan, memory: Memory) -> list[Line]:
    """How large the model is, and one GPU's part of it."""
    shape, t, p = job.shape, plan.tensor, plan.pipeline
    if (
        shape.dialect == "gpt"
        and shape.key_heads == shape.heads
        and not shape.experts
        and shape.mlp == 4 * shape.width
        and shape.tied
    ):
        letters, numbers = (
            "12Lh²(1 + 13/12h + (V+s)/12Lh) + 2h",
            f"12·{shape.layers}·{shape.width:,}²(1 + 13/12h + ({shape.vocabulary:,}+{shape.positions:,})/12Lh)",
        )
    else:
        mlp = f"{shape.experts}·" if shape.experts else ""
        matrices = 3 if shape.dialect == "llama" else 2
        letters = (
            "L(2h² + 2h²k/a + "
            + ("E·" if shape.experts else "")
            + f"{matrices}hf + ..) + {'V' if shape.tied else '2V'}h"
        )
        numbers = (
            f"{shape.layers}(2·{shape.width:,}²(1 + {shape.key_heads}/{shape.heads}) +"
            f" {mlp}{matrices}·{shape.width:,}·{shape.mlp:,}) +"
            f" {1 if shape.tied else 2}·{shape.vocabulary:,}·{shape.width:,}"
        )
    stage = f"stage {memory.stage + 1} of {p}"
    m, d, b = job.micro_batches(plan), plan.data, plan.micro
    return [
        Line(
            "weights P",
            letters,
            numbers,
            f"{big(shape.parameters)}",
            NARAYANAN + ", eq. 2" if shape.dialect == "gpt" else "config.json",
        ),
        Line(
            "on one GPU P_r",
            "layers L/p over t, and tables",
            f"{stage}: {shape.layers / p:g} layers over {t}",
            big(memory.parameters),
            "most loaded stage",
        ),
        Line("micro-batches m", "B / (d b)", f"{job.batch:,} / ({d} · {b})", f"{m:,}", NARAYANAN),
    ]


def memory_lines(job: Job, plan: Plan, memory: Memory) -> list[Line]:
    """The items of the bar."""
    whole = Line(
        "memory of a GPU",
        "the sum",
        f"workspace left out; {job.reserve:g} % kept free",
        gigabytes(memory.total),
        f"{job.card.gigabytes:g} GB: data sheet",
    )
    return [
        *state_lines(job, plan, memory),
        *activation_lines(job, plan, memory),
        *passing_lines(job, plan, memory),
        whole,
    ]


def state_lines(job: Job, plan: Plan, memory: Memory) -> list[Line]:
    """Weights, gradients and optimizer."""
    held, d, found = big(memory.parameters), plan.data, list[Line]()
    for place, (name, divided) in enumerate((("weights", 3), ("gradients", 2), ("optimizer", 1))):
        share = plan.zero >= divided and d > 1
        each = job.states[place]
        letters = f"{each} P_r" + (" / d" if share else "")
        found.append(
            Line(
                name,
                letters,
                f"{each} · {held}" + (f" / {d}" if share else ""),
                gigabytes(memory.items[place]),
                f"{ZERO_PAPER}, sec. 5",
            )
        )
    return found


def activation_lines(job: Job, plan: Plan, memory: Memory) -> list[Line]:
    """What is in flight, what a layer saves of it, and both together."""
    t, p, v, found = plan.tensor, plan.pipeline, plan.interleave, list[Line]()
    behind = p - memory.stage - 1
    flying = "min(m, p - r)" if v == 1 else "(2(p-r-1) + (v-1)p + 1) / v"
    put_in = f"min({job.micro_batches(plan)}, {behind + 1})" if v == 1 else f"(2·{behind} + {v - 1}·{p} + 1) / {v}"
    found.append(Line("in flight", flying, put_in, f"{memory.in_flight:g}", f"{NARAYANAN}; {ACTIVATION_PAPER}, 4.2.3"))
    layer = job.layer
    found.append(
        Line(
            "A, per layer",
            activation_letters(job, plan),
            f"s {layer.s:,}, b {plan.micro}, h {layer.h:,}, a {layer.a}, t {t}",
            f"{layer_bytes(job, plan) / (layer.sbh * plan.micro):.2f} sbh",
            f"{ACTIVATION_PAPER}, eq. 1-6",
        )
    )
    numbers = f"{job.shape.layers / p:g} · {gigabytes(layer_bytes(job, plan))} · {memory.in_flight:g}"
    found.append(
        Line(
            "activations",
            "L/p · A · in flight" + (" + mask" if layer.dropout else ""),
            numbers,
            gigabytes(memory.items[3]),
            ACTIVATION_PAPER,
        )
    )
    return found


def passing_lines(job: Job, plan: Plan, memory: Memory) -> list[Line]:
    """The logits, and what is there for a moment."""
    t, found = plan.tensor, list[Line]()
    kept, passing = logits_bytes(job, plan)
    if memory.items[4]:
        words = (
            f"4·{job.tokens:,}·{plan.micro}·{job.shape.vocabulary:,}/{t}: {gigabytes(kept)} kept + {gigabytes(passing)}"
            " passing"
        )
        found.append(
            Line(
                "logits",
                "4sbV/t, three times for a moment",
                words,
                gigabytes(memory.items[4]),
                f"{ACTIVATION_PAPER}, 4.3; PyTorch",
            )
        )
    if memory.items[5]:
        words = f"{gigabytes(gathered_bytes(job, plan))} gathered, {gigabytes(again_bytes(job, plan))} computed again"
        found.append(
            Line(
                "unit in work",
                "ZeRO: unit whole; one layer again",
                words,
                gigabytes(memory.items[5]),
                "assumption: next unit is fetched early",
            )
        )
    return found


def activation_letters(job: Job, plan: Plan) -> str:
    """Which of the paper's equations A is."""
    if plan.recompute == "full":
        return "2 sbh" + ("/t" if plan.sequence else "")
    core = "" if plan.recompute == "selective" else " + 4a/h" if job.layer.fused else " + 5as/h"
    if job.shape.dialect == "llama":
        return f"(12 + 4k/a + 8f/h{core})" + (" / t" if plan.sequence else ", split parts / t")
    dropped = "34" if job.layer.dropout else "32"
    if plan.sequence:
        return f"({dropped}{core}) / t"
    return f"{10 if job.layer.dropout else 8} + (24{core}) / t"


def time_lines(job: Job, plan: Plan, time: StepTime) -> list[Line]:
    """The parts of the step."""
    t, p, m, card = plan.tensor, plan.pipeline, job.micro_batches(plan), job.card
    matrices, core = layer_flops(job)
    layers, rate = job.shape.layers / p, f"{job.efficiency:.2f} · {job.peak / 1e12:g}e12"
    kept = layer_bytes(job, plan, "none")
    _, _, again, _ = layer_seconds(job, plan)
    flops = 3 * plan.micro * (layers * (matrices + core) + head_flops(job))
    found = [
        Line(
            "model FLOPs",
            "3B(L(2sP_l + 4s²h) + 2shV)",
            f"3·{job.batch:,}({job.shape.layers}({big(matrices)} + {big(core)}) + {big(head_flops(job))})",
            big(time.model_flops),
            f"{ACTIVATION_PAPER}, App. A",
        ),
        Line(
            "matmuls",
            "m · FLOPs of last stage / (t · e · peak)",
            f"{m} · {big(flops)} / ({t} · {rate})",
            seconds(time.parts[0]),
            "e: assumption",
        ),
        Line(
            "other operations",
            "m · 6 K L/p / bandwidth",
            f"{m} · 6 · {gigabytes(kept)} · {layers:g} / {card.memory:,} GB/s + logits",
            seconds(time.parts[1]),
            "own estimate",
        ),
    ]
    if plan.recompute != "none":
        found.append(
            Line(
                "recomputation",
                "m · L/p · one more forward",
                f"{m} · {layers:g} · {seconds(again)}",
                seconds(time.parts[2]),
                ACTIVATION_PAPER,
            )
        )
    found += communication_lines(job, plan, time)
    found.append(
        Line(
            "optimizer",
            "its bytes, read and written / bandwidth",
            f"at {card.memory:,} GB/s",
            seconds(time.parts[7]),
            "own estimate",
        )
    )
    found.append(
        Line(
            "step", "the sum", f"{job.batch * job.tokens:,} tokens", seconds(time.seconds), "efficiency calibrated once"
        )
    )
    used = f"{big(time.model_flops)} / ({seconds(time.seconds)} · {job.gpus:,} · {job.peak / 1e12:g}e12)"
    found.append(Line("MFU", "model FLOPs / (step · N · peak)", used, f"{time.mfu:.1%}", "Chowdhery 2022, PaLM"))
    return found


def communication_lines(job: Job, plan: Plan, time: StepTime) -> list[Line]:
    """What is sent along each of the three ways to divide, and the bubble."""
    t, p, v, m, d = plan.tensor, plan.pipeline, plan.interleave, job.micro_batches(plan), plan.data
    layers, message, found = job.shape.layers / p, tensor_message(job, plan), list[Line]()
    all_reduces = 6 if plan.recompute == "full" else 4
    if t > 1:
        found.append(
            Line(
                "tensor communication",
                f"m · L/p · {all_reduces} · 2(t-1)/t · {job.number}sbh / link",
                f"{m} · {layers:g} · {all_reduces} · {seconds(message)} at {link_rate(job, t) / GB:g} GB/s",
                seconds(time.parts[3]),
                "Shoeybi 2019, sec. 3",
            )
        )
    if p > 1:
        sent = f"{m} · 2·{v} · {gigabytes(job.number * job.layer.sbh * plan.micro / t)} / {stage_rate(job) / GB:g} GB/s"
        found.append(
            Line(
                "pipeline communication",
                f"m · 2v · {job.number}sbh/t / link",
                sent,
                seconds(time.parts[4]),
                f"{NARAYANAN}, 4.1",
            )
        )
        waited = f"{p - 1}/{v} · {seconds(time.micro_seconds)}; of ideal {(p - 1) / (v * m):.1%}"
        found.append(Line("bubble", "(p-1)/v micro-batches", waited, seconds(time.parts[5]), f"{NARAYANAN}, 2.2"))
    if d > 1:
        hidden = f"{seconds(time.messages)} in all" + (
            ", hidden behind the backward pass" if job.overlap else ", not hidden"
        )
        found.append(
            Line(
                "data communication",
                data_letters(plan),
                f"d {d}, {link_rate(job, d, t) / GB:g} GB/s: {hidden}",
                seconds(time.parts[6]),
                f"{ZERO_PAPER}, sec. 7",
            )
        )
    return found


def data_letters(plan: Plan) -> str:
    """What goes over the copies, in weights' bytes g_w and gradients' g_g."""
    sent = {0: "2 g_g", 1: "(g_g + g_w)", 2: "(m g_g + g_w)", 3: "m (g_g + 2 g_w)"}[plan.zero]
    return f"(d-1)/d · P_r · {sent} / link"


def gigabytes(nbytes: float) -> str:
    """GB of 1e9 bytes, MB below a tenth of one."""
    return f"{nbytes / GB:,.2f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:,.3g} MB"


def seconds(time: float) -> str:
    return f"{time:,.3g} s" if time >= 0.1 or time == 0 else f"{1e3 * time:,.3g} ms"
