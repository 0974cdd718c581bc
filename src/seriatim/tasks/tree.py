"""Exact inference in Bayes nets that are trees (or forests): any observed set, in one sweep up and one down.

    m_t(x_p) = sum_k p(x_t = k | x_p) e_t(k) prod_c m_c(k)        messages from children c, e_t the evidence at t

Reference: Probabilistic Reasoning in Intelligent Systems (Pearl, 1988).
"""

from __future__ import annotations

import torch
from torch import Tensor

from seriatim import distributions as d
from seriatim.model import AutoregressiveModel
from seriatim.models.bayesnet import BayesNet


def is_tree(model: AutoregressiveModel) -> bool:
    """Say whether a model is a Bayes net in which no variable has two parents.

    Example:
        >>> is_tree(BayesNet((3,), 2, [(), (0,), (0,)])), is_tree(BayesNet((3,), 2, [(), (), (0, 1)]))
        (True, False)
    """
    return isinstance(model, BayesNet) and all(len(own) < 2 for own in model.parents)


class Beliefs:
    """What the observed values of each row say about every variable of a tree.

    Args:
        net: a Bayes net without two parents anywhere.
        codes: (B, T) int64 values in positions; those not observed are not read.
        observed: (T,) bool in positions.

    Attributes:
        log_evidence: (B,) log p(observed) in nats.

    Example:
        >>> net = BayesNet((2,), 2, [(), (0,)]).fit_counts(torch.tensor([[0, 0], [0, 1], [1, 1], [1, 1]]), 0)
        >>> Beliefs(net, torch.tensor([[0, 0]]), torch.tensor([False, True])).log_evidence.exp()
        tensor([0.2500], dtype=torch.float64)
    """

    def __init__(self, net: BayesNet, codes: Tensor, observed: Tensor) -> None:
        table = net.table
        self.parents = [own[0] if own else None for own in table.parents]
        self.tables = []
        for t, parent in enumerate(self.parents):
            rows = 1 if parent is None else table.arities[parent]
            first = int(table.offsets[t])
            logits = table.logits.detach()[first : first + rows, : table.arities[t]].double().cpu()
            self.tables.append(logits.log_softmax(-1))
        self.beliefs = [
            self._evidence(codes[:, t], table.arities[t], bool(observed[t])) for t in range(len(self.parents))
        ]
        self.log_evidence = torch.zeros(len(codes), dtype=torch.float64)
        for t in reversed(range(len(self.parents))):  # children come after their parents
            message = torch.logsumexp(self.tables[t] + self.beliefs[t][:, None, :], dim=-1)
            parent = self.parents[t]
            if parent is None:
                self.log_evidence += message[:, 0]
            else:
                self.beliefs[parent] = self.beliefs[parent] + message

    @staticmethod
    def _evidence(codes: Tensor, arity: int, observed: bool) -> Tensor:
        if not observed:
            return torch.zeros(len(codes), arity, dtype=torch.float64)
        return torch.where(torch.arange(arity) == codes[:, None].cpu(), 0.0, -torch.inf).double()

    def sample(self, u: Tensor) -> Tensor:
        """Turn uniforms (B, T) into values (B, T) int64, exact samples of p(missing | observed)."""
        values = torch.zeros(u.shape, dtype=torch.int64)
        for t, parent in enumerate(self.parents):
            row = self.tables[t][0 if parent is None else values[:, parent]]
            values[:, t] = d.Categorical(logits=row + self.beliefs[t], validate_args=False).from_uniforms(u[:, t, None])
        return values
