"""From a configuration and sequences to a model: heads, ends, contexts and settings that suit them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from seriatim.cli.errors import UserError, unknown_name
from seriatim.cli.settings import RunConfig, checked_options
from seriatim.context import Attributes, Encoder, Vector
from seriatim.data import Sequences
from seriatim.ending import Ending, SequenceModel
from seriatim.heads import Bernoulli, Categorical, Head, MixtureOfNormals, QuantizedMixtureOfLogistics, Tokens
from seriatim.independent import Independent
from seriatim.layers.source import SourceEncoder
from seriatim.model import AutoregressiveModel
from seriatim.models import MODELS
from seriatim.models.transformer import Transformer
from seriatim.nested import Nested
from seriatim.training import TrainConfig

INSIDE_FEATURES = 128  # numbers that tell the model inside a position what came before
_STEPS = 3000  # of a preset
_STREAM = 256  # values of a stream that a step reads in each lane
_SECOND = 4000  # the same of sound
_SENTENCES = 4000  # values of pairs in a step


def usual_model(data: Sequences) -> str:
    """Return the name of the model that suits sequences where none is given."""
    if data.sources is not None:
        return "transformer"
    return "wavenet" if data.unit == "sample" else "lstm"


def build_sequences(config: RunConfig, data: Sequences) -> AutoregressiveModel:
    """Make the model of a configuration for sequences, with weights that the seed decides.

    Raises:
        UserError: a model of fixed length, or a context or a head that does not fit the data.
    """
    name, options = config.model["name"], dict(config.model_options)
    kind: Any = MODELS[name]
    if not issubclass(kind, SequenceModel):
        able = [known for known, other in MODELS.items() if issubclass(other, SequenceModel)]
        raise UserError(
            f"model.name: expected {', '.join(able)} for sequences of different lengths, got {name}, whose length is "
            "fixed"
        )
    if options.get("order", "natural") != "natural":
        raise UserError(f"model.order: expected natural for sequences, got {options['order']}")
    options.pop("order", None)
    if config.model.get("head") is not None:
        raise UserError("model.head: expected none for sequences, whose kind of values decides, got one")
    encoder = _encoder(config, data, kind, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        head = head_of(data, config.model.get("inside"))
        if isinstance(head, Categorical) and issubclass(kind, Transformer):
            head = Tokens(head.num_categories)  # read as codes: a one-hot vector costs more than the network
        arguments = {} if encoder is None else {"encoder": encoder()}
        model = kind((usual_length(data),), Ending(head) if data.ends else head, **options, **arguments)
    assert isinstance(model, AutoregressiveModel)
    model.codec, model.source_codec = data.codec, data.source_codec
    return model


def usual_length(data: Sequences) -> int:
    """Return how many positions a sample has where nothing is said: the longest sequence that ends, a second of sound,
    or 256 values of another stream.
    """
    if data.ends:
        return int(max(own.lengths.max() for own in data.splits.values())) + 1
    return round(data.rate) if data.unit == "sample" and data.rate else _STREAM


def head_of(data: Sequences, inside: str | None) -> Head:
    """Return the head for the values of one position.

    Args:
        data: of any kind.
        inside: of several values at a position: "independent", or the model inside it, "made" or "nade"; "made" for
            bits and "independent" for other values if None.

    Raises:
        UserError: another name, or one for a single value.
    """
    scalar: Head
    if data.kind == "binary":
        scalar = Bernoulli()
    elif data.kind == "categorical":
        scalar = Categorical(data.levels or 2)
    elif data.kind == "integer":
        scalar = QuantizedMixtureOfLogistics(data.levels or 256, num_components=10)
    else:
        scalar = MixtureOfNormals()
    if not data.value_shape:
        if inside is not None:
            raise UserError(f"model.inside: expected none for one value at a position, got {inside}")
        return scalar
    inside = inside or ("made" if data.kind == "binary" else "independent")
    if inside == "independent":
        return Independent(scalar, data.value_shape)
    if inside not in ("made", "nade"):
        raise UserError(f"model.inside: {unknown_name(inside, ['independent', 'made', 'nade'])}")
    sizes: dict[str, Any] = {"hidden_features": (256,)} if inside == "made" else {"hidden_features": 100}
    inner: Any = MODELS[inside]
    return Nested(inner(data.value_shape, scalar, encoder=Vector(INSIDE_FEATURES), **sizes))


def _encoder(config: RunConfig, data: Sequences, kind: type, options: Mapping[str, Any]) -> Any:
    """Return what makes the encoder of the context, or None."""
    wanted = config.data.context
    if data.sources is not None:
        if not issubclass(kind, Transformer):
            raise UserError(f"model.name: expected transformer for pairs of texts, got {config.model['name']}")
        assert data.source_codec is not None
        levels = data.source_codec.levels  # type: ignore[attr-defined]
        given = {"self", "num_symbols", "num_features"}
        own = checked_options(SourceEncoder, config.model.get("source_options") or {}, given, "model.source_options.")
        names = inspect.signature(SourceEncoder).parameters
        alike = {key: value for key, value in options.items() if key in names} | own
        return lambda: _source_encoder(levels, options["hidden_features"], alike)
    if config.model.get("source_options"):
        raise UserError(f"model.source_options: expected none without a source, got {config.model['source_options']}")
    if wanted is None:
        return None
    if not data.attributes:
        raise UserError(f"--context: expected data with labels, got none in {config.data.source}")

    def labels() -> Encoder:
        return Attributes(data.attributes)

    return labels


def preset_sequences(data: Sequences, given: Mapping[str, Any], name: str) -> TrainConfig:
    """Return the training settings that suit the sequences, with those given on top."""
    values, longest = len(data.train.values), int(data.train.lengths.max())
    known: dict[str, Any] = {"learning_rate": 2e-3, "weight_decay": 0.01, "gradient_clip": 1.0, "ema_decay": 0.99}
    if data.sources is not None:
        known |= {"batch_values": _SENTENCES, "learning_rate": 1e-3, "label_smoothing": 0.1, "warmup_steps": 400}
        known |= {"ema_decay": 0.995}
        step = _SENTENCES
    elif data.unit == "sample":
        known |= {"batch_size": 8, "chunk_length": _SECOND}
        step = 8 * min(_SECOND, longest)
    elif data.ends:
        known |= {"batch_size": 16, "chunk_length": _STREAM if longest > 2 * _STREAM else None}
        step = 16 * int(data.train.lengths.mean())
    else:
        known |= {"batch_size": 32, "chunk_length": _STREAM}
        step = 32 * _STREAM
    if issubclass(MODELS[name], Transformer) and not data.ends:
        known |= {"carry_state": False}
    steps = max(1, math.ceil(values / max(1, step)))
    epochs = int(np.clip(math.ceil(_STEPS / steps), 3, 200))
    known |= {"epochs": epochs, "patience": max(3, int(given.get("epochs", epochs)) // 8)}
    return TrainConfig(**{**known, **given})


def _source_encoder(levels: int, num_features: int, options: Mapping[str, Any]) -> SourceEncoder:
    try:
        return SourceEncoder(levels, num_features, **options)
    except ValueError as error:
        raise UserError(f"model.source_options.{error}") from None
