"""Gated PixelCNN: two stacks of gated convolutions, one over the rows above, one along the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import Causal, State
from seriatim.context import Encoder
from seriatim.engine.instructions import spread
from seriatim.engine.operands import Act
from seriatim.heads import Bernoulli, Head
from seriatim.layers.raster import MaskedConv2d, RowConv2d, WithOne, row_of
from seriatim.model import AutoregressiveModel
from seriatim.order import Order, Raster

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class Stacks(nn.Module):
    """One layer of both stacks: a convolution over the rows above, one along the row, and the link between them.

        a = conv_rows(v),    g = conv_row(h) + link(a)

    The vertical stack advances by whole rows: by those whose first position lies in the chunk. What it says about the
    row that a chunk ends in is kept in the state.

    Shapes: rows v (B, r, W, V) -> a (B, r, W, V'), positions h (B, n, F) -> g (B, n, F').

    Example:
        >>> stacks = Stacks("B", 2, 3, 4, 6, raster=Raster(5, 4, 1), kernel_size=3)
        >>> a, g, _ = stacks(torch.zeros(1, 5, 4, 2), torch.zeros(1, 20, 3), stacks.initial_state(1), 0)
        >>> a.shape, g.shape
        (torch.Size([1, 5, 4, 4]), torch.Size([1, 20, 6]))
    """

    def __init__(
        self,
        mask: Any,
        in_rows: int,
        in_features: int,
        out_rows: int,
        out_features: int,
        *,
        raster: Raster,
        kernel_size: int,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.raster, channels = raster, raster.channels
        kernel = (kernel_size // 2 + 1, kernel_size)
        self.rows = RowConv2d(in_rows, out_rows, width=raster.width, kernel_size=kernel)
        self.row = MaskedConv2d(
            mask, in_features, out_features, shape=raster.shape, kernel_size=(1, kernel_size), channels=channels
        )
        self.link = nn.Linear(out_rows, channels * out_features)
        self.out_rows, self.out_features = out_rows, out_features
        self.context = (
            nn.Linear(context_features, out_rows + channels * out_features, bias=False) if context_features else None
        )

    def initial_state(self, batch_size: int, context: Tensor | None = None) -> State:
        """Return the state before the first position; the context is (B, 1, 1, C) or, of each pixel, (B, H, W, C)."""
        _, width, channels = self.raster
        return {
            "rows": self.rows.initial_state(batch_size),
            "row": self.row.initial_state(batch_size),
            "message": self.link.weight.new_zeros(batch_size, width * channels, self.out_features),
            "context": None if self.context is None else self.context(context),
        }

    def forward(self, v: Tensor, h: Tensor, state: State, start: int) -> tuple[Tensor, Tensor, State]:
        """Advance both stacks from position `start`: by the rows v that begin in the chunk, and by its positions h."""
        length = self.raster.row_length
        a, rows = self.rows(v, state["rows"])
        message = self.link(a)
        if state["context"] is not None:
            first = -(-start // length)
            per_row = state["context"] if state["context"].shape[1] == 1 else state["context"][:, first:]
            per_row = per_row[:, : v.shape[1]]
            a = a + per_row[..., : self.out_rows]
            message = message + per_row[..., self.out_rows :]
        message = message.unflatten(-1, (-1, self.out_features)).flatten(2, 3)  # (B, r, W C, F')
        heard = message.flatten(1, 2)
        if start % length:  # the chunk begins within a row
            heard = torch.cat([state["message"][:, start % length :], heard], dim=1)
        g, row = self.row(h, state["row"])
        after = {"rows": rows, "row": row, "message": message[:, -1] if v.shape[1] else state["message"]}
        return a, g + heard[:, : h.shape[1]], {**after, "context": state["context"]}

    def keep(self, tape: Tape, v: Operand) -> Operand:
        """Keep v, the vertical stack before this layer, over the image."""
        _, width, channels = self.raster
        rows, columns = self.rows.kernel_size

        def load(state: State, position: int) -> tuple[Tensor, int]:
            return state["rows"].flatten(1, 2), row_of(position, width * channels) // channels - (rows - 2) * width

        return tape.image(v, width, load, above=rows - 1, halo=columns // 2, channels=channels, pixels=True)

    def lower(self, tape: Tape, v: Operand, above: int, weight: Tensor | None = None) -> tuple[Operand, Operand]:
        """Append the vertical stack's share, for all pixels of a row when it begins: a, and what g starts from.

        Args:
            tape: where to.
            v: a map whose present row lies `above` rows above.
            above: how many rows.
            weight: of the convolution over rows, where v lies in another way than the layer's input.
        """
        size, rows, (_, width, channels) = self.out_features, self.out_rows, self.raster
        added, linked = self.row.linear.bias, self.link.bias

        def load(state: State, position: int) -> tuple[Tensor, int]:
            # Eager messages do not hold the biases of the row's convolution.
            own = added.unflatten(0, (channels, size)).repeat(width, 1)
            return state["message"] + own, row_of(position, width * channels)

        message = tape.image(tape.fresh(size), width, load, channels=channels)
        a = tape.linear(self.rows.taps(tape, v, above=above, weight=weight), self.rows.conv.bias)
        start: Tensor | Operand = spread(added + linked, size)
        if self.context is not None:
            start = tape.told(
                channels * message.buffer.stride,
                lambda s: spread(s["context"].flatten(1, 2)[..., rows:] + added + linked, size),
                pixels=channels,
            )
        # The messages to all channels of a pixel, side by side.
        tape.into(message.pixels(0, 0, 1), tape.linear([(a, spread(self.link.weight.T, size).T)], start))
        if self.context is not None:
            a = tape.add(a, tape.told(rows, lambda s: s["context"].flatten(1, 2)[..., :rows], pixels=channels))
        return a, message

    def dependencies(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map what each pixel of the vertical stack (H W, T) and each position (T, T) depend on to that after."""
        a = self.rows.dependencies(self.raster.height).float() @ v
        g = self.row.dependencies(len(h)).float() @ h + a.repeat_interleave(self.raster.channels, dim=0)
        return a, g


def gate(x: Tensor) -> Tensor:
    """Return tanh(x_1) sigmoid(x_2), the halves of the last axis.

    Example:
        >>> gate(torch.zeros(1, 4))
        tensor([[0., 0.]])
    """
    filtered, gates = x.chunk(2, dim=-1)
    return torch.tanh(filtered) * torch.sigmoid(gates)


def _halves(x: Operand) -> tuple[Operand, Operand]:
    return x.part(0, x.size // 2), x.part(x.size // 2, x.size // 2)


class GatedStacks(Causal):
    """The network of `GatedPixelCNN`: a first layer of mask A, gated layers of mask B, two maps by position.

        v <- gate(a),    h <- h + W gate(g),    (a, g) = stacks(v, h);    y = V relu(U relu(h))

    Beside the values every pixel carries a one, so that the border is told from dark pixels.

    Shapes: x (B, n, F) -> y (B, n, P) in raster order.

    Args:
        raster: H, W, C.
        in_features: F.
        hidden_features: the size of the horizontal stack at each position; the vertical one has C times as much.
        num_layers: gated layers.
        out_features: P.
        first_kernel_size: of the first layer.
        kernel_size: of the gated layers.
        dropout: the rate on gated units and before the output, in training.
        context_features: the size of a context vector (B, S) or of a map (B, H W, S) in scan order.

    Example:
        >>> GatedStacks(Raster(4, 5, 1), 1, 8, 2, 1)(torch.zeros(3, 20, 1))[0].shape
        torch.Size([3, 20, 1])
    """

    def __init__(
        self,
        raster: Raster,
        in_features: int,
        hidden_features: int,
        num_layers: int,
        out_features: int,
        *,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
        dropout: float = 0.0,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.raster = raster
        vertical = hidden_features * raster.channels
        sizes: dict[str, Any] = {"raster": raster, "context_features": context_features}
        self.first = Stacks(
            "A",
            in_features * raster.channels + 1,
            in_features + 1,
            vertical,
            hidden_features,
            kernel_size=first_kernel_size,
            **sizes,
        )
        self.layers = nn.ModuleList(
            Stacks("B", vertical, hidden_features, 2 * vertical, 2 * hidden_features, kernel_size=kernel_size, **sizes)
            for _ in range(num_layers)
        )
        self.skips = nn.ModuleList(nn.Linear(hidden_features, hidden_features) for _ in range(num_layers))
        self.hidden = nn.Linear(hidden_features, 2 * hidden_features)
        self.output = nn.Linear(2 * hidden_features, out_features)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.output.weight, std=0.01)  # training starts near the factorised model

    @property
    def output_bias(self) -> Tensor:
        """The biases, (P,): one for all positions."""
        return self.output.bias.data

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        if context is not None and context.ndim == 2:
            context = context[:, None, None]
        elif context is not None:
            context = context.unflatten(1, self.raster.shape)
        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.output.weight.device),
            "pending": self.output.weight.new_zeros(batch_size, 0, self.first.row.in_features - 1),
            "layers": [layer.initial_state(batch_size, context) for layer in (self.first, *self.layers)],
        }

    def _rows(self, x: Tensor, pending: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return the rows before those that begin in the chunk, (B, r, W, C F + 1), and the values that wait."""
        _, width, channels = self.raster
        length = width * channels
        known = torch.cat([pending, x[:, 1:] if start == 0 else x], dim=1)
        begun = (start + x.shape[1] - 1) // length - (start - 1) // length
        above = begun - 1 if start == 0 else begun  # no row of values lies above the first
        rows = known[:, : above * length].unflatten(1, (above, width, channels)).flatten(3)
        rows = F.pad(rows, (0, 1), value=1.0)
        if start == 0:
            rows = F.pad(rows, (0, 0, 0, 0, 1, 0))
        return rows, known[:, above * length :]

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start = int(state["position"][0])
        v, pending = self._rows(x, state["pending"], start)
        v, h, first = self.first(v, F.pad(x, (0, 1), value=1.0), state["layers"][0], start)
        after = [first]
        for layer, skip, before in zip(self.layers, self.skips, state["layers"][1:], strict=True):
            a, g, own = layer(v, h, before, start)
            v, h = gate(a), h + skip(self.dropout(gate(g)))
            after.append(own)
        y = self.output(torch.relu(self.hidden(self.dropout(torch.relu(h)))))
        return y, {"position": state["position"] + x.shape[1], "pending": pending, "layers": after}

    def lower(self, tape: Tape, x: Operand) -> Operand:
        height, width, channels = self.raster
        h = tape.lower(WithOne(), x)
        layers = [layer for layer in (self.first, *self.layers) if isinstance(layer, Stacks)]
        with tape.at("layers"), tape.at(0), tape.at("row"):
            rows, columns = self.first.rows.kernel_size
            # The row before the image's row h enters at row h.
            v = tape.image(
                h,
                width,
                lambda s, _: (s["map"][:, : height * width * channels], 0),
                above=rows,
                halo=columns // 2,
                shift=1,
                channels=channels,
            )
        messages = []
        for index, layer in enumerate(layers):
            with tape.rows(width, channels=channels):
                with tape.at("layers"), tape.at(index):
                    weight = self._first_weight(x.size) if index == 0 else None
                    a, message = layer.lower(tape, v, above=int(index == 0), weight=weight)
                messages.append(message)
                if index + 1 < len(layers):
                    v = a if index == 0 else tape.gate(*_halves(a), Act.TANH)
                    with tape.at("layers"), tape.at(index + 1):
                        v = layers[index + 1].keep(tape, v)
        for index, (layer, message) in enumerate(zip(layers, messages, strict=True)):
            with tape.at("layers"), tape.at(index), tape.at("row"):
                g = tape.linear(layer.row.taps(tape, h), message)
            h = g if index == 0 else tape.add(h, tape.lower(self.skips[index - 1], tape.gate(*_halves(g), Act.TANH)))
        h = tape.activation(tape.lower(self.hidden, tape.activation(h, Act.RELU)), Act.RELU)
        return tape.lower(self.output, h)

    def _first_weight(self, num_features: int) -> Tensor:
        """Return the first weights over rows (P, taps, C (F + 1)): on a tape each channel has a one of its own."""
        values, one = self.first.rows.taps_weight.split([self.raster.channels * num_features, 1], dim=-1)
        values = values.unflatten(-1, (self.raster.channels, num_features))
        ones = F.pad(one[..., None], (0, 0, 0, self.raster.channels - 1))
        return torch.cat([values, ones], dim=-1).flatten(-2)

    def dependencies(self, length: int) -> Tensor:
        height, width, channels = self.raster
        # The row before the image's row h enters at row h, and the input at position s is the value at s - 1.
        pixel, position = torch.arange(height * width)[:, None], torch.arange(length)
        v, h = ((position - 1) // channels == pixel - width).float() * (position > 0), torch.eye(length)
        for layer in (self.first, *self.layers):
            v, after = layer.dependencies(v, h)
            h = after if layer is self.first else h + after
        return h > 0


class GatedPixelCNN(AutoregressiveModel):
    """PixelCNN with gated units and no blind spot, conditional on a class, a vector or a map.

        vertical stack, 3 x 3       horizontal stack     together they see
          1 1 1                       . . .                1 1 1 1 1
          1 1 1  (the row above       1 x .                1 1 1 1 1
                  and up)                                  1 1 x . .

    Args:
        event_shape: (H, W); (H, W, C) where every channel is a position (sub-pixel order).
        head: the values of one place.
        hidden_features: units of the horizontal stack at each position.
        num_layers: gated layers after the first.
        first_kernel_size: of the first layer.
        kernel_size: of the gated layers.
        dropout: the rate in training.
        encoder: the context: `Labels`, `Vector` or `SpatialMap`.
        order: a `Scan` of the image; raster order if None.

    Reference: Conditional Image Generation with PixelCNN Decoders (van den Oord, Kalchbrenner, Vinyals, Espeholt,
    Graves, Kavukcuoglu, 2016).

    Example:
        >>> GatedPixelCNN((4, 5), hidden_features=4, num_layers=2)().log_prob(torch.ones(2, 4, 5)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 32,
        num_layers: int = 8,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
        dropout: float = 0.0,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        network = GatedStacks(
            order.raster,
            head.num_features,
            hidden_features,
            num_layers,
            head.num_params,
            first_kernel_size=first_kernel_size,
            kernel_size=kernel_size,
            dropout=dropout,
            context_features=encoder.num_features if encoder else 0,
        )
        super().__init__(network, head, order, encoder)
