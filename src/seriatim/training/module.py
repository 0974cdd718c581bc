"""The LightningModule: what one step does."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from seriatim.causal import leaves, tree_map
from seriatim.model import AutoregressiveModel
from seriatim.reading import Reading
from seriatim.training.config import TrainConfig, learning_rate_factor
from seriatim.training.data import Batch, Batches, TrainingData, Transform, address
from seriatim.training.errors import Diverged
from seriatim.training.loss import Loss
from seriatim.training.sequences import Parts, SequenceData

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
        self,
        model: AutoregressiveModel,
        data: TrainingData | SequenceData,
        config: TrainConfig,
        transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.model, self.data, self.config, self.transform = model, data, config, transform
        self.steps_per_epoch = data.num_batches(config)
        self.loss, self.valid_loss = Loss(model, config.label_smoothing), Loss(model)
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

    def train_dataloader(self) -> Batches | Parts:
        return self.data.batches(
            self.config, position=lambda: self.step, rank=self.global_rank, transform=self.transform
        )

    def val_dataloader(self) -> Batches | Parts | list[Batch]:
        return [] if self.data.valid is None else self.data.valid_batches(self.config, rank=self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed_all(address(self.config.seed, "step", self.step, self.global_rank), self.device)
        loss, nats = self.loss.parts(batch)
        self.learning_rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self._unread.append((self.step, self.learning_rate, nats.detach(), batch.num_units))
        if self.device.type == "cpu" or len(self._unread) >= _READ_EVERY:
            self.read_losses()
        # Processes average their gradients: weighted by its share of the rows, the average is that of one process.
        return loss * (self.config.world_size / batch.num_rows)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        seed_all(address(self.config.seed, "valid", batch_idx, self.global_rank), self.device)
        total, rows = self._valid
        self._valid = (total + float(self.valid_loss(batch)), rows + batch.num_units)

    def on_validation_epoch_start(self) -> None:
        self._valid = (0.0, 0)

    def on_validation_epoch_end(self) -> None:
        total, rows = self.summed(*self._valid)
        self.valid_nats = total / rows

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

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient of the nats, then add that of the penalty, which is bounded by itself."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        if self.config.l1:
            for parameter in penalised(self.model)[0]:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach().sign(), alpha=self.config.l1)

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
            "reading": self._saved_reading(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint["seriatim"]
        self.step = own["step"]
        if self.global_rank == 0:  # the sums are those of all processes: one takes them up
            self.train_sum, self.train_rows = own["train_sum"], own["train_rows"]
        self._restore_reading(own.get("reading", []))

    def _saved_reading(self) -> list[list[Tensor]]:
        """The state of the sequences that are being read, of every process: what the next step goes on from."""
        own: list[Tensor] = []
        reading = self.loss.reading
        if reading is not None:
            own = [tensor.detach().cpu().clone() for tensor in leaves([reading.state, reading.input])]
        if self.config.world_size == 1:
            return [own]
        gathered: list[Any] = [None] * self.config.world_size
        torch.distributed.all_gather_object(gathered, own)
        return gathered

    def _restore_reading(self, saved: list[list[Tensor]]) -> None:
        """Go on reading from a saved state, in the middle of a group of sequences."""
        own = saved[self.global_rank] if self.global_rank < len(saved) else []
        if not own or self.step % self.steps_per_epoch == 0:
            return
        batch = next(iter(self.train_dataloader()))
        assert isinstance(batch, Batch)
        if batch.part is None or batch.part.first:
            return
        rows = len(own[-1])
        context = None if batch.context is None else batch.context[:1].expand(rows, *batch.context.shape[1:])
        joint = self.model.training_distribution(context)
        reading = Reading(joint if joint.batch_shape else joint.expand((rows,)))
        saved_leaves = iter(own)
        reading.state = tree_map(lambda _: next(saved_leaves).to(self.model.device), reading.state)
        reading.input = next(saved_leaves).to(self.model.device)
        self.loss.reading = reading


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer, with weight decay on all parameters but biases.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), TrainConfig(weight_decay=0.1))
        >>> [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
        [(0.1, 1), (0.0, 1)]
    """
    others, biases = penalised(model)
    groups = [{"params": others, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    # One kernel for all parameters; in mixed precision Lightning clips no gradients that an optimizer may unscale.
    full = config.precision in ("32-true", "64-true")
    fused = full and all(parameter.device.type != "mps" for parameter in (*others, *biases))
    return kind(groups, lr=config.learning_rate, fused=fused)


def penalised(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters that penalties on weights hold for, and the biases, which are free.

    Example:
        >>> [len(own) for own in penalised(nn.Linear(2, 2))]
        [1, 1]
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    biases = [parameter for name, parameter in named if "bias" in name]
    return [parameter for name, parameter in named if "bias" not in name], biases


def seed_all(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on a device draws from (torch.manual_seed takes 0.3 ms, this a microsecond)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
