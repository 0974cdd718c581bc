"""What happens around the steps: averaging weights, keeping the best, saving, stopping, recording, showing."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from seriatim.data.files import replacing
from seriatim.runs import RunFolder
from seriatim.training.config import out_of_patience
from seriatim.training.errors import Interrupted
from seriatim.training.module import TrainingModule

COLUMNS = (
    "epoch",
    "step",
    "train_nats",
    "train_bits_per_dim",
    "valid_nats",
    "valid_bits_per_dim",
    "learning_rate",
    "seconds",
)
AGREE_EVERY = 16  # steps between agreements of processes on accelerators: each waits for them
_LINE_SECONDS = 1.0  # at most a line each, where the output is no terminal


class AveragedWeights(Callback):
    """Keeps an exponential moving average of the parameters, and validates with it.

        a_k = d_k a_(k-1) + (1 - d_k) w_k,    d_k = min(decay, (1 + k) / (10 + k)),    a_0 = w_0

    d_k starts low, so that the average forgets the first weights however large the decay.

    Args:
        decay: in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.average: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = _parameters(pl_module)
        if self.average.keys() != own.keys():
            self.average = {name: parameter.detach().clone() for name, parameter in own.items()}
        self.average = {name: self.average[name].to(parameter.device) for name, parameter in own.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(list(self.average.values()), list(_parameters(pl_module).values()), 1 - decay)

    @torch.no_grad()
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, parameter in _parameters(pl_module).items():
            self._own[name] = parameter.clone()
            parameter.copy_(self.average[name])

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, parameter in _parameters(pl_module).items():
            parameter.copy_(self._own.pop(name))

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count, self.average = state_dict["count"], state_dict["average"]


class Recorder(Callback):
    """Keeps one row of numbers per epoch; writes them to `metrics.csv`, and to TensorBoard where it is installed.

    Args:
        num_dimensions: D, what bits per dimension divides by.
        run: where to; None: nowhere.
        unit: what nats are given for.
    """

    def __init__(self, num_dimensions: int, run: RunFolder | None, unit: str = "row") -> None:
        self.nats_per_bit = num_dimensions * math.log(2)
        self.run, self.unit = run, unit
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._since = time.monotonic()
        self._board: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        if self.run is not None and trainer.is_global_zero:
            self._write()  # rows after the checkpoint that is resumed are written again when they are reached again
            if importlib.util.find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=pl_module.step + 1)
        self._since = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        train, valid = pl_module.finish_epoch(), pl_module.valid_nats
        row = {
            "epoch": pl_module.step // pl_module.steps_per_epoch,
            "step": pl_module.step,
            "train_nats": train,
            "train_bits_per_dim": train / self.nats_per_bit,
            "valid_nats": valid,
            "valid_bits_per_dim": None if valid is None else valid / self.nats_per_bit,
            "learning_rate": pl_module.learning_rate,
            "seconds": self._elapsed(),
        }
        self.history.append(row)
        if self.run is not None and trainer.is_global_zero:
            self._write()
        if self._board is not None:
            for name in COLUMNS[2:-1]:
                if row[name] is not None:
                    self._board.add_scalar(name, row[name], pl_module.step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None

    def _elapsed(self) -> float:
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        return round(self.seconds, 3)

    def _write(self) -> None:
        assert self.run is not None
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        with replacing(self.run.metrics) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        self._elapsed()
        return {"history": self.history, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.seconds = list(state_dict["history"]), state_dict["seconds"]


class Keeper(Callback):
    """Keeps the best weights, stops early, saves the state of the run, and stops on Ctrl-C where nothing is lost.

    The best weights are those of the epoch of lowest validation, or the latest without validation; with averaged
    weights it is the average that is kept. `best.ckpt` is written before `last.ckpt`, so the state never speaks of
    weights that are not there.

    Args:
        run: where to; None: nothing is saved.
        patience: in epochs; None: no early stopping.
        save_every: seconds between saves.
        validated: whether epochs end with a validation.
        averaged: the average of the weights, if there is one.
    """

    def __init__(
        self,
        run: RunFolder | None,
        *,
        patience: int | None,
        save_every: float,
        validated: bool,
        averaged: AveragedWeights | None,
    ) -> None:
        self.run, self.patience, self.save_every = run, patience, save_every
        self.validated, self.averaged = validated, averaged
        self.best_nats: float | None = None
        self.best_epoch = 0
        self.best: dict[str, Tensor] | None = None
        self._stop = threading.Event()
        self._handlers: dict[int, Any] = {}
        self._saved = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        self.save(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, number: int, frame: Any) -> None:
        if self._stop.is_set():  # twice: at once
            raise KeyboardInterrupt
        self._stop.set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: TrainingModule, *args: Any) -> None:  # type: ignore[override]
        if pl_module.at_epoch_end:
            return  # the validation that is due belongs to the epoch
        self._stop_or_save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        epoch, nats = pl_module.step // pl_module.steps_per_epoch, pl_module.valid_nats
        if nats is not None and (self.best_nats is None or nats < self.best_nats or math.isnan(self.best_nats)):
            self.best_nats, self.best_epoch, self.best = nats, epoch, self._weights(pl_module)
        if out_of_patience(self.patience, epoch, self.best_epoch, self.best_nats):
            trainer.should_stop = True
        self._stop_or_save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        self._restore_handlers()
        self.save(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _stop_or_save(self, trainer: Trainer, pl_module: TrainingModule) -> None:
        """Processes act together: all stop if one was asked to, all save if one's clock says so."""
        stop, due = self._stop.is_set(), time.monotonic() - self._saved >= self.save_every
        if pl_module.config.world_size > 1:
            if pl_module.device.type != "cpu" and pl_module.step % AGREE_EVERY and not pl_module.at_epoch_end:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
        if stop or due:
            self.save(trainer, pl_module)
        if not stop:
            return
        if self.run is None:
            raise KeyboardInterrupt
        if not trainer.is_global_zero:
            raise SystemExit(1)  # the first process says why
        raise Interrupted(self.run.path, pl_module.step)

    def save(self, trainer: Trainer, pl_module: TrainingModule) -> None:
        """Write `best.ckpt` and `last.ckpt`, each whole or not at all."""
        if not self.validated:
            self.best, self.best_epoch = self._weights(pl_module), pl_module.step // pl_module.steps_per_epoch
        self._saved = time.monotonic()
        if self.run is None:
            return
        if trainer.is_global_zero and self.best is not None:
            best = {"weights": self.best, "epoch": self.best_epoch, "valid_nats": self.best_nats}
            with replacing(self.run.best) as temporary:
                torch.save(best, temporary)
        temporary = self.run.checkpoints / ".last.part.ckpt"
        trainer.save_checkpoint(temporary)  # all processes: it gathers their states
        if trainer.is_global_zero:
            os.replace(temporary, self.run.last)

    def _weights(self, pl_module: TrainingModule) -> dict[str, Tensor]:
        weights = dict(pl_module.model.state_dict())
        if self.averaged is not None and self.averaged.average:
            weights |= self.averaged.average
        return {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"best_nats": self.best_nats, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_nats, self.best_epoch = state_dict["best_nats"], state_dict["best_epoch"]


class Display(Callback):
    """Shows nats and bits on stderr: a bar in a terminal, else a line per epoch (one a second at most).

    Args:
        recorder: whose numbers to show.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._bar: Any = None
        self._task: Any = None
        self._shown = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(20), TimeRemainingColumn(compact=True))
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
        self._task = self._bar.add_task("", total=pl_module.num_steps, completed=pl_module.step)
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: TrainingModule, *args: Any) -> None:  # type: ignore[override]
        now = time.monotonic()
        if self._bar is not None and now - self._shown > 0.2 and pl_module.train_rows:
            self._shown = now
            nats = pl_module.train_sum / pl_module.train_rows
            text = self._text(pl_module.step // pl_module.steps_per_epoch + 1, nats, pl_module)
            self._bar.update(self._task, completed=pl_module.step, description=text)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TrainingModule) -> None:  # type: ignore[override]
        row, now = self.recorder.history[-1], time.monotonic()
        text = self._text(row["epoch"], row["train_nats"], pl_module)
        if self._bar is not None:
            self._bar.update(self._task, completed=pl_module.step, description=text)
        elif now - self._shown >= _LINE_SECONDS or row["epoch"] == pl_module.config.epochs or trainer.should_stop:
            self._shown = now
            print(f"{text}  {row['seconds']:.0f} s", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _text(self, epoch: int, train: float, pl_module: TrainingModule) -> str:
        def both(nats: float) -> str:
            bits = nats / self.recorder.nats_per_bit
            if self.recorder.unit == "row":
                return f"{nats:.3f} nats {bits:.4f} bits/dim"
            return f"{nats:.4f} nats {bits:.4f} bits per {self.recorder.unit}"

        text = f"epoch {epoch}/{pl_module.config.epochs}  train {both(train)}"
        return text if pl_module.valid_nats is None else f"{text}  valid {both(pl_module.valid_nats)}"


def _parameters(pl_module: LightningModule) -> dict[str, Tensor]:
    assert isinstance(pl_module, TrainingModule)
    return dict(pl_module.model.named_parameters())


def read_best(file: Path) -> dict[str, Any]:
    """Read `best.ckpt`.

    Raises:
        ValueError: no such file, or a damaged one.
    """
    try:
        best = torch.load(file, map_location="cpu", weights_only=True)
        return {"weights": best["weights"], "epoch": best["epoch"], "valid_nats": best["valid_nats"]}
    except Exception as error:  # torch.load raises many kinds on a damaged file
        raise ValueError(f"{file}: expected the best weights of a run, got: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}".strip()
