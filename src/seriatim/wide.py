"""Where float64 is computed: on the device at hand, or on the CPU for those that have none.

Networks and likelihoods run in the model's own precision. What turns noise into values does not: it needs float64,
which Apple's MPS has not, so there the parameters of each position come to the CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT = frozenset({"mps"})
"""Devices that have no float64."""

_CPU = torch.device("cpu")


def wide(device: torch.device) -> torch.device:
    """Return where the float64 numbers of a device are computed.

    Example:
        >>> wide(torch.device("cuda", 1)), wide(torch.device("mps"))
        (device(type='cuda', index=1), device(type='cpu'))
    """
    return _CPU if device.type in WITHOUT else device


def placed(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, or where the float64 numbers of that device are if it holds such numbers.

    Example:
        >>> placed(torch.zeros(2), torch.device("cpu")).device
        device(type='cpu')
    """
    return tensor.to(wide(device) if tensor.dtype is torch.float64 else device)
