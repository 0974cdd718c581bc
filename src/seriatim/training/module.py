"""The LightningModule: what one step does."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from seriatim.model import AutoregressiveModel
from seriatim.training.config import TrainConfig, learning_rate_factor
from seriatim.training.data import Batch, Batches, TrainingData, Transform, address, as_values, num_batches
from seriatim.training.errors import Diverged

_READ_EVERY = 16  # steps between reads of losses that live on an accelerator: each read waits for it


class TrainingModule(LightningModule):
    """Minimises -log p(x | c) in nats, averaged over the rows of a step.

    It counts the steps itself: Lightning's loops start anew where a run is resumed, and `step` says what is next.

    Args:
        model: trained in place.
        data: the rows.
        config: the settings.
        transform: of training batches.
    """

    def __init__(
        self, model: AutoregressiveModel, data: TrainingData, config: TrainConfig, transform: Transform | None = None
    ) -> None:
        super().__init__()
        self.model, self.data, self.config, self.transform = model, data, config, transform
        self.steps_per_epoch = num_batches(len(data.train), config.batch_size, config.world_size)
        self.step = 0
        self.learning_rate = 0.0  # of the latest step
        self.train_sum, self.train_rows = 0.0, 0  # over the epoch so far, this process only
        self.valid_nats: float | None = None  # of the latest validation, over all processes
        self._valid = (0.0, 0)
        self._unread: list[tuple[int, float, Tensor, int]] = []

    @property
    def num_steps(self) -> int:
        """How many steps the run has in all."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def at_epoch_end(self) -> bool:
        """Whether the step just done was the last of an epoch."""
        return self.step % self.steps_per_epoch == 0

    def train_dataloader(self) -> Batches:
        return Batches(
            self.data.train,
            self.data.train_context,
            self.config.batch_size,
            position=lambda: self.step,
            seed=self.config.seed,
            redraw=self.data.redraw,
            transform=self.transform,
            rank=self.global_rank,
            world_size=self.config.world_size,
        )

    def val_dataloader(self) -> Batches | list[Batch]:
        if self.data.valid is None:
            return []
        return Batches(
            self.data.valid,
            self.data.valid_context,
            self.config.batch_size,
            rank=self.global_rank,
            world_size=self.config.world_size,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed_all(address(self.config.seed, "step", self.step, self.global_rank), self.device)
        nats = self._nats(batch)
        self.learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self._unread.append((self.step, self.learning_rate, nats.detach(), len(batch.x)))
        if self.device.type == "cpu" or len(self._unread) >= _READ_EVERY:
            self.read_losses()
        # Processes average their gradients: weighted by its share of the rows, the average is that of one process.
        return nats * (self.config.world_size / batch.num_rows)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        seed_all(address(self.config.seed, "valid", batch_idx, self.global_rank), self.device)
        total, rows = self._valid
        self._valid = (total + float(self._nats(batch)), rows + len(batch.x))

    def on_validation_epoch_start(self) -> None:
        self._valid = (0.0, 0)

    def on_validation_epoch_end(self) -> None:
        total, rows = self.summed(*self._valid)
        self.valid_nats = total / rows

    def _nats(self, batch: Batch) -> Tensor:
        """Return -log p summed over the rows of the batch."""
        distribution = self.model.training_distribution(batch.context)
        distribution._validate_args = False  # `check_rows` has seen every row
        return -distribution.log_prob(as_values(self.model, batch.x)).sum()

    def read_losses(self) -> None:
        """Add the losses of the latest steps to those of the epoch.

        Raises:
            Diverged: one of them is not finite.
        """
        for step, rate, nats, rows in self._unread:
            value = float(nats)
            if not math.isfinite(value):
                raise Diverged(step + 1, rate, value)
            self.train_sum, self.train_rows = self.train_sum + value, self.train_rows + rows
        self._unread.clear()

    def finish_epoch(self) -> float:
        """Return the mean of -log p over the steps of the epoch and all processes, and start anew."""
        self.read_losses()
        total, rows = self.summed(self.train_sum, self.train_rows)
        self.train_sum, self.train_rows = 0.0, 0
        return total / rows

    def summed(self, total: float, rows: int) -> tuple[float, int]:
        """Add up over processes."""
        if self.config.world_size == 1:
            return total, rows
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        both = torch.tensor([total, rows], dtype=dtype, device=self.device)
        both = self.trainer.strategy.reduce(both, reduce_op="sum")
        return float(both[0]), int(both[1])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.step += 1

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(self.config, step, self.num_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.read_losses()
        train_sum, train_rows = self.summed(self.train_sum, self.train_rows)
        del checkpoint["loops"]  # they count from the resumption
        checkpoint["seriatim"] = {
            "step": self.step,
            "train_sum": train_sum,
            "train_rows": train_rows,
            "config": self.config.model_dump(mode="json"),
            "model": self.model.config,
            "data_sha256": self.data.sha256,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint["seriatim"]
        self.step = own["step"]
        if self.global_rank == 0:  # the sums are those of all processes: one takes them up
            self.train_sum, self.train_rows = own["train_sum"], own["train_rows"]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer, with weight decay on all parameters but biases.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), TrainConfig(weight_decay=0.1))
        >>> [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
        [(0.1, 1), (0.0, 1)]
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    biases = [parameter for name, parameter in named if "bias" in name]
    others = [parameter for name, parameter in named if "bias" not in name]
    groups = [{"params": others, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # One kernel for all parameters; it would unscale half-precision gradients by itself, before they are clipped.
    fused = config.precision != "16-mixed" and all(parameter.device.type != "mps" for _, parameter in named)
    return kind(groups, lr=config.learning_rate, fused=fused)


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on a device draws from (torch.manual_seed takes 0.3 ms, this a microsecond)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
