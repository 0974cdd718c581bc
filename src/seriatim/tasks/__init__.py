"""What an exact p(x) is good for: evaluate, complete, explain, generate."""

from seriatim.tasks.baselines import Baseline, baselines
from seriatim.tasks.complete import REGIONS, Completion, complete, log_prob_given, region
from seriatim.tasks.evaluate import Evaluation, bits_per_dim, evaluate, paired_difference
from seriatim.tasks.explain import Explanation, explain
from seriatim.tasks.generate import generate
from seriatim.tasks.grow import Growth, grow

__all__ = [
    "REGIONS",
    "Baseline",
    "Completion",
    "Evaluation",
    "Explanation",
    "Growth",
    "baselines",
    "bits_per_dim",
    "complete",
    "evaluate",
    "explain",
    "generate",
    "grow",
    "log_prob_given",
    "paired_difference",
    "region",
]
