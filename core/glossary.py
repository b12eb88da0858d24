"""The glossary: the terms of the whole app, each in one or two sentences, with its other names.

The page marks them in every idea, help and takeaway. `forms` are words that mean the term too ("trained" for training).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Term:
    """text: one or two sentences. also: other names in papers and libraries. forms: other spellings to mark on the
    page.
    """

    name: str
    text: str
    also: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()


TERMS = (
    # --- the model and its text ---
    Term(
        "token",
        "A piece of text that the model reads or writes as one unit: here mostly one character, in large models a "
        "part of a word.",
    ),
    Term("vocabulary", "All tokens that a model knows. Its size is written V."),
    Term(
        "byte-pair encoding",
        "A way to cut a text into tokens: it begins with bytes and merges the most frequent pair, again and again.",
        ("BPE",),
        ("merges",),
    ),
    Term(
        "logit lens",
        "What the model would write if it stopped after a layer: the row as it is then goes straight to the output.",
    ),
    Term(
        "knock out",
        "To set to 0 what a part of a model adds, and see what changes without it.",
        ("ablation",),
        ("knocked out",),
    ),
    Term(
        "embedding",
        "The row of numbers that stands for a token (or a picture) inside a model. Training moves similar things to"
        " similar numbers.",
    ),
    Term(
        "position",
        "Where a token stands in the text. Attention alone does not see it, so the model is told.",
        ("positional encoding",),
    ),
    Term(
        "rotary positions",
        "Queries and keys are rotated by an angle that grows with the position, so that attention sees how far "
        "apart two tokens are.",
        ("RoPE", "rotary embedding"),
    ),
    Term(
        "language model",
        "A model that gives every possible next token a probability, given the tokens so far.",
        ("LM",),
    ),
    Term(
        "transformer",
        "A network of layers that each mix the tokens by attention and then work on every token alone with an MLP.",
    ),
    Term(
        "GPT",
        "Generative pre-trained transformer: a model that reads from left to right and predicts the next token.",
        ("decoder-only transformer",),
    ),
    Term(
        "layer",
        "One step of the model: attention, then an MLP. A model is a stack of such layers, all built alike, each with"
        " its own weights.",
        ("block",),
    ),
    Term(
        "attention",
        "Lets every token look back at earlier ones: each gets a share of the attention, and what they offer is mixed"
        " by these shares. It is done by attention heads.",
        ("self-attention",),
    ),
    Term(
        "attention head",
        "Gives every earlier token a share between 0 and 1, all shares adding up to 1, and mixes what those tokens"
        " offer by these shares. A layer has several heads, each with shares of its own.",
        ("head",),
        ("head",),
    ),
    Term("query", "What a token asks for in attention."),
    Term("key", "What a token offers to be found by in attention."),
    Term("value", "What a token passes on when attention looks at it."),
    Term(
        "attention scores",
        "Query times key for each pair of tokens: how much one should look at the other, before softmax.",
        ("attention logits",),
        ("score matrix",),
    ),
    Term(
        "mask",
        "Blocks scores, most often of later tokens, so that the model cannot see what it is to predict.",
        ("causal mask",),
    ),
    Term("softmax", "Turns any numbers into positive ones that sum to 1; larger numbers get larger shares."),
    Term("logit", "A score before softmax turns it into a probability."),
    Term(
        "MLP",
        "A small network that works on each token's row of numbers by itself: a weight matrix, a nonlinearity that"
        " keeps what is above 0, and another weight matrix.",
        ("feed-forward network", "FFN"),
    ),
    Term(
        "residual connection",
        "The input of a layer is added to its output, so a layer only learns a change.",
        ("skip connection",),
        ("residual",),
    ),
    Term(
        "layer norm", "Scales the numbers of a token to the same spread before a layer.", ("LayerNorm",), ("LayerNorm",)
    ),
    Term(
        "width",
        "How many numbers stand for one token inside the model.",
        ("hidden size", "d_model", "embedding dimension"),
        ("hidden size",),
    ),
    Term(
        "context",
        "How many tokens back the model can look.",
        ("context length", "sequence length"),
        ("context length",),
    ),
    Term("weight", "A number in the model that training changes.", ("parameter",), ("parameter",)),
    Term("activation", "A number that the model computes on the way from input to output, as opposed to a weight."),
    # --- training ---
    Term(
        "training",
        "Showing the model examples and changing its weights so that its loss falls.",
        ("learning", "optimization"),
    ),
    Term(
        "loss",
        "How wrong the model is: its average surprise at the token that really came, −ln of the probability it had"
        " given to it. 0 would be perfect; lower is better.",
        ("cross-entropy",),
    ),
    Term(
        "validation loss",
        "The loss on text that the model was not trained on. It shows whether it learned more than to repeat.",
        ("held-out loss", "test loss"),
    ),
    Term(
        "n-gram table",
        "Counts from the training text: which character came after each one (pairs), or after each two (triples), and"
        " how often. Nothing but counting, so it is the mark that a network should pass.",
        ("n-gram model",),
        ("pairs and triples",),
    ),
    Term("surprisal", "The surprise at what came, −ln p: 0 if it was certain, 4.09 if it had one chance in 60."),
    Term("entropy", "How unsure a distribution is: the surprisal one must expect on average."),
    Term(
        "nat",
        "The unit of surprise with natural logarithms: being as unsure as between n equally likely things is ln n"
        " nats.",
    ),
    Term("perplexity", "e to the loss: the number of equally likely choices the model is as unsure as."),
    Term(
        "gradient",
        "For each weight: how much, and in which direction, the loss would change if it were raised a little.",
    ),
    Term(
        "backward pass",
        "Computes the gradients, from the loss back to the first layer.",
        ("backpropagation",),
        ("backpropagation",),
    ),
    Term("forward pass", "Computes the output from the input, layer by layer."),
    Term(
        "training step",
        "One batch, its gradients and one change of the weights.",
        ("optimizer step", "update", "iteration"),
        ("optimizer step",),
    ),
    Term("batch", "The examples of one training step.", ("mini-batch",)),
    Term("epoch", "One pass over all training data."),
    Term(
        "learning rate", "How far each step moves the weights. Too small is slow, too large blows up.", ("step size",)
    ),
    Term("warm-up", "The learning rate starts small and grows over the first steps."),
    Term("optimizer", "The rule that turns gradients into changes of the weights."),
    Term(
        "AdamW",
        "An optimizer that divides each weight's average gradient by its usual size, so that all weights learn at "
        "a similar pace.",
        ("Adam",),
        ("Adam",),
    ),
    Term(
        "Muon",
        "An optimizer for matrices that makes each update orthogonal, so that every direction learns at the same pace.",
    ),
    Term(
        "optimizer states",
        "What the optimizer remembers about each weight; for Adam the first and second moment, two numbers each.",
    ),
    Term("first moment", "A running average of a weight's gradient.", ("momentum", "exp_avg")),
    Term("second moment", "A running average of a weight's squared gradient.", ("exp_avg_sq",)),
    Term("weight decay", "Pulls weights a little toward 0 at every step."),
    Term(
        "dropout",
        "Sets some activations to 0 at random while training, so that the model does not rely on single ones.",
    ),
    Term(
        "overfitting",
        "The training loss falls while the validation loss rises: the model learns the examples by heart.",
    ),
    Term("seed", "The number that a random generator starts from; the same seed gives the same run.", ("random seed",)),
    Term("random generator", "A program that draws numbers that look random and are fixed by its seed.", ("RNG",)),
    Term("checkpoint", "Weights and all other state of a run on disk, to go on from."),
    Term("baseline", "Something simple to compare with: chance, the state before, or the other way of doing it."),
    Term("bigram", "A pair of neighboring tokens; a bigram table predicts a token from the one before it."),
    Term("trigram", "Three tokens in a row; a trigram table predicts a token from the two before it."),
    # --- writing ---
    Term("sampling", "Drawing the next token from the model's distribution.", ("decoding",)),
    Term(
        "temperature",
        "Divides the logits before softmax: below 1 the likely tokens win more often, above 1 the unlikely ones "
        "get a chance.",
    ),
    Term("top-k", "Only the k likeliest tokens may be drawn."),
    Term("greedy", "Always taking the likeliest token; the same as temperature 0.", ("greedy decoding",)),
    Term(
        "beam search",
        "Keeps the few most probable texts so far, lets each go on in all ways, and keeps the most probable again.",
    ),
    Term("min-p", "Only tokens at least this times as likely as the likeliest may be drawn."),
    Term("repetition penalty", "Makes every token that the text already holds less likely."),
    Term("top-p", "Only the fewest top tokens whose probabilities add up to p may be drawn.", ("nucleus sampling",)),
    Term(
        "KV cache",
        "Keys and values of the tokens so far are kept, so that each new token is computed once.",
        ("past key values",),
    ),
    Term("prompt", "The text that the model is given to go on from."),
    # --- fine-tuning ---
    Term("fine-tuning", "Training a finished model a little more, on new data."),
    Term("frozen", "A frozen weight is not changed by training."),
    Term(
        "LoRA",
        "Fine-tuning that leaves the weights frozen and trains two thin matrices beside them.",
        ("low-rank adaptation",),
    ),
    Term("adapter", "The small trained part that is added to a frozen model."),
    Term(
        "rank",
        "Of a matrix: how many independent directions it has. In distributed training: one process, usually one GPU.",
    ),
    Term(
        "quantization",
        "Storing numbers with fewer bits, each rounded to one of a few levels.",
        (),
        ("quantized", "quantize"),
    ),
    Term(
        "NF4", "A 4-bit code whose 16 levels are placed where normally distributed weights lie.", ("4-bit NormalFloat",)
    ),
    Term("QLoRA", "LoRA on a base model whose weights are quantized to 4 bits."),
    Term(
        "RLHF",
        "Reinforcement learning from human feedback: people choose between answers, a reward model learns from "
        "that, and the language model learns from the reward model.",
    ),
    Term("SFT", "Supervised fine-tuning: training on examples of good answers.", ("instruction tuning",)),
    Term(
        "reward model",
        "A model that scores an answer, trained on which of two answers people chose.",
        ("preference model",),
    ),
    Term("policy", "In reinforcement learning: the model that acts. Here the language model that writes."),
    Term("reference model", "A frozen copy of the policy from before, to measure how far it has moved."),
    Term(
        "KL divergence",
        "How different one distribution is from another, in nats; 0 only if they are equal.",
        ("relative entropy",),
        ("KL",),
    ),
    Term(
        "PPO",
        "A reinforcement learning method that limits how much each update may change the policy.",
        ("proximal policy optimization",),
    ),
    Term(
        "DPO",
        "Learns from chosen and rejected answers directly, without a reward model.",
        ("direct preference optimization",),
    ),
    Term("advantage", "How much better an action was than expected."),
    Term("reward hacking", "The policy finds answers that the reward model overrates.", ("overoptimization",)),
    # --- pictures ---
    Term(
        "CLIP",
        "Two networks, one for pictures and one for texts, trained so that a picture and its caption get similar "
        "embeddings.",
    ),
    Term(
        "cosine similarity",
        "How much two vectors point the same way: 1 the same, 0 unrelated, −1 opposite.",
        (),
        ("cosine",),
    ),
    Term("contrastive loss", "Makes the right pair more similar than all wrong pairs of the batch.", ("InfoNCE",)),
    Term("zero-shot", "Naming things by a text description, without having been trained on labels for them."),
    Term("modality gap", "Pictures and texts lie in different parts of their common space."),
    Term(
        "diffusion",
        "Pictures are made by removing noise step by step, with a network that was trained to see the noise.",
    ),
    Term("noise schedule", "How much noise each step of diffusion has."),
    Term("denoising", "Predicting and removing the noise in a picture."),
    Term("U-Net", "A network that shrinks a picture and grows it back, with connections between the same sizes."),
    Term(
        "guidance",
        "Pushes a diffusion model toward its caption; classifier-free guidance compares it with and without the "
        "caption.",
        ("classifier-free guidance", "CFG"),
    ),
    Term("latent", "A small array that stands for a picture, made by an autoencoder."),
    Term("autoencoder", "A network that squeezes a picture into few numbers and builds it again.", ("VAE",)),
    Term("prior", "In DALL·E 2: the model that imagines a picture's embedding from a caption."),
    Term("inpainting", "Filling a hole in a picture so that it fits the rest."),
    Term("DDIM", "A way to take large steps in diffusion without adding new noise."),
    Term(
        "PSNR",
        "How close two pictures are, in decibels; above about 30 they look alike.",
        ("peak signal-to-noise ratio",),
    ),
    Term(
        "the judge",
        "A classifier trained on the same kind of pictures. It says what it recognizes in a drawn one.",
        (),
        ("judge",),
    ),
    # --- many machines ---
    Term("all-reduce", "Every process gets the sum of what all have."),
    Term("all-gather", "Every process gets all parts that the others hold."),
    Term(
        "reduce-scatter", "The sum of what all have is split up: each process gets its part.", (), ("reduce-scatter",)
    ),
    Term("collective", "Communication in which all processes of a group take part.", ("collective communication",)),
    Term("data parallelism", "Every process has the whole model and its part of the batch.", ("DDP",)),
    Term(
        "ZeRO",
        "Optimizer states, gradients and weights are sharded: each process keeps only its part.",
        ("FSDP (full shard = ZeRO-3)",),
    ),
    Term("sharded", "Split up, each process holding one part.", ("partitioned",), ("shard",)),
    Term(
        "tensor parallelism",
        "The matrices of a layer are split over processes.",
        ("intra-layer model parallelism", "Megatron"),
        ("Megatron",),
    ),
    Term("pipeline parallelism", "Each process holds some of the layers; micro-batches flow through them."),
    Term("micro-batch", "A part of the batch that flows through a pipeline on its own."),
    Term("bubble", "The time in which stages of a pipeline wait."),
    Term(
        "gradient checkpointing",
        "Activations are thrown away and computed again when the backward pass needs them: less memory, more time.",
        ("activation recomputation",),
    ),
    Term("FlashAttention", "Attention computed in small tiles that never stores the whole score matrix."),
    Term("tile", "A small block of a matrix that fits into fast memory."),
    Term("SRAM", "Small and very fast memory inside the processor; HBM is the large and slower one beside it."),
    Term("FLOP", "One floating-point addition or multiplication."),
    Term("roofline", "The limit set by how fast a machine computes and how fast it moves data."),
    Term("mixed precision", "Computing in 16 bits while keeping a 32-bit copy of the weights.", (), ("bfloat16",)),
    Term("deduplication", "Removing copies from the training data.", (), ("dedup",)),
    Term("scaling law", "A formula for how the loss falls with model size and data.", ("Chinchilla law",)),
    Term("standard error", "How far an average moves by chance when it is measured again."),
)


def glossary_as_dicts() -> list[dict[str, Any]]:
    """For the page."""
    return [
        {"name": term.name, "text": term.text}
        | ({"also": list(term.also)} if term.also else {})
        | ({"forms": list(term.forms)} if term.forms else {})
        for term in TERMS
    ]
