"""Runs and rows as the verbs need them: a model with what is known of its data, and files as arrays for it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from seriatim import data as data_module
from seriatim import heads, runs
from seriatim.cli.building import torch_device
from seriatim.cli.errors import UserError, unknown_name
from seriatim.cli.settings import DataConfig, RunConfig, resolve
from seriatim.columns import Columns
from seriatim.context import Labels, Vector
from seriatim.data import Dataset, Schema, Sequences
from seriatim.model import AutoregressiveModel
from seriatim.models import OrderAgnosticMADE
from seriatim.symbols import Symbols
from seriatim.tasks.rows import Joint

SPLITS = ("train", "valid", "test")


@dataclass
class Run:
    """A trained model and what is known of its data.

    Attributes:
        path: as the user gave it.
        model: in eval mode, on the device asked for.
        card: the facts of `config.json`.
        schema: of a table.
        settings: the configuration of the run; None for a model without a run around it.
    """

    path: Path
    model: AutoregressiveModel
    card: dict[str, Any]
    schema: Schema | None
    settings: RunConfig | None = field(default=None)

    @cached_property
    def data(self) -> Dataset:
        """The data set that the run was trained on, loaded anew.

        Raises:
            UserError: a model without a run, or data that are not what they were.
        """
        if self.settings is None:
            raise UserError(f"{self.path}: expected a run, with config.yaml that names its data, got a model alone")
        source = self.settings.data.source
        data = of_rows(load_again(self.settings.data, self.path), source)
        digest = self.card.get("data", {}).get("sha256 of train, valid and test", data.digest)
        if digest != data.digest:
            raise UserError(
                f"{source}: expected the rows that {self.path} was trained on (sha256 {digest[:12]}...), got others "
                f"({data.digest[:12]}...): which were for training is not known; give rows of your own instead"
            )
        return data

    @property
    def class_names(self) -> list[str]:
        """The names of the classes of a conditional model; their numbers where they have none."""
        listed = self.card.get("data", {}).get("classes")
        names = json.loads(listed) if isinstance(listed, str) else None
        encoder = self.model.encoder
        return names or [str(k) for k in range(encoder.num_features if encoder is not None else 0)]

    @property
    def kind(self) -> tuple[str, int | None]:
        """The kind of the values, as in `Dataset`, and their number of levels."""
        head: Any = self.model.head
        while hasattr(head, "model"):  # the values inside a position
            head = head.model.head
        if isinstance(head, Columns) or self.schema is not None:
            return "table", None
        if isinstance(head, heads.Bernoulli):
            return "binary", 2
        if isinstance(head, heads.Categorical):
            return "categorical", head.num_categories
        if isinstance(head, heads.QuantizedMixtureOfLogistics):
            return "integer", head.levels
        if isinstance(head, Symbols):
            most = max(head.arities)
            return ("binary", 2) if most == 2 else ("categorical", most)
        return "continuous", None

    def joint(self, context: Any = None, orders: int | None = None) -> Joint:
        """Return the distribution given a context, or the mixture over some orders."""
        context = None if context is None else torch.as_tensor(context)
        if orders is None:
            return self.model(context)
        if not isinstance(self.model, OrderAgnosticMADE):
            raise UserError(f"--orders: expected an order-agnostic model, got {type(self.model).__name__}")
        return self.model.ensemble(orders, context)


def load_again(settings: DataConfig, run: Path) -> Dataset | Sequences:
    """Load the data of a run.

    Raises:
        UserError: a file or folder that is no longer there.
    """
    for name, path in settings.paths.items():
        if not Path(path).exists():
            raise UserError(
                f"{path}: expected the data of {run}, got no such file or folder: put it back, or write where it is "
                f"now to {run / 'config.yaml'} (data.{name})"
            )
    return data_module.load(settings.source, **settings.load_options)


def of_rows(data: Dataset | Sequences, source: str) -> Dataset:
    """Return a data set that is known to hold rows.

    Raises:
        UserError: sequences.
    """
    if isinstance(data, Sequences):
        raise UserError(f"{source}: expected rows of one shape, got sequences of {data.unit}s")
    return data


def load_rows(settings: DataConfig) -> Dataset:
    """Load a data set of rows.

    Raises:
        UserError: sequences.
    """
    return of_rows(data_module.load(settings.source, **settings.load_options), settings.source)


def open_run(path: Path, device: str = "auto") -> Run:
    """Read a run, or a model alone.

    Raises:
        ValueError: no run there, or damaged files; names the file.
    """
    where = torch_device(device)
    config = runs.read_config(path)
    model = runs.load(path).to(where)
    try:
        schema = None if config.get("schema") is None else Schema.model_validate(config["schema"])
    except ValueError as error:
        raise UserError(f"{path}: expected the schema of a table in config.json, got: {error}") from None
    settings = None
    if (path / "config.yaml").is_file():
        settings = resolve(_read_settings(path / "config.yaml"))
    return Run(path, model, dict(config.get("card") or {}), schema, settings)


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file}: expected YAML, got: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected names and values, got {type(values).__name__}")
    return values


@dataclass(frozen=True)
class Rows:
    """Rows for a model: x (N, *event_shape), the class of each where the model wants one, and where they are from.

    `binarised` says how grey values became bits. `known` (N,) is False where hidden values of x are gaps in the file.
    """

    x: np.ndarray
    labels: np.ndarray | None
    source: str
    binarised: str | None = None
    known: np.ndarray | None = None

    def first(self, count: int) -> Rows:
        """Return the first rows."""
        x, labels, known = (part if part is None else part[:count] for part in (self.x, self.labels, self.known))
        assert x is not None
        return Rows(x, labels, self.source, self.binarised, known)


def own_rows(run: Run, split: str) -> Rows:
    """Return the rows of one split of the data that the run was trained on."""
    return _of_dataset(run, run.data, split)


def read_rows(run: Run, source: str, split: str | None = None, hidden: np.ndarray | None = None) -> Rows:
    """Read rows for a run's model.

    Args:
        run: whose model and schema decide what the rows must be.
        source: a named set, an archive or a folder with splits, else a file or a folder whose rows are all taken.
        split: "train", "valid" or "test" (the default where there are splits); of the run's own data its splits.
        hidden: (*event_shape) bool, places whose values in an array may be NaN, for they are not read.

    Raises:
        ValueError: an unknown source, a damaged file, or rows that do not fit the model; names file and place.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f"--split: expected {', '.join(SPLITS)}, got {split}")
    path = Path(source)
    own = run.settings is not None and same_source(source, run.settings.data.source)
    if own and (split is not None or source in data_module.NAMED):
        return own_rows(run, split or "test")
    if source in data_module.NAMED:
        return _of_dataset(run, load_rows(DataConfig.model_validate({"source": source})), split or "test")
    if not path.exists():
        known = [*data_module.NAMED]
        hint = unknown_name(source, known) if "." not in path.name and "/" not in source else "no such file or folder"
        raise UserError(f"FILE: {source}: {hint}")
    kind, levels = run.kind
    if kind == "table":
        return _of_table(run, path)
    if path.is_dir():
        return _of_folder(run, path, levels, split or "test")
    if path.name.lower().endswith((".npy", ".npz")):
        return _of_arrays(run, path, split or "test", hidden)
    if len(run.model.event_shape) == 1:
        table = data_module.read_table(path)
        columns = [_numbers(path, table, name) for name in table.names]
        return Rows(_fitted(run, np.column_stack(columns), str(path)), None, str(path))
    raise UserError(f"FILE: expected .npy, .npz or a folder of images for this model, got {path}")


def same_source(source: str, other: str) -> bool:
    """Whether two sources are one named set, or one file."""
    names = source in data_module.NAMED or other in data_module.NAMED
    return source == other if names else os.path.abspath(source) == os.path.abspath(other)


def _of_dataset(run: Run, data: Dataset, split: str) -> Rows:
    if split not in SPLITS:
        raise UserError(f"--split: expected {', '.join(SPLITS)}, got {split}")
    labels = None if data.labels is None else data.labels[split]
    return Rows(_fitted(run, data.splits[split], data.name), labels, f"{data.name}, {split}", data.binarisation)


def _of_table(run: Run, path: Path) -> Rows:
    schema = run.schema
    if schema is None:
        raise UserError(f"{run.path}: expected the schema of a table beside the model, got none")
    table = data_module.read_table(path, kinds=schema.kinds)
    label = run.settings.data.label if run.settings is not None else None
    labels = _classes(run, path, table[label].tolist()) if label is not None and label in table else None
    try:
        return Rows(schema.encode(table), labels, str(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _of_folder(run: Run, path: Path, levels: int | None, split: str) -> Rows:
    shape = run.model.event_shape
    if len(shape) not in (2, 3):
        raise UserError(f"FILE: expected an array or a table for rows of shape {tuple(shape)}, got the folder {path}")
    folders = data_module.split_folders(path)
    folder = path if path in folders.values() else folders.get(split)
    if folder is None:
        raise UserError(f"--split: expected {', '.join(folders)}, the splits of {path}, got {split}")
    rule, seed = _rule(run)
    read = data_module.load_image_folder(
        folder,
        size=(shape[0], shape[1]),
        grey=len(shape) == 2,
        levels=_grey_levels(run) if rule is not None else levels or 256,
        binarise=rule,
        seed=seed,
    )
    names = None if read.labels is None else np.array(read.class_names)[read.labels].tolist()
    how = None if rule is None else data_module.how_drawn(rule, seed)
    return Rows(_fitted(run, read.images, str(folder)), _classes(run, folder, names), str(folder), how)


def _of_arrays(run: Run, path: Path, split: str, hidden: np.ndarray | None) -> Rows:
    parts = data_module.load_parts(path)
    name = split if split in parts.arrays else "train"
    x, raw = parts.arrays[name], None if parts.labels is None else parts.labels[name].tolist()
    if run.settings is not None and x.ndim > 2 and x.shape[1:] != tuple(run.model.event_shape):
        x = data_module.scale_images(x, size=run.settings.data.size, grey=run.settings.data.grey, name=str(path))
    known = None
    if hidden is not None and x.dtype.kind == "f" and x.shape[1:] == hidden.shape:
        gaps = np.isnan(x) & hidden
        x, known = np.where(gaps, 0, x), ~gaps.reshape(len(x), -1).any(1)
    rule, seed = _rule(run)
    how = None
    if rule is not None and x.dtype.kind in "iuf" and x.max(initial=0) > 1:
        levels = _grey_levels(run)
        grey = data_module.check_array(x, kind="integer", levels=levels, event_shape=x.shape[1:], name=str(path))
        x = data_module.binarise(grey, rule, levels=levels, seed=seed)
        how = data_module.how_drawn(rule, seed)
    where = f"{path}{f', {name}' if len(parts.arrays) > 1 else ''}"
    return Rows(_fitted(run, x, str(path)), _classes(run, path, raw), where, how, known)


def _rule(run: Run) -> tuple[str | None, int]:
    """The binarisation of the run's training rows, and the seed of its draws."""
    return (None, 0) if run.settings is None else (run.settings.data.binarise, run.settings.data.split_seed)


def _grey_levels(run: Run) -> int:
    """The number of grey levels that the run's training rows had before they were binarised."""
    assert run.settings is not None
    return run.settings.data.levels or int(run.data.provenance.get("grey_levels", 256))


def _classes(run: Run, path: Path, raw: list[Any] | None) -> np.ndarray | None:
    """The classes 0..C-1 of labels as they stand in a file, for a model that is conditioned on them."""
    if raw is None or not isinstance(run.model.encoder, Labels):
        return None
    known = run.class_names
    index = {name: k for k, name in enumerate(known)}
    for row, label in enumerate(raw):
        if str(label) not in index:
            raise UserError(f"{path}: expected a class of {', '.join(known)}, got {label!r} in row {row}")
    return np.array([index[str(label)] for label in raw], dtype=np.int64)


def _numbers(path: Path, table: Any, name: str) -> np.ndarray:
    values = table[name]
    if values.dtype == object:
        raise UserError(f"{path}: expected numbers in column {name!r}, got text")
    return values.astype(np.float64)


def _fitted(run: Run, x: np.ndarray, name: str) -> np.ndarray:
    """Rows in the model's shape, once every value is known to fit."""
    shape, (kind, levels) = tuple(run.model.event_shape), run.kind
    if kind == "table":
        if x.shape[1:] != shape:
            raise UserError(f"{name}: expected rows of {shape[0]} columns, got {x.shape}")
        return x
    if x.ndim == 2 and x.shape[1:] != shape and x.shape[1] == int(np.prod(shape)):
        x = x.reshape(len(x), *shape)
    return data_module.check_array(x, kind=kind, levels=levels, event_shape=shape, name=name)  # type: ignore[arg-type]


def refuse_context(run: Run, given: str | None) -> None:
    """Raise UserError where a context is given for a model that takes none."""
    if given is not None:
        raise UserError(f"--context: expected none, for the model of {run.path} is unconditional, got {given!r}")


def contexts(run: Run, given: str | None, rows: Rows | None) -> Tensor | None:
    """Return the context of each row, or one for all: what the user gave, else the labels of the rows.

    Raises:
        UserError: a context for an unconditional model, none for a conditional one, or one that does not fit.
    """
    encoder = run.model.encoder
    if encoder is None:
        refuse_context(run, given)
        return None
    if given is None:
        if rows is None or rows.labels is None:
            raise UserError(
                f"--context: expected one, for the model of {run.path} is conditional ({encoder}), got none"
            )
        return torch.as_tensor(rows.labels).long()
    name, equals, value = given.rpartition("=")
    # Labels that are no column of a table have no name of their own.
    known = (run.settings.data.label if run.settings is not None else None) or "label"
    if equals and name != known:
        raise UserError(f"--context: expected VALUE or {known}=VALUE, got {given!r}")
    if isinstance(encoder, Vector):
        return _vector(given, value, encoder.num_features)
    if isinstance(encoder, Labels):
        return torch.tensor(_class(run, value, encoder.num_features))
    raise UserError(f"--context: expected a model conditioned on classes or a vector, got {encoder}")


def every_class(run: Run, num: int) -> Tensor | None:
    """Return every class in turn, so many times, (num * C,); None for a model that is not one of classes."""
    encoder = run.model.encoder
    return torch.arange(encoder.num_features).repeat(num) if isinstance(encoder, Labels) else None


def _class(run: Run, value: str, num_classes: int) -> int:
    if value in run.class_names:
        return run.class_names.index(value)
    if value.isdigit() and int(value) < num_classes:
        return int(value)
    raise UserError(f"--context: expected {', '.join(run.class_names)}, got {value!r}")


def _vector(given: str, value: str, size: int) -> Tensor:
    numbers = yaml.safe_load(value)
    fits = isinstance(numbers, list) and len(numbers) == size and all(isinstance(n, int | float) for n in numbers)
    if not fits:
        raise UserError(f"--context: expected {size} numbers such as [0.5, 1], got {given!r}")
    return torch.tensor([float(number) for number in numbers])
