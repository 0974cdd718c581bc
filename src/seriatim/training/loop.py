"""`train`: from a model and rows to a trained model and, if asked for, a run on disk."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from seriatim.cards import Card, make_card
from seriatim.data.sequences import Sequences
from seriatim.model import AutoregressiveModel
from seriatim.runs import RunFolder, is_first_process, save
from seriatim.training.config import TrainConfig, out_of_patience, refuse_changes
from seriatim.training.data import TrainingData, Transform, as_values
from seriatim.training.errors import Interrupted
from seriatim.training.estimate import Estimate, estimate
from seriatim.training.sequences import SequenceData

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from seriatim.training.callbacks import Keeper, Recorder
    from seriatim.training.module import TrainingModule


@dataclass(frozen=True)
class TrainResult:
    """What a training run came to.

    Attributes:
        model: the model that was given, now with the best weights, in eval mode.
        history: one dict per epoch: epoch, step, train and valid nats and bits/dim, learning rate, seconds.
        best_epoch: whose weights the model has, counted from 1; the last one without validation.
        valid_nats: -log p of the validation rows at that epoch, in nats per row; None without validation.
        valid_bits_per_dim: the same in bits per dimension.
        steps: how many were made.
        seconds: how long they took, interruptions left out.
        estimate: what was expected; None where nothing was shown or was left to do.
        folder: of the run, or None.
    """

    model: AutoregressiveModel
    history: list[dict[str, Any]]
    best_epoch: int
    valid_nats: float | None
    valid_bits_per_dim: float | None
    steps: int
    seconds: float
    estimate: Estimate | None = field(default=None)
    folder: Path | None = None


def train(
    model: AutoregressiveModel,
    data: Any,
    config: TrainConfig | None = None,
    folder: str | Path | RunFolder | None = None,
    *,
    resume: bool = False,
    progress: bool = True,
    transform: Transform | None = None,
    card: Card | Mapping[str, Any] | None = None,
) -> TrainResult:
    """Fit a model by gradient descent on its exact likelihood.

        minimise  -1/N sum_n log p(x_n | c_n)        in nats per row, of sequences per value

    The model is trained in place and ends with the best weights: those of the epoch of lowest validation. A run that
    was stopped, even by kill -9, and is resumed gives bit by bit the weights of one that was not: steps since the
    last save are made again, and every random number is a function of (seed, step).

    Args:
        model: any model that learns by gradients.
        data: a `seriatim.data.Dataset` or `Sequences`, rows (N, *event_shape), a pair (train, valid) of them, or a
            `TrainingData` or `SequenceData`.
        config: the settings; the defaults if None.
        folder: a new folder for checkpoints, metrics and the trained model, or one made by `RunFolder.create`; None:
            nothing is written.
        resume: go on with the run in `folder`, from its last save if there is one.
        progress: show the estimate and the numbers of each epoch on stderr.
        transform: (batch of training rows, generator) -> what the model sees, e.g. a dynamic binarisation.
        card: facts for the model card (`seriatim.cards.Card`).

    Returns:
        The result; `folder/model` holds the same model.

    Raises:
        ValueError: a model without parameters to learn, rows that do not fit it, a folder in use, or a run that is
            not that of this model, these rows and these settings.
        Diverged: the loss is not finite.
        Interrupted: Ctrl-C, after the state was saved. Without a folder it is a KeyboardInterrupt.

    Example:
        >>> from seriatim.models import FVSBN
        >>> rows = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(50, 1)
        >>> config = TrainConfig(epochs=20, batch_size=10, learning_rate=0.1, warmup_steps=10)
        >>> result = train(FVSBN((2,)), (rows, rows), config, progress=False)
        >>> result.valid_nats < 0.8  # log 2 = 0.693 is best
        True
    """
    config = config or TrainConfig()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model: expected one with parameters that learn by gradients, got {type(model).__name__}")
    rows = training_data(data, model)
    if rows.valid is None and config.patience is not None:
        raise ValueError("patience: expected None without validation rows, got one")
    rows.check(model, transform)
    facts = make_card(card)
    run = _run_folder(folder, resume, model, config)
    state = _read_state(run.last) if run is not None and resume and run.last.is_file() else None
    if state is not None and run is not None:
        _check_state(state, model, rows, config, run)
    elif config.start_at_marginals:
        model.initialise_output(as_values(model, rows.marginal_rows(model, transform, config.seed)))
    device, was_on = _device(config.device), model.device
    cost = None
    if progress and is_first_process() and not _finished(state, rows, config):
        cost = estimate(model, rows, config, transform=transform, device=device)
        print(f"estimate: {cost}", file=sys.stderr, flush=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), quiet():
        module, keeper, recorder = _fit(model, rows, config, run, state, transform, progress)
    model.to(was_on).eval()
    if keeper.best is not None:
        model.load_state_dict(keeper.best)
    nats = keeper.best_nats
    result = TrainResult(
        model=model,
        history=recorder.history,
        best_epoch=keeper.best_epoch,
        valid_nats=nats,
        valid_bits_per_dim=None if nats is None else nats / recorder.nats_per_bit,
        steps=module.step,
        seconds=recorder.seconds,
        estimate=cost,
        folder=None if run is None else run.path,
    )
    if run is not None and is_first_process():
        codecs = {"codec": rows.codec, "source_codec": rows.source_codec}
        save(model, run.model, card=_card(result, rows, facts), schema=rows.schema, **codecs)
    return result


def training_data(data: Any, model: AutoregressiveModel) -> TrainingData | SequenceData:
    """Return what `train` takes as the rows or sequences that it learns from.

    Example:
        >>> from seriatim.models import FVSBN
        >>> len(training_data(torch.zeros(5, 3), FVSBN((3,))).train)
        5
    """
    if isinstance(data, TrainingData | SequenceData):
        return data
    return SequenceData.of(data, model) if isinstance(data, Sequences) else TrainingData.of(data, model)


def _run_folder(
    folder: str | Path | RunFolder | None, resume: bool, model: AutoregressiveModel, config: TrainConfig
) -> RunFolder | None:
    if folder is None:
        if resume:
            raise ValueError("resume: expected False without a folder, got True")
        return None
    if isinstance(folder, RunFolder):
        return folder
    if resume:
        return RunFolder.resume(folder)
    return RunFolder.create(folder, {"model": model.config, "training": config.model_dump(mode="json")})


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        own = state["seriatim"]
        return {**own, "keeper": state["callbacks"]["Keeper"], "recorder": state["callbacks"]["Recorder"]}
    except Exception as error:  # torch.load raises many kinds on a damaged file
        raise ValueError(f"{file}: expected the state of a run, got a damaged or foreign file") from error


def _check_state(
    state: dict[str, Any],
    model: AutoregressiveModel,
    rows: TrainingData | SequenceData,
    config: TrainConfig,
    run: RunFolder,
) -> None:
    refuse_changes(state["config"], config, run.last)
    if state["model"] != model.config:
        raise ValueError(f"model: expected that of {run.last}, got another")
    if state["data_sha256"] != rows.sha256:
        raise ValueError(f"data: expected the rows that {run.last} was made with, got others")


def _finished(state: dict[str, Any] | None, rows: TrainingData | SequenceData, config: TrainConfig) -> bool:
    """Whether a resumed run has nothing left to do."""
    if state is None:
        return False
    steps = rows.num_batches(config)
    epoch, within = divmod(state["step"], steps)
    stopped = within == 0 and out_of_patience(config.patience, epoch, **state["keeper"])
    return stopped or epoch >= config.epochs


def _fit(
    model: AutoregressiveModel,
    rows: TrainingData | SequenceData,
    config: TrainConfig,
    run: RunFolder | None,
    state: dict[str, Any] | None,
    transform: Transform | None,
    progress: bool,
) -> tuple[TrainingModule, Keeper, Recorder]:
    """Run Lightning's Trainer over the steps that are left."""
    from seriatim.training.callbacks import AveragedWeights, Display, Keeper, Recorder, read_best
    from seriatim.training.module import TrainingModule

    module = TrainingModule(model, rows, config, transform)
    averaged = None if config.ema_decay is None else AveragedWeights(config.ema_decay)
    recorder = Recorder(rows.num_dimensions(model), run, rows.unit)
    keeper = Keeper(
        run,
        patience=config.patience,
        save_every=config.save_every,
        validated=rows.valid is not None,
        averaged=averaged,
    )
    first_epoch = 0
    if state is not None and run is not None:
        first_epoch = state["step"] // module.steps_per_epoch
        if state["keeper"]["best_nats"] is not None or rows.valid is None:
            keeper.best = read_best(run.best)["weights"]
        if _finished(state, rows, config):
            module.step = state["step"]
            keeper.load_state_dict(state["keeper"])
            recorder.load_state_dict(state["recorder"])
            return module, keeper, recorder
    callbacks = [averaged, recorder, keeper, Display(recorder) if progress and is_first_process() else None]
    trainer = _trainer(config, config.epochs - first_epoch, rows.valid is not None, callbacks)
    with _interrupts():
        trainer.fit(module, ckpt_path=None if state is None or run is None else run.last, weights_only=True)
    return module, keeper, recorder


def _trainer(config: TrainConfig, epochs: int, validated: bool, callbacks: list[Any]) -> Trainer:
    from lightning.pytorch import Trainer

    device = _device(config.device)
    return Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=config.precision,
        max_epochs=epochs,
        gradient_clip_val=config.gradient_clip,
        limit_val_batches=1.0 if validated else 0,
        num_sanity_val_steps=0,
        callbacks=[callback for callback in callbacks if callback is not None],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        ValueError: the machine has none of that kind.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[name]:
        raise ValueError(
            f"device: expected {' or '.join(n for n, is_there in present.items() if is_there)}, got {name}"
        )
    return torch.device(name)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Give Ctrl-C back its meaning: Lightning ignores it from the first one on, and exits in place of raising it."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except Interrupted:
        raise
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning says about devices, tips and its own settings."""
    import lightning.pytorch  # noqa: F401  makes the loggers

    names = [f"lightning.{part}" for part in ("pytorch", "fabric")]
    loggers = [logging.getLogger(name + tail) for name in names for tail in ("", ".utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _card(result: TrainResult, rows: TrainingData | SequenceData, facts: Card) -> Card:
    """The facts of the run, with those that were given on top."""
    numbers: dict[str, tuple[float, str]] = {}
    if result.valid_nats is not None and result.valid_bits_per_dim is not None:
        numbers["validation, -log p"] = (result.valid_nats, f"nats per {rows.unit}")
        numbers["validation"] = (
            result.valid_bits_per_dim,
            "bits/dim" if rows.unit == "row" else f"bits per {rows.unit}",
        )
    numbers |= {"best epoch": (result.best_epoch, "epochs"), "training time": (result.seconds, "seconds")}
    return Card(
        name=facts.name,
        description=facts.description,
        numbers=numbers | facts.numbers,
        data={**rows.facts, **rows.sizes, "sha256 of the rows": rows.sha256, **facts.data},
    )
