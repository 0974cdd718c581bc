"""`seriatim models`: the models that there are, and their options."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from seriatim.cli.options import JsonOption
from seriatim.cli.output import show, show_json


def run(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show the options of this one.")] = None,
    json: JsonOption = False,
) -> None:
    """List the models, or show the options of one and their defaults."""
    from seriatim.cli.settings import CLOSED_FORM
    from seriatim.models import MODELS

    if name is not None:
        _show_one(name, json)
        return
    listed = [
        {
            "name": key,
            "class": kind.__name__,
            "fitted": "in closed form" if key in CLOSED_FORM else "by gradients",
            "summary": _summary(kind),
        }
        for key, kind in MODELS.items()
    ]
    if json:
        show_json(listed)
        return
    wide = max(len(entry["name"]) for entry in listed)
    for entry in listed:
        show(f"{entry['name']:<{wide}}  {entry['class']:<18}  {entry['fitted']:<14}  {entry['summary']}")


def _show_one(name: str, json: bool) -> None:
    from seriatim.cli.settings import options_of
    from seriatim.models import MODELS

    fields = options_of(name).model_fields
    options: dict[str, Any] = {key: field.get_default(call_default_factory=True) for key, field in fields.items()}
    if json:
        show_json({"name": name, "class": MODELS[name].__name__, "options": options})
        return
    show(inspect.cleandoc(MODELS[name].__doc__ or ""))
    show("\nOptions, for --set model.NAME=VALUE:")
    for key, value in options.items():
        about = fields[key].description
        show(f"  {key} = {value}{f'  ({about})' if about else ''}")


def _summary(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
