"""What a training run is told."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# What may change between a run and its resumption: where and for how long, never what a step does.
RESUMABLE = frozenset({"epochs", "patience", "save_every", "device", "devices", "num_nodes", "strategy"})


class TrainConfig(BaseModel):
    """The settings of `train`; unknown names are refused.

    Example:
        >>> TrainConfig(epochs=5, learning_rate=3e-4).batch_size
        100
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=100, ge=1, description="passes over the training rows")
    batch_size: int = Field(default=100, ge=1, description="rows per step at most, over all processes together")
    batch_values: int | None = Field(
        default=None,
        ge=1,
        description="sequences: values per step at most, those of like length together, in place of batch_size; of "
        "pairs sources and targets each",
    )
    chunk_length: int | None = Field(
        default=None,
        ge=1,
        description="sequences: values of each that a step reads; None: whole sequences",
    )
    carry_state: bool = Field(
        default=True,
        description="sequences read in parts: the state goes from step to step (truncated back-propagation); "
        "false: every part is a sequence of its own, cut at random",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="of categories, in what training minimises; no reported number has it"
    )
    optimizer: Literal["adamw", "adam", "sgd"] = Field(default="adamw", description="sgd has momentum 0.9")
    learning_rate: float = Field(default=1e-3, gt=0, description="the highest, after warm-up")
    schedule: Literal["cosine", "constant", "inverse_sqrt"] = Field(
        default="cosine",
        description="after warm-up: down to 0 at the last step, constant, or as sqrt(warmup_steps / step)",
    )
    warmup_steps: int = Field(default=100, ge=0, description="linear warm-up, half of all steps at most")
    weight_decay: float = Field(default=0.01, ge=0, description="on all parameters but biases; decoupled in adamw")
    l1: float = Field(
        default=0.0,
        ge=0,
        description="times the sum of |w| over all parameters but biases, added to the nats of a row: a Laplace prior",
    )
    gradient_clip: float | None = Field(
        default=None, gt=0, description="greatest norm of the gradient of nats; None: off"
    )
    ema_decay: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="decay of the average of the weights that is validated and kept; None: off",
    )
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many epochs without a better validation"
    )
    seed: int = Field(default=0, ge=0, description="of shuffling, dropout, orders and transforms")
    start_at_marginals: bool = Field(
        default=True, description="set the output biases to the marginals of the training rows"
    )
    save_every: float = Field(
        default=60.0, ge=0, description="seconds between saves of the state to resume from; 0: each step"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="auto: cuda if there is one, else cpu"
    )
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true", description="of arithmetic"
    )
    devices: int = Field(default=1, ge=1, description="processes on each machine")
    num_nodes: int = Field(default=1, ge=1, description="machines")
    strategy: str = Field(default="auto", description="how processes work together, a name of Lightning's such as ddp")

    @property
    def world_size(self) -> int:
        """How many processes train together."""
        return self.devices * self.num_nodes

    @field_validator("strategy")
    @classmethod
    def _scripted(cls, strategy: str) -> str:
        if any(word in strategy for word in ("spawn", "fork", "notebook")):
            raise ValueError("expected one whose processes run the whole program, such as ddp: results stay in workers")
        return strategy


def learning_rate_factor(config: TrainConfig, step: int, num_steps: int) -> float:
    """Return the share of `learning_rate` used in a step, counted from 0.

        min(1, (step + 1) / W)          during the W = min(warmup_steps, num_steps / 2) steps of warm-up, then
        (1 + cos(pi (step - W) / (num_steps - W))) / 2,    1,    or  sqrt(W / (step + 1))

    Example:
        >>> config = TrainConfig(warmup_steps=4)
        >>> [round(learning_rate_factor(config, step, 12), 3) for step in (0, 3, 4, 8, 11)]
        [0.25, 1.0, 1.0, 0.5, 0.038]
    """
    warmup = min(config.warmup_steps, num_steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, num_steps - warmup))))
    if config.schedule == "inverse_sqrt":
        return math.sqrt(max(1, warmup) / (step + 1))
    return 1.0


def out_of_patience(patience: int | None, epoch: int, best_epoch: int, best_nats: float | None) -> bool:
    """Whether the best epoch is too long ago.

    Example:
        >>> out_of_patience(3, 7, 5, 80.0), out_of_patience(3, 8, 5, 80.0), out_of_patience(None, 99, 5, 80.0)
        (False, True, False)
    """
    return patience is not None and best_nats is not None and epoch - best_epoch >= patience


def refuse_changes(saved: dict[str, Any], config: TrainConfig, where: object) -> None:
    """Refuse to resume a run with settings that would make its remaining steps differ.

    Raises:
        ValueError: names the setting, its value in the run and the new one.
    """
    for name, value in config.model_dump(mode="json").items():
        was = saved.get(name, TrainConfig.model_fields[name].default)  # a run of an earlier version knows fewer
        if name not in RESUMABLE and was != value:
            raise ValueError(f"{name}: expected {was!r} as in {where}, got {value!r}")
