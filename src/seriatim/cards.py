"""Model cards: the facts on them, and the page for people."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from seriatim import __version__

if TYPE_CHECKING:
    from seriatim.model import AutoregressiveModel


class Card(BaseModel):
    """The facts on a model card.

    Attributes:
        name: of the model; that of its class if None.
        description: what it is and what it is for, in a sentence or more.
        numbers: what it reaches: name -> (value, unit), e.g. {"test log p": (-88.1, "nats")}.
        data: what it was trained on: name, sha256, split, rows, ...

    Example:
        >>> Card(numbers={"valid": (1.25, "bits/dim")}).numbers["valid"]
        (1.25, 'bits/dim')
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    description: str = ""
    numbers: dict[str, tuple[float, str]] = {}
    data: dict[str, str | int | float | None] = {}


def make_card(facts: Card | Mapping[str, Any] | None) -> Card:
    """Return a card with the given facts.

    Raises:
        ValueError: a fact of another name or kind; names it.

    Example:
        >>> make_card({"color": "red"})
        Traceback (most recent call last):
        ...
        ValueError: card: color: Extra inputs are not permitted
    """
    if isinstance(facts, Card):
        return facts
    try:
        return Card(**(facts or {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"card: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def readme(model: AutoregressiveModel, card: Card, folder: Path) -> str:
    """Return the card as Markdown: front matter for the hub, then what people want to know.

    Example:
        >>> from seriatim.models import FVSBN
        >>> readme(FVSBN((2,)), Card(), Path("model")).splitlines()[5]
        '# FVSBN'
    """
    kind = type(model).__name__
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shape = " x ".join(map(str, model.event_shape))
    lines = ["---", "library_name: seriatim", "tags: [autoregressive, density-estimation]", "---", ""]
    lines += [f"# {card.name or kind}", ""]
    lines += [card.description, ""] if card.description else []
    lines += [f"A `{kind}`: an autoregressive model with exact likelihood, log p(x) = sum_t log p(x_t | x_<t).", ""]
    lines += [f"- data: {shape} values, each `{model.head!r}`", f"- parameters: {parameters:,}"]
    if model.encoder is not None:
        lines += [f"- conditioned on: `{model.encoder!r}`"]
    if card.numbers:
        lines += ["", "## Numbers", "", "| what | value | unit |", "| --- | --- | --- |"]
        lines += [f"| {name} | {value:.6g} | {unit} |" for name, (value, unit) in card.numbers.items()]
    if card.data:
        lines += ["", "## Data", "", *(f"- {name}: {value}" for name, value in card.data.items())]
    lines += ["", "## Use", "", "```python", "import seriatim", "", f'model = seriatim.load("{folder.as_posix()}")']
    lines += ["model.log_prob(x)  # nats, one per row", "model.sample((16,), seed=0)", "```", ""]
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    versions = f"seriatim {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    lines += [f"Written {today} with {versions}.", ""]
    return "\n".join(lines)
