"""The sampling engine: the whole loop over positions in native code, for any model whose layers lower.

A network lowers itself to a tape (`tape`), the tape is finished to a program (`program`), and one interpreter runs
every program (`kernels`, by way of `cpu`). What cannot be lowered is sampled by `rollout`, with the same samples: both
read the same addressed noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from seriatim import heads
from seriatim.engine import cpu
from seriatim.engine.cpu import Samples, Session
from seriatim.engine.operands import CannotLower, Family, Op, Operand
from seriatim.engine.program import Program, finish
from seriatim.engine.tape import Tape

if TYPE_CHECKING:
    from seriatim.autoregressive import Autoregressive
    from seriatim.model import AutoregressiveModel

__all__ = [
    "CannotLower",
    "Choice",
    "Engine",
    "Operand",
    "Program",
    "Samples",
    "Session",
    "Tape",
    "can_lower",
    "choose",
    "lower",
    "sample_rows",
    "start",
]

Engine = Literal["auto", "native", "reference"]
"""How rows are sampled: native where it can be, native or an error, or `rollout`."""

Sampler = Callable[[Tape, heads.Head, Operand], None]


def _real(family: Family) -> Sampler:
    def append(tape: Tape, head: Any, params: Operand) -> None:
        numbers = [head.min_scale, getattr(head, "half_range", 0.0), getattr(head, "levels", 0)]
        components = getattr(head, "num_components", 0)
        tape.sample(Op.REAL, params, components, family, constants=tape.weight(torch.tensor(numbers)))

    return append


_SAMPLERS: dict[type[heads.Head], Sampler] = {
    heads.Bernoulli: lambda tape, head, params: tape.sample(Op.BERNOULLI, params),
    heads.Categorical: lambda tape, head, params: tape.sample(Op.CATEGORICAL, params),
    heads.Normal: _real(Family.NORMAL),
    heads.Logistic: _real(Family.LOGISTIC),
    heads.MixtureOfNormals: _real(Family.NORMAL),
    heads.MixtureOfLogistics: _real(Family.LOGISTIC),
    heads.QuantizedMixtureOfLogistics: _real(Family.QUANTIZED_LOGISTIC),
}
"""Heads by exact class: a subclass may encode or sample otherwise."""


def lower(model: AutoregressiveModel, length: int | None = None) -> Program:
    """Lower a model's network and head, with the weights as they are now.

    Args:
        model: whose network and head.
        length: the positions that the program will have room for; those of the model if None.

    Raises:
        CannotLower: the head or a layer has no tape form; the message says which.

    Example:
        >>> from seriatim.layers import CausalConv1d
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> model = AutoregressiveModel(CausalConv1d(3, 3, 2), heads.Categorical(3), Order((5,)))
        >>> lower(model).code.shape[0]  # LINEAR, its two taps, CATEGORICAL
        4
    """
    head = model.head
    sampler = _SAMPLERS.get(type(head))
    if sampler is None:
        raise CannotLower(f"the {type(head).__name__} head has no sampler on the tape")
    if model.dtype is not torch.float32 or model.device.type != "cpu":
        raise CannotLower(f"the tape is float32 on the CPU, the model {model.dtype} on {model.device}")
    if model.encoder is not None and model.encoder.is_map:
        raise CannotLower("a map as context has no tape form")
    tape = Tape(head.num_features, one_hot=isinstance(head, heads.Categorical), length=length or model.order.length)
    with torch.no_grad():
        params = tape.lower(model.network, tape.input)
        if params.size != head.num_params:
            raise CannotLower(f"the network has {params.size} outputs, the head {head.num_params} parameters")
        sampler(tape, head, tape.dense(params))
        return finish(tape)


def can_lower(model: AutoregressiveModel) -> bool:
    """Whether a model's head and layers all have a tape form.

    Example:
        >>> from seriatim.models import FVSBN
        >>> can_lower(FVSBN((3,)))
        True
    """
    try:
        lower(model)
    except CannotLower:
        return False
    return True


class Choice(NamedTuple):
    """How rows will be sampled: a program, or None for `rollout` and the reason."""

    program: Program | None
    reason: str = ""


def choose(model: AutoregressiveModel, batch_size: int, engine: Engine = "auto", length: int | None = None) -> Choice:
    """Choose the path for `batch_size` rows: native wherever it can be, for it was faster in every case measured.

    The program has room for `length` positions, those of the model if None.

    Raises:
        ValueError: "native" is asked for where it cannot be.

    Example:
        >>> from seriatim.models import FVSBN
        >>> choose(FVSBN((3,)), batch_size=4, engine="reference").reason
        'asked for'
    """
    if engine not in ("auto", "native", "reference"):
        raise ValueError(f"engine: expected 'auto', 'native' or 'reference', got {engine!r}")
    if engine == "reference" or batch_size == 0:
        return Choice(None, "asked for" if batch_size else "there is nothing to sample")
    try:
        program, reason = lower(model, length), ""
    except CannotLower as error:
        reason = str(error)
    else:
        if cpu.kernels() is not None:
            return Choice(program)
        reason = "numba cannot be loaded"
    if engine == "native":
        raise ValueError(f"engine: expected a model that can be sampled natively, but {reason}")
    return Choice(None, reason)


def start(
    distribution: Autoregressive, rows: Tensor, seed: int, program: Program, *, prefix: Tensor | None = None
) -> Session:
    """Return a session that samples a distribution of batch shape (B,), in eval mode and without gradients.

    Args:
        distribution: of batch shape (B,).
        rows: (B,) the row numbers of the noise.
        seed: the seed of the noise.
        program: the lowered model.
        prefix: values of the first k positions (B, k): read as one chunk in the parallel form, then handed over.

    Example:
        >>> from seriatim.layers import CausalConv1d
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> model = AutoregressiveModel(CausalConv1d(3, 3, 2), heads.Categorical(3), Order((5,))).eval()
        >>> session = start(model().expand((2,)), torch.arange(2), 0, lower(model))
        >>> session.advance(3).values.shape
        torch.Size([2, 3])
    """
    model = distribution.model
    with torch.no_grad():
        state, x = distribution.initial_state(), model.start(len(rows))
        position = 0
        if prefix is not None and prefix.shape[1]:
            position = prefix.shape[1]
            seen = torch.cat([x, model.cast(model.head.encode(prefix, distribution.order.places(0, position)))], 1)
            _, state = model.network(seen[:, :-1], state)
            x = seen[:, -1:]
        return Session(program, state, x, rows, seed, position=position)


def sample_rows(distribution: Autoregressive, rows: Tensor, seed: int, *, engine: Engine = "auto") -> Tensor | None:
    """Draw the samples whose noise has the given row numbers: (B,) -> (B, *event_shape); None: use `rollout`.

    The distribution's model must be in eval mode; its batch shape is (B,).

    Raises:
        ValueError: "native" is asked for where it cannot be, or a position's parameters are NaN or infinite.

    Example:
        >>> from seriatim.layers import CausalConv1d
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> model = AutoregressiveModel(CausalConv1d(3, 3, 2), heads.Categorical(3), Order((5,))).eval()
        >>> sample_rows(model().expand((2,)), torch.arange(2), seed=0).shape
        torch.Size([2, 5])
    """
    model = distribution.model
    program = choose(model, len(rows), engine, distribution.order.length).program
    if program is None:
        return None
    values = start(distribution, rows, seed, program).advance(distribution.order.length).values
    return distribution.order.to_data(values.to(model.head.value_dtype or model.dtype))
