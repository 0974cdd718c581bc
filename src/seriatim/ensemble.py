"""`OrderEnsemble`: a mixture of one model's distributions under several orders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributions as td

from seriatim.autoregressive import Autoregressive
from seriatim.noise import random_seed, uniforms

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision


class OrderEnsemble(td.Distribution):
    """A mixture of one model's joint distributions under K orders.

        p(x) = 1/K sum_k p_k(x),    log p(x) = logsumexp_k log p_k(x) - log K

    Joint probabilities are averaged, never logits: an average of logits lets later values predict earlier ones and is
    no likelihood. It has no conditionals of its own; `log_prob_terms` averages the members' terms, as an explanation.

    Args:
        members: distributions of equal batch and event shape.

    Reference: A Deep and Tractable Density Estimator (Uria, Murray, Larochelle, 2014).

    Example:
        >>> from seriatim.models import OrderAgnosticMADE
        >>> ensemble = OrderAgnosticMADE((4,), hidden_features=(8,)).ensemble(num_orders=3)
        >>> ensemble.log_prob(ensemble.sample((2,), seed=0)).shape
        torch.Size([2])
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, members: list[Autoregressive]) -> None:
        if not members:
            raise ValueError("members: expected one or more distributions, got none")
        self.members = members
        super().__init__(members[0].batch_shape, members[0].event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.members[0].support

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x) in nats."""
        joint = torch.stack([member.log_prob(value) for member in self.members])
        return torch.logsumexp(joint, dim=0) - math.log(len(self.members))

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Return the mean over members of their terms: an explanation, whose sum is at most log p(x)."""
        return torch.stack([member.log_prob_terms(value) for member in self.members]).mean(0)

    def sample(
        self,
        sample_shape: Any = (),
        *,
        seed: int | None = None,
        engine: Engine = "auto",
        precision: Precision = "float32",
    ) -> Tensor:
        """Pick an order for each row, then sample from it; `engine` and `precision` as for `Autoregressive.sample`."""
        lead = torch.Size(sample_shape) + self.batch_shape
        seed = random_seed() if seed is None else seed
        first = self.members[0]
        rows = torch.arange(math.prod(lead), device=first.model.device)
        # The position after the last has no value: its noise is free to pick the order.
        u = uniforms(seed, rows, torch.tensor([first.order.length]), 1).flatten()
        picked = (u * len(self.members)).long()
        parts, places = [], []
        for k, member in enumerate(self.members):
            mine = rows[picked == k]
            parts.append(member.expand(lead).rows(mine).sample_rows(mine, seed, engine, precision))
            places.append(mine)
        samples = torch.cat(parts)[torch.cat(places).argsort()]
        return samples.reshape(*lead, *self.event_shape)
