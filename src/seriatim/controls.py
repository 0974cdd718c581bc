"""Controls of sampling: a temperature and three truncations of each conditional, in one order.

Under controls x_t is drawn from q(x_t | x_<t) in place of p(x_t | x_<t). Rows are then samples of prod_t q, which is
not p, nor a power of p: each step ignores what follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from seriatim import distributions as d

TIE = 1e-6
"""Relative rounding of float32 probabilities: a value this near to a threshold counts as on it."""

_BLOCK = 1 << 20  # numbers at a time, where the values are many


@dataclass(frozen=True)
class Controls:
    """How conditionals are sharpened and cut before a value is drawn, in this order.

        temperature   q(x) = p(x)^(1/T) / sum_x' p(x')^(1/T)
        top_k         of these the k most probable values
        top_p         of these, made to sum to 1, the fewest most probable ones whose sum is top_p or more
        min_p         of these the ones at least min_p times as probable as the most probable

    What is left is made to sum to 1. Of equally probable values the smaller comes first (the end of a sequence after
    all of them), so that top_k keeps k values exactly; min_p keeps all of them or none. The most probable value is
    always kept: top_k=1 is the greedy choice. Other programs cut in other orders, or before the temperature.

    Args:
        temperature: T > 0; below 1 sharper, above 1 flatter. Of `Normal` and `MultivariateNormal` too, exactly: sigma
            becomes sigma sqrt(T).
        top_k: 1 or more, or None.
        top_p: in (0, 1], or None.
        min_p: in [0, 1], or None.

    Raises:
        ValueError: a number out of its range.

    Reference: The Curious Case of Neural Text Degeneration (Holtzman, Buys, Du, Forbes, Choi, 2020) for top_p; Turning
    Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs (Nguyen et al., 2024) for min_p.

    Example:
        >>> p = d.Categorical(probs=torch.tensor([0.4, 0.1, 0.3, 0.2]))
        >>> Controls(top_k=3, top_p=0.7).apply(p).probs.round(decimals=3)
        tensor([0.5710, 0.0000, 0.4290, 0.0000], dtype=torch.float64)
        >>> Controls(top_p=0)
        Traceback (most recent call last):
        ...
        ValueError: top_p: expected a number above 0, up to 1, got 0
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature}")
        if self.top_k is not None and not (isinstance(self.top_k, int) and self.top_k >= 1):
            raise ValueError(f"top_k: expected a whole number, 1 or more, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected a number above 0, up to 1, got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p: expected a number from 0 to 1, got {self.min_p}")

    @property
    def neutral(self) -> bool:
        """Whether nothing is changed, so that samples are the model's own."""
        return self.temperature == 1 and not self._truncations

    @property
    def _truncations(self) -> list[str]:
        changes = {"top_k": self.top_k, "top_p": self.top_p not in (None, 1), "min_p": self.min_p}
        return [name for name, changed in changes.items() if changed]

    def apply(self, conditional: Any) -> Any:
        """Return the distribution that is sampled in place of a conditional; the conditional itself if `neutral`.

        Its first uniform chooses among the values, in increasing order. A distribution may define
        `controlled(controls)` to say so itself.

        Args:
            conditional: of values 0..K-1, of any batch shape.

        Raises:
            ValueError: values that are not finitely many; names the control.
        """
        if self.neutral:
            return conditional
        if hasattr(conditional, "controlled"):
            return conditional.controlled(self)
        if not self._truncations and isinstance(conditional, d.Normal | d.MultivariateNormal):
            return _widened(conditional, math.sqrt(self.temperature))
        return d.Categorical(logits=self.truncated(self.log_masses(conditional)), validate_args=False)

    def log_masses(self, conditional: Any) -> Tensor:
        """Return log p of all values of a conditional, (*batch_shape, K) float64.

        Raises:
            ValueError: values that are not finitely many; names the control.
        """
        count = num_values(conditional)
        if count is None:
            name, wanted = (self._truncations[0], None) if self._truncations else ("temperature", 1)
            raise ValueError(
                f"{name}: expected {wanted} for {type(conditional).__name__}, whose values are no bits or levels, "
                f"got {getattr(self, name)}"
            )
        if isinstance(conditional, d.Categorical):
            return conditional.logits.double()
        batch = conditional.batch_shape
        log_p = torch.empty(*batch, count, dtype=torch.float64, device=_device(conditional))
        for values in torch.arange(count, device=log_p.device).split(max(1, _BLOCK // max(1, 8 * batch.numel()))):
            own = conditional.log_prob(values.reshape(-1, *[1] * len(batch)).expand(-1, *batch))
            log_p[..., values] = own.double().movedim(0, -1)
        return log_p

    def truncated(self, log_p: Tensor) -> Tensor:
        """Return log q of K values, up to a constant, -inf for those left out.

        Args:
            log_p: (..., K) float64, up to a constant.
        """
        rows = log_p.reshape(-1, log_p.shape[-1])
        blocks = rows.split(max(1, _BLOCK // log_p.shape[-1]))
        return torch.cat([self._truncated(block) for block in blocks]).reshape(log_p.shape)

    def _truncated(self, log_p: Tensor) -> Tensor:
        # The largest becomes 0 first: near T = 0 all others may go to -inf, but not all.
        log_q = (log_p - log_p.amax(-1, keepdim=True)) / self.temperature
        if {"top_k", "top_p"} & {*self._truncations}:
            ranked, values = log_q.sort(dim=-1, descending=True, stable=True)
            if self.top_k is not None:
                ranked[..., self.top_k :] = -torch.inf
            if self.top_p is not None and self.top_p < 1:
                mass = ranked.softmax(-1)
                # A value is needed if those before it do not reach top_p; the first one is in any case.
                enough = (mass.cumsum(-1) - mass)[..., 1:] >= self.top_p - TIE
                ranked[..., 1:].masked_fill_(enough, -torch.inf)
            log_q = torch.empty_like(ranked).scatter_(-1, values, ranked)
        if self.min_p:
            log_q = log_q.masked_fill(log_q < math.log(self.min_p) - TIE, -torch.inf)
        return log_q


EXACT = Controls()
"""No controls: samples of the model itself."""


def num_values(conditional: Any) -> int | None:
    """Return K of a distribution of values 0..K-1, None for other values.

    Example:
        >>> num_values(d.Bernoulli(logits=torch.zeros(2))), num_values(d.Normal(torch.zeros(1), torch.ones(1)))
        (2, None)
    """
    support = conditional.support
    if support is constraints.boolean:
        return 2
    if isinstance(support, constraints.integer_interval) and support.lower_bound == 0:
        return int(support.upper_bound) + 1
    return None


def _widened(conditional: d.Normal | d.MultivariateNormal, factor: float) -> d.Normal | d.MultivariateNormal:
    if isinstance(conditional, d.Normal):
        return d.Normal(conditional.loc, conditional.scale * factor, validate_args=False)
    return d.MultivariateNormal(conditional.loc, scale_tril=conditional.scale_tril * factor, validate_args=False)


def _device(conditional: Any) -> torch.device:
    for name in ("logits", "loc"):
        if isinstance(own := getattr(conditional, name, None), Tensor):
            return own.device
    return torch.device("cpu")
