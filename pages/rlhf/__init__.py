"""The tab "RLHF": learning to answer, clicks, a reward model, a policy that is paid by it, what it finds out."""

from pages._kit.page import Page, Picture
from pages.rlhf.best import best_panels, draw_best
from pages.rlhf.diagram import diagram
from pages.rlhf.dpo import dpo_panels, draw_dpo
from pages.rlhf.grpo import draw_grpo, grpo_panels
from pages.rlhf.hacking import draw_hacking, hacking_panels
from pages.rlhf.ppo import draw_ppo, ppo_panels
from pages.rlhf.preferences import draw_preferences, preferences_panels
from pages.rlhf.sft import draw_sft, sft_panels

THUMB = (
    ("rect", {"x": 20, "y": 12, "width": 34, "height": 26, "rx": 4}, "c"),
    ("rect", {"x": 66, "y": 12, "width": 34, "height": 26, "rx": 4}, "level"),
    ("path", {"d": "M29 25 L35 31 L46 19"}, "c"),
)

PAGE = Page(
    "rlhf",
    "RLHF",
    {
        "preferences": Picture(preferences_panels, draw_preferences, folded=("agreement", "loss")),
        "sft": Picture(sft_panels, draw_sft, folded=("loss",)),
        "ppo": Picture(ppo_panels, draw_ppo, folded=("clipped", "entropy", "before", "now")),
        "hacking": Picture(hacking_panels, draw_hacking, folded=("proxies", "golds")),
        "grpo": Picture(grpo_panels, draw_grpo, folded=("kl", "clipped")),
        "best": Picture(best_panels, draw_best),
        "dpo": Picture(dpo_panels, draw_dpo),
    },
    (
        (
            "Christiano et al. 2017, Deep Reinforcement Learning from Human Preferences",
            "https://arxiv.org/abs/1706.03741",
        ),
        ("Stiennon et al. 2020, Learning to Summarize from Human Feedback", "https://arxiv.org/abs/2009.01325"),
        ("Ouyang et al. 2022, InstructGPT", "https://arxiv.org/abs/2203.02155"),
        ("Zhou et al. 2023, LIMA: Less Is More for Alignment", "https://arxiv.org/abs/2305.11206"),
        ("Shi et al. 2024, Instruction Tuning With Loss Over Instructions", "https://arxiv.org/abs/2405.14394"),
        ("Gudibande et al. 2023, The False Promise of Imitating Proprietary LLMs", "https://arxiv.org/abs/2305.15717"),
        ("Rajpurkar et al. 2016, SQuAD", "https://arxiv.org/abs/1606.05250"),
        ("Schulman et al. 2017, Proximal Policy Optimization", "https://arxiv.org/abs/1707.06347"),
        ("Gao et al. 2022, Scaling Laws for Reward Model Overoptimization", "https://arxiv.org/abs/2210.10760"),
        ("Rafailov et al. 2023, Direct Preference Optimization", "https://arxiv.org/abs/2305.18290"),
        ("Shao et al. 2024, DeepSeekMath (GRPO)", "https://arxiv.org/abs/2402.03300"),
        ("Guo et al. 2025, DeepSeek-R1", "https://arxiv.org/abs/2501.12948"),
        ("Liu et al. 2025, Understanding R1-Zero-Like Training (Dr. GRPO)", "https://arxiv.org/abs/2503.20783"),
        ("Yu et al. 2025, DAPO", "https://arxiv.org/abs/2503.14476"),
        ("Schulman 2020, Approximating KL Divergence", "http://joschu.net/blog/kl-approx.html"),
        (
            "Huang et al. 2022, The 37 Implementation Details of PPO",
            "https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/",
        ),
        (
            "Huang et al. 2023, The N Implementation Details of RLHF with PPO",
            "https://huggingface.co/blog/the_n_implementation_details_of_rlhf_with_ppo",
        ),
        ("Ziegler et al. 2019, Fine-Tuning Language Models from Human Preferences", "https://arxiv.org/abs/1909.08593"),
        (
            "Schulman et al. 2016, High-Dimensional Continuous Control Using Generalized Advantage Estimation",
            "https://arxiv.org/abs/1506.02438",
        ),
        (
            "Beirami et al. 2024, Theoretical guarantees on the best-of-n alignment policy",
            "https://arxiv.org/abs/2401.01879",
        ),
        (
            "Rafailov et al. 2024, Scaling Laws for Reward Model Overoptimization in Direct Alignment Algorithms",
            "https://arxiv.org/abs/2406.02900",
        ),
        ("Bradley and Terry 1952, Rank Analysis of Incomplete Block Designs", "https://doi.org/10.2307/2334029"),
        (
            "Stone 1974, Cross-Validatory Choice and Assessment of Statistical Predictions",
            "https://doi.org/10.1111/j.2517-6161.1974.tb00994.x",
        ),
    ),
    diagram=diagram,
    thumb=THUMB,
)
