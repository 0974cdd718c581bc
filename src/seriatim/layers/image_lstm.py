"""LSTM layers over images in raster order: row by row, and along the diagonals in both directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import Causal, State, write
from seriatim.engine.instructions import spread
from seriatim.layers.raster import MaskedConv2d, RowConv2d, row_of
from seriatim.layers.scan import diagonal_scan, lstm_cell, row_scan
from seriatim.order import Raster

if TYPE_CHECKING:
    from seriatim.engine.operands import LoadMap, Operand
    from seriatim.engine.tape import Tape


class RowLSTMLayer(Causal):
    """An LSTM that goes down the rows: each pixel reads the hidden states of three pixels of the row above.

        o, f, i, g = K_s * h_(row - 1) + K_i * x_row,    c = f c_(row - 1) + i g,    h = o tanh(c)

        seen from x, one layer:   1 1 1 1 1 1 .
                                  . 1 1 1 1 . .
                                  . . 1 x . . .

    K_i is a masked convolution of one row (B), K_s one of the whole row above. A row is one step: all its positions
    that lie in the chunk are computed at once, and the gradient of whole images is written out. Shapes: x (B, n, F) ->
    h (B, n, H).

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> RowLSTMLayer(2, 8, raster=Raster(4, 5, 1))(torch.zeros(1, 20, 2))[0].shape
        torch.Size([1, 20, 8])
    """

    def __init__(
        self, in_features: int, hidden_features: int, *, raster: Raster, kernel_size: int = 3, context_features: int = 0
    ) -> None:
        super().__init__()
        self.raster, self.hidden_features = raster, hidden_features
        self.inputs = MaskedConv2d(
            "B",
            in_features,
            4 * hidden_features,
            shape=raster.shape,
            kernel_size=(1, kernel_size),
            channels=raster.channels,
            context_features=context_features,
        )
        wide = raster.channels * hidden_features
        self.above = RowConv2d(wide, 4 * wide, width=raster.width, kernel_size=(1, kernel_size), bias=False)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        def row(features: int) -> Tensor:
            return self.above.conv.weight.new_zeros(batch_size, self.raster.row_length, features)

        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.above.conv.weight.device),
            "inputs": self.inputs.initial_state(batch_size, context),
            # What the row above says to the gates, its cells, and the row in the making.
            "above": {"gates": row(4 * self.hidden_features), "cell": row(self.hidden_features)},
            "row": {"hidden": row(self.hidden_features), "cell": row(self.hidden_features)},
        }

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        length, start, n = self.raster.row_length, int(state["position"][0]), x.shape[1]
        if n == self.raster.height * length:
            return self._whole(x, state["inputs"]["context"]), {**state, "position": state["position"] + n}
        gates, inputs = self.inputs(x, state["inputs"])
        above, row, outputs, done = state["above"], state["row"], [], 0
        while done < n:
            first = (start + done) % length
            if first == 0 and start + done > 0:
                above, row = self._next_row(row)
            size = min(length - first, n - done)
            piece = slice(first, first + size)
            hidden, cell = lstm_cell(gates[:, done : done + size] + above["gates"][:, piece], above["cell"][:, piece])
            row = {"hidden": write(row["hidden"], first, hidden), "cell": write(row["cell"], first, cell)}
            outputs.append(hidden)
            done += size
        after = {"position": state["position"] + n, "inputs": inputs, "above": above, "row": row}
        return torch.cat(outputs, dim=1), after

    def _whole(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return the outputs (B, T, H) of whole images x (B, T, F) from what their context tells the gates."""
        height, width, channels = self.raster
        told = self.inputs.linear.bias[None, None]
        if context is not None:
            told = told + context
        # (1 or B, 1 or H W, 4 C Q) as rows of gates.
        told = self._by_gate(told.mT).unflatten(2, (height, width) if told.shape[1] > 1 else (1, 1))
        inputs = self._by_gate(self.inputs.weight[None])[0].unflatten(1, (self.inputs.num_taps, -1))
        above = self._by_gate(self.above.taps_weight.flatten(1)[None])[0].unflatten(1, (self.above.kernel_size[1], -1))
        pixels = x.unflatten(1, (height, width, channels)).flatten(3)
        hidden = row_scan(pixels, told.permute(2, 1, 0, 3), inputs, above)
        return hidden.unflatten(-1, (channels, -1)).flatten(1, 3)

    def _by_gate(self, rows: Tensor) -> Tensor:
        """Sort the gates of each channel, (N, C 4 Q, ...), into (N, 4 C Q, ...)."""
        return rows.unflatten(1, (self.raster.channels, 4, -1)).transpose(1, 2).flatten(1, 3)

    def _next_row(self, row: State) -> tuple[State, State]:
        """Return what a finished row says to the next, and a new row to be filled."""
        channels = self.raster.channels
        pixels = row["hidden"].unflatten(1, (-1, channels)).flatten(2)[:, None]
        gates, _ = self.above(pixels, self.above.initial_state(len(pixels)))
        above = {"gates": gates[:, 0].unflatten(-1, (channels, -1)).flatten(1, 2), "cell": row["cell"]}
        return above, {"hidden": torch.zeros_like(row["hidden"]), "cell": torch.zeros_like(row["cell"])}

    def lower(self, tape: Tape, x: Operand) -> Operand:
        size, width, channels, length = self.hidden_features, *self.raster[1:], self.raster.row_length
        with tape.at("inputs"):
            taps = [(pixels, _tape_gates(weight, -2)) for pixels, weight in self.inputs.taps(tape, x)]

        def cells(state: State, position: int) -> tuple[Tensor, int]:
            both = torch.cat([state["above"]["cell"], state["row"]["cell"]], dim=1)
            return both, row_of(position, length) - length

        hidden = tape.image(
            tape.fresh(size),
            width,
            lambda state, position: (state["row"]["hidden"], row_of(position, length)),
            above=1,
            halo=self.above.kernel_size[1] // 2,
            channels=channels,
        )
        cell = tape.image(tape.fresh(size), width, cells, above=1, channels=channels)
        gates = tape.image(
            tape.fresh(4 * size),
            width,
            lambda state, position: (_tape_gates(state["above"]["gates"], -1), row_of(position, length)),
            channels=channels,
        )
        # What the row above says to all channels of a pixel, side by side.
        weight = _tape_gates(self.above.taps_weight.unflatten(0, (channels, -1)), 1)
        weight = spread(weight.flatten(0, 1).movedim(0, -1), 4 * size).movedim(-1, 0)
        with tape.rows(width, channels=channels):
            heard = tape.linear(self.above.taps(tape, hidden, above=1, weight=weight), None)
            tape.into(gates.pixels(0, 0, 1), heard)
        total = tape.add(gates, tape.linear(taps, _told(tape, self.inputs, 1)))
        tape.lstm(total, cell.lag(1), hidden, cell)
        return hidden

    def dependencies(self, length: int) -> Tensor:
        height, width, channels = self.raster
        own = self.inputs.dependencies(length).unflatten(0, (height, width * channels)).float()
        column = torch.arange(width)
        near = ((column[:, None] - column).abs() <= self.above.kernel_size[1] // 2).float()
        near = near.repeat_interleave(channels, 0).repeat_interleave(channels, 1)
        rows = [own[0]]
        for row in own[1:]:
            rows.append(row + near @ rows[-1])
        return torch.cat(rows) > 0


class DiagonalBiLSTMLayer(Causal):
    """Two LSTM that go along the diagonals from the upper corners; the right one is shifted down by one row.

        left:   o, f, i, g = K_i x_hw + U h_h(w-1) + V h_(h-1)w,    c_hw = f c_h(w-1) + i g,    h_hw = o tanh(c_hw)
        right:  the same from right to left;    y_hw = left_hw + right_(h-1)w

        left sees    1 1 1 1 . .     right, shifted,     . . . 1 1 1     together   1 1 1 1 1 1
                     1 1 1 1 . .     sees                . . . 1 1 1                1 1 1 1 1 1
                     1 1 1 x . .                         . . . x . .                1 1 1 x . .

    Without the shift the right one would see the pixels to the right of x, which are not known yet. Whole images are
    scanned by diagonals, both directions at once; other chunks pixel by pixel, the right one as soon as a row is known.
    Shapes: x (B, n, F) -> y (B, n, H).

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> DiagonalBiLSTMLayer(2, 8, raster=Raster(4, 5, 1))(torch.zeros(1, 20, 2))[0].shape
        torch.Size([1, 20, 8])
    """

    def __init__(self, in_features: int, hidden_features: int, *, raster: Raster, context_features: int = 0) -> None:
        super().__init__()
        self.raster, self.hidden_features = raster, hidden_features
        self.inputs = MaskedConv2d(
            "B",
            in_features,
            8 * hidden_features,
            shape=raster.shape,
            kernel_size=1,
            channels=raster.channels,
            context_features=context_features,
        )
        wide = raster.channels * hidden_features
        # Of each direction: the pixel beside, then the pixel above, to the gates of all channels.
        self.recurrent = nn.Parameter(torch.empty(2, 2 * wide, 4 * wide))
        nn.init.uniform_(self.recurrent, -((2 * wide) ** -0.5), (2 * wide) ** -0.5)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        size, length = self.hidden_features, self.raster.row_length

        def row(features: int) -> Tensor:
            return self.recurrent.new_zeros(batch_size, length, features)

        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.recurrent.device),
            "inputs": self.inputs.initial_state(batch_size, context),
            "above": {"left": row(size), "right": row(size)},
            # The row in the making; "gates" are those of the right direction.
            "row": {"left": row(size), "cell": row(size), "gates": row(4 * size)},
        }

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state["position"][0]), x.shape[1]
        if n == self.raster.height * self.raster.row_length:
            return self._whole(x, state["inputs"]["context"]), {**state, "position": state["position"] + n}
        both, inputs = self.inputs(x, state["inputs"])
        gates, right = both.chunk(2, dim=-1)
        after = {"position": state["position"] + n, "inputs": inputs}
        above, row, outputs = state["above"], state["row"], []
        for t in range(n):
            place = (start + t) % self.raster.row_length
            if place == 0 and start + t > 0:
                above = {"left": row["left"], "right": self._right(row["gates"], above["right"])}
                row = tree_zeros(row)
            left, cell = self._left(gates[:, t], place, above["left"], row)
            row = {
                "left": write(row["left"], place, left[:, None]),
                "cell": write(row["cell"], place, cell[:, None]),
                "gates": write(row["gates"], place, right[:, t, None]),
            }
            outputs.append(left + above["right"][:, place])
        return torch.stack(outputs, dim=1), {**after, "above": above, "row": row}

    def _left(self, gates: Tensor, place: int, above: Tensor, row: State) -> tuple[Tensor, Tensor]:
        """Return hidden and cell (B, H) of the left direction at one place of a row."""
        channels = self.raster.channels
        pixel, channel = place // channels, place % channels
        beside = slice((pixel - 1) * channels, pixel * channels)
        h, c = row["left"][:, beside], row["cell"][:, beside]
        if pixel == 0:
            h = c = torch.zeros_like(above[:, :channels])
        seen = torch.cat([h, above[:, pixel * channels : (pixel + 1) * channels]], dim=1).flatten(1)
        own = slice(channel * 4 * self.hidden_features, (channel + 1) * 4 * self.hidden_features)
        return lstm_cell(gates + seen @ self.recurrent[0][:, own], c[:, channel])

    def _right(self, gates: Tensor, above: Tensor) -> Tensor:
        """Return the right direction's row (B, W C, H) from its gates and the row above it."""
        channels = self.raster.channels
        gates = gates.unflatten(1, (-1, channels))
        above = above.unflatten(1, (-1, channels)).flatten(2)
        h = c = torch.zeros_like(above[:, 0])
        row = []
        for w in range(self.raster.width - 1, -1, -1):
            seen = torch.cat([h, above[:, w]], dim=1) @ self.recurrent[1]
            hidden, cell = lstm_cell(gates[:, w] + seen.unflatten(-1, (channels, -1)), c.unflatten(-1, (channels, -1)))
            h, c = hidden.flatten(1), cell.flatten(1)
            row.append(hidden)
        return torch.cat(row[::-1], dim=1)

    def _by_gate(self, rows: Tensor) -> Tensor:
        """Sort the gates of both directions of each channel, (..., C 8 H), into (2, ..., 4 C H)."""
        return rows.unflatten(-1, (self.raster.channels, 2, 4, -1)).movedim(-3, 0).transpose(-3, -2).flatten(-3)

    def _whole(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return the outputs (B, T, H) of whole images x (B, T, F) from what their context tells the gates."""
        height, width, channels = self.raster
        told = self.inputs.linear.bias[None, None]
        if context is not None:
            told = told + context
        # The same matrix product reads the pixel and the two hidden states.
        recurrent = self.recurrent.unflatten(-1, (channels, 4, -1)).transpose(2, 3).flatten(2)
        weight = torch.cat([self._by_gate(self.inputs.weight.mT), recurrent], dim=1).mT
        pixels = x.unflatten(1, (height, width, channels)).flatten(3)
        hidden = diagonal_scan(pixels, self._by_gate(told).permute(0, 3, 2, 1), weight)
        left, right = hidden.unflatten(-1, (channels, -1))
        shifted = F.pad(right, (0, 0, 0, 0, 0, 0, 1, 0))[:, :height]
        return (left + shifted).flatten(1, 3)

    def lower(self, tape: Tape, x: Operand) -> Operand:
        size, width, channels, length = self.hidden_features, *self.raster[1:], self.raster.row_length
        with tape.at("inputs"):
            taps = self.inputs.taps(tape, x) if channels > 1 else [(tape.dense(x), self.inputs.weight)]

        def newest(key: str) -> LoadMap:
            return lambda state, position: (state["row"][key], row_of(position, length))

        def lefts(state: State, position: int) -> tuple[Tensor, int]:
            return torch.cat([state["above"]["left"], state["row"]["left"]], 1), row_of(position, length) - length

        def gates_of(half: int) -> Operand:
            own = [(pixels, _tape_gates(weight.chunk(2, -2)[half], -2)) for pixels, weight in taps]
            return tape.linear(own, _told(tape, self.inputs, 2, half))

        def reads(direction: int, hidden: Operand, column: int) -> list[tuple[Operand, Tensor]]:
            """The pixel beside and the pixel above, by the channel that reads them: weights (C, 4 H, F)."""
            weight = self.recurrent[direction].unflatten(0, (2, -1)).movedim(-1, 0).unflatten(0, (channels, -1))
            return tape.window(hidden, _tape_gates(weight, 1), [(0, column, 1), (1, 0, 1)])

        gates = tape.image(
            gates_of(1),
            width,
            lambda state, position: (_tape_gates(state["row"]["gates"], -1), row_of(position, length)),
            above=1,
            channels=channels,
        )
        # The right direction of the row above, one row late, so that it stands at the pixel that reads it.
        right = tape.image(
            tape.fresh(size),
            width,
            lambda state, position: (state["above"]["right"], row_of(position, length)),
            above=1,
            halo=1,
            channels=channels,
        )
        right_cell = tape.image(
            tape.fresh(size), width, lambda state, _: (state["row"]["cell"][:, :0], 0), halo=1, channels=channels
        )
        with tape.rows(width, channels=channels, reverse=True, from_second=True):
            # All channels of a pixel at once, their gates side by side.
            weights = [(pixels, spread(w.flatten(0, 1).T, 4 * size).T) for pixels, w in reads(1, right, 1)]
            total = tape.linear(weights, gates.pixels(1, 0, 1))
            for channel in range(channels):
                own = total.part(channel * gates.buffer.stride, 4 * size)
                tape.lstm(own, right_cell.entry(channel, 1), right.entry(channel), right_cell.entry(channel))
        left = tape.image(tape.fresh(size), width, lefts, above=1, halo=1, channels=channels)
        cell = tape.image(tape.fresh(size), width, newest("cell"), halo=1, channels=channels)
        of_channel = [(pixels, w if channels > 1 else w[0]) for pixels, w in reads(0, left, -1)]
        tape.lstm(tape.linear(of_channel, gates_of(0)), cell.beside(-1), left, cell)
        return tape.add(left, right)

    def dependencies(self, length: int) -> Tensor:
        height, width, channels = self.raster
        pixel = torch.arange(height * width)
        row, column = pixel // width, pixel % width
        down, across = row[:, None] - row, column[:, None] - column
        left = (down >= 0) & (across >= 0) & (down + across > 0)
        right = (down >= 1) & (across <= 0)
        others = (left | right).repeat_interleave(channels, 0).repeat_interleave(channels, 1)
        return (others | self.inputs.dependencies(height * width * channels))[:length, :length]


def _tape_gates(x: Tensor, dim: int) -> Tensor:
    """Sort gates o, f, i, g as a tape's LSTM takes them."""
    o, f, i, g = x.chunk(4, dim)
    return torch.cat([i, f, g, o], dim)


def _told(tape: Tape, inputs: MaskedConv2d, parts: int, part: int = 0) -> Tensor | Operand:
    """Return the biases of the gates and what the context adds to them; of `parts` layers of gates side by side."""

    def own(told: Tensor) -> Tensor:
        return _tape_gates(told.unflatten(-1, (inputs.channels, parts, -1))[..., part, :], -1)

    bias = inputs.linear.bias
    if inputs.context is None:
        return own(bias) if inputs.channels > 1 else own(bias)[0]
    size = inputs.out_features // parts
    return tape.told(size, lambda s: own(s["inputs"]["context"] + bias).flatten(-2), channels=inputs.channels)


def tree_zeros(row: State) -> State:
    """Return a state of the same shapes, all zeros.

    Example:
        >>> tree_zeros({"h": torch.ones(1, 2)})
        {'h': tensor([[0., 0.]])}
    """
    return {name: torch.zeros_like(part) for name, part in row.items()}
