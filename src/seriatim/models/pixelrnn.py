"""PixelRNN: `RowLSTM` and `DiagonalBiLSTM`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from seriatim.causal import Causal, CausalSequential, Parallel, Residual
from seriatim.context import Encoder
from seriatim.heads import Bernoulli, Head
from seriatim.layers.image_lstm import DiagonalBiLSTMLayer, RowLSTMLayer
from seriatim.layers.raster import MaskedConv2d, WithOne
from seriatim.model import AutoregressiveModel
from seriatim.order import Order


class PixelRNN(AutoregressiveModel):
    """What `RowLSTM` and `DiagonalBiLSTM` share: a first layer of mask A, residual LSTM layers, a hidden output layer.

        h = conv_A(x) + P x_(t-1),    h <- h + W lstm(h),    y = V relu(U relu(h))

    A subclass names its layer: `layer_class(in_features, hidden_features, raster=..., context_features=...)`.

    Args:
        event_shape: (H, W); (H, W, C) where every channel is a position (sub-pixel order).
        head: the values of one place.
        hidden_features: units of an LSTM at each position; between layers there are twice as many.
        num_layers: LSTM layers.
        first_kernel_size: of the first layer.
        dropout: the rate on what an LSTM adds, in training.
        encoder: the context, read by the first layer and every LSTM.
        order: a `Scan` of the image; raster order if None.

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> from seriatim.models import RowLSTM
        >>> isinstance(RowLSTM((2, 2), hidden_features=2, num_layers=1), PixelRNN)
        True
    """

    layer_class: Any = Causal

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 16,
        num_layers: int = 7,
        first_kernel_size: int = 7,
        dropout: float = 0.0,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        raster, wide = order.raster, 2 * hidden_features
        context = encoder.num_features if encoder else 0
        first = MaskedConv2d(
            "A",
            head.num_features + 1,
            wide,
            shape=raster.shape,
            kernel_size=first_kernel_size,
            channels=raster.channels,
            context_features=context,
        )
        layers = [
            Residual(
                CausalSequential(
                    self.layer_class(wide, hidden_features, raster=raster, context_features=context),
                    nn.Dropout(dropout),
                    nn.Linear(hidden_features, wide),
                )
            )
            for _ in range(num_layers)
        ]
        output = nn.Linear(wide, head.num_params)
        nn.init.normal_(output.weight, std=0.01)  # training starts near the factorised model
        # An LSTM reads features that do not hold their own pixel's value: the last pixel of the row above would be seen
        # from near it only. So the value before is read directly.
        start = Parallel(first, nn.Linear(head.num_features + 1, wide, bias=False))
        network = CausalSequential(WithOne(), start, *layers, nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), output)
        super().__init__(network, head, order, encoder)


class RowLSTM(PixelRNN):
    """PixelRNN whose LSTM goes down the rows, a whole row at a time; each layer sees a triangle above the pixel.

        o, f, i, g = K_s * h_(row - 1) + K_i * x_row,    c = f c_(row - 1) + i g,    h = o tanh(c)

    Arguments as for `PixelRNN`.

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> import torch
        >>> RowLSTM((4, 5), hidden_features=2, num_layers=1)().log_prob(torch.ones(2, 4, 5)).shape
        torch.Size([2])
    """

    layer_class = RowLSTMLayer


class DiagonalBiLSTM(PixelRNN):
    """PixelRNN whose two LSTM go along the diagonals; each layer sees all rows above and the pixels to the left.

        y_hw = left_hw + right_(h-1)w

    Arguments as for `PixelRNN`.

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> import torch
        >>> DiagonalBiLSTM((4, 5), hidden_features=2, num_layers=1)().log_prob(torch.ones(2, 4, 5)).shape
        torch.Size([2])
    """

    layer_class = DiagonalBiLSTMLayer
