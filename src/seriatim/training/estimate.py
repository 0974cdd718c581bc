"""What a run will cost, measured on a copy of the model before the first epoch."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seriatim.model import AutoregressiveModel
from seriatim.training.config import TrainConfig
from seriatim.training.data import Batch, TrainingData, Transform
from seriatim.training.loss import Loss
from seriatim.training.sequences import SequenceData

_STEPS, _SECONDS = 3, 2.0  # timed after one to warm up, as far as the seconds allow
_OVERHEAD = 0.002  # seconds that a step of Lightning's Trainer takes beside the model's


@dataclass(frozen=True)
class Estimate:
    """Time and memory of a run, per process.

    Attributes:
        num_steps: in an epoch.
        num_epochs: in the run.
        seconds_per_step: one batch forward, backward and update.
        seconds_per_validation: all of it, after each epoch.
        parameter_bytes: the parameters and their gradients.
        optimizer_bytes: the optimizer's state, and the average of the weights if there is one.
        activation_bytes: what the backward pass of one batch needs.

    Example:
        >>> print(Estimate(10, 5, 0.25, 0.5, 2**20, 2**21, 2**22))
        3 s per epoch of 10 steps, 15 s for 5 epochs; memory 7.0 MiB: 1.0 parameters and gradients, 2.0 optimizer,
        4.0 activations of a batch
    """

    num_steps: int
    num_epochs: int
    seconds_per_step: float
    seconds_per_validation: float
    parameter_bytes: int
    optimizer_bytes: int
    activation_bytes: int

    @property
    def seconds_per_epoch(self) -> float:
        """Training and validation."""
        return self.num_steps * self.seconds_per_step + self.seconds_per_validation

    def __str__(self) -> str:
        each, own, state, batch = (
            amount / 2**20
            for amount in (
                self.parameter_bytes + self.optimizer_bytes + self.activation_bytes,
                self.parameter_bytes,
                self.optimizer_bytes,
                self.activation_bytes,
            )
        )
        epoch, run = _duration(self.seconds_per_epoch), _duration(self.seconds_per_epoch * self.num_epochs)
        return (
            f"{epoch} per epoch of {self.num_steps} steps, {run} for {self.num_epochs} epochs; memory {each:.1f} MiB: "
            f"{own:.1f} parameters and gradients, {state:.1f} optimizer, {batch:.1f} activations of a batch"
        )


def estimate(
    model: AutoregressiveModel,
    data: TrainingData | SequenceData,
    config: TrainConfig,
    *,
    transform: Transform | None = None,
    device: torch.device | str = "cpu",
) -> Estimate:
    """Time a few steps on a copy of the model, and count the memory that they need.

    Neither the model nor torch's generators change.

    Example:
        >>> from seriatim.models import MADE
        >>> rows = torch.zeros(100, 4)
        >>> cost = estimate(MADE((4,), hidden_features=(8,)), TrainingData(rows), TrainConfig(batch_size=10))
        >>> cost.num_steps, cost.activation_bytes > 0
        (10, True)
    """
    from seriatim.training.module import make_optimizer

    device = torch.device(device)
    double = config.precision == "64-true"
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        twin = copy.deepcopy(model).to(device, torch.float64 if double else None).train()
        optimizer = make_optimizer(twin, config)
        batch = next(iter(data.batches(config, transform=transform)))
        activations = _step(twin, optimizer, batch, config)
        took: list[float] = []
        started = time.monotonic()
        while not took or (len(took) < _STEPS and time.monotonic() - started < _SECONDS):
            took.append(_timed(lambda: _step(twin, optimizer, batch, config), device))
        validation = 0.0
        if data.valid is not None:
            batches = data.valid_batches(config)
            shown = next(iter(batches))
            with torch.no_grad():
                once = _timed(lambda: float(_nats(twin.eval(), shown, config)), device)
            validation = once * batches.num_batches
    weights = sum(_bytes(parameter) for parameter in twin.parameters())
    state = sum(_bytes(t) for entry in optimizer.state.values() for t in entry.values() if isinstance(t, Tensor))
    return Estimate(
        num_steps=data.num_batches(config),
        num_epochs=config.epochs,
        seconds_per_step=_OVERHEAD + sorted(took)[len(took) // 2],
        seconds_per_validation=validation,
        parameter_bytes=2 * weights,
        optimizer_bytes=state + (weights if config.ema_decay is not None else 0),
        activation_bytes=activations,
    )


def _nats(model: AutoregressiveModel, batch: Batch, config: TrainConfig) -> Tensor:
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(config.precision)
    context = None if batch.context is None else batch.context.to(model.device)
    with torch.autocast(model.device.type, half or torch.bfloat16, enabled=half is not None):
        return Loss(model, config.label_smoothing).parts(batch._replace(context=context, x=batch.x.to(model.device)))[0]


def _step(model: AutoregressiveModel, optimizer: torch.optim.Optimizer, batch: Batch, config: TrainConfig) -> int:
    """Make one step, and return the bytes that the graph holds for its backward pass."""
    held: dict[int, int] = {}
    constant = {tensor.untyped_storage().data_ptr() for tensor in _tensors(model)}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = _nats(model, batch, config) / batch.num_rows
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return sum(held.values())


def _timed(action: object, device: torch.device) -> float:
    assert callable(action)
    started = time.monotonic()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.monotonic() - started


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
