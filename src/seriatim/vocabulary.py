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
        return token_terms(self.params, value)[0]

    def terms(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p of the values, and the mean of log p over all K values, which smoothed labels ask for."""
        log_p, mean, _ = token_terms(self.params, value, mean=True)
        return log_p, mean


def token_terms(
    params: Tensor, value: Tensor, ended: Tensor | None = None, *, mean: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log softmax(a) at the values, its mean over all K values, and of sequences that end log p of the end.

    Args:
        params: (..., K) numbers a; (..., 1 + K) with s before them where `ended` is given.
        value: (...) codes 0..K-1.
        ended: (...) where the value is the end, with probability sigmoid(s); the other terms are 0 there.
        mean: whether the mean is wanted; if not, and of what has no end, zeros stand for what is not there.

    Example:
        >>> a = torch.zeros(2, 5)
        >>> terms = token_terms(a, torch.tensor([1, 0]), torch.tensor([False, True]), mean=True)
        >>> [t.exp() for t in terms]
        [tensor([0.2500, 1.0000]), tensor([0.2500, 1.0000]), tensor([0.5000, 0.5000])]
    """
    shape = broadcast(value.shape, params.shape[:-1])
    flags = None if ended is None else ended.expand(shape).flatten()
    flat = params.expand(*shape, -1).reshape(-1, params.shape[-1])
    log_p, average, stop = _TokenTerms.apply(flat, value.long().expand(shape).flatten(), flags, mean)
    return log_p.reshape(shape), average.reshape(shape), stop.reshape(shape)


class _TokenTerms(torch.autograd.Function):
    """`token_terms` of N rows, with the gradient written out.

    Tables of N rows and K columns cost more to allocate and to fill than their numbers to compute. So rows are
    worked on in blocks that stay in cache, and the only table made is the gradient of the parameters.
    """

    @staticmethod
    def forward(
        ctx: Any, params: Tensor, value: Tensor, ended: Tensor | None, mean: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        first = 0 if ended is None else 1
        normaliser, average, stop = torch.zeros(3, len(params), dtype=_accurate(params), device=params.device)
        for rows in _row_blocks(params):
            block = params[rows, first:].to(normaliser.dtype)
            normaliser[rows] = block.logsumexp(-1)
            if mean:
                average[rows] = block.mean(-1) - normaliser[rows]
        ctx.save_for_backward(params, value, ended, normaliser)
        ctx.set_materialize_grads(False)  # None for what is not used
        log_p = params.gather(1, value[:, None] + first)[:, 0] - normaliser
        if ended is None:
            return log_p, average, stop
        stop = params[:, 0].to(normaliser.dtype)
        return log_p.masked_fill(ended, 0), average.masked_fill(ended, 0), F.logsigmoid(stop.where(ended, -stop))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, of_value: Tensor | None, of_mean: Tensor | None, of_stop: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        params, value, ended, normaliser = ctx.saved_tensors
        first, total = 0 if ended is None else 1, torch.empty_like(params)
        chosen = torch.zeros_like(normaliser) if of_value is None else of_value
        spread = None if of_mean is None else of_mean / (params.shape[1] - first)
        if ended is not None:
            chosen = chosen.masked_fill(ended, 0)
            spread = None if spread is None else spread.masked_fill(ended, 0)
        falling = -chosen if spread is None else -chosen - spread * (params.shape[1] - first)
        in_place = total.dtype is normaliser.dtype
        for rows in _row_blocks(params):
            out = total[rows, first:]
            p = torch.sub(params[rows, first:], normaliser[rows, None], out=out if in_place else None)
            p.exp_().mul_(falling[rows, None])
            if spread is not None:
                p.add_(spread[rows, None])
            p.scatter_add_(1, value[rows, None], chosen[rows, None])
            if not in_place:
                out.copy_(p)
        if ended is not None:
            stop = params[:, 0].to(normaliser.dtype)
            slope = torch.sigmoid(-stop).where(ended, -torch.sigmoid(stop))
            total[:, 0] = 0 if of_stop is None else of_stop * slope
        return total, None, None, None


def _accurate(params: Tensor) -> torch.dtype:
    return torch.promote_types(params.dtype, torch.float32)


def _row_blocks(table: Tensor) -> list[slice]:
    """Return slices of the rows of a table: as many as stay in the cache of a processor, or keep a GPU busy."""
    numbers = 1 << (17 if table.device.type == "cpu" else 26)
    size = max(1, numbers // table.shape[1])
    return [slice(start, start + size) for start in range(0, len(table), size)]
