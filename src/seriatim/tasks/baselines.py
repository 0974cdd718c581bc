"""Baselines: what a model must beat before its number means something."""

from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seriatim.heads import Head
from seriatim.models.bayesnet import BayesNet
from seriatim.nested import Nested
from seriatim.tasks.evaluate import bits_per_dim, evaluate

BASELINES = ("factorised", "chow-liu", "zlib", "xz")
MAX_TREE_VALUES = 64
MAX_TREE_COLUMNS = 16_384


@dataclass(frozen=True, eq=False)
class Baseline:
    """A number to compare with.

    Attributes:
        name: "factorised", "chow-liu", "zlib" or "xz".
        nats: of -log p(x), the mean over the test rows; None where the baseline does not apply.
        bits_per_dim: the same in bits per dimension.
        detail: what it is, or why it does not apply.
        log_prob: (N,) log p of each test row; None for compressors.
    """

    name: str
    nats: float | None
    bits_per_dim: float | None
    detail: str
    log_prob: np.ndarray | None = None


def baselines(
    train: Any,
    test: Any,
    *,
    num_values: int | Sequence[int] | None = None,
    head: Head | None = None,
    only: Sequence[str] | None = None,
) -> list[Baseline]:
    """Score test rows under models that know less: factorised, Chow-Liu, zlib and xz.

        factorised: prod_d p_d(x_d), p_d the smoothed frequencies of train;    zlib, xz: 8 log 2 (bytes) / N

    Args:
        train: (N, *event_shape) the rows that baselines are fitted to.
        test: (M, *event_shape) the rows that are scored.
        num_values: K of each place, or one number for all, for codes 0..K-1; None for real numbers.
        head: for real numbers and mixed tables: the head whose marginals are the factorised model, so that both
            densities have one base measure.
        only: names of the baselines wanted; all if None.

    Raises:
        ValueError: rows of different shapes, or an unknown name.

    Example:
        >>> rows = np.tile(np.array([[0, 1, 1, 0]], dtype=np.uint8), (100, 1))
        >>> [b.name for b in baselines(rows, rows, num_values=2)]
        ['factorised', 'chow-liu', 'zlib', 'xz']
    """
    train, test = np.asarray(train), np.asarray(test)
    if train.shape[1:] != test.shape[1:] or not len(train) or not len(test):
        raise ValueError(f"test: expected rows of shape {train.shape[1:]}, got array {test.shape}")
    known: dict[str, Callable[[], Baseline]] = {
        "factorised": lambda: _factorised(train, test, num_values, head),
        "chow-liu": lambda: _chow_liu(train, test, num_values),
        "zlib": lambda: _compressed("zlib", lambda raw: zlib.compress(raw, 9), test, num_values),
        "xz": lambda: _compressed(
            "xz", lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME), test, num_values
        ),
    }
    names = list(BASELINES if only is None else only)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"only: expected names among {', '.join(known)}, got {', '.join(unknown)}")
    return [known[name]() for name in names]


def _factorised(
    train: np.ndarray, test: np.ndarray, num_values: int | Sequence[int] | None, head: Head | None
) -> Baseline:
    if num_values is not None:
        net = BayesNet.learn(train, arities=_arities(num_values), method="independent", pseudo_count=0.5)
        return _scored(
            "factorised", evaluate(net, test).log_prob, test, "marginal frequencies of train, half a count added"
        )
    if head is None or head.value_shape or isinstance(head, Nested):
        return Baseline("factorised", None, None, "needs scalar values at each place")
    rows, width = torch.as_tensor(train).flatten(1), math.prod(train.shape[1:])
    with torch.no_grad():
        params = head.marginal_params(rows, torch.arange(width))
        terms = head(params[None], torch.arange(width)).log_prob(torch.as_tensor(test).flatten(1))
    return _scored(
        "factorised", terms.sum(-1).double().numpy(), test, f"marginals of train, each a {type(head).__name__}"
    )


def _chow_liu(train: np.ndarray, test: np.ndarray, num_values: int | Sequence[int] | None) -> Baseline:
    width = math.prod(train.shape[1:])
    sizes = _arities(num_values)
    largest = sizes if isinstance(sizes, int) else max(sizes) if sizes else 0
    if num_values is None:
        return Baseline("chow-liu", None, None, "needs discrete values")
    if largest > MAX_TREE_VALUES or width * largest > MAX_TREE_COLUMNS:
        return Baseline("chow-liu", None, None, f"left out: {width} places of up to {largest} values are too many")
    net = BayesNet.learn(train, arities=sizes, pseudo_count=0.1)
    return _scored("chow-liu", evaluate(net, test).log_prob, test, "the best tree, a tenth of a count added")


def _compressed(
    name: str, compress: Callable[[bytes], bytes], test: np.ndarray, num_values: int | Sequence[int] | None
) -> Baseline:
    if num_values is None:
        return Baseline(name, None, None, "needs discrete values: bytes of real numbers are no density")
    size = len(compress(packed_bytes(test, num_values)))
    nats = 8 * size * math.log(2) / len(test)
    level = "level 9" if name == "zlib" else "preset 9e"
    detail = f"{level}, over all {len(test)} rows at once: {size:,} bytes"
    return Baseline(name, nats, float(bits_per_dim(nats, math.prod(test.shape[1:]))), detail)


def packed_bytes(test: np.ndarray, num_values: int | Sequence[int]) -> bytes:
    """Return the bytes that compressors are given: packed bits for bits, else the smallest whole numbers.

    Example:
        >>> packed_bytes(np.array([[1, 0, 0, 0, 0, 0, 0, 1]]), 2)
        b'\\x81'
    """
    largest = num_values if isinstance(num_values, int) else max(num_values)
    if largest <= 2:
        return np.packbits(test.astype(np.uint8).reshape(-1)).tobytes()
    kind = np.min_scalar_type(largest - 1)
    return np.ascontiguousarray(test, dtype=kind.newbyteorder("<")).tobytes()


def _arities(num_values: int | Sequence[int] | None) -> Any:
    return num_values if num_values is None or isinstance(num_values, int) else [int(k) for k in num_values]


def _scored(name: str, log_prob: np.ndarray, test: np.ndarray, detail: str) -> Baseline:
    nats = -float(log_prob.mean())
    return Baseline(name, nats, float(bits_per_dim(nats, math.prod(test.shape[1:]))), detail, log_prob)
