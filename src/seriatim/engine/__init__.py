"""The sampling engine: the whole loop over positions in native code, for any model whose layers lower.

A network lowers itself to a tape (`tape`), the tape is finished to a program (`program`), and one interpreter runs
every program (`kernels`, by way of `cpu`). What cannot be lowered is sampled by `rollout`, with the same samples: both
read the same addressed noise.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from seriatim.controls import EXACT, Controls
from seriatim.engine import cpu, graphs, samplers
from seriatim.engine.assembly import finish
from seriatim.engine.cpu import Samples, Session
from seriatim.engine.operands import CannotLower, Operand
from seriatim.engine.program import Program, versions
from seriatim.engine.stepping import Best, Ranker, Stepper
from seriatim.engine.storage import Common
from seriatim.engine.tape import Tape
from seriatim.order import Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from seriatim.autoregressive import Autoregressive
    from seriatim.model import AutoregressiveModel

__all__ = [
    "Best",
    "CannotLower",
    "Choice",
    "Engine",
    "Operand",
    "Precision",
    "Program",
    "Ranker",
    "Samples",
    "Session",
    "Stepper",
    "Tape",
    "can_lower",
    "choose",
    "lower",
    "sample_rows",
    "start",
]

Engine = Literal["auto", "native", "reference"] | Program
"""How rows are sampled: native where it can be, native or an error, `rollout`, or by a program of `lower`.

Lowering takes milliseconds, more than a short sample does. Who draws again and again lowers once and hands on the
program, which serves until the weights change.
"""

Precision = Literal["float32", "bf16-weights"]
"""Of what rows are sampled with: as the model is, or natively with the weights of products rounded to bfloat16."""

_MEASURED = "faster than PyTorch for every kind of model and batch size that was measured"
_LOGGER = logging.getLogger(__name__)  # tells, at level INFO, which path rows took


def lower(
    model: AutoregressiveModel,
    order: Order | None = None,
    controls: Controls = EXACT,
    *,
    draw: bool = True,
    precision: Precision = "float32",
) -> Program:
    """Lower a model's network and head, with the weights as they are now.

    Args:
        model: what is sampled.
        order: its order, of another length or other variables than the model's own; None for that one.
        controls: under which values are drawn.
        draw: whether values are drawn; if not, parameters come out, and a `Stepper` is told the values.
        precision: "bf16-weights" rounds the weights of matrix products, not biases, tables that a symbol looks up or
            what is computed: less is read from memory, and samples are those of a model whose weights are rounded.

    Raises:
        CannotLower: the head, a layer or controls of the head have no tape form; the message says which.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.layers import CausalConv1d
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> model = AutoregressiveModel(CausalConv1d(3, 3, 2), Categorical(3), Order((5,)))
        >>> program = lower(model)
        >>> program.code.shape[0]  # LINEAR, its two taps, CATEGORICAL
        4
        >>> bool((model.sample((2,), seed=0, engine=program) == model.sample((2,), seed=0)).all())
        True
    """
    head, order = model.head, model.order if order is None else order
    if model.dtype is not torch.float32 or model.device.type != "cpu":
        raise CannotLower(f"the tape is float32 on the CPU, the model {model.dtype} on {model.device}")
    by_pixel = model.encoder is not None and model.encoder.is_map
    common, one_hot = Common(bf16=precision == "bf16-weights"), samplers.is_one_hot(head)
    tape = Tape(head.num_features, one_hot, order.length, order=order, by_pixel=by_pixel, common=common)

    def decode(numbers: Tensor, first: int) -> Tensor:
        return samplers.values(head, numbers, order.places(first, first + numbers.shape[1]))

    with torch.no_grad():
        params = tape.lower(model.network, tape.input)
        if params.size != head.num_params:
            raise CannotLower(f"the network has {params.size} outputs, the head {head.num_params} parameters")
        if not draw:
            tape.show(params, samplers.offset(head))
            return replace(finish(tape, _as_they_are, params.size, _lowered(model)), draws=False)
        samplers.draw(tape, head, tape.dense(params), samplers.Draw(tape.input.lag(-1), controls=controls))
        return replace(finish(tape, decode, samplers.width(head), _lowered(model)), controls=controls)


def _as_they_are(numbers: Tensor, first: int) -> Tensor:
    return numbers.float()


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
    """How rows will be sampled, and why: by a program, or, where that is None, by `rollout`."""

    program: Program | None
    reason: str

    @property
    def path(self) -> str:
        """What samples, in words."""
        return "step by step in PyTorch" if self.program is None else "native engine"


def choose(
    model: AutoregressiveModel,
    batch_size: int,
    engine: Engine = "auto",
    order: Order | None = None,
    controls: Controls = EXACT,
    *,
    draw: bool = True,
    precision: Precision = "float32",
) -> Choice:
    """Choose the path for `batch_size` rows: native wherever it can be, for it was faster in every case measured.

    The path and the reason are logged.

    Args:
        model: what is sampled.
        batch_size: how many rows.
        engine: what is asked for.
        order: as for `lower`.
        controls: as for `lower`.
        draw: as for `lower`.
        precision: as for `lower`.

    Raises:
        ValueError: "native", or "bf16-weights", is asked for where it cannot be, or a program is of another length.

    Example:
        >>> from seriatim.models import FVSBN
        >>> choose(FVSBN((3,)), batch_size=4, engine="reference").reason
        'asked for'
    """
    if isinstance(engine, Program):
        if precision != "float32":
            raise ValueError("engine: expected a name where weights are rounded, got a program")
        if engine.draws != draw or (engine.controls != controls and not (engine.controls.neutral and controls.neutral)):
            own = f"draw={engine.draws} and {engine.controls}"
            raise ValueError(f"engine: expected a program lowered with draw={draw} and {controls}, got {own}")
        return _given(engine, model, batch_size, (model.order if order is None else order).length)
    if engine not in ("auto", "native", "reference"):
        raise ValueError(f"engine: expected 'auto', 'native' or 'reference', got {engine!r}")
    if precision not in ("float32", "bf16-weights"):
        raise ValueError(f"precision: expected 'float32' or 'bf16-weights', got {precision!r}")
    choice = _chosen(batch_size, engine, lambda: lower(model, order, controls, draw=draw, precision=precision))
    if choice.program is None and batch_size and precision != "float32":
        raise ValueError(
            f"precision: expected 'float32' for sampling {choice.path} ({choice.reason}), got {precision!r}"
        )
    _LOGGER.info("%s: %s", choice.path, choice.reason)
    return choice


def _given(program: Program, model: AutoregressiveModel, batch_size: int, length: int) -> Choice:
    """Return a program that was lowered before, if it is of this model as it is now, and of as many positions."""
    if program.length != length:
        raise ValueError(f"engine: expected a program of {length} positions, got one of {program.length}")
    if program.made_from != _lowered(model):
        raise ValueError("engine: expected a program of this model's weights as they are now: lower it again")
    return Choice(program, "lowered before") if batch_size else Choice(None, "there is nothing to sample")


def _chosen(batch_size: int, engine: Engine, lowered: Callable[[], Program]) -> Choice:
    if engine == "reference" or batch_size == 0:
        return Choice(None, "asked for" if batch_size else "there is nothing to sample")
    try:
        program, reason = lowered(), ""
    except CannotLower as error:
        reason = str(error)
    else:
        if cpu.kernels() is not None:
            return Choice(program, "asked for" if engine == "native" else _MEASURED)
        reason = "numba cannot be loaded"
    if engine == "native":
        raise ValueError(f"engine: expected a model that can be sampled natively, but {reason}")
    return Choice(None, reason)


def _lowered(model: AutoregressiveModel) -> tuple[tuple[int, int], ...]:
    """Return what a program is made from: the encoder is no part of a tape, its context is read when rows are."""
    return versions(model.network) + versions(model.head)


def start(
    distribution: Autoregressive, rows: Tensor, seed: int, program: Program, *, prefix: Tensor | None = None
) -> Session:
    """Return a session that samples a distribution of batch shape (B,), in eval mode and without gradients.

    Args:
        distribution: of batch shape (B,).
        rows: (B,) the row numbers of the noise.
        seed: the seed of the noise.
        program: the lowered model.
        prefix: values of the first k positions (B, k, *value_shape), read as one chunk in the parallel form.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.layers import CausalConv1d
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> model = AutoregressiveModel(CausalConv1d(3, 3, 2), Categorical(3), Order((5,))).eval()
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


def sample_rows(
    distribution: Autoregressive,
    rows: Tensor,
    seed: int,
    *,
    engine: Engine = "auto",
    precision: Precision = "float32",
) -> Tensor | None:
    """Draw the samples whose noise has the given row numbers: (B,) -> (B, *event_shape); None: use `rollout`.

    The distribution's model must be in eval mode; its batch shape is (B,).

    Raises:
        ValueError: "native", or "bf16-weights", is asked for where it cannot be, or a position's parameters are NaN or
            infinite.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.layers import CausalConv1d
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> model = AutoregressiveModel(CausalConv1d(3, 3, 2), Categorical(3), Order((5,))).eval()
        >>> sample_rows(model().expand((2,)), torch.arange(2), seed=0).shape
        torch.Size([2, 5])
    """
    model = distribution.model
    program = choose(model, len(rows), engine, distribution.order, precision=precision).program
    if program is None:
        if engine == "auto" and model.device.type == "cuda" and len(rows) and graphs.fits(distribution):
            return graphs.sample_rows(distribution, rows, seed)
        return None
    return distribution.order.to_data(start(distribution, rows, seed, program).advance(program.length).values)
