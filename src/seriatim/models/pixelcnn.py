"""PixelCNN: masked convolutions with residual blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from seriatim.causal import CausalSequential, Residual
from seriatim.context import Encoder
from seriatim.heads import Bernoulli, Head
from seriatim.layers.raster import MaskedConv2d, WithOne
from seriatim.model import AutoregressiveModel
from seriatim.order import Order


class PixelCNN(AutoregressiveModel):
    """A stack of masked convolutions: mask A once, then residual blocks of mask B.

        first layer, mask A, 7 x 7      a block, mask B, 3 x 3       what a pixel x sees: all above, but for a
          1 1 1 1 1 1 1                   1 1 1                        wedge to the right (the blind spot)
          1 1 1 1 1 1 1                   1 1 .                        1 1 1 1 1 1 1
          1 1 1 1 1 1 1                   . . .                        1 1 1 1 1 1 .
          1 1 1 . . . .                                                1 1 1 1 1 . .
          . . . . . . .                                                1 1 1 x . . .

        h <- h + W_2 relu(conv_B(relu(W_1 relu(h)))),    y = V relu(U relu(h))

    Args:
        event_shape: (H, W); (H, W, C) where every channel is a position (sub-pixel order): channel c then reads the
            channels before it of its own pixel, and has weights of its own in every masked convolution.
        head: the values of one place.
        hidden_features: units inside a block; between blocks there are twice as many.
        num_layers: residual blocks.
        first_kernel_size: of the first layer.
        kernel_size: of the blocks.
        dropout: the rate inside blocks, in training.
        encoder: the context, read by every masked convolution.
        order: a `Scan` of the image; raster order if None.

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> import torch
        >>> PixelCNN((4, 5), hidden_features=4, num_layers=2)().log_prob(torch.ones(2, 4, 5)).shape
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
        context = encoder.num_features if encoder else 0
        shape, channels = order.raster.shape, order.raster.channels
        wide = 2 * hidden_features

        def masked(mask: Literal["A", "B"], a: int, b: int, size: int) -> MaskedConv2d:
            return MaskedConv2d(mask, a, b, shape=shape, kernel_size=size, channels=channels, context_features=context)

        def block() -> Residual:
            return Residual(
                CausalSequential(
                    nn.ReLU(),
                    nn.Linear(wide, hidden_features),
                    nn.ReLU(),
                    masked("B", hidden_features, hidden_features, kernel_size),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                    nn.Linear(hidden_features, wide),
                )
            )

        output = nn.Linear(wide, head.num_params)
        nn.init.normal_(output.weight, std=0.01)  # training starts near the factorised model
        network = CausalSequential(
            WithOne(),
            masked("A", head.num_features + 1, wide, first_kernel_size),
            *(block() for _ in range(num_layers)),
            nn.ReLU(),
            nn.Linear(wide, wide),
            nn.ReLU(),
            output,
        )
        super().__init__(network, head, order, encoder)
