"""Models and training runs on disk.

A saved model is a folder of three files, the names those of the Hugging Face hub:

    config.json         how to build it, and the facts on its card
    model.safetensors   its weights
    README.md           its card, for people

A run folder holds one of them in `model/`, beside what made it: `config.yaml`, `metrics.csv`, `checkpoints/`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from seriatim import __version__
from seriatim.cards import Card, make_card, readme
from seriatim.config import from_config
from seriatim.data.codecs import codec_of
from seriatim.data.files import replacing
from seriatim.data.schema import Schema
from seriatim.data.sequences import Codec
from seriatim.model import AutoregressiveModel

FORMAT = 1
CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
# Whoever loads a model has imported `seriatim.runs` only: these make the classes that a config may name.
_CLASSES = tuple(
    f"seriatim.{n}"
    for n in ("models", "heads", "channels", "columns", "nested", "independent", "ending", "context", "order")
)


def save(
    model: AutoregressiveModel,
    folder: str | Path,
    *,
    card: Card | Mapping[str, Any] | None = None,
    schema: Schema | None = None,
    codec: Codec | None = None,
    source_codec: Codec | None = None,
) -> Path:
    """Write a model: `config.json`, `model.safetensors` and `README.md`, each whole or not at all.

    Args:
        model: any model; its weights are written as they are, dtypes included.
        folder: where to; made if absent, files of an earlier model are replaced.
        card: facts for the card, a `Card` or a dict of its fields.
        schema: of the columns of a table; that of the model (`model.schema`) if None.
        codec: between the values of sequences and what people have; that of the model (`model.codec`) if None.
        source_codec: the same for sources that sequences are conditioned on.

    Returns:
        The folder.

    Raises:
        TypeError: a model made of parts that do not know their own arguments (see `seriatim.config`).
        ValueError: `folder` is a file, or the card has unknown fields.

    Example:
        >>> import tempfile
        >>> from seriatim.models import MADE
        >>> model = MADE((4,), hidden_features=(8,)).eval()
        >>> folder = save(model, tempfile.mkdtemp(), card={"numbers": {"test": (2.5, "nats")}})
        >>> x = model.sample((3,), seed=0)
        >>> bool((load(folder).log_prob(x) == model.log_prob(x)).all())
        True
    """
    facts, own = make_card(card), model.config
    schema, codec = schema or model.schema, codec or model.codec
    source_codec = source_codec or model.source_codec
    folder = _made(folder)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    _write_text(folder / README, readme(model, facts, folder))
    with replacing(folder / WEIGHTS) as temporary:
        safetensors.torch.save_file(weights, temporary, metadata={"format": "pt", "seriatim": __version__})
        temporary.chmod((folder / README).stat().st_mode)  # safetensors makes it the user's alone
        digest = _sha256(temporary)
    config = {
        "format": FORMAT,
        "seriatim": __version__,
        "model": own,
        "weights_sha256": digest,
        "schema": None if schema is None else schema.model_dump(mode="json"),
        "codec": None if codec is None else codec.model_dump(),
        "source_codec": None if source_codec is None else source_codec.model_dump(),
        "card": facts.model_dump(mode="json"),
    }
    # The configuration comes last and names the weights: half a replacement is refused by `load`, never mixed.
    _write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    return folder


def load(path: str | Path) -> AutoregressiveModel:
    """Read a model written by `save`, in eval mode on the CPU, with its `schema` and codecs where it has some.

    Args:
        path: the folder of the model, or the run folder that holds it as `model/`.

    Raises:
        ValueError: no model there, or files that are damaged, foreign or not of one another; names the file.

    Example:
        >>> load("no/such/run")
        Traceback (most recent call last):
        ...
        ValueError: no/such/run: expected a folder with config.json and model.safetensors, or a run with them in model/
    """
    folder = model_folder(path)
    config = read_config(folder)
    weights = _read_weights(folder / WEIGHTS, config.get("weights_sha256"))
    for module in _CLASSES:
        importlib.import_module(module)
    try:
        # Building a model draws weights that are replaced: the caller's generator must not notice.
        with torch.random.fork_rng(devices=[]):
            model = from_config(config["model"])
    except Exception as error:  # whatever a constructor raises on the arguments of a damaged file
        raise ValueError(f"{folder / CONFIG}: expected the configuration of a model, got: {error}") from error
    if not isinstance(model, AutoregressiveModel):
        raise ValueError(f"{folder / CONFIG}: expected the configuration of a model, got {type(model).__name__}")
    _fill(model, weights, folder / WEIGHTS)
    model.schema = _schema(config, folder / CONFIG)
    model.codec, model.source_codec = (_codec(config.get(name), folder / CONFIG) for name in ("codec", "source_codec"))
    return model.eval()


def model_folder(path: str | Path) -> Path:
    """Return the folder of the model at `path`: itself, or its `model/`.

    Raises:
        ValueError: neither holds a model.

    Example:
        >>> import tempfile
        >>> from seriatim.models import FVSBN
        >>> run = Path(tempfile.mkdtemp())
        >>> save(FVSBN((2,)), run / "model") == model_folder(run)
        True
    """
    path = Path(path)
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            return folder
    raise ValueError(f"{path}: expected a folder with {CONFIG} and {WEIGHTS}, or a run with them in model/")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read `config.json` of a saved model: "format", "seriatim", "model", "schema" and "card".

    Raises:
        ValueError: no model there, or a file that is not one of ours; names the file.

    Example:
        >>> import tempfile
        >>> from seriatim.models import FVSBN
        >>> read_config(save(FVSBN((2,)), tempfile.mkdtemp()))["model"]
        {'class': 'FVSBN', 'arguments': {'event_shape': [2]}}
    """
    file = model_folder(path) / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: expected JSON, got: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("format"), int) or "model" not in config:
        raise ValueError(f"{file}: expected a configuration written by seriatim")
    if config["format"] > FORMAT:
        raise ValueError(
            f"{file}: expected format {FORMAT} or older, got {config['format']}: written by seriatim "
            f"{config.get('seriatim')}, this is {__version__}"
        )
    return config


class RunFolder:
    """A training run on disk.

        NAME/config.yaml                 the resolved configuration
        NAME/metrics.csv                 one row per epoch
        NAME/checkpoints/last.ckpt       all that a resumed run needs
        NAME/checkpoints/best.ckpt       the best weights so far
        NAME/model/                      the trained model, as `save` writes it

    Make one with `create` or `resume`. Where processes work together, the first one alone writes and refuses.

    Example:
        >>> import tempfile
        >>> run = RunFolder.create(Path(tempfile.mkdtemp()) / "digits", {"seed": 0})
        >>> RunFolder.resume(run.path).config
        {'seed': 0}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.ckpt"
        self.best = self.checkpoints / "best.ckpt"
        self.model = self.path / "model"

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """Make a new run folder with its `config.yaml`.

        Raises:
            ValueError: the folder holds something already, or is a file.
        """
        run = cls(path)
        if not is_first_process():
            return run
        if run.path.is_dir() and any(run.path.iterdir()):
            raise ValueError(
                f"{run.path}: expected a new or empty folder, got one with files; resume it or pick another"
            )
        _made(run.checkpoints)
        _write_text(run.config_file, yaml.safe_dump(_plain(config), sort_keys=False))
        return run

    @classmethod
    def resume(cls, path: str | Path) -> RunFolder:
        """Take an existing run folder.

        Raises:
            ValueError: the folder is not one of a run.
        """
        run = cls(path)
        if not is_first_process():
            return run
        if not run.config_file.is_file():
            raise ValueError(f"{run.path}: expected the folder of a run, with config.yaml, got none")
        _made(run.checkpoints)
        return run

    @property
    def config(self) -> dict[str, Any]:
        """What `config.yaml` says.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            config = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{self.config_file}: expected YAML, got: {error}") from None
        if not isinstance(config, dict):
            raise ValueError(f"{self.config_file}: expected names and values, got {type(config).__name__}")
        return config

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that work together, by the launcher's variables.

    Example:
        >>> is_first_process()
        True
    """
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def _made(folder: str | Path) -> Path:
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder}: expected a folder to write into, got a file on the way") from None
    return folder


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    """Values that YAML's safe dumper writes: tuples become lists, paths and other scalars text."""
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _schema(config: dict[str, Any], file: Path) -> Schema | None:
    try:
        return None if config.get("schema") is None else Schema.model_validate(config["schema"])
    except ValidationError as error:
        raise ValueError(f"{file}: expected the schema of a table, got: {error.errors()[0]['msg']}") from None


def _codec(fields: Any, file: Path) -> Codec | None:
    try:
        return None if fields is None else codec_of(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: expected a codec of sequences, got: {error}") from None


def _read_weights(file: Path, digest: str | None) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        weights = safetensors.torch.load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file}: expected weights in the safetensors format, got a damaged file: {error}") from None
    if digest != _sha256(file):
        raise ValueError(f"{file}: expected the weights that {CONFIG} beside it was written with, got others")
    return weights


def _fill(model: AutoregressiveModel, weights: dict[str, Tensor], file: Path) -> None:
    """Copy weights into a model whose names, shapes and dtypes they must match."""
    expected = model.state_dict()
    for name, tensor in weights.items():
        if tensor.is_floating_point() and name in expected and expected[name].dtype != tensor.dtype:
            expected = model.to(tensor.dtype).state_dict()  # trained in another precision
            break
    for name in [*expected, *weights]:
        if name not in weights or name not in expected:
            have, lack = (file.name, CONFIG) if name in weights else (CONFIG, file.name)
            raise ValueError(f"{file}: expected the tensors of the model, got {name!r} in {have} but not in {lack}")
    for name, tensor in weights.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise ValueError(
                f"{file}: expected {name!r} of shape {tuple(want.shape)} and {want.dtype}, "
                f"got {tuple(tensor.shape)} and {tensor.dtype}"
            )
    model.load_state_dict(weights, strict=True)
