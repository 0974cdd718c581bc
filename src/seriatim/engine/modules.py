"""Torch's own position-wise modules on the tape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from seriatim.engine.operands import Act, CannotLower, Operand

if TYPE_CHECKING:
    from seriatim.engine.tape import Tape


def _glu(tape: Tape, module: Any, x: Operand) -> Operand:
    if module.dim not in (-1, 2):
        raise CannotLower(f"GLU over axis {module.dim}")
    x, half = tape.dense(x), x.size // 2
    return tape.gate(x.part(0, half), x.part(half, half))


def _layer_norm(tape: Tape, module: Any, x: Operand) -> Operand:
    if len(module.normalized_shape) != 1 or module.weight is None or module.bias is None:
        raise CannotLower("LayerNorm over more than the features, or without weights")
    return tape.norm(x, module.weight, module.bias, module.eps)


def _gelu(tape: Tape, module: Any, x: Operand) -> Operand:
    return tape.activation(x, Act.GELU_TANH if module.approximate == "tanh" else Act.GELU)


def _softplus(tape: Tape, module: Any, x: Operand) -> Operand:
    if (module.beta, module.threshold) != (1, 20):
        raise CannotLower(f"Softplus with beta {module.beta} and threshold {module.threshold}")
    return tape.activation(x, Act.SOFTPLUS)


def _sequential(tape: Tape, module: Any, x: Operand) -> Operand:
    for layer in module:
        x = tape.lower(layer, x)
    return x


MODULES: dict[type, Callable[[Tape, Any, Operand], Operand]] = {
    nn.Linear: lambda tape, module, x: tape.linear([(x, module.weight)], module.bias),
    nn.ReLU: lambda tape, module, x: tape.activation(x, Act.RELU),
    nn.Tanh: lambda tape, module, x: tape.activation(x, Act.TANH),
    nn.Sigmoid: lambda tape, module, x: tape.activation(x, Act.SIGMOID),
    nn.ELU: lambda tape, module, x: tape.activation(x, Act.ELU, module.alpha),
    nn.LeakyReLU: lambda tape, module, x: tape.activation(x, Act.LEAKY_RELU, module.negative_slope),
    nn.GELU: _gelu,
    nn.SiLU: lambda tape, module, x: tape.activation(x, Act.SILU),
    nn.Softplus: _softplus,
    nn.GLU: _glu,
    nn.LayerNorm: _layer_norm,
    nn.Identity: lambda tape, module, x: x,
    nn.Dropout: lambda tape, module, x: x,  # sampling is done in eval mode
    nn.Sequential: _sequential,
}
"""By exact class: a subclass may compute something else."""
