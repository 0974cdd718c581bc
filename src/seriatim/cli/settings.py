"""The configuration of a run: what --config, --set and the options of `train` come to, checked name by name."""

from __future__ import annotations

import inspect
import os
import typing
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from seriatim.cli.errors import UserError, of_validation, unknown_name
from seriatim.training.config import TrainConfig

# Arguments of models that follow from the data; an order is given as text.
_GIVEN = {"self", "event_shape", "head", "encoder", "order", "arities", "parents", "names", "network"}
CLOSED_FORM = ("bayesnet", "full_table")


class DataConfig(BaseModel):
    """The data of a run: a source, and the options of `seriatim.data.load`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="a named set, a file or a folder of images")
    context: Literal["labels"] | None = Field(None, description="what the model is conditioned on")
    data_dir: str | None = None
    split_seed: int = Field(0, ge=0)
    fractions: tuple[float, float, float] | None = None
    valid: str | None = None
    test: str | None = None
    key: str | None = None
    kind: str | None = None
    levels: int | None = None
    size: int | tuple[int, int] | None = None
    grey: bool | None = None
    binarise: str | None = None
    header: bool | None = None
    delimiter: str | None = None
    overrides: dict[str, str] | None = None
    exclude: list[str] | None = None
    label: str | None = None
    max_categories: int | None = None
    tokens: str | None = None
    lines: bool | None = None
    read_as: Literal["series", "pairs", "music"] | None = None
    target: str | None = None
    valid_target: str | None = None
    test_target: str | None = None
    source_tokens: str | None = None
    joint: bool | None = None
    rate: float | None = None
    encoding: str | None = None
    pattern: str | None = None

    @property
    def paths(self) -> dict[str, str]:
        """The fields that name a file or a folder."""
        from seriatim.data import NAMED

        given = {"source": None if self.source in NAMED else self.source, "data_dir": self.data_dir}
        given |= {"valid": self.valid, "test": self.test, "target": self.target}
        given |= {"valid_target": self.valid_target, "test_target": self.test_target}
        return {field: path for field, path in given.items() if path is not None}

    def located(self) -> DataConfig:
        """Return the same with absolute paths: a run finds its data from any folder."""
        return self.model_copy(update={field: os.path.abspath(path) for field, path in self.paths.items()})

    @property
    def load_options(self) -> dict[str, Any]:
        """The options of `load` that are set."""
        options = self.model_dump(exclude={"source", "context"}, exclude_none=True)
        if "size" in options and not isinstance(options["size"], int):
            options["size"] = tuple(options["size"])
        return options


class RunConfig(BaseModel):
    """All that decides a run: `config.yaml` of its folder.

    Example:
        >>> resolve({"model": {"name": "made"}, "data": {"source": "digits"}}).training.epochs
        100
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: dict[str, Any]
    data: DataConfig
    training: TrainConfig = TrainConfig()

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of the model, without its name and head."""
        others = ("name", "head", "head_options", "inside", "source_options")
        return {name: value for name, value in self.model.items() if name not in others}


class _HeadConfig(BaseModel):
    head: str | None = Field(None, description="class of the values at one place; chosen by the data if None")
    head_options: dict[str, Any] = Field({}, description="options of the head")
    inside: str | None = Field(
        None, description="sequences of several values at a position: made, nade or independent; chosen by the data"
    )
    source_options: dict[str, Any] = Field({}, description="options of a source's encoder that differ from the model's")


class _BayesNetOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    method: Literal["chow_liu", "search", "independent"] = Field("chow_liu", description="how the graph is found")
    max_parents: int = Field(3, ge=0, description="of each variable, in the search")
    score: Literal["bic", "bdeu"] = Field("bic", description="what the search maximises")
    pseudo_count: float = Field(0.1, ge=0, description="added to every cell of the tables")
    seed: int = Field(0, ge=0, description="of the search")


class _FullTableOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pseudo_count: float = Field(0.1, ge=0, description="added to every cell of the tables")


def options_of(name: str) -> type[BaseModel]:
    """Return the pydantic model of a model's options: those of its constructor that do not follow from the data.

    Raises:
        UserError: no such model; names those that are close.

    Example:
        >>> sorted(options_of("nade").model_fields)
        ['activation', 'head', 'head_options', 'hidden_features', 'inside', 'order', 'source_options']
    """
    from seriatim.models import MODELS

    if name not in MODELS:
        raise UserError(f"model.name: {unknown_name(name, list(MODELS))}")
    if name == "bayesnet":
        return _BayesNetOptions
    if name == "full_table":
        return _FullTableOptions
    constructor = MODELS[name].__init__
    fields = _fields(constructor)
    if "order" in inspect.signature(constructor).parameters:
        fields["order"] = (str, Field("natural", description="natural, random:SEED or, of images, scan:flip_rows+..."))
    return create_model(f"{name} options", __base__=_HeadConfig, __config__=None, **fields)


def _fields(constructor: Any, given: Container[str] = _GIVEN) -> dict[str, Any]:
    """The types and defaults of a constructor's arguments, without those that are given otherwise."""
    hints, parameters = typing.get_type_hints(constructor), inspect.signature(constructor).parameters
    return {name: (hints[name], own.default) for name, own in parameters.items() if name not in given}


def checked_options(kind: Any, options: Mapping[str, Any], given: Container[str], prefix: str) -> dict[str, Any]:
    """Return options of a class, each of the type that its constructor asks for.

    Args:
        kind: the class.
        options: some of the arguments of its constructor.
        given: arguments that are no options.
        prefix: what stands before a name in a message.

    Raises:
        UserError: an unknown name (with those that are close) or a value of another type.

    Example:
        >>> from seriatim.layers.source import SourceEncoder
        >>> checked_options(SourceEncoder, {"dropout": "0.5"}, {"self", "num_symbols"}, "model.")
        {'dropout': 0.5}
    """
    fields = _fields(kind.__init__, given)
    model = create_model(f"{kind.__name__} options", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        return model.model_validate(dict(options)).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise UserError(of_validation(error, list(fields), prefix)) from None


def resolve(values: Mapping[str, Any]) -> RunConfig:
    """Check a configuration, fill in what it leaves out, and return it.

    Raises:
        UserError: an unknown name (with those that are close) or a value that does not fit; one line.
    """
    model = values.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("name"), str):
        raise UserError(f"model.name: expected the name of a model, got {model!r}")
    options = {key: value for key, value in model.items() if key != "name"}
    kind = options_of(model["name"])
    if unknown := [key for key in options if key not in kind.model_fields]:
        raise UserError(f"model.{unknown[0]}: {unknown_name(unknown[0], list(kind.model_fields))}")
    try:
        checked = kind.model_validate(options).model_dump(mode="json")
    except ValidationError as error:
        raise UserError(of_validation(error, prefix="model.")) from None
    try:
        return RunConfig.model_validate({**values, "model": {"name": model["name"], **checked}})
    except ValidationError as error:
        raise UserError(of_validation(error, _siblings(error))) from None


def _siblings(error: ValidationError) -> Sequence[str]:
    """The names known at the place of the first error."""
    known: type[BaseModel] = RunConfig
    for part in error.errors()[0]["loc"][:-1]:
        own = known.model_fields[str(part)].annotation if str(part) in known.model_fields else None
        if not (isinstance(own, type) and issubclass(own, BaseModel)):
            return ()
        known = own
    return list(known.model_fields)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        UserError: no such file, or one that holds no names and values.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: expected YAML, got: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected names and values, got {type(values).__name__}")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested names and values, those of `over` in place of those of `base`.

    Example:
        >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}})
        {'a': {'b': 3, 'c': 2}}
    """
    merged = dict(base)
    for key, value in over.items():
        own = merged.get(key)
        merged[key] = merge(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return merged


def parse_set(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn --set a.b=c into nested names and values; the value is YAML.

    Raises:
        UserError: an assignment without a name or an equals sign.

    Example:
        >>> parse_set(["model.hidden_features=[64, 64]", "training.epochs=3"])
        {'model': {'hidden_features': [64, 64]}, 'training': {'epochs': 3}}
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            raise UserError(f"--set: expected name.name=value, got {assignment!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--set {path}: expected a YAML value, got {text!r}") from None
        for name in reversed(names):
            value = {name: value}
        values = merge(values, value)
    return values
