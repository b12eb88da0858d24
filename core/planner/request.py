"""What is asked for: the model, the machine and the plan, as `Job` and `Plan`."""

from dataclasses import dataclass
from typing import Any

from core.foundations.experiment import Config, setting
from core.foundations.published_shapes import SHAPES, ModelShape
from core.foundations.settings import seed_field
from core.planner.cards import CARDS, Card
from core.planner.job import ATTENTION, PRECISIONS, RECOMPUTE, ZERO, Job, Plan, smallest_interleave
from core.planner.papers import EFFICIENCY

MODELS = {name: shape.name for name, shape in SHAPES.items() if shape.parameters > 6.5e9} | {"custom": "my own (below)"}
GPUS = {name: card.name for name, card in CARDS.items()} | {"custom": "my own (below)"}
OWN, OWN_CARD = ("model", "custom"), ("card", "custom")


@dataclass(frozen=True)
class PlanConfig(Config):
    """The model, the machine, the plan. The default is the 145.6B run of Narayanan et al. 2021, table 1."""

    model: str = setting("megatron-146b", "Model", choices=MODELS, help="Larger models must be divided over more GPUs.")
    card: str = setting(
        "a100-80",
        "GPU",
        choices=GPUS,
        help="A GPU with more memory needs fewer divisions; one with faster links may divide every layer.",
    )
    gpus: int = setting(
        1536,
        "GPUs N",
        unit="GPU",
        low=1,
        high=65_536,
        help="More GPUs hold smaller parts and finish sooner, if the batch is large enough for them.",
    )
    tensor: int = setting(
        8,
        "Tensor parallel t",
        unit="GPU",
        low=1,
        high=1024,
        help="More GPUs per layer divide nearly everything and send more; up to a machine's 8 is usual.",
    )
    pipeline: int = setting(
        8,
        "Pipeline stages p",
        unit="stage",
        low=1,
        high=1024,
        help="More stages divide the weights, and wait longer at both ends of a batch.",
    )
    zero: str = setting(
        "0", "ZeRO stage", choices=ZERO, help="A higher stage divides more of the states over the copies."
    )
    recompute: str = setting(
        "full",
        "Recompute",
        choices=RECOMPUTE,
        help="Recomputing more saves activations and costs up to a third more arithmetic.",
    )
    data: int = setting(
        0,
        "Data parallel d",
        unit="replica",
        low=0,
        high=65_536,
        more=True,
        help="Copies of the model, each with its own part of the batch; 0 means N / (t p).",
    )
    interleave: int = setting(
        0,
        "Interleave v",
        unit="chunk",
        low=0,
        high=64,
        more=True,
        help="More chunks of layers per stage shorten the bubble and send more; 0 takes the fewest above 1.",
    )
    micro_batch: int = setting(
        1,
        "Micro-batch b",
        unit="sequence",
        low=1,
        high=4096,
        more=True,
        help="Larger micro-batches need more activations and make a longer bubble.",
    )
    global_batch: int = setting(
        2304,
        "Global batch B",
        unit="sequence",
        low=1,
        high=1_000_000,
        more=True,
        help="More sequences per step keep more GPUs busy.",
    )
    sequence: int = setting(
        2048,
        "Sequence s",
        unit="token",
        low=16,
        high=1_048_576,
        more=True,
        help="Twice the tokens need twice the activations, and four times the work in attention.",
    )
    sequence_parallel: bool = setting(
        False,
        "Sequence parallel",
        more=True,
        help="Ticked, the rest of each layer is divided by tokens over the same t GPUs.",
    )
    precision: str = setting(
        "bf16", "Precision", choices=PRECISIONS, more=True, help="Gradients in 32 bits need two more bytes per weight."
    )
    attention: str = setting(
        "usual",
        "Attention",
        choices=ATTENTION,
        more=True,
        help="Written out, the scores are saved; fused, they are not.",
    )
    dropout: bool = setting(
        True, "Dropout (GPT)", more=True, help="Ticked, GPT saves dropout masks, as it was done then."
    )
    overlap: bool = setting(
        False,
        "Overlap data-parallel communication",
        more=True,
        help="It then runs during the last backward pass, with ZeRO 3 all the time, as in most real runs.",
    )
    efficiency: float = setting(
        100 * EFFICIENCY,
        "Matmul efficiency, % of peak",
        low=1,
        high=100,
        more=True,
        help="An assumption, calibrated on one A100 run; other GPUs may reach less. Higher makes steps shorter.",
    )
    reserve: float = setting(
        10.0,
        "Memory kept free, %",
        low=0,
        high=90,
        more=True,
        help="For workspace, NCCL and fragments: an assumption. More leaves less for the plan.",
    )
    layers: int = setting(
        80,
        "Layers L",
        unit="layer",
        low=1,
        high=1024,
        more=True,
        when=OWN,
        help="More layers mean more weights and more stages to choose from.",
    )
    hidden: int = setting(
        8192,
        "Width h",
        low=64,
        high=131_072,
        more=True,
        when=OWN,
        help="Twice the width means four times the weights per layer.",
    )
    heads: int = setting(
        64,
        "Heads a",
        unit="head",
        low=1,
        high=1024,
        more=True,
        when=OWN,
        help="The width is divided by them: a head has h / a elements.",
    )
    key_heads: int = setting(
        8,
        "Heads of keys k",
        unit="head",
        low=1,
        high=1024,
        more=True,
        when=OWN,
        help="Fewer than a is grouped-query attention (GQA).",
    )
    ffn: int = setting(
        28_672,
        "MLP width f",
        low=64,
        high=524_288,
        more=True,
        when=OWN,
        help="A wider MLP means more weights per layer.",
    )
    mlp: str = setting(
        "swiglu",
        "MLP",
        choices={"swiglu": "SwiGLU (Llama)", "gelu": "GELU (GPT)"},
        more=True,
        when=OWN,
        help="SwiGLU has three matrices, GELU two.",
    )
    tied: bool = setting(
        False, "Tied embeddings", more=True, when=OWN, help="Ticked, embedding and output layer are one matrix."
    )
    vocabulary: int = setting(
        128_256,
        "Vocabulary V",
        unit="token",
        low=256,
        high=2_000_000,
        more=True,
        when=OWN,
        help="More tokens mean larger embeddings and logits.",
    )
    experts: int = setting(
        0,
        "Experts E",
        unit="expert",
        low=0,
        high=1024,
        more=True,
        when=OWN,
        help="Each is an MLP of width f; 0 means an MLP as usual.",
    )
    chosen: int = setting(
        2,
        "Experts per token",
        unit="expert",
        low=1,
        high=64,
        more=True,
        when=OWN,
        help="More experts per token mean more work and activations.",
    )
    card_memory: float = setting(
        80.0,
        "GPU memory",
        unit="GB",
        low=1,
        high=2000,
        more=True,
        when=OWN_CARD,
        help="More memory needs fewer divisions.",
    )
    card_teraflops: float = setting(
        989.0,
        "Peak, 16 bits dense",
        unit="TFLOP/s",
        low=1,
        high=100_000,
        more=True,
        when=OWN_CARD,
        help="A higher peak makes steps shorter.",
    )
    card_bandwidth: float = setting(
        3350.0,
        "Memory bandwidth",
        unit="GB/s",
        low=10,
        high=100_000,
        more=True,
        when=OWN_CARD,
        help="A faster memory shortens what is not a matmul.",
    )
    card_link: float = setting(
        450.0,
        "Link, one direction",
        unit="GB/s",
        low=0.1,
        high=10_000,
        more=True,
        when=OWN_CARD,
        help="Between GPUs of one machine: faster lets t be larger.",
    )
    card_network: float = setting(
        50.0,
        "Network per GPU",
        unit="GB/s",
        low=0.01,
        high=10_000,
        more=True,
        when=OWN_CARD,
        help="Of one GPU to another machine: faster lets the copies talk sooner.",
    )
    card_per_machine: int = setting(
        8,
        "GPUs per machine",
        unit="GPU",
        low=1,
        high=1024,
        more=True,
        when=OWN_CARD,
        help="GPUs of a machine are joined by the fast link.",
    )
    seed: int = seed_field(
        help="Of the small model that is trained here; another seed gives other weights and the same bytes."
    )

    @property
    def shape(self) -> ModelShape:
        """The chosen shape, or the user's own."""
        if self.model != "custom":
            return SHAPES[self.model]
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads, got {self.hidden} and {self.heads} heads")
        if self.heads % self.key_heads:
            raise ValueError(f"heads must be a multiple of key_heads, got {self.heads} and {self.key_heads}")
        if self.experts and self.chosen > self.experts:
            raise ValueError(f"chosen must be at most the {self.experts} experts, got {self.chosen}")
        gelu, experts = self.mlp == "gelu", (self.experts, self.chosen if self.experts else 0)
        positions = self.sequence if gelu else 0
        dialect: Any = "gpt" if gelu else "llama"
        return ModelShape(
            "my own",
            dialect,
            self.layers,
            self.hidden,
            self.heads,
            self.key_heads,
            self.ffn,
            self.vocabulary,
            self.tied,
            positions,
            *experts,
        )

    @property
    def hardware(self) -> Card:
        if self.card != "custom":
            return CARDS[self.card]
        rates = (
            self.card_memory,
            self.card_teraflops,
            self.card_teraflops / 2,
            self.card_bandwidth,
            self.card_link,
            self.card_network,
        )
        return Card("my own GPU", *rates, self.card_per_machine, "your own numbers; fp32 at half the rate")

    def job(self) -> Job:
        shape = self.shape
        attention: Any = (
            self.attention if self.attention != "usual" else "written" if shape.dialect == "gpt" else "fused"
        )
        return Job(
            shape,
            self.hardware,
            self.gpus,
            self.sequence,
            self.global_batch,
            self.precision,
            attention,
            self.dropout,
            self.overlap,
            self.efficiency / 100,
            self.reserve,
        )

    def plan(self) -> Plan:
        """The division that was asked for; d follows from the others unless it is given."""
        divided = self.tensor * self.pipeline
        if not self.data and self.gpus % divided:
            raise ValueError(
                f"gpus must be a multiple of tensor x pipeline, got {self.gpus} for {self.tensor} x {self.pipeline} ="
                f" {divided}"
            )
        recompute: Any = self.recompute
        data = self.data or self.gpus // divided
        micro_batches = self.global_batch // (data * self.micro_batch)
        chunks = self.interleave or smallest_interleave(
            self.shape.layers // self.pipeline or 1, self.pipeline, micro_batches
        )
        sequence = self.sequence_parallel and self.tensor > 1
        return Plan(data, self.tensor, self.pipeline, chunks, int(self.zero), recompute, self.micro_batch, sequence)
