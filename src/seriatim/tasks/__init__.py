"""What an exact p(x) is good for: evaluate, complete, explain, generate, classify."""

from seriatim.tasks.baselines import Baseline, baselines
from seriatim.tasks.calibration import Quality, calibration_error, fit_temperature, log_posterior, quality
from seriatim.tasks.classify import (
    Classification,
    calibrate,
    class_frequencies,
    class_log_likelihoods,
    class_log_probs,
    classify,
    even_prefixes,
    posterior,
    progressive,
)
from seriatim.tasks.complete import REGIONS, Completion, complete, log_prob_given, region
from seriatim.tasks.evaluate import Evaluation, bits_per_dim, evaluate, paired_difference
from seriatim.tasks.explain import Explanation, explain
from seriatim.tasks.generate import generate
from seriatim.tasks.grow import Growth, grow

__all__ = [
    "REGIONS",
    "Baseline",
    "Classification",
    "Completion",
    "Evaluation",
    "Explanation",
    "Growth",
    "Quality",
    "baselines",
    "bits_per_dim",
    "calibrate",
    "calibration_error",
    "class_frequencies",
    "class_log_likelihoods",
    "class_log_probs",
    "classify",
    "complete",
    "evaluate",
    "even_prefixes",
    "explain",
    "fit_temperature",
    "generate",
    "grow",
    "log_posterior",
    "log_prob_given",
    "paired_difference",
    "posterior",
    "progressive",
    "quality",
    "region",
]
