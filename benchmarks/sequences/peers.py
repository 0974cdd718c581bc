"""Cached generators of others, imported from the reader's own checkouts: a call draws so many positions.

Each is built at the sizes of our model, with the weights that it starts with, in eval mode, without gradients.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Generator = Callable[[int], Any]


class Sizes(NamedTuple):
    """A WaveNet: blocks of layers of dilations 1, 2, 4, ..., and its features; the gate as wide as the residual."""

    blocks: int = 3
    layers: int = 10
    width: int = 32
    skip: int = 256
    levels: int = 256


def imported(checkout: Path, module: str) -> Any:
    """Import a module of a checkout, which is on the path for so long only."""
    sys.path.insert(0, str(checkout))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    finally:
        sys.path.remove(str(checkout))


def wavenet_vocoder(checkout: Path, sizes: Sizes, batch: int) -> Generator:
    """Return `incremental_forward` of r9y9/wavenet_vocoder, without weight normalisation, as its synthesis runs it."""
    module = imported(checkout, "wavenet_vocoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the weight normalisation that the peer is built with
        model = module.WaveNet(
            out_channels=sizes.levels,
            layers=sizes.blocks * sizes.layers,
            stacks=sizes.blocks,
            residual_channels=sizes.width,
            gate_channels=2 * sizes.width,
            skip_out_channels=sizes.skip,
            kernel_size=2,
            dropout=0.0,
        ).eval()
    model.make_generation_fast_()
    # Without conditioning the peer takes the number of streams from `test_inputs` only: here the first input.
    first = F.one_hot(torch.full((batch, 1), sizes.levels // 2), sizes.levels).float().mT

    @torch.no_grad()
    def generate(positions: int) -> Any:
        return model.incremental_forward(test_inputs=first, T=positions, softmax=True, quantize=True)

    return generate


def pytorch_wavenet(checkout: Path, sizes: Sizes) -> Generator:
    """Return `generate_fast` of vincentherrmann/pytorch-wavenet, which has one stream."""
    if "librosa" not in sys.modules and importlib.util.find_spec("librosa") is None:
        sys.modules["librosa"] = types.ModuleType("librosa")  # imported for training data, not used here
    module = imported(checkout, "wavenet_model")
    model = module.WaveNetModel(
        layers=sizes.layers,
        blocks=sizes.blocks,
        dilation_channels=sizes.width,
        residual_channels=sizes.width,
        skip_channels=sizes.skip,
        end_channels=sizes.skip,
        classes=sizes.levels,
    )

    for queue in model.dilated_queues:
        queue.enqueue = _squeezed(queue.enqueue)

    @torch.no_grad()  # the peer asks for it by `volatile`, which torch has dropped
    def generate(positions: int) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its own speed
            return model.generate_fast(positions)

    return generate


def _squeezed(enqueue: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """Let the peer's queue store (C, 1) as (C,), which older torch did by itself."""
    return lambda input: enqueue(input[:, 0])


def stepped_lstm(symbols: int, units: int, layers: int, batch: int) -> Generator:
    """Return the loop that users of torch write: `nn.LSTM` called for one position, its state kept."""
    lstm, output = nn.LSTM(symbols, units, layers, batch_first=True).eval(), nn.Linear(units, symbols)

    @torch.no_grad()
    def generate(positions: int) -> Any:
        x, state, drawn = torch.zeros(batch, 1, symbols), None, []
        for _ in range(positions):
            y, state = lstm(x, state)
            drawn.append(torch.multinomial(output(y[:, -1]).softmax(-1), 1))
            x = F.one_hot(drawn[-1], symbols).float()
        return torch.cat(drawn, dim=1)

    return generate
