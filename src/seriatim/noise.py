"""Addressed noise: the uniform behind (seed, row, position, lane) is a function, not a draw.

A random stream gives a sample that depends on how many numbers were taken before it, so on batch size, thread
count and path. Here every uniform has an address, and the counter-based generator Philox turns the address into
the number. Sample 7 is the same whether it is drawn alone, in a batch of 64, or by the native engine.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seriatim.wide import wide

MOST_POSITIONS = 1 << 32
"""Positions that have noise of their own."""

_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10
_BLOCK = 64  # positions whose noise is made at once


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Map 128-bit counters to 128 random bits with Philox4x32-10.

    Args:
        counter: four int64 tensors that broadcast together, each holding one 32-bit word.
        key: two 32-bit words.

    Returns:
        Four int64 tensors of 32-bit words.

    Reference: Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon, Moraes, Dror, Shaw, 2011).

    Example:
        >>> zero = torch.zeros((), dtype=torch.int64)
        >>> [hex(int(word)) for word in philox((zero, zero, zero, zero), (0, 0))]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product of two 32-bit words wraps in int64, but its bits are those of the unsigned product.
        p0, p1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def uniforms(seed: int, rows: Tensor, positions: Tensor, num_lanes: int) -> Tensor:
    """Return the uniforms of the given rows and positions, in the open interval (0, 1).

        u[r, t, k] = (word(seed, rows[r], positions[t], k) + 1/2) / 2^52

    Args:
        seed: any integer; its low 64 bits count.
        rows: (B,) int64 row numbers, each in [0, 2^32).
        positions: (n,) int64 position numbers, each in [0, 2^32).
        num_lanes: how many uniforms a position needs.

    Returns:
        (B, n, num_lanes) float64, where the device of the rows has such numbers (`seriatim.wide`).

    Reference: Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon, Moraes, Dror, Shaw, 2011).

    Example:
        >>> rows, positions = torch.arange(4), torch.arange(3)
        >>> u = uniforms(0, rows, positions, num_lanes=2)
        >>> alone = uniforms(0, rows[2:3], positions[1:2], num_lanes=2)
        >>> bool((u[2, 1] == alone[0, 0]).all())
        True
    """
    rows = rows.to(wide(rows.device))
    pairs = torch.arange((num_lanes + 1) // 2, device=rows.device)
    counter = torch.broadcast_tensors(
        pairs[None, None, :],
        positions.to(rows.device)[None, :, None] & _MASK,
        rows[:, None, None] & _MASK,
        rows[:, None, None] >> 32,
    )
    words = philox((counter[0], counter[1], counter[2], counter[3]), (seed & _MASK, (seed >> 32) & _MASK))
    # 52 bits and a half: exact in float64, never 0 and never 1.
    pair = torch.stack(
        [((words[i] >> 6) << 26 | (words[i + 1] >> 6)).double() + 0.5 for i in (0, 2)],
        dim=-1,
    )
    return (pair * 2.0**-52).flatten(-2)[..., :num_lanes]


def by_position(seed: int, rows: Tensor, num_lanes: int) -> Callable[[int], Tensor]:
    """Return the function from a position to its uniforms (B, 1, num_lanes), for positions that come in order.

    A block of them is made at once: the calls cost more than the numbers.

    Example:
        >>> noise = by_position(0, torch.arange(4), num_lanes=2)
        >>> bool((noise(70) == uniforms(0, torch.arange(4), torch.tensor([70]), 2)).all())
        True
    """
    block: dict[int, Tensor] = {}

    def noise(position: int) -> Tensor:
        first = position - position % _BLOCK
        if first not in block:
            block.clear()
            block[first] = uniforms(seed, rows, torch.arange(first, first + _BLOCK), num_lanes)
        return block[first][:, position - first, None]

    return noise


def random_seed(generator: torch.Generator | None = None) -> int:
    """Draw a seed from torch's generator, so that `torch.manual_seed` decides samples that name no seed.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> 0 <= random_seed() < 2**63
        True
    """
    return int(torch.randint(2**63 - 1, (), generator=generator))
