"""`complete`: fill in what is missing, with exact samples of p(missing | observed) and their log probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive
from seriatim.model import AutoregressiveModel
from seriatim.models.bayesnet import BayesNet
from seriatim.noise import random_seed, uniforms
from seriatim.order import Order
from seriatim.tasks.rows import Joint, as_joint, as_rows, in_eval_mode, map_rows, take
from seriatim.tasks.sampler import Sampler
from seriatim.tasks.tree import Beliefs, is_tree

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision

REGIONS = ("top", "bottom", "left", "right", "center", "border")
"""Names of the parts of an image that may be given."""

Exactness = Literal["exact", "exact for this order"]
_MAX_ROWS = 1 << 16  # the address of completion k of row n is n * 2^16 + k


@dataclass(frozen=True, eq=False)
class Completion:
    """Samples of p(missing | observed).

    Attributes:
        samples: (num, N, *event_shape); observed values are those given, bit for bit.
        log_prob: (num, N) log p(missing | observed) of each sample, in nats.
        observed: (*order shape) bool, which places were given.
        exactness: "exact", or "exact for this order" where the model has another joint distribution in every order
            and the one used reads the observed places first.
    """

    samples: Tensor
    log_prob: Tensor
    observed: Tensor
    exactness: Exactness


def region(name: str, shape: Sequence[int]) -> Tensor:
    """Return the mask of a named part of an image, True where it is given.

        top, bottom, left, right: a half (top and bottom share no row);  center: the middle half of rows and columns;
        border: all but the center

    Args:
        name: one of `REGIONS`.
        shape: (H, W) or (H, W, ...), the places of the data.

    Raises:
        ValueError: an unknown name, or places that are no image.

    Example:
        >>> region("top", (2, 3)).int()
        tensor([[1, 1, 1],
                [0, 0, 0]], dtype=torch.int32)
    """
    if name not in REGIONS:
        raise ValueError(f"region: expected one of {', '.join(REGIONS)}, got {name!r}")
    if len(shape) < 2:
        raise ValueError(f"region: expected data with rows and columns, got shape {tuple(shape)}; give a mask instead")
    height, width = shape[:2]
    h, w = torch.arange(height)[:, None], torch.arange(width)[None, :]
    center = (h >= height // 4) & (h < height - height // 4) & (w >= width // 4) & (w < width - width // 4)
    masks = {
        "top": h < height // 2,
        "bottom": h >= height // 2,
        "left": w < width // 2,
        "right": w >= width // 2,
        "center": center,
        "border": ~center,
    }
    mask = masks[name].expand(height, width)
    return mask.reshape(height, width, *[1] * (len(shape) - 2)).expand(tuple(shape)).clone()


def complete(
    model: AutoregressiveModel | Joint,
    x: Any,
    observed: Any,
    *,
    num: int = 8,
    seed: int | None = None,
    context: Any = None,
    batch_size: int = 256,
    engine: Engine = "auto",
    precision: Precision = "float32",
) -> Completion:
    """Draw exact completions of rows whose observed values are kept.

        x_missing ~ p(x_missing | x_observed, c),    log p(x_missing | x_observed, c) in nats

    Exact are: observed places that are a prefix of the model's order; any observed places for an order-agnostic
    model, in an order that reads them first; any observed places for a `BayesNet` that is a tree. Other patterns are
    refused: filling them place by place would ignore what is known further on.

    Args:
        model: a model, or a distribution of one, of batch shape () or (N,).
        x: (N, *event_shape), or a data frame or `Table` for a model of a table; values at missing places are not read
            and may be anything, NaN too.
        observed: (*order shape) bool, True where a value is given, or the name of a region (`region`).
        num: completions of each row.
        seed: completion k of row n depends on (seed, n, k), x and the context only; drawn from torch's generator if
            None.
        context: (N, *context event) for a conditional model.
        batch_size: completions at a time.
        engine: "auto", "native" or "reference", as for `Autoregressive.sample`: the completions are the same. A tree
            is swept, whatever the engine.
        precision: as for `generate`; log p is that of the rounded model, whose state begins as the exact one's.

    Raises:
        ValueError: a pattern that is not exact for this model (the message says why and which are), a mask of a
            wrong shape, observed values outside the support, "native" for a model without it, or "bf16-weights" for a
            tree that is swept.

    Example:
        >>> from seriatim.models import MADE
        >>> model, x = MADE((4, 4), hidden_features=(8,)), torch.ones(2, 4, 4)
        >>> done = complete(model, x, "top", num=3, seed=0)
        >>> done.samples.shape, done.exactness, bool((done.samples[:, :, :2] == 1).all())
        (torch.Size([3, 2, 4, 4]), 'exact', True)
    """
    joint, exactness, mask = _exact(as_joint(model, context), observed)
    rows = as_rows(x, joint)
    if not (1 <= num <= _MAX_ROWS and len(rows) <= _MAX_ROWS):
        raise ValueError(f"num: expected 1..{_MAX_ROWS} completions of as many rows at most, got {num} of {len(rows)}")
    places = mask.reshape(*mask.shape, *[1] * (rows.ndim - 1 - mask.ndim))
    filled = _checked(joint, rows, places)
    seed = random_seed() if seed is None else seed
    drawn, totals = _draw(joint, filled, mask, num, Sampler(seed, engine, scored=True, precision=precision), batch_size)
    if joint.model.head.discrete or rows.is_floating_point():
        drawn = drawn.to(rows.dtype)
    return Completion(torch.where(places, rows.cpu(), drawn), totals, mask, exactness)


def _draw(
    joint: Autoregressive, rows: Tensor, mask: Tensor, num: int, sampler: Sampler, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Draw completions (num, N, *event_shape) of checked rows (N, *event_shape), and their log p (num, N)."""
    index = torch.arange(len(rows)).repeat_interleave(num)
    addresses = (index << 16) + torch.arange(num).repeat(len(rows))
    is_tree_sweep = isinstance(joint.model, BayesNet) and not _is_prefix(joint.order, mask)
    if is_tree_sweep and sampler.precision != "float32":
        raise ValueError(f"precision: expected 'float32' for a tree that is swept, got {sampler.precision!r}")
    draw = _complete_tree if is_tree_sweep else _complete_prefix
    values, log_prob = [], []
    with torch.no_grad(), in_eval_mode(joint):
        for part in torch.arange(len(index)).split(batch_size):
            own = index[part]
            drawn, terms = draw(take(joint, own), rows[own], mask, addresses[part], sampler)
            values.append(drawn.cpu())
            log_prob.append(terms.cpu())
    if not values:
        return rows.expand(num, *rows.shape).cpu(), torch.zeros(num, 0)
    shape = (len(rows), num)
    return torch.cat(values).unflatten(0, shape).transpose(0, 1), torch.cat(log_prob).unflatten(0, shape).T


def log_prob_given(
    model: AutoregressiveModel | Joint, x: Any, observed: Any, *, context: Any = None, batch_size: int = 256
) -> Tensor:
    """Return log p(missing | observed) of the values that x has at the missing places, (N,) in nats.

        log p(x_missing | x_observed, c) = log p(x | c) - log p(x_observed | c)

    Arguments and errors as for `complete`; here x is whole.

    Example:
        >>> from seriatim.models import FVSBN
        >>> x = torch.ones(2, 4)
        >>> log_prob_given(FVSBN((4,)), x, torch.tensor([True, False, False, False])).shape
        torch.Size([2])
    """
    joint, _, mask = _exact(as_joint(model, context), observed)
    rows = as_rows(x, joint)
    if isinstance(joint.model, BayesNet) and not _is_prefix(joint.order, mask):
        codes = joint.order.to_positions(joint.model.head.codes(rows))
        beliefs = Beliefs(joint.model, codes, joint.order.to_positions(mask[None])[0])
        return map_rows(joint, rows, lambda p, part: p.log_prob(part), batch_size) - beliefs.log_evidence
    return map_rows(joint, rows, lambda p, part: (p.log_prob_terms(part) * ~mask).flatten(1).sum(1), batch_size)


def _exact(joint: Joint, observed: Any) -> tuple[Autoregressive, Exactness, Tensor]:
    """Return the distribution in an order that makes the pattern exact, what to call it, and the mask."""
    if not isinstance(joint, Autoregressive):
        raise ValueError("model: expected a model or one order of it, got an ensemble of orders; give the model itself")
    shape = joint.order.shape
    mask = region(observed, shape) if isinstance(observed, str) else torch.as_tensor(np.asarray(observed))
    if mask.dtype != torch.bool:
        raise ValueError(f"observed: expected True and False, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"observed: expected shape {tuple(shape)}, one for each place, got {tuple(mask.shape)}")
    if _is_prefix(joint.order, mask) or is_tree(joint.model):
        return joint, "exact", mask
    if joint.model.network.order_agnostic:
        own = joint.order.permutation
        given = mask.flatten()[own]
        order = Order(shape, torch.cat([own[given], own[~given]]))
        reordered = Autoregressive(joint.model, joint.context, order)
        return reordered.expand(joint.batch_shape), "exact for this order", mask
    raise ValueError(_refusal(joint, mask))


def _is_prefix(order: Order, mask: Tensor) -> bool:
    in_positions = order.to_positions(mask[None])[0]
    return bool(in_positions[: int(mask.sum())].all())


def _refusal(joint: Autoregressive, mask: Tensor) -> str:
    order = joint.order
    in_positions = order.to_positions(mask[None])[0]
    gap = int((~in_positions).nonzero()[0])
    later = int(in_positions[gap:].nonzero()[0]) + gap
    named = [n for n in REGIONS if len(order.shape) > 1 and _is_prefix(order, region(n, order.shape))]
    hint = f", e.g. the region {' or '.join(named)}" if named else ""
    return (
        f"observed: expected a prefix of the model's order, got {_place(joint, later)} (position {later + 1} of "
        f"{order.length}) without {_place(joint, gap)} (position {gap + 1}): what is missing would have to be summed "
        f"over; exact for this model are the first k positions{hint}; an order-agnostic model or a tree takes any mask"
    )


def _place(joint: Autoregressive, position: int) -> str:
    variable, schema = int(joint.order.permutation[position]), joint.model.schema
    if schema is not None:
        return f"column {schema.names[variable]!r}"
    place = np.unravel_index(variable, joint.order.shape)
    return f"place {tuple(int(i) for i in place)}" if len(place) > 1 else f"place {int(place[0])}"


def _checked(joint: Autoregressive, rows: Tensor, places: Tensor) -> Tensor:
    """Return rows with zeros at missing places, once the observed values are known to be in the support."""
    filled = torch.where(places, rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
    joint._validate_sample(filled)
    return filled


def _complete_prefix(
    joint: Joint, rows: Tensor, mask: Tensor, addresses: Tensor, sampler: Sampler
) -> tuple[Tensor, Tensor]:
    """Read the observed prefix as one chunk, then sample on: values (B, *event_shape) and log p of what was drawn."""
    assert isinstance(joint, Autoregressive)
    model, known = joint.model, int(mask.sum())
    given = joint.order.to_positions(rows)[:, :known].to(model.device, model.head.value_dtype or model.dtype)
    blocks = list(sampler.blocks(joint, addresses, joint.order.length, given))
    if not blocks:
        return rows, torch.zeros(len(rows))
    drawn = torch.cat([block.values for block in blocks], dim=1)
    terms = torch.cat([block.log_prob for block in blocks if block.log_prob is not None], dim=1)
    return joint.order.to_data(torch.cat([given.to(drawn.dtype), drawn], dim=1)), terms.sum(1)


def _complete_tree(
    joint: Joint, rows: Tensor, mask: Tensor, addresses: Tensor, sampler: Sampler
) -> tuple[Tensor, Tensor]:
    """Sweep up and down a tree: values (B, *event_shape) and log p of what was drawn."""
    assert isinstance(joint, Autoregressive)
    net = joint.model
    assert isinstance(net, BayesNet)
    beliefs = Beliefs(net, joint.order.to_positions(net.head.codes(rows)), joint.order.to_positions(mask[None])[0])
    if not bool(beliefs.log_evidence.isfinite().all()):
        raise ValueError("x: expected observed values of positive probability, got a row that the tables exclude")
    u = uniforms(sampler.seed, addresses, torch.arange(joint.order.length), 1)[..., 0]
    drawn = net.head.values(joint.order.to_data(beliefs.sample(u)))
    return drawn, joint.log_prob(drawn).cpu().double() - beliefs.log_evidence


def num_missing(observed: Tensor) -> int:
    """Count the missing places of a mask.

    Example:
        >>> num_missing(region("top", (4, 4)))
        8
    """
    return math.prod(observed.shape) - int(observed.sum())
