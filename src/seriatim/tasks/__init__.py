"""What an exact p(x) is good for: evaluate, complete, explain, generate, classify."""

from seriatim.tasks.attention import AttentionMaps, attention_maps
from seriatim.tasks.baselines import Baseline, baselines
from seriatim.tasks.beam import Hypothesis, beam_search
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
from seriatim.tasks.follow import follow
from seriatim.tasks.generate import Generated, generate, generate_scored
from seriatim.tasks.grow import Growth, grow
from seriatim.tasks.sequence_baselines import sequence_baselines
from seriatim.tasks.stream import stream
from seriatim.tasks.surprise import Surprise, read_along, read_parts, surprise, surprise_inside

__all__ = [
    "REGIONS",
    "AttentionMaps",
    "Baseline",
    "Classification",
    "Completion",
    "Evaluation",
    "Explanation",
    "Generated",
    "Growth",
    "Hypothesis",
    "Quality",
    "Surprise",
    "attention_maps",
    "baselines",
    "beam_search",
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
    "follow",
    "generate",
    "generate_scored",
    "grow",
    "log_posterior",
    "log_prob_given",
    "paired_difference",
    "posterior",
    "progressive",
    "quality",
    "read_along",
    "read_parts",
    "region",
    "sequence_baselines",
    "stream",
    "surprise",
    "surprise_inside",
]
