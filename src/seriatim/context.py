"""Encoders: what a model is conditioned on, turned into what its network's initial state takes.

log p(x | c) = sum_t log p(x_t | x_<t, encoder(c))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.config import Configurable


class Encoder(Configurable, nn.Module):
    """Turns a context into features, or into any pytree of tensors that the network's initial state takes.

    Attributes:
        event_dim: how many trailing axes of a context belong to one row; the axes before are batch axes.
        num_features: the size of the encoded vector.
        is_map: whether it encodes to (B, H, W, S), numbers of the pixels, which follow the scan of the image.
        is_memory: whether it encodes to (memory (B, S, F), mask (B, S)), symbols of a source to attend to.

    Example:
        >>> class Parity(Encoder):
        ...     num_features = 1
        ...     def forward(self, context):
        ...         return (context % 2)[..., None].float()
        >>> Parity()(torch.tensor([3, 4]))
        tensor([[1.],
                [0.]])
    """

    event_dim: int = 0
    num_features: int = 0
    is_map: bool = False
    is_memory: bool = False

    def check(self, context: Tensor) -> None:
        """Raise ValueError unless the context fits."""

    def forward(self, context: Tensor) -> Any:
        """Map contexts (B, *event) to a pytree of tensors with batch size B."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def extra_repr(self) -> str:
        return f"{self.num_features}"


class Labels(Encoder):
    """Class labels 0..K-1, one-hot.

    Example:
        >>> Labels(3)(torch.tensor([2]))
        tensor([[0., 0., 1.]])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes: expected 1 or more, got {num_classes}")
        self.num_features = num_classes

    def check(self, context: Tensor) -> None:
        if context.is_floating_point() or context.is_complex():
            raise ValueError(f"context: expected integer labels, got {context.dtype}")
        if context.numel() and not (0 <= int(context.min()) and int(context.max()) < self.num_features):
            low, high = int(context.min()), int(context.max())
            raise ValueError(f"context: expected labels in 0..{self.num_features - 1}, got {low}..{high}")

    def forward(self, context: Tensor) -> Tensor:
        return F.one_hot(context.long(), self.num_features).to(torch.get_default_dtype())


class Attributes(Encoder):
    """Several labels at once, such as a digit and a speaker: one-hot codes side by side.

    A context holds the number of each attribute's value, (A,) whole numbers.

    Args:
        attributes: name -> names of its values.

    Raises:
        ValueError: no attribute, or one without values.

    Example:
        >>> Attributes({"digit": ["one", "two"], "speaker": ["a", "b", "c"]})(torch.tensor([[1, 0]]))
        tensor([[0., 1., 1., 0., 0.]])
    """

    event_dim = 1

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        if not attributes or not all(len(values) for values in attributes.values()):
            raise ValueError(f"attributes: expected names with values, got {attributes}")
        self.attributes = {name: [str(value) for value in values] for name, values in attributes.items()}
        self.num_features = sum(len(values) for values in attributes.values())

    @property
    def sizes(self) -> list[int]:
        """How many values each attribute has."""
        return [len(values) for values in self.attributes.values()]

    def check(self, context: Tensor) -> None:
        if context.is_floating_point() or context.ndim < 1 or context.shape[-1] != len(self.attributes):
            raise ValueError(
                f"context: expected whole numbers (..., {len(self.attributes)}) for {', '.join(self.attributes)}, "
                f"got {context.dtype} of shape {tuple(context.shape)}"
            )
        for place, (name, values) in enumerate(self.attributes.items()):
            own = context[..., place]
            if own.numel() and not (0 <= int(own.min()) and int(own.max()) < len(values)):
                raise ValueError(
                    f"context: expected {name} in 0..{len(values) - 1}, got {int(own.min())}..{int(own.max())}"
                )

    def forward(self, context: Tensor) -> Tensor:
        codes = [F.one_hot(context[..., place].long(), size) for place, size in enumerate(self.sizes)]
        return torch.cat(codes, dim=-1).to(torch.get_default_dtype())

    def numbers(self, given: Mapping[str, str]) -> Tensor:
        """Return the context (A,) of values by name.

        Raises:
            ValueError: an attribute that is missing or unknown, or a value that is.

        Example:
            >>> Attributes({"digit": ["one", "two"], "speaker": ["a", "b"]}).numbers({"speaker": "b", "digit": "one"})
            tensor([0, 1])
        """
        for name in [*given, *self.attributes]:
            if name not in self.attributes or name not in given:
                raise ValueError(f"context: expected {', '.join(self.attributes)}, got {', '.join(given) or 'none'}")
            if given[name] not in self.attributes[name]:
                raise ValueError(
                    f"context: expected {name} among {', '.join(self.attributes[name])}, got {given[name]}"
                )
        return torch.tensor([values.index(given[name]) for name, values in self.attributes.items()])

    def extra_repr(self) -> str:
        return ", ".join(f"{name} {len(values)}" for name, values in self.attributes.items())


class Vector(Encoder):
    """Real vectors, taken as they are.

    Example:
        >>> Vector(2)(torch.tensor([[0.5, 1.0]]))
        tensor([[0.5000, 1.0000]])
    """

    event_dim = 1

    def __init__(self, num_features: int) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features: expected 1 or more, got {num_features}")
        self.num_features = num_features

    def check(self, context: Tensor) -> None:
        if context.ndim < 1 or context.shape[-1] != self.num_features:
            raise ValueError(f"context: expected vectors of size {self.num_features}, got {tuple(context.shape)}")
        if not torch.isfinite(context).all():
            raise ValueError("context: expected finite numbers, got NaN or infinity")

    def forward(self, context: Tensor) -> Tensor:
        return context


class Frames(Encoder):
    """A sequence of real vectors along the data, each for so many positions, taken as it is: a score, a spectrogram.

    A row of T positions needs at least T / hop frames.

    Args:
        num_features: S, numbers of a frame.
        hop: positions to a frame.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> Frames(2, hop=4)(torch.zeros(3, 5, 2)).shape
        torch.Size([3, 5, 2])
    """

    event_dim = 2

    def __init__(self, num_features: int, hop: int) -> None:
        super().__init__()
        if min(num_features, hop) < 1:
            raise ValueError(f"num_features, hop: expected 1 or more, got num_features {num_features}, hop {hop}")
        self.num_features, self.hop = num_features, hop

    def check(self, context: Tensor) -> None:
        if context.ndim < 2 or context.shape[-1] != self.num_features or not context.shape[-2]:
            raise ValueError(f"context: expected (..., frames, {self.num_features}), got {tuple(context.shape)}")
        if not torch.isfinite(context).all():
            raise ValueError("context: expected finite numbers, got NaN or infinity")

    def forward(self, context: Tensor) -> Tensor:
        return context


class SpatialMap(Encoder):
    """A map over the image, S numbers at every pixel, taken as it is: a segmentation, a coarse image, an edge map.

    Args:
        shape: (H, W) of the image.
        num_features: S.

    Example:
        >>> SpatialMap((4, 5), 2)(torch.zeros(3, 4, 5, 2)).shape
        torch.Size([3, 4, 5, 2])
    """

    event_dim = 3
    is_map = True

    def __init__(self, shape: Sequence[int], num_features: int) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features: expected 1 or more, got {num_features}")
        self.shape, self.num_features = tuple(shape), num_features

    def check(self, context: Tensor) -> None:
        wanted = (*self.shape, self.num_features)
        if tuple(context.shape[-3:]) != wanted:
            raise ValueError(f"context: expected maps of shape {wanted}, got {tuple(context.shape)}")
        if not torch.isfinite(context).all():
            raise ValueError("context: expected finite numbers, got NaN or infinity")

    def forward(self, context: Tensor) -> Tensor:
        return context
