"""`seriatim data`: the named sets, and what a source of data holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seriatim.cli.options import JsonOption
from seriatim.cli.output import show, show_json

if TYPE_CHECKING:
    from seriatim.data import Dataset, Sequences


def run(
    source: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Describe this set, file or folder, as `train` would read it.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A=B", help="An option of the data, e.g. levels=16.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the named data sets, or describe a source: kind, shape, splits, columns, warnings, digest."""
    if source is None:
        _list(json)
        return
    from seriatim.cli.settings import DataConfig, parse_set, resolve
    from seriatim.data import load

    given: dict[str, Any] = parse_set(sets or [])
    config = resolve({"model": {"name": "made"}, "data": {"source": source, **given.get("data", given)}}).data
    assert isinstance(config, DataConfig)
    data = load(config.source, **config.load_options)
    if not json:
        show(data.describe())
        return
    show_json(_facts(data))


def _facts(data: Dataset | Sequences) -> dict[str, Any]:
    from seriatim.data import Dataset

    facts: dict[str, Any] = {"name": data.name, "kind": data.kind, "levels": data.levels}
    if isinstance(data, Dataset):
        facts |= {
            "event_shape": list(data.event_shape),
            "rows": {name: len(x) for name, x in data.splits.items()},
            "classes": data.class_names,
            "columns": None if data.schema is None else data.schema.model_dump(mode="json")["columns"],
        }
    else:
        facts |= {
            "value_shape": list(data.value_shape),
            "sequences": {name: len(own) for name, own in data.splits.items()},
            f"{data.unit}s": {name: len(own.values) for name, own in data.splits.items()},
            "ends": data.ends,
            "rate": data.rate,
            "attributes": data.attributes,
            "sources": data.sources is not None,
        }
    return {**facts, "notes": data.notes, "provenance": data.provenance, "sha256": data.digest}


def _list(json: bool) -> None:
    from seriatim.data import NAMED
    from seriatim.data.named import FOLDER_VARIABLE

    listed = [
        {
            "name": entry.name,
            "event_shape": list(entry.event_shape),
            "summary": entry.summary,
            "built_in": not entry.files,
            "source": entry.source,
        }
        for entry in NAMED.values()
    ]
    if json:
        show_json(listed)
        return
    wide = max(len(entry["name"]) for entry in listed)  # type: ignore[arg-type]
    for entry in listed:
        show(f"{entry['name']:<{wide}}  {'built in' if entry['built_in'] else 'files   '}  {entry['summary']}")
    folder = os.environ.get(FOLDER_VARIABLE)
    show(f"\nFiles are looked for in the folder that {FOLDER_VARIABLE} names (now: {folder or 'not set'}).")
