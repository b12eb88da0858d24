"""The tab "RLHF": clicks, a reward model, a policy that is paid by it, what it finds out, and the short way round."""

from pages._kit.page import Page, Picture
from pages.rlhf.dpo import dpo_panels, draw_dpo
from pages.rlhf.hacking import draw_hacking, hacking_panels
from pages.rlhf.ppo import draw_ppo, ppo_panels
from pages.rlhf.preferences import draw_preferences, preferences_panels

PAGE = Page(
    "rlhf",
    "RLHF",
    {
        "preferences": Picture(preferences_panels, draw_preferences),
        "ppo": Picture(ppo_panels, draw_ppo),
        "hacking": Picture(hacking_panels, draw_hacking),
        "dpo": Picture(dpo_panels, draw_dpo),
    },
    (
        ("Christiano et al. 2017, Deep Reinforcement Learning from Human Preferences", "https://arxiv.org/abs/1706.03741"),
        ("Stiennon et al. 2020, Learning to Summarize from Human Feedback", "https://arxiv.org/abs/2009.01325"),
        ("Ouyang et al. 2022, InstructGPT", "https://arxiv.org/abs/2203.02155"),
        ("Schulman et al. 2017, Proximal Policy Optimization", "https://arxiv.org/abs/1707.06347"),
        ("Gao et al. 2022, Scaling Laws for Reward Model Overoptimization", "https://arxiv.org/abs/2210.10760"),
        ("Rafailov et al. 2023, Direct Preference Optimization", "https://arxiv.org/abs/2305.18290"),
        ("Huang et al. 2022, The 37 Implementation Details of PPO", "https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/"),
    ),
)
