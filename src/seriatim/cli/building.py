"""From a configuration and a data set to a model: what `seriatim train` and `seriatim demo` share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from seriatim import channels, fitting, heads
from seriatim.cli.errors import UserError, unknown_name
from seriatim.cli.settings import CLOSED_FORM, RunConfig
from seriatim.config import Configurable
from seriatim.data import Dataset
from seriatim.data.dataset import DISCRETE
from seriatim.model import AutoregressiveModel
from seriatim.models import MODELS
from seriatim.training import TrainConfig


def build(config: RunConfig, data: Dataset) -> AutoregressiveModel:
    """Make the model of a configuration for a data set; models of counts come back fitted.

    Raises:
        UserError: a context, a head or an option that does not fit the model or the data.
    """
    name, options = config.model["name"], config.model_options
    conditional = config.data.context == "labels"
    if conditional and data.labels is None:
        raise UserError(f"--context: expected data with labels, got none in {config.data.source}")
    if config.model.get("inside") is not None:
        raise UserError(f"model.inside: expected none, for rows of one shape, got {config.model['inside']}")
    if config.model.get("source_options"):
        raise UserError(f"model.source_options: expected none without a source, got {config.model['source_options']}")
    head = _head(config.model, data)
    if head is not None and data.kind in DISCRETE and not head.discrete:
        raise UserError(
            f"model.head: expected one for the whole numbers of {config.data.source}, got {head}: a density "
            "of whole numbers grows without bound"
        )
    if name in CLOSED_FORM:
        if conditional:
            raise UserError(f"--context: expected none for {name}, whose tables take no context, got labels")
        # Validation rows stay out: their score is reported.
        counted = fitting.Rows(data.train, None, data.kind, data.levels, data.schema)
        return fitting.counted(counted, MODELS[name], head, None, options).eval()
    return fitting.constructed(
        _rows(data), name, head, data.num_classes if conditional else 0, config.training.seed, options
    )


def preset(data: Dataset, given: Mapping[str, Any]) -> TrainConfig:
    """Return the training settings that suit the number of rows, with those given on top."""
    return fitting.preset(_rows(data), given.get("seed", 0), given.get("device", "auto"), given)


def _rows(data: Dataset) -> fitting.Rows:
    return fitting.Rows(data.train, data.valid, data.kind, data.levels, data.schema)


def _head(model: Mapping[str, Any], data: Dataset) -> heads.Head | None:
    """The head that a configuration names, with the levels of the data where it gives none; None: the data decide."""
    name, options = model.get("head"), model.get("head_options") or {}
    if name is None:
        if options:
            raise UserError(f"model.head_options: expected none without model.head, got {options}")
        return None
    known = {
        kind.__name__: kind
        for kind in Configurable.classes.values()
        if issubclass(kind, heads.Head)
        and kind.__module__ in (heads.__name__, channels.__name__)
        and kind.__name__[0] not in "_H"
    }
    if name not in known:
        raise UserError(f"model.head: {unknown_name(name, list(known))}")
    if data.levels is not None and "levels" in inspect.signature(known[name].__init__).parameters:
        options = {"levels": data.levels, **options}
    try:
        return known[name](**options)
    except TypeError as error:
        raise UserError(f"model.head_options: {error}") from None


def torch_device(name: str) -> torch.device:
    """Return the device of a name, the fastest there is for "auto".

    Raises:
        UserError: an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(name, False):
        expected = " or ".join(["auto", *(device for device, there in present.items() if there)])
        raise UserError(f"--device: expected {expected}, got {name}")
    return torch.device(name)
