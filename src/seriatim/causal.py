"""`Causal`: the contract of every layer and network, and what holds states together.

**The law of chunks.** A causal module maps a chunk of any length to a chunk of the same length, and threads a state:

    y, state = module(x, state)        x: (B, n, F) -> y: (B, n, P)

Cutting a sequence into chunks anywhere and threading the state gives the same outputs. One chunk of all positions
is the parallel form (training, scoring); chunks of one are the step form (sampling); a chunk of a prompt is prefill.

A state is a pytree (dicts, lists, tuples and tensors), batch first, owned by the caller. It is used once: with
gradients off a module may write into the state it was given, so whoever branches calls `clone` or `select` first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape

State = Any
"""A pytree of tensors, batch first: a tensor, None, or a dict, list or tuple of states."""


def tree_map(function: Callable[[Tensor], Tensor], tree: State) -> State:
    """Apply a function to every tensor of a state.

    Example:
        >>> tree_map(lambda t: t + 1, {"h": torch.zeros(2), "c": (None, [torch.ones(1)])})
        {'h': tensor([1., 1.]), 'c': (None, [tensor([2.])])}
    """
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(tree_map(function, value) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(tree_map(function, value) for value in tree)
    raise TypeError(f"state: expected tensors in dicts, lists and tuples, got {type(tree).__name__}")


def leaves(tree: State) -> list[Tensor]:
    """List the tensors of a state, in the order of `tree_map`.

    Example:
        >>> leaves({"h": torch.zeros(2), "c": (None, [torch.ones(1)])})
        [tensor([0., 0.]), tensor([1.])]
    """
    found: list[Tensor] = []

    def visit(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    tree_map(visit, tree)
    return found


def clone(state: State) -> State:
    """Copy a state, so that two continuations do not write into one buffer.

    Example:
        >>> state = {"h": torch.zeros(1, 2)}
        >>> clone(state)["h"] is state["h"]
        False
    """
    return tree_map(torch.clone, state)


def select(state: State, rows: Tensor) -> State:
    """Take rows of a state, with repetition if wanted: beams, resampling, dropping finished rows.

    Args:
        state: a state of batch size B.
        rows: (N,) int64 indices in [0, B).

    Returns:
        A state of batch size N that shares no memory with the first.

    Example:
        >>> select({"h": torch.tensor([[1.0], [2.0]])}, torch.tensor([1, 1, 0]))["h"].squeeze(1)
        tensor([2., 2., 1.])
    """
    return tree_map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)), state)


def concatenate(states: Sequence[State]) -> State:
    """Join states of equal structure along the batch.

    Example:
        >>> concatenate([{"h": torch.zeros(1, 1)}, {"h": torch.ones(2, 1)}])["h"].squeeze(1)
        tensor([0., 1., 1.])
    """
    first = states[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, dict):
        return {key: concatenate([state[key] for state in states]) for key in first}
    parts = [concatenate(column) for column in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)


def repeat(state: State, times: int) -> State:
    """Repeat every row of a state: row b becomes rows b*times .. b*times + times - 1.

    Example:
        >>> repeat({"h": torch.tensor([[1.0], [2.0]])}, 2)["h"].squeeze(1)
        tensor([1., 1., 2., 2.])
    """
    return tree_map(lambda tensor: tensor.repeat_interleave(times, dim=0), state)


def detach(state: State) -> State:
    """Cut a state from the gradient graph: truncated back-propagation, scoring in bounded memory.

    Example:
        >>> detach({"h": torch.zeros(1, requires_grad=True)})["h"].requires_grad
        False
    """
    return tree_map(torch.detach, state)


def write(buffer: Tensor, start: int, values: Tensor) -> Tensor:
    """Put values into columns start, start + 1, ... of a buffer of a state, and return the buffer.

    With gradients off it writes in place (the state is donated), but for a buffer of one number seen many times over,
    which becomes one of its own; with gradients on it never does.

    Args:
        buffer: (B, S, ...).
        start: the first column written.
        values: (B, n, ...) with start + n <= S.

    Example:
        >>> write(torch.zeros(1, 4), 1, torch.ones(1, 2))
        tensor([[0., 1., 1., 0.]])
    """
    stop = start + values.shape[1]
    if start == 0 and stop == buffer.shape[1]:
        return values
    if torch.is_grad_enabled():
        return torch.cat([buffer[:, :start], values, buffer[:, stop:]], dim=1)
    buffer = buffer.contiguous() if 0 in buffer.stride() else buffer
    buffer[:, start:stop] = values
    return buffer


class Causal(nn.Module):
    """A module whose output at position t depends on inputs 1..t and the initial state only.

        y_t = f(x_1, ..., x_t; initial state)

    Shapes: `forward` takes x (B, n, F) and returns y (B, n, P) and the state after the chunk.

    Conditioning enters through `initial_state` alone; `forward` never takes a context. A subclass writes
    `initial_state` and `advance`; `forward` makes the initial state where none is given.

    Attributes:
        order_agnostic: True if the initial state takes the order of the variables: the context is then a `Scan`.
        any_length: True if no weight belongs to a position, so that it runs over sequences of any length.

    Example:
        >>> class Sum(Causal):
        ...     def initial_state(self, batch_size, context=None, max_length=None):
        ...         return torch.zeros(batch_size, 1, 1)
        ...     def advance(self, x, state):
        ...         y = state + x.cumsum(1)
        ...         return y, y[:, -1:]
        >>> y, state = Sum()(torch.ones(1, 3, 1))
        >>> Sum()(torch.ones(1, 2, 1), state)[0].squeeze()
        tensor([4., 5.])
    """

    order_agnostic: bool = False
    any_length: bool = False

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        """Return the state before the first position.

        Args:
            batch_size: B.
            context: what the outputs are conditioned on, a pytree of tensors with batch size B, or None.
            max_length: the greatest number of positions, where a module preallocates memory.
        """
        raise NotImplementedError(f"{type(self).__name__} must define initial_state")

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError(f"{type(self).__name__} must define advance")

    def dependencies(self, length: int) -> Tensor:
        """Return which inputs each output may depend on, (T, T) bool: entry [t, s] is output t on input s.

        The conformance suite holds a network to what it declares here, so that no mask is too strict.
        """
        return torch.ones(length, length, dtype=torch.bool).tril()

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map a chunk x (B, n, F) to y (B, n, P), and the state before it to the state after it."""
        if state is None:
            state = self.initial_state(x.shape[0])
        return self.advance(x, state)


def _all_any_length(modules: Iterable[nn.Module]) -> bool:
    """Whether all causal modules run over any length; what works position by position always does."""
    return all(module.any_length for module in modules if isinstance(module, Causal))


class CausalSequential(Causal):
    """Causal modules and position-wise modules, one after another.

        y = f_k(... f_2(f_1(x)))

    A module that is not `Causal` must work position by position (linear maps, activations, normalisation over
    features) and keeps no state. The context goes to every causal module that takes one.

    Example:
        >>> from seriatim.layers import LSTM
        >>> net = CausalSequential(LSTM(2, 8), nn.Linear(8, 1))
        >>> net(torch.zeros(1, 5, 2))[0].shape
        torch.Size([1, 5, 1])
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(modules)
        self.any_length = _all_any_length(modules)

    @property
    def output_bias(self) -> Tensor | None:
        """The biases of the last module, (P,), where it is a linear map: they may start at the marginals."""
        last = self.layers[-1]
        return last.bias.data if isinstance(last, nn.Linear) and last.bias is not None else None

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return [
            layer.initial_state(batch_size, context, max_length) if isinstance(layer, Causal) else None
            for layer in self.layers
        ]

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            if isinstance(layer, Causal):
                x, before = layer(x, before)
            else:
                x = layer(x)
            after.append(before)
        return x, after

    def lower(self, tape: Tape, x: Operand) -> Operand:
        for index, layer in enumerate(self.layers):
            with tape.at(index):
                x = tape.lower(layer, x)
        return x

    def dependencies(self, length: int) -> Tensor:
        reached = torch.eye(length)
        for layer in self.layers:
            if isinstance(layer, Causal):
                reached = (layer.dependencies(length).float() @ reached > 0).float()
        return reached > 0


class Residual(Causal):
    """A causal module with a skip around it.

        y = x + f(x)

    Example:
        >>> from seriatim.layers import CausalConv1d
        >>> Residual(CausalConv1d(4, 4, kernel_size=2))(torch.zeros(1, 5, 4))[0].shape
        torch.Size([1, 5, 4])
    """

    def __init__(self, module: Causal) -> None:
        super().__init__()
        self.module = module
        self.any_length = _all_any_length([module])

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return self.module.initial_state(batch_size, context, max_length)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.module(x, state)
        return x + y, state

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return tape.add(x, tape.lower(self.module, x))

    def dependencies(self, length: int) -> Tensor:
        return self.module.dependencies(length) | torch.eye(length, dtype=torch.bool)


class Parallel(Causal):
    """Modules that read the same input, added.

        y = f_1(x) + f_2(x) + ...

    A module that is not `Causal` must work position by position, as in `CausalSequential`.

    Example:
        >>> from seriatim.layers import CausalConv1d
        >>> Parallel(CausalConv1d(2, 4, kernel_size=2), nn.Linear(2, 4))(torch.zeros(1, 5, 2))[0].shape
        torch.Size([1, 5, 4])
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(modules)
        self.any_length = _all_any_length(modules)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return [
            branch.initial_state(batch_size, context, max_length) if isinstance(branch, Causal) else None
            for branch in self.branches
        ]

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        outputs, after = [], []
        for branch, before in zip(self.branches, state, strict=True):
            y, own = branch(x, before) if isinstance(branch, Causal) else (branch(x), None)
            outputs.append(y)
            after.append(own)
        return sum(outputs[1:], outputs[0]), after

    def lower(self, tape: Tape, x: Operand) -> Operand:
        outputs = []
        for index, branch in enumerate(self.branches):
            with tape.at(index):
                outputs.append(tape.lower(branch, x))
        return functools.reduce(tape.add, outputs)

    def dependencies(self, length: int) -> Tensor:
        reached = torch.zeros(length, length, dtype=torch.bool)
        for branch in self.branches:
            reached |= branch.dependencies(length) if isinstance(branch, Causal) else torch.eye(length).bool()
        return reached


class Recompute(Causal):
    """Make any parallel-only causal network obey the law of chunks by running the whole prefix again.

        y_p+1..p+n = f(x_1..p+n)[p+1..p+n]

    Slow and right: the first version of a new model, and the oracle of the tests.

    Args:
        module: `module(x)` maps (B, T, F) to (B, T, P) causally for every T; a `Causal` is run from its initial state.

    Example:
        >>> class Prefix(nn.Module):
        ...     def forward(self, x):
        ...         return x.cumsum(1)
        >>> net = Recompute(Prefix())
        >>> _, state = net(torch.ones(1, 3, 1))
        >>> net(torch.ones(1, 1, 1), state)[0]
        tensor([[[4.]]])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.order_agnostic = getattr(module, "order_agnostic", False)
        self.any_length = getattr(module, "any_length", False)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        if context is not None and not isinstance(self.module, Causal):
            raise ValueError("context: expected None for a module without an initial state, got a context")
        return {"prefix": None, "context": context}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        prefix = x if state["prefix"] is None else torch.cat([state["prefix"], x], dim=1)
        if isinstance(self.module, Causal):
            start = self.module.initial_state(x.shape[0], state["context"], prefix.shape[1])
            y, _ = self.module(prefix, start)
        else:
            y = self.module(prefix)
        return y[:, -x.shape[1] :], {**state, "prefix": prefix}
