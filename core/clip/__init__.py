r"""CLIP: one space for pictures and words.

Two towers, one for pictures and one for texts, each end in a vector of length 1. They are trained on pairs alone: the
cosine of a picture and its own caption should beat those with all other captions of the batch, in both directions:

$$\ell = -\frac{1}{2N} \sum_i \Big( \ln \frac{e^{s\,x_i \cdot y_i}}{\sum_j e^{s\,x_i \cdot y_j}}
+ \ln \frac{e^{s\,x_i \cdot y_i}}{\sum_j e^{s\,x_j \cdot y_i}} \Big).$$

$x_i$ and $y_i$ are the embeddings of picture $i$ and caption $i$, $s$ is a learned scale. No class is ever named: a
classifier is a list of captions, made at the moment it is needed, also for things that training never showed together.

What comes out is less than understanding. In a real CLIP a cosine of 0.25 can be a sure yes, the two kinds of vectors
keep apart from each other (the *modality gap*), and a word written on a picture can count as much as what it shows.
Which of two objects is the red one, or the left one, is learned last, here as there.

The world is small: drawings of eight colors and six shapes, with captions. The towers have 0.4 million parameters
together (CLIP's ViT-B/32: 151 million) and learn within a minute what they are asked here.

Read in this order: `worlds.py` (pictures and captions), `contrast.py` (the loss and an optimizer step), `train.py`,
then the questions to a trained model: `match.py`, `see.py`, `gap.py`, `binding.py`.

Code -> paper: `contrast` -> figure 3, `logit_scale` -> $t$ of figure 3, `Quiz` -> zero-shot transfer of section 3.1.
Left out: the 400 million pairs from the web, and with them everything that is not in the drawings.
Source: Radford et al. 2021, arXiv:2103.00020; mlfoundations/open_clip.
"""

from core.clip.match import MatchConfig, MatchStep, match
from core.clip.train import TrainConfig, TrainStep, train
from core.clip.see import SeeConfig, SeeStep, see
from core.clip.gap import GapConfig, GapStep, gap
from core.clip.binding import BindingConfig, BindingStep, binding

__all__ = [
    "BindingConfig",
    "BindingStep",
    "GapConfig",
    "GapStep",
    "MatchConfig",
    "MatchStep",
    "SeeConfig",
    "SeeStep",
    "TrainConfig",
    "TrainStep",
    "binding",
    "gap",
    "match",
    "see",
    "train",
]
