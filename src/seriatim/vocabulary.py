"""Distributions over large vocabularies: what costs is to make tables of K columns, so few are made."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.nn import functional as F

from seriatim.distributions import Categorical, broadcast


class Tokens(Categorical):
    """A value in 0..K-1, K large, with probabilities softmax(params): normalised when asked for.

    `log_prob` and its gradient never hold a second table of K columns (`_TokenTerms`).

    Args:
        params: (*batch_shape, K) numbers whose softmax is meant.

    Example:
        >>> Tokens(torch.zeros(2, 8000)).log_prob(torch.tensor([0, 7999])).exp() * 8000
        tensor([1.0000, 1.0000])
    """

    def __init__(self, params: Tensor) -> None:
        self.params = self._param = params
        self._num_events = params.shape[-1]
        td.Distribution.__init__(self, params.shape[:-1], validate_args=False)

    @property
    def logits(self) -> Tensor:
        """Normalised to log probabilities."""
        return torch.log_softmax(self.params, dim=-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Tokens:
        return Tokens(self.params.expand(*batch_shape, -1))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.terms(value)[0]

    def terms(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of the values, and the mean of log p over all K values, which smoothed labels ask for."""
        terms = token_terms(self.params, value, None)
        return terms[0], terms[1]


def token_terms(params: Tensor, value: Tensor, ended: Tensor | None) -> tuple[Tensor, ...]:
    """Return log softmax(a) at the values, its mean over all K values, and of sequences that end log p of the end.

    Args:
        params: (..., K) numbers a; (..., 1 + K) with s before them where `ended` is given.
        value: (...) codes 0..K-1.
        ended: (...) where the value is the end, with probability sigmoid(s); the other terms are 0 there.

    Example:
        >>> a = torch.zeros(2, 5)
        >>> [t.exp() for t in token_terms(a, torch.tensor([1, 0]), torch.tensor([False, True]))]
        [tensor([0.2500, 1.0000]), tensor([0.2500, 1.0000]), tensor([0.5000, 0.5000])]
    """
    shape = broadcast(value.shape, params.shape[:-1])
    flags = None if ended is None else ended.expand(shape).flatten()
    flat = params.expand(*shape, -1).reshape(-1, params.shape[-1])
    terms: tuple[Tensor, ...] = _TokenTerms.apply(flat, value.long().expand(shape).flatten(), flags)
    return tuple(term.reshape(shape) for term in terms)


class _TokenTerms(torch.autograd.Function):
    """`token_terms` of N rows, with the gradient written out.

    Tables of N rows and K columns cost more to allocate and to fill than their numbers to compute. So rows are
    worked on in blocks that stay in cache, and the only table made is the gradient of the parameters.
    """

    @staticmethod
    def forward(ctx: Any, params: Tensor, value: Tensor, ended: Tensor | None) -> tuple[Tensor, ...]:
        first = 0 if ended is None else 1
        normaliser, mean = (torch.empty(len(params), dtype=_accurate(params), device=params.device) for _ in range(2))
        for rows in _row_blocks(params):
            block = params[rows, first:].to(normaliser.dtype)
            normaliser[rows], mean[rows] = block.logsumexp(-1), block.mean(-1)
        ctx.save_for_backward(params, value, ended, normaliser)
        log_p, mean = params.gather(1, value[:, None] + first)[:, 0] - normaliser, mean - normaliser
        if ended is None:
            return log_p, mean
        stop = params[:, 0].to(log_p.dtype)
        return log_p.masked_fill(ended, 0), mean.masked_fill(ended, 0), F.logsigmoid(torch.where(ended, stop, -stop))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        params, value, ended, normaliser = ctx.saved_tensors
        first, count = (0, params.shape[1]) if ended is None else (1, params.shape[1] - 1)
        log_p, mean = grads[:2] if ended is None else (grad.masked_fill(ended, 0) for grad in grads[:2])
        total = torch.empty_like(params)
        for rows in _row_blocks(params):
            p = (params[rows, first:].to(normaliser.dtype) - normaliser[rows, None]).exp_()
            p.mul_(-(log_p + mean)[rows, None]).add_(mean[rows, None] / count)
            p.scatter_add_(1, value[rows, None], log_p[rows, None])
            total[rows, first:] = p
        if ended is not None:
            stop = params[:, 0].to(normaliser.dtype)
            total[:, 0] = grads[2] * torch.where(ended, torch.sigmoid(-stop), -torch.sigmoid(stop))
        return total, None, None


def _accurate(params: Tensor) -> torch.dtype:
    return torch.promote_types(params.dtype, torch.float32)


def _row_blocks(table: Tensor) -> list[slice]:
    """Return slices of the rows of a table: as many as stay in the cache of a processor, or keep a GPU busy."""
    numbers = 1 << (17 if table.device.type == "cpu" else 26)
    size = max(1, numbers // table.shape[1])
    return [slice(start, start + size) for start in range(0, len(table), size)]
