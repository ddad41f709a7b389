"""The numbers that Chen, Zhang and Zhu published (EMNLP 2024, pages 9157-9170), each typed once.

Calls are means over five runs, as the paper gives them. None: not in the paper. Numbers that the paper gives in its
text or in the captions of figures stand at the end.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """What a row of a table says: calls of the LLM and average reward, over 622,000 rounds of OneShotWikiLinks-311."""

    calls: float | None
    reward: float | None


ROUNDS, ACTIONS, BATCH, SEEDS = 622_000, 311, 32, 5

DATA_SETS = {"OneShotWikiLinks-311": (622_000, 311), "AmazonCat-13K": (1_186_239, 13_330)}
"""Table 1: rounds and actions."""

TIME_RATIOS = {"Flan-T5-small": 52.16, "Flan-T5-base": 79.49, "Flan-T5-large": 159.20}
"""Table 2: time of one decision of the LLM over that of SpannerGreedy."""

CALL_SHARES = {"Flan-T5-small": 0.06177, "Flan-T5-base": 0.10033, "Flan-T5-large": 0.14381}
"""Table 3."""

BUDGETS = {
    "SpannerGreedy": Row(None, 0.11773),
    "LLM alone": Row(622_000, 0.12423),
    "log-barrier (Algorithm 2)": Row(89_448.6, 0.17913),
    "Eq. (1), B = 10K": Row(7_669.2, 0.16836),
    "Eq. (1), B = 20K": Row(12_084.4, 0.17309),
    "early stop, B = 10K": Row(10_000, 0.16774),
    "early stop, B = 20K": Row(20_000, 0.17508),
}
"""Table 4, Flan-T5-large."""

STRATEGIES = {
    "polynomial": Row(19_419.8, 0.17413),
    "exponential": Row(14_943.6, 0.17259),
    "log-barrier": Row(89_448.6, 0.17913),
}
"""Table 5."""

SMOOTHING = {
    "none": Row(618_551.4, 0.12386),
    "clip .2": Row(89_448.6, 0.17913),
    "clip .1": Row(144_201.2, 0.17532),
    "mix .05": Row(151_608.0, 0.17449),
    "mix .1": Row(149_728.6, 0.17288),
    "mix .2": Row(189_486.0, 0.16691),
    "mix .4": Row(248_214.4, 0.15862),
}
"""Table 6."""

SEVERAL = {"small + large": Row(95_057.4, 0.17813), "large": Row(89_448.6, 0.17913), "small": Row(38_424.0, 0.17131)}
"""Table 7; of both together, 5,833.4 calls went to the small one and 89,224.0 to the large one."""

TOGETHER = (5_833.4, 89_224.0)

INSIDE = {"bandit inside the hybrid": 0.17546, "bandit alone": 0.11773, "bandit that learns from the LLM only": 0.06669}
"""Figure 4, Flan-T5-large: average rewards of the bandit's own choices."""


class Headline(NamedTuple):
    """What a figure says: Algorithm 2 earns `times` what the better of the bandit and the LLM earns alone, asking in
    `share` of the rounds."""

    figure: int
    data: str
    model: str
    reward: float | None
    times: float
    share: float


HEADLINES = (
    Headline(1, "AmazonCat-13K", "Flan-T5-small", 0.33603, 6.2, 0.015),
    Headline(2, "OneShotWikiLinks-311", "Flan-T5-large", 0.17913, 1.44, 0.14381),
    Headline(3, "AmazonCat-13K", "Gemma-2B-instruct", None, 5.82, 0.0162),
    Headline(3, "AmazonCat-13K", "GPT-4o-mini", None, 2.47, 0.0449),
)
"""Figures 1 to 3. The times of Figure 2 are ours, from Table 4."""

NOTEBOOKS = {
    "SpannerGreedy": 0.13040,
    "epsilon-greedy": 0.12174,
    "IGW, 14,000": 0.13328,
    "SpannerIGW, 2,250.8": 0.14657,
}
"""Not Chen et al.: the output of Zhu, Foster, Langford and Mineiro's public notebooks (ICML 2022) on the same data, one
seed."""
