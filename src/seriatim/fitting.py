"""`fit` and `score_samples`: from an array or a data frame to a model, and to log p of rows, in one call each."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seriatim.columns import Columns
from seriatim.context import Labels
from seriatim.data import Schema, Table, check_array, from_frame, infer_schema, is_frame, recognise_array
from seriatim.data.checks import refuse_unknown
from seriatim.data.splits import permutation
from seriatim.heads import Bernoulli, Categorical, Head, MixtureOfNormals, QuantizedMixtureOfLogistics
from seriatim.model import AutoregressiveModel
from seriatim.models import MODELS, BayesNet, FullTable
from seriatim.order import Order, RandomOrder, Scan
from seriatim.training import TrainConfig, TrainingData, train

_HELD_OUT = 0.1  # of the rows, for early stopping
_FEW = 30  # rows, of which none can be spared
_STEPS = 4000  # of a preset, within the bounds on epochs
_EPOCHS = (10, 400)
_OF_DATA = ("data", "arities", "missing")  # arguments of `BayesNet.learn` that follow from the data
_SCANS = ("flip_rows", "flip_columns", "transpose")


@dataclass(frozen=True)
class Rows:
    """Rows as a model takes them, and what is known of them.

    Attributes:
        train: (N, *event_shape).
        valid: the same, or None.
        kind: "binary", "categorical", "integer", "continuous" or "table".
        levels: of discrete kinds.
        schema: of a table.
    """

    train: np.ndarray
    valid: np.ndarray | None
    kind: str
    levels: int | None = None
    schema: Schema | None = None


def fit(
    X: Any,
    model: str = "made",
    *,
    head: Head | None = None,
    labels: Any = None,
    valid: Any = None,
    valid_labels: Any = None,
    seed: int = 0,
    device: str = "auto",
    training: Mapping[str, Any] | None = None,
    progress: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Fit a model to rows.

    Bits have a `Bernoulli` head, whole numbers with up to 32 levels a `Categorical`, with more a
    `QuantizedMixtureOfLogistics`, real numbers a `MixtureOfNormals`, the columns of a table one distribution each.
    Tables of counts ("bayesnet", "full_table") are fitted in closed form; other models by `train`, stopped where the
    validation stops getting better.

    Args:
        X: (N, *event_shape) array, or a data frame or dict of N rows.
        model: a name in `MODELS`.
        head: the values of one place; chosen by the kind of values if None.
        labels: (N,) classes 0..C-1: the model is then one of p(x | label).
        valid: rows to stop by, of the kind of X, or the share of X held out for it (0: train without); a tenth of X
            if None.
        valid_labels: classes of the rows in `valid`.
        seed: of the held-out rows, the first weights and the training.
        device: "auto", "cpu", "cuda" or "mps"; the model comes back on the CPU.
        training: settings of `TrainConfig` that differ from the preset.
        progress: show the training on stderr.
        options: arguments of the model, such as hidden_features and `order` (an `Order`, or a text as for
            `named_order`); of "bayesnet" those of `BayesNet.learn`.

    Returns:
        The model, in eval mode.

    Raises:
        ValueError: rows, labels, a name or an option that do not fit.

    Example:
        >>> rows = np.array([[0, 0], [1, 1]]).repeat(50, axis=0)
        >>> tree = fit(rows, "bayesnet")
        >>> score_samples(tree, rows[:1]).round(2)  # log 1/2 = -0.69
        array([-0.7])
    """
    refuse_unknown("model", [model], list(MODELS))
    rows, classes, valid_classes = _rows(X, labels, valid, valid_labels, seed)
    num_classes = (
        0 if classes is None else 1 + int(max(part.max() for part in (classes, valid_classes) if part is not None))
    )
    made: AutoregressiveModel
    if issubclass(MODELS[model], BayesNet):
        made = counted(rows, MODELS[model], head, labels, options)
    else:
        made = constructed(rows, model, head, num_classes, seed, options)
        data = TrainingData(rows.train, rows.valid, train_context=classes, valid_context=valid_classes)
        train(made, data, preset(rows, seed, device, training or {}), progress=progress)
    made.schema = rows.schema
    return made.eval()


def score_samples(model: AutoregressiveModel, X: Any, *, labels: Any = None, batch_size: int = 1024) -> np.ndarray:
    """Return log p of each row in nats; of real numbers, the log density in their unit.

        log p(x_n | c_n)

    Args:
        model: a fitted model.
        X: rows as `fit` took them: an array (N, *event_shape), or a data frame for a model of a table.
        labels: (N,) classes for a model of p(x | label).
        batch_size: rows at a time.

    Returns:
        (N,) float64.

    Raises:
        ValueError: rows that do not fit the model.

    Example:
        >>> from seriatim.models import FVSBN
        >>> score_samples(FVSBN((3,)), np.zeros((5, 3))).shape
        (5,)
    """
    return model.score_samples(X, labels, batch_size=batch_size)


def choose_head(rows: Rows) -> Head:
    """Return the head for the kind of values: the one place where this is decided.

    Example:
        >>> choose_head(Rows(np.zeros((1, 2)), None, "categorical", levels=17))
        Categorical(17)
    """
    if rows.schema is not None:
        return Columns.of(rows.schema)
    if rows.kind == "binary":
        return Bernoulli()
    if rows.kind == "categorical":
        return Categorical(rows.levels or 2)
    if rows.kind == "integer":
        return QuantizedMixtureOfLogistics(rows.levels or 256, num_components=5)
    _note_scales(rows.train)
    return MixtureOfNormals()


def _note_scales(x: np.ndarray) -> None:
    """Networks read real numbers as they are: those far from unit size are learned badly."""
    size = np.sqrt(np.square(x.astype(np.float64)).mean(0))
    far = np.flatnonzero((size > 10) | ((size < 0.1) & (size > 0)))
    if len(far):
        shown = ", ".join(map(str, far[:5])) + (", ..." if len(far) > 5 else "")
        warnings.warn(
            f"X: {len(far)} of {size.size} entries are far from unit size (numbers {shown}): standardise them, or pass "
            "a data frame, whose columns are standardised by the model",
            stacklevel=4,
        )


def _rows(
    X: Any, labels: Any, valid: Any, valid_labels: Any, seed: int
) -> tuple[Rows, np.ndarray | None, np.ndarray | None]:
    """Recognise the values and hold rows out."""
    share = valid if isinstance(valid, int | float) and not isinstance(valid, bool) else None
    x: Any = from_frame(X) if is_frame(X) else np.atleast_1d(np.asarray(X))
    num_rows = len(x)
    classes = _classes("labels", labels, num_rows)
    if valid is None or share is not None:
        if valid_labels is not None:
            raise ValueError("valid_labels: expected None without rows in valid, got some")
        held = _held_out(num_rows, share, seed)
        order = permutation(num_rows, seed)
        out, kept = order[:held], order[held:]
        parts = [x.take(kept), x.take(out)] if isinstance(x, Table) else [x[kept], x[out]]
        split = [None, None] if classes is None else [classes[kept], classes[out]]
    else:
        parts = [x, from_frame(valid) if is_frame(valid) else np.asarray(valid)]
        split = [classes, _classes("valid_labels", valid_labels, len(parts[1]))]
        if (split[0] is None) != (split[1] is None):
            raise ValueError("valid_labels: expected classes for valid where X has labels, and none where it has none")
    if not len(parts[1]):
        return _recognised(parts[0], None), split[0], None
    return _recognised(*parts), split[0], split[1]


def _held_out(num_rows: int, share: float | None, seed: int) -> int:
    if share is None:
        return round(_HELD_OUT * num_rows) if num_rows >= _FEW else 0
    if not 0 <= share < 1 or (share > 0 and not 0 < round(share * num_rows) < num_rows):
        raise ValueError(f"valid: expected rows, or a share of {num_rows} rows in [0, 1), got {share}")
    return round(share * num_rows)


def _recognised(train_part: Any, valid_part: Any) -> Rows:
    if isinstance(train_part, Table):
        schema, notes = infer_schema(train_part)
        for note in notes:
            warnings.warn(note, stacklevel=4)
        encoded = None if valid_part is None else schema.encode(valid_part)
        return Rows(schema.encode(train_part), encoded, "table", schema=schema)
    given = {"X": train_part} | ({} if valid_part is None else {"valid": valid_part})
    for name, part in given.items():
        check_array(part, kind="continuous", name=name)  # finite numbers
    kind, levels, notes = recognise_array(list(given.values()))
    for note in notes:
        warnings.warn(f"X: {note}", stacklevel=4)
    shape = train_part.shape[1:]
    checked = [check_array(p, kind=kind, levels=levels, event_shape=shape, name=n) for n, p in given.items()]
    return Rows(checked[0], checked[1] if len(checked) > 1 else None, kind, levels)


def _classes(name: str, labels: Any, num_rows: int) -> np.ndarray | None:
    if labels is None:
        return None
    classes = np.asarray(labels)
    if classes.shape != (num_rows,) or classes.dtype.kind not in "iu" or classes.min() < 0:
        raise ValueError(
            f"{name}: expected {num_rows} whole numbers 0..C-1, got {classes.dtype} of shape {classes.shape}; "
            "np.unique(labels, return_inverse=True)[1] makes them of names"
        )
    return classes.astype(np.int64)


def constructed(
    rows: Rows, name: str, head: Head | None, num_classes: int, seed: int, options: Mapping[str, Any]
) -> AutoregressiveModel:
    """Make the model with weights that the seed decides.

    Example:
        >>> rows = Rows(np.eye(40, 3, dtype=np.uint8), None, "binary", 2)
        >>> type(constructed(rows, "fvsbn", Bernoulli(), 0, 0, {})).__name__
        'FVSBN'
    """
    kind = MODELS[name]
    known = [
        option for option in inspect.signature(kind).parameters if option not in ("event_shape", "head", "encoder")
    ]
    refuse_unknown(f"options of {name}", options, known)
    arguments = {option: value for option, value in options.items() if option != "order"}
    if num_classes:
        arguments["encoder"] = Labels(num_classes)
    head = head or choose_head(rows)
    shape = _places(rows.train.shape[1:], head)
    if options.get("order", "natural") not in (None, "natural"):  # the natural one is what models have by themselves
        arguments["order"] = named_order(options["order"], shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(shape, head, **arguments)  # type: ignore[arg-type]


def _places(event_shape: tuple[int, ...], head: Head) -> tuple[int, ...]:
    """Return the axes of a row that are places; the last ones are those of a value."""
    last = len(event_shape) - len(head.value_shape)
    if last < 1 or event_shape[last:] != head.value_shape:
        raise ValueError(f"head: expected rows whose last axes are {head.value_shape} for {head}, got {event_shape}")
    return event_shape[:last]


def named_order(order: Order | str, shape: Sequence[int]) -> Order:
    """Return the order of a text: "natural", "random:SEED" or, for images, "scan:" and how the raster is changed.

    Args:
        order: e.g. "random:3" or "scan:flip_rows+flip_columns+transpose" (`Scan`); an `Order` is returned as it is.
        shape: of the places.

    Raises:
        ValueError: another text, a scan of what is no image, or an order of other places.

    Example:
        >>> named_order("scan:flip_columns", (2, 2)).permutation.tolist()
        [1, 0, 3, 2]
    """
    if isinstance(order, Order):
        if order.shape != tuple(shape):
            raise ValueError(f"order: expected one of {tuple(shape)} places, got {order}")
        return order
    name, _, value = str(order).partition(":")
    if order == "natural":
        return Order(shape)
    if name == "random" and value.isdecimal() and int(value) < 2**63:
        return RandomOrder(shape, seed=int(value))
    steps = value.split("+")
    if name == "scan" and set(steps) <= set(_SCANS) and len(steps) == len(set(steps)):
        if len(shape) not in (2, 3):
            raise ValueError(f"order: expected natural or random:SEED for places {tuple(shape)}, got {order!r}")
        return Scan(shape, **dict.fromkeys(steps, True))
    raise ValueError(
        f"order: expected natural, random:SEED (0 to 2^63 - 1) or scan: with some of {'+'.join(_SCANS)}, got {order!r}"
    )


def counted(
    rows: Rows, kind: type[AutoregressiveModel], head: Head | None, labels: Any, options: Mapping[str, Any]
) -> BayesNet:
    """Fit tables of counts, which need no validation: all rows count.

    Example:
        >>> rows = Rows(np.eye(40, 3, dtype=np.uint8), None, "binary", 2)
        >>> counted(rows, BayesNet, None, None, {"method": "independent"}).parents
        [(), (), ()]
    """
    name = kind.__name__
    for argument, given in (("head", head), ("labels", labels)):
        if given is not None:
            raise ValueError(f"{argument}: expected None for {name}, whose tables hold symbols, got one")
    x = rows.train if rows.valid is None else np.concatenate([rows.train, rows.valid])
    arities: int | list[int] = rows.levels or 0
    about: dict[str, Any] = {}
    if rows.schema is not None:
        bad = [column.name for column in rows.schema.columns if column.kind != "categorical"]
        if bad:
            raise ValueError(f"X: expected columns of categories for {name}, got column {bad[0]!r} of numbers")
        # Of every column the last two symbols are "unseen" and "missing", as in `Columns`.
        arities = [len(column.symbols) for column in rows.schema.columns]
        about = {"names": rows.schema.names, "missing": True}
    elif not rows.levels:
        raise ValueError(f"X: expected whole numbers for {name}, got real ones")
    if issubclass(kind, FullTable):
        refuse_unknown(f"options of {name}", options, ["names", "pseudo_count"])
        counts = {option: value for option, value in options.items() if option == "pseudo_count"}
        about |= {option: value for option, value in options.items() if option == "names"}
        return FullTable(x.shape[1:], arities, **about).fit_counts(x, **counts)
    known = [option for option in inspect.signature(BayesNet.learn).parameters if option not in _OF_DATA]
    refuse_unknown(f"options of {name}", options, known)
    return BayesNet.learn(x, arities, **{**about, **options})


def preset(rows: Rows, seed: int, device: str, changes: Mapping[str, Any]) -> TrainConfig:
    """Return settings that suit the number of rows, and those given on top.

    Example:
        >>> rows = Rows(np.eye(40, 3, dtype=np.uint8), None, "binary", 2)
        >>> preset(rows, 0, "cpu", {"epochs": 3}).epochs
        3
    """
    refuse_unknown("training", changes, list(TrainConfig.model_fields))
    batch_size = int(changes.get("batch_size", 100))
    steps = math.ceil(len(rows.train) / batch_size)
    epochs = min(max(math.ceil(_STEPS / steps), _EPOCHS[0]), _EPOCHS[1])
    preset: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": 2e-3,
        "ema_decay": 0.99,
        "patience": None if rows.valid is None else max(5, int(changes.get("epochs", epochs)) // 10),
        "seed": seed,
        "device": device,
    }
    return TrainConfig(**{**preset, **changes})
