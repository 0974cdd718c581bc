"""WaveNet: dilated causal convolutions with gated units, for signals and long sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State
from seriatim.context import Encoder, Frames
from seriatim.ending import SequenceModel
from seriatim.engine.operands import Act
from seriatim.heads import Bernoulli, Head
from seriatim.layers.convolution import CausalConv1d
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.tape import Operand, Tape


class Upsampling(nn.Module):
    """Frames at the rate of the positions, by a learned transposed convolution over two frames.

        (B, frames, S) -> (B, frames * hop, S)

    Args:
        num_features: S.
        hop: positions to a frame.

    Example:
        >>> Upsampling(2, hop=3)(torch.zeros(1, 4, 2)).shape
        torch.Size([1, 12, 2])
    """

    def __init__(self, num_features: int, hop: int) -> None:
        super().__init__()
        self.hop = hop
        # Two frames wide and half a frame to the left: each frame is heard around its own positions.
        self.conv = nn.ConvTranspose1d(num_features, num_features, 2 * hop, stride=hop, padding=hop // 2)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames (B, N, S) to positions (B, N hop, S)."""
        return self.conv(frames.transpose(1, 2))[..., : frames.shape[1] * self.hop].transpose(1, 2)


class DilatedStack(Causal):
    """The network of `WaveNet`.

        a = conv_l(x),  z = tanh(a_1) sigmoid(a_2),  x <- x + R_l z,    y = V relu(U relu(sum_l S_l z_l))

    A context vector (B, C) is added to every a through weights of its own. Frames (B, N, C) are up-sampled once, into
    the initial state, and added to every a at their own positions.

    Shapes: x (B, n, F) -> y (B, n, P).

    Args:
        in_features: F.
        out_features: P.
        dilations: of each layer.
        kernel_size: taps of each convolution, 2 or more.
        residual_features: the size of x between layers.
        gate_features: the size of z.
        skip_features: the size of the sum over layers.
        dropout: the rate on z, in training.
        context_features: C of a context vector.
        frames: the encoder of frames, in place of a vector.

    Raises:
        ValueError: a kernel of one tap, no layer, or a rate out of its range.

    Example:
        >>> net = DilatedStack(1, 2, dilations=(1, 2), residual_features=4, gate_features=4, skip_features=4)
        >>> net(torch.zeros(3, 20, 1))[0].shape, net.receptive_field
        (torch.Size([3, 20, 2]), 5)
    """

    any_length = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dilations: Sequence[int],
        kernel_size: int = 2,
        residual_features: int,
        gate_features: int,
        skip_features: int,
        dropout: float = 0.0,
        context_features: int = 0,
        frames: Frames | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 2:
            raise ValueError(f"kernel_size: expected 2 or more, got {kernel_size}")
        if not dilations:
            raise ValueError("dilations: expected one or more, got none")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a rate from 0 to below 1, got {dropout}")
        self.first = CausalConv1d(in_features, residual_features, kernel_size)
        self.convs = nn.ModuleList(
            CausalConv1d(
                residual_features,
                2 * gate_features,
                kernel_size,
                dilation=dilation,
                context_features=0 if frames else context_features,
            )
            for dilation in dilations
        )
        self.skips = nn.ModuleList(nn.Linear(gate_features, skip_features) for _ in dilations)
        # Nothing reads what the last layer would pass on.
        self.residuals = nn.ModuleList(nn.Linear(gate_features, residual_features) for _ in dilations[1:])
        self.upsampling = Upsampling(frames.num_features, frames.hop) if frames else None
        of_frames = [(frames.num_features, 2 * gate_features)] * len(dilations) if frames else []
        self.heard = nn.ModuleList(nn.Linear(*sizes, bias=False) for sizes in of_frames)
        self.hidden = nn.Linear(skip_features, skip_features)
        self.output = nn.Linear(skip_features, out_features)
        self.gate_features, self.dropout = gate_features, nn.Dropout(dropout)
        nn.init.normal_(self.output.weight, std=0.01)  # training starts near the factorised model

    @property
    def output_bias(self) -> Tensor:
        """The biases, (P,): one for all positions."""
        return self.output.bias.data

    @property
    def receptive_field(self) -> int:
        """How many inputs, up to the present one, an output sees."""
        return 1 + self.first.reach + sum(conv.reach for conv in self._dilated)

    @property
    def _dilated(self) -> list[CausalConv1d]:
        return [conv for conv in self.convs if isinstance(conv, CausalConv1d)]

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return {
            "frames": self._frames(context, max_length),
            "first": self.first.initial_state(batch_size),
            "convs": [conv.initial_state(batch_size, context) for conv in self._dilated],
        }

    def _frames(self, context: Any, max_length: int | None) -> State:
        """Return what the frames say at all positions, where there are frames."""
        if self.upsampling is None:
            return None
        if not isinstance(context, Tensor):
            raise ValueError(f"context: expected frames (B, N, S), got {type(context).__name__}")
        positions = self.upsampling(context)
        if max_length is not None:
            _enough(positions.shape[1], max_length)
            positions = positions[:, :max_length]
        return {"at": positions, "position": torch.zeros(len(context), dtype=torch.int64, device=context.device)}

    def _heard(self, state: State, n: int) -> tuple[list[Tensor], State]:
        """Return what the frames say to each layer at the next n positions, (B, n, 2 G), and the state after them."""
        if state is None:
            return [], None
        start = int(state["position"][0])
        _enough(state["at"].shape[1], start + n)
        own = state["at"][:, start : start + n]
        return [linear(own) for linear in self.heard], {**state, "position": state["position"] + n}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        heard, frames = self._heard(state["frames"], x.shape[1])
        x, first = self.first(x, state["first"])
        total, after = x.new_zeros(()), []
        for layer, (conv, skip) in enumerate(zip(self.convs, self.skips, strict=True)):
            a, own = conv(x, state["convs"][layer])
            after.append(own)
            filtered, gates = (a + heard[layer] if heard else a).chunk(2, dim=-1)
            z = self.dropout(torch.tanh(filtered) * torch.sigmoid(gates))
            total = total + skip(z)
            if layer < len(self.residuals):
                x = x + self.residuals[layer](z)
        y = self.output(torch.relu(self.hidden(torch.relu(total))))
        return y, {"frames": frames, "first": first, "convs": after}

    def lower(self, tape: Tape, x: Operand) -> Operand:
        size = self.gate_features
        frames, heard = [], [linear for linear in self.heard if isinstance(linear, nn.Linear)]
        if self.upsampling is not None:
            frames = [tape.sequence(self.upsampling.conv.out_channels, lambda state: state["frames"]["at"])]
        with tape.at("first"):
            x = tape.lower(self.first, x)
        units, skips = [], [skip for skip in self.skips if isinstance(skip, nn.Linear)]
        for layer, conv in enumerate(self._dilated):
            with tape.at("convs"), tape.at(layer):
                a = conv.lower(tape, x, [(told, heard[layer].weight) for told in frames])
            z = tape.gate(a.part(0, size), a.part(size, size), Act.TANH)
            units.append(z)
            if layer < len(self.residuals):
                x = tape.add(x, tape.lower(self.residuals[layer], z))
        # One product for the sum over layers.
        bias = torch.stack([skip.bias for skip in skips]).sum(0)
        total = tape.linear([(z, skip.weight) for z, skip in zip(units, skips, strict=True)], bias, Act.RELU)
        hidden = tape.linear([(total, self.hidden.weight)], self.hidden.bias, Act.RELU)
        return tape.lower(self.output, hidden)

    def dependencies(self, length: int) -> Tensor:
        x = self.first.dependencies(length).float()
        y = torch.zeros_like(x)
        for conv in self._dilated:
            a = conv.dependencies(length).float() @ x
            x, y = x + a, y + a
        return y > 0


def _enough(given: int, wanted: int) -> None:
    if given < wanted:
        raise ValueError(f"context: expected frames for {wanted} positions or more, got frames for {given}")


class WaveNet(SequenceModel):
    """Dilated causal convolutions with gated residual units and skip connections.

        z_l = tanh(W_f * x_l + V_f c) sigmoid(W_g * x_l + V_g c),    x_(l+1) = x_l + R_l z_l

    The dilations of a block are 1, 2, 4, ..., 2^(layers_per_block - 1); blocks repeat them. No weight belongs to a
    position, so that `model(length=n)` runs over any length.

    Args:
        event_shape: the shape of the places of the data, of the usual length.
        head: the values of one place; within `Ending`, sequences end by themselves.
        num_blocks: repetitions of the dilations.
        layers_per_block: gated layers of a block.
        kernel_size: taps of each convolution, 2 or more.
        residual_features: the size of x_l.
        gate_features: the size of z_l.
        skip_features: the size of what the layers add up to.
        dropout: the rate on z_l, in training.
        encoder: the context: `Labels` or `Vector` for the whole sequence, `Frames` along it.

    Raises:
        ValueError: a kernel of one tap, a number of layers below 1, or a rate out of its range.

    Reference: WaveNet: A Generative Model for Raw Audio (van den Oord et al., 2016).

    Example:
        >>> model = WaveNet((20,), num_blocks=1, layers_per_block=3, residual_features=4, gate_features=4)
        >>> model().log_prob(torch.ones(2, 20)).shape, model.receptive_field
        (torch.Size([2]), 9)
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        num_blocks: int = 2,
        layers_per_block: int = 6,
        kernel_size: int = 2,
        residual_features: int = 32,
        gate_features: int = 32,
        skip_features: int = 64,
        dropout: float = 0.0,
        encoder: Encoder | None = None,
    ) -> None:
        if min(num_blocks, layers_per_block) < 1:
            raise ValueError(
                f"num_blocks, layers_per_block: expected 1 or more, got num_blocks {num_blocks}, "
                f"layers_per_block {layers_per_block}"
            )
        head = head or Bernoulli()
        network = DilatedStack(
            head.num_features,
            head.num_params,
            dilations=[2**layer for layer in range(layers_per_block)] * num_blocks,
            kernel_size=kernel_size,
            residual_features=residual_features,
            gate_features=gate_features,
            skip_features=skip_features,
            dropout=dropout,
            context_features=encoder.num_features if encoder else 0,
            frames=encoder if isinstance(encoder, Frames) else None,
        )
        super().__init__(network, head, Order(event_shape), encoder)

    @property
    def receptive_field(self) -> int:
        """How many values before its own each conditional sees."""
        return next(part.receptive_field for part in self.modules() if isinstance(part, DilatedStack))
