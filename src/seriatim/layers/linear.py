"""Masked linear maps between units sorted by degree: the arithmetic of FVSBN and MADE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import State, write

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


def degree_counts(num_units: int, num_positions: int, first: int = 0) -> list[int]:
    """Spread units evenly over the positions first..T-1: how many units each of the T positions owns.

    Example:
        >>> degree_counts(5, 3), degree_counts(4, 3, first=1)
        ([2, 2, 1], [0, 2, 2])
    """
    first = min(first, num_positions - 1)
    share, rest = divmod(num_units, num_positions - first)
    return [0] * first + [share + (degree < rest) for degree in range(num_positions - first)]


class MaskedLinear(nn.Module):
    """A linear map in which a unit owned by position t sees the units owned by positions up to t.

        y_i = b_i + sum_j [position(j) <= position(i)] W_ij x_j  (+ sum_k C_ik c_k)

    Units are sorted by position, so positions p..p+n own a slice of them, and its output costs the rows of W of that
    slice over the columns seen so far: T steps cost one pass of arithmetic in all. The law of chunks holds; but a
    chunk is flat, x (B, units of its positions), because positions may own different numbers of units (even none),
    and so `forward` is told how many positions it spans.

    Args:
        in_counts: (T,) how many inputs each position owns.
        out_counts: (T,) how many outputs each position owns.
        context_features: the size of a context vector added through weights of its own; 0 for none.

    Reference: MADE: Masked Autoencoder for Distribution Estimation (Germain, Gregor, Murray, Larochelle, 2015).

    Example:
        >>> layer = MaskedLinear([1, 1, 1], [2, 2, 2])
        >>> y, _ = layer(torch.ones(4, 3), layer.initial_state(4), 3)
        >>> y.shape
        torch.Size([4, 6])
    """

    mask: Tensor

    def __init__(self, in_counts: Sequence[int], out_counts: Sequence[int], context_features: int = 0) -> None:
        super().__init__()
        self.in_ends = torch.tensor([0, *in_counts]).cumsum(0).tolist()
        self.out_ends = torch.tensor([0, *out_counts]).cumsum(0).tolist()
        self.in_features, self.out_features = self.in_ends[-1], self.out_ends[-1]
        position = torch.arange(len(in_counts))
        in_position = position.repeat_interleave(torch.tensor(in_counts))
        out_position = position.repeat_interleave(torch.tensor(out_counts))
        self.register_buffer("mask", in_position <= out_position[:, None], persistent=False)
        self.weight = nn.Parameter(torch.empty(self.out_features, self.in_features))
        self.bias = nn.Parameter(torch.zeros(self.out_features))
        self.context = nn.Linear(context_features, self.out_features, bias=False) if context_features else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, gain: float = 1.0) -> None:
        """Draw the weights, each row for its own fan-in: a unit of an early position sees few inputs."""
        fan_in = self.mask.sum(1, keepdim=True).clamp_min(1).to(self.weight.dtype)
        self.weight.uniform_(-gain, gain).div_(fan_in.sqrt())

    def initial_state(self, batch_size: int, context: Tensor | None = None) -> State:
        """Return the state before the first position: inputs seen so far, and the context's share of the outputs."""
        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.weight.device),
            "inputs": self.weight.new_zeros(batch_size, self.in_features),
            "context": None if self.context is None else self.context(context),
        }

    def forward(
        self,
        x: Tensor,
        state: State,
        num_positions: int,
        *,
        in_variables: Tensor | None = None,
        out_variables: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Map the inputs of the next n positions (B, ...) to their outputs (B, ...).

        Where the weights belong to variables, `in_variables` and `out_variables` (T,) name the variable whose columns
        or rows stand at each position; None: those of the position itself. The mask is always that of positions.
        """
        first = int(state["position"][0])
        last = first + num_positions
        inputs = write(state["inputs"], self.in_ends[first], x)
        rows, seen = slice(self.out_ends[first], self.out_ends[last]), slice(0, self.in_ends[last])
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if out_variables is not None:
            weight, bias = (_take(t, 0, out_variables[first:last], len(out_variables)) for t in (weight, bias))
        else:
            weight, bias = weight[rows], bias[rows]
        if in_variables is not None:
            weight = _take(weight, 1, in_variables[:last], len(in_variables))
        else:
            weight = weight[:, seen]
        y = F.linear(inputs[:, seen], weight * self.mask[rows, seen], bias)
        if state["context"] is not None:
            share = state["context"]
            if out_variables is not None:
                share = _take(share, 1, out_variables[first:last], len(out_variables))
            else:
                share = share[:, rows]
            y = y + share
        return y, {**state, "position": state["position"] + num_positions, "inputs": inputs}

    def lower(
        self,
        tape: Tape,
        x: Operand,
        *,
        in_variables: Tensor | None = None,
        out_variables: Tensor | None = None,
    ) -> Operand:
        """Append the map to a tape; the variables at each position as for `forward`."""

        def by_position(tensor: Tensor, axis: int, variables: Tensor | None) -> Tensor:
            return tensor if variables is None else _take(tensor, axis, variables, len(variables))

        def load(state: State) -> tuple[int, Tensor, Tensor]:
            start = self.bias.expand(len(state["position"]), -1)
            start = start if state["context"] is None else start + state["context"]
            return int(state["position"][0]), state["inputs"], by_position(start, 1, out_variables)

        weight = by_position(by_position(self.weight, 0, out_variables), 1, in_variables)
        return tape.ragged(x, weight * self.mask, (self.in_ends, self.out_ends), load)


def _take(tensor: Tensor, axis: int, variables: Tensor, num_variables: int) -> Tensor:
    """Take the units of some variables along an axis that holds equally many of each."""
    return tensor.unflatten(axis, (num_variables, -1)).index_select(axis, variables).flatten(axis, axis + 1)
