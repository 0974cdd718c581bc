"""PixelSNAIL: gated masked convolutions for what is near, causal attention for what is far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from seriatim.causal import CausalSequential, Parallel, Residual
from seriatim.context import Encoder
from seriatim.heads import Bernoulli, Head
from seriatim.layers.attention import SelfAttention
from seriatim.layers.raster import MaskedConv2d, RasterPositions, WithOne
from seriatim.model import AutoregressiveModel
from seriatim.order import Order


class PixelSNAIL(AutoregressiveModel):
    """Blocks of gated masked convolutions, each followed by attention over all pixels so far.

        h <- h + a sigmoid(b),    (a, b) = conv_B(elu(conv_B(elu(h))))
        h <- h + W attention(norm(h));    h <- h + a sigmoid(b),  (a, b) = V elu(h)

        one convolution     attention
          1 1 1               1 1 1 1 1
          1 x .               1 1 1 1 1
          . . .               1 1 x . .

    Learned vectors of the row and the column tell attention where a pixel is.

    Args:
        event_shape: (H, W); (H, W, C) where every channel is a position (sub-pixel order).
        head: the values of one place.
        hidden_features: units of a position.
        num_blocks: blocks, each with one layer of attention.
        layers_per_block: gated residual layers of two convolutions in a block.
        num_heads: of attention, a divisor of `hidden_features`.
        first_kernel_size: of the first layer.
        kernel_size: of the others.
        dropout: the rate inside residual layers and on what attention adds, in training.
        encoder: the context, read by every masked convolution.
        order: a `Scan` of the image; raster order if None.

    Reference: PixelSNAIL: An Improved Autoregressive Generative Model (Chen, Mishra, Rohaninejad, Abbeel, 2018).

    Example:
        >>> import torch
        >>> PixelSNAIL((4, 5), hidden_features=4, num_blocks=1, num_heads=2)().log_prob(torch.ones(2, 4, 5)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 32,
        num_blocks: int = 3,
        layers_per_block: int = 2,
        num_heads: int = 4,
        first_kernel_size: int = 7,
        kernel_size: int = 3,
        dropout: float = 0.0,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        raster, size, features = order.raster, hidden_features, head.num_features + 1
        context = encoder.num_features if encoder else 0

        def masked(mask: Literal["A", "B"], a: int, b: int, kernel: int) -> MaskedConv2d:
            return MaskedConv2d(
                mask,
                a,
                b,
                shape=raster.shape,
                kernel_size=kernel,
                channels=raster.channels,
                context_features=context,
            )

        def gated() -> Residual:
            first, second = masked("B", size, size, kernel_size), masked("B", size, 2 * size, kernel_size)
            return Residual(CausalSequential(nn.ELU(), first, nn.ELU(), nn.Dropout(dropout), second, nn.GLU(dim=-1)))

        def attentive() -> list[Residual]:
            attention = CausalSequential(nn.LayerNorm(size), SelfAttention(size, num_heads), nn.Dropout(dropout))
            mixed = CausalSequential(nn.ELU(), nn.Linear(size, 2 * size), nn.GLU(dim=-1))
            return [Residual(attention), Residual(mixed)]

        def block() -> list[Residual]:
            return [*(gated() for _ in range(layers_per_block)), *attentive()]

        output = nn.Linear(size, head.num_params)
        nn.init.normal_(output.weight, std=0.01)  # training starts near the factorised model
        network = CausalSequential(
            WithOne(),
            # Attention reads features that do not hold their own pixel's value: the value before is read directly.
            Parallel(masked("A", features, size, first_kernel_size), nn.Linear(features, size, bias=False)),
            RasterPositions(raster, size),
            *(layer for _ in range(num_blocks) for layer in block()),
            nn.ELU(),
            output,
        )
        super().__init__(network, head, order, encoder)
