"""`seriatim train`: fit a model to data and keep it as a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import BinariseOption, DeviceOption, GreyOption, JsonOption, LevelsOption, ResizeOption
from seriatim.cli.output import say, show, show_json

if TYPE_CHECKING:
    from seriatim.cli.settings import RunConfig
    from seriatim.data import Dataset, Sequences
    from seriatim.model import AutoregressiveModel
    from seriatim.runs import RunFolder


def run(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="A named set, a file or a folder of images.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Its name: see `seriatim models`; made if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder for the run.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A config.yaml to start from.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set one name, e.g. model.hidden_features=[64].")
    ] = None,
    context: Annotated[str | None, typer.Option("--context", metavar="labels", help="Learn p(x | label).")] = None,
    resize: ResizeOption = None,
    grey: GreyOption = None,
    levels: LevelsOption = None,
    binarise: BinariseOption = None,
    read_as: Annotated[
        str | None, typer.Option("--as", metavar="KIND", help="Of a file that does not say it: series, pairs or music.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", metavar="KIND", help="Of text: bytes, characters or bpe:N.")
    ] = None,
    lines: Annotated[bool | None, typer.Option("--lines/--no-lines", help="Of text: each line ends by itself.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="FILE", help="Of pairs: the lines that DATA's are turned into.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="Of sound: samples a second; of music: steps.")] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="KIND", help="Of sound: mu-law, mu-law:LEVELS or 16-bit.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option("--pattern", metavar="PATTERN", help="Of sound: what names of files tell, {digit}_{speaker}_{_}."),
    ] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with a stopped run.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training rows.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of first weights, order of rows and dropout.")] = None,
    device: DeviceOption = "auto",
    devices: Annotated[int | None, typer.Option("--devices", help="Processes on each machine.")] = None,
    num_nodes: Annotated[int | None, typer.Option("--num-nodes", help="Machines.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="How processes work together, e.g. ddp.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model on data and keep it as a run.

    Settings come, each over the one before, from the preset of the data's size, --config, the options, and --set. What
    they come to is written to config.yaml in the run's folder, which --config takes again. Ctrl-C saves the run and
    prints how to go on.
    """
    flags: dict[str, dict[str, Any]] = {
        "model": {"name": model},
        "data": {"source": data, "context": context, "grey": grey, "levels": levels, "binarise": binarise}
        | {"size": None if resize is None else _size(resize)}
        | {"read_as": read_as, "tokens": tokens, "lines": lines, "target": target}
        | {"rate": rate, "encoding": encoding, "pattern": pattern},
        "training": {
            "epochs": epochs,
            "seed": seed,
            "device": None if device == "auto" else device,
            "devices": devices,
            "num_nodes": num_nodes,
            "strategy": strategy,
        },
    }
    given = {part: {k: v for k, v in values.items() if v is not None} for part, values in flags.items()}
    if resume is not None:
        if out is not None or config is not None:
            raise UserError("--resume: expected no --out and no --config, for the run has its own, got one")
        result = _resume(resume, given, sets or [])
    else:
        result = _start(given, config, sets or [], out)
    if result is not None and as_json:
        show_json(result)
    elif result is not None:
        _tell(result)


def _tell(result: dict[str, Any]) -> None:
    """Show how training ended and what may come next."""
    if result["valid_nats"] is not None:
        unit = result.get("unit", "row")
        bits = "bits/dim" if unit == "row" else f"bits per {unit}"
        show(f"validation: {result['valid_nats']:.4f} nats per {unit}, {result['valid_bits_per_dim']:.4f} {bits}")
    show(f"run: {result['run']}")
    say(f"next: seriatim evaluate {result['run']}   or: seriatim report {result['run']}")


def _size(text: str) -> int | list[int]:
    """Return the side, or height and width, of --resize."""
    sizes = text.split("x")
    if len(sizes) > 2 or not all(size.isdecimal() and int(size) for size in sizes):
        raise UserError(f"--resize: expected a side or HEIGHTxWIDTH, such as 28 or 28x20, got {text!r}")
    return int(text) if len(sizes) == 1 else [int(size) for size in sizes]


def _start(given: dict[str, Any], file: Path | None, sets: list[str], out: Path | None) -> dict[str, Any] | None:
    from seriatim.cli.settings import merge, parse_set, read_yaml, resolve
    from seriatim.data import Sequences, load
    from seriatim.runs import RunFolder

    values = merge(read_yaml(file), given) if file is not None else given
    values = merge(values, parse_set(sets))
    if not values.get("data"):
        raise UserError("DATA: expected a named set, a file or a folder, got none")
    settings = resolve({"model": {"name": "made"}, "data": values["data"]}).data  # the model may follow from the data
    data = load(settings.source, **settings.load_options)
    if isinstance(data, Sequences):
        from seriatim.cli.building_sequences import preset_sequences, usual_model

        config = resolve(merge({"model": {"name": usual_model(data)}}, values))
        training = preset_sequences(data, values.get("training") or {}, config.model["name"])
    else:
        from seriatim.cli.building import preset

        config = resolve(merge({"model": {"name": "made"}}, values))
        training = preset(data, values.get("training") or {})
    for note in data.notes:
        say(f"note: {note}")
    config = config.model_copy(update={"training": training, "data": config.data.located()})
    model = _build(config, data)
    folder = RunFolder.create(out or _fresh(f"{data.name}-{config.model['name']}"), config.model_dump(mode="json"))
    try:
        return fit_run(model, data, config, folder, resume=False)
    except ValueError:
        _discard(folder)
        raise


def _build(config: RunConfig, data: Dataset | Sequences) -> AutoregressiveModel:
    from seriatim.data import Sequences

    if not isinstance(data, Sequences):
        from seriatim.cli.building import build

        return build(config, data)
    from seriatim.cli.building_sequences import build_sequences

    model = build_sequences(config, data)
    if (field := getattr(model, "receptive_field", None)) is not None:
        seconds = f", {field / data.rate:.3g} seconds" if data.rate else ""
        say(f"receptive field: {field:,} {data.unit}s{seconds}")
    return model


def _resume(path: Path, given: dict[str, Any], sets: list[str]) -> dict[str, Any] | None:
    from seriatim.cli.loading import load_again
    from seriatim.cli.settings import CLOSED_FORM, merge, parse_set, resolve
    from seriatim.runs import RunFolder

    folder = RunFolder.resume(path)
    config = resolve(merge(merge(folder.config, given), parse_set(sets)))
    if config.model["name"] in CLOSED_FORM:
        raise UserError(f"--resume: expected a run of training by steps, got a {config.model['name']}, which has none")
    data = load_again(config.data, path)
    result = fit_run(_build(config, data), data, config, folder, resume=True)
    _rewrite(folder, config)
    return result


def fit_run(
    model: AutoregressiveModel, data: Dataset | Sequences, config: RunConfig, folder: RunFolder, *, resume: bool
) -> dict[str, Any] | None:
    """Train the model, or keep one fitted in closed form; None in processes that only help."""
    from seriatim.cli.settings import CLOSED_FORM
    from seriatim.data import Dataset
    from seriatim.runs import is_first_process
    from seriatim.tasks import evaluate
    from seriatim.training import train

    if config.model["name"] in CLOSED_FORM and isinstance(data, Dataset):
        score = evaluate(model, data.valid)
        _keep(model, data, folder, score.nats, score.bits_per_dim)
        return {
            "run": str(folder.path),
            "valid_nats": score.nats,
            "valid_bits_per_dim": score.bits_per_dim,
            "epochs": 0,
            "seconds": None,
        }
    result = train(model, data, config.training, folder, resume=resume, card={"data": _classes(model, data)})
    if not is_first_process():
        return None
    return {
        "run": str(folder.path),
        "unit": getattr(data, "unit", "row"),
        "valid_nats": result.valid_nats,
        "valid_bits_per_dim": result.valid_bits_per_dim,
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "seconds": result.seconds,
    }


def _keep(model: AutoregressiveModel, data: Dataset, folder: RunFolder, nats: float, bits_per_dim: float) -> None:
    """Save a model fitted in closed form, with its card."""
    from seriatim.runs import save

    card = {
        "numbers": {"validation, -log p": (nats, "nats per row"), "validation": (bits_per_dim, "bits/dim")},
        "data": {"name": data.name, "sha256 of train, valid and test": data.digest, "training rows": len(data.train)},
    }
    save(model, folder.model, card=card, schema=data.schema)


def _classes(model: AutoregressiveModel, data: Dataset | Sequences) -> dict[str, str]:
    """The names of the classes, as the card of a conditional model keeps them; those of sequences are its encoder's."""
    names = getattr(data, "class_names", None)
    return {} if model.encoder is None or not names else {"classes": json.dumps(names)}


def _fresh(name: str) -> Path:
    """Return runs/NAME, or runs/NAME-2, -3, ... where that is taken."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def _discard(folder: RunFolder) -> None:
    """Remove the folder of a run that never began, with nothing in it but its configuration."""
    from seriatim.runs import is_first_process

    if is_first_process() and not folder.last.exists() and not folder.model.exists():
        folder.config_file.unlink(missing_ok=True)
        for empty in (folder.checkpoints, folder.path):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()


def _rewrite(folder: RunFolder, config: RunConfig) -> None:
    """Write config.yaml anew, where a resumed run was given other epochs or another device."""
    import yaml

    from seriatim.data.files import replacing
    from seriatim.runs import is_first_process

    values = config.model_dump(mode="json")
    if is_first_process() and folder.config != values:
        with replacing(folder.config_file) as temporary:
            temporary.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
