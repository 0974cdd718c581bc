"""How training ends before its time."""

from __future__ import annotations

import shlex
from pathlib import Path


class Interrupted(SystemExit):
    """Training was stopped by Ctrl-C (or SIGTERM) after its state was saved.

    Uncaught it ends the program without a traceback: Python prints the message, which holds the resume command, on
    stderr.

    Attributes:
        folder: of the run.
        step: how many steps were done and saved.

    Example:
        >>> print(Interrupted(Path("runs/digits"), 120))
        stopped after step 120, saved; resume with: seriatim train --resume runs/digits
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        where = shlex.quote(str(folder))
        super().__init__(f"stopped after step {step}, saved; resume with: seriatim train --resume {where}")


class Diverged(ArithmeticError):
    """The loss became NaN or infinite.

    Attributes:
        step: counted from 1.
        learning_rate: of that step.

    Example:
        >>> print(Diverged(12, 0.1, float("nan")))
        loss: expected a finite number, got nan at step 12 with learning rate 0.1; lower it or set gradient_clip
    """

    def __init__(self, step: int, learning_rate: float, loss: float) -> None:
        self.step, self.learning_rate, self.loss = step, learning_rate, loss
        super().__init__(
            f"loss: expected a finite number, got {loss} at step {step} with learning rate {learning_rate:.3g}; "
            "lower it or set gradient_clip"
        )
