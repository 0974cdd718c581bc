"""`seriatim sample` of runs of sequences: text, sound, piano rolls and series, whole or as they are made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run
from seriatim.cli.output import csv_text, ending, progress, say, show, show_json, write_file
from seriatim.cli.sample_streams import STDOUT, stream_sequences
from seriatim.cli.sequence_contexts import context_of
from seriatim.cli.sequence_rows import kind_of, read_sequences, refuse_orders, shown_values
from seriatim.cli.sequences_drawn import Asked, Made, made_of, tell_speed
from seriatim.context import Attributes
from seriatim.data import Roll, Standardised, TextCodec
from seriatim.data.audio_files import SUFFIXES as SOUND
from seriatim.data.audio_files import write_audio
from seriatim.ending import Ending
from seriatim.noise import MOST_POSITIONS

__all__ = ["Asked", "refuse_orders", "sample_sequences"]

_PLAYED = 16000  # samples a second of a piano roll that is played


def sample_sequences(run: Run, asked: Asked) -> None:
    """Draw sequences from a run, and write or show them.

    Raises:
        UserError: a file, a length, a prompt or a context that does not fit the model.
    """
    kind = kind_of(run.model.codec)
    suffix = _checked_out(kind, asked)
    prompt = _prompt(run, asked.prompt)
    length = _length(run, asked, 0 if prompt is None else len(prompt))
    contexts = _contexts(run, asked)
    options: dict[str, Any] = {"seed": asked.seed, "controls": asked.controls, "precision": asked.precision}
    options |= {"length": length, "prompt": prompt}
    if asked.stream:
        stream_sequences(run, kind, asked, contexts, options)
        return
    made, scores = _draw(run, asked, contexts, options)
    if asked.json:
        show_json({"run": str(run.path), "seed": asked.seed, **asdict(asked.controls), "length": length, **scores}
                  | {"samples": [_facts(run, one) for one in made]})  # fmt: skip
    if asked.out is not None:
        WRITERS[kind][suffix](run, made, asked.out)
    elif not asked.json:
        show(_shown(run, kind, made))


def _checked_out(kind: str, asked: Asked) -> str:
    """Return the ending of --out, "" for none."""
    if asked.out == STDOUT:
        if not (asked.stream and kind == "sound"):
            raise UserError("--out: expected a file, for only sound with --stream goes to stdout as -, got -")
        if asked.num != 1 or asked.json:
            raise UserError(f"--out: expected a file for several sequences or --json, got - and --num {asked.num}")
        return ""
    if asked.stream and asked.num != 1 and kind != "sound" and not asked.json:
        raise UserError(f"--stream: expected --json, to tell sequences apart, or one sequence, got --num {asked.num}")
    if asked.stream and asked.json and asked.out is not None:
        raise UserError(f"--stream: expected no --out, for --json goes to stdout as it is made, got {asked.out}")
    if asked.stream and kind == "sound" and asked.out is None and not asked.json:
        raise UserError(f"--stream: expected --out - or a name ending in {', '.join(SOUND)}, got none")
    if asked.out is None:
        if kind == "sound" and not asked.json:
            raise UserError(f"--out: expected a name ending in {', '.join(WRITERS[kind])}, got none")
        return ""
    if asked.stream and kind != "sound":
        raise UserError(f"--stream: expected no --out, for {kind} goes to stdout as it is made, got {asked.out}")
    return ending(asked.out, SOUND if asked.stream else tuple(WRITERS[kind]))


def _prompt(run: Run, given: str | None) -> np.ndarray | None:
    """Return the values of --prompt: a text, or the one sequence of a file."""
    if given is None:
        return None
    codec = run.model.codec
    if isinstance(codec, TextCodec):
        try:
            return codec.encode(given)
        except ValueError as error:
            raise UserError(f"--prompt: {error}") from None
    try:
        rows = read_sequences(run, given)
    except UserError as error:
        raise UserError(f"--prompt: {str(error).removeprefix('FILE: ')}") from None
    if len(rows.values) != 1:
        raise UserError(f"--prompt: expected one sequence, got {len(rows.values)} in {given}")
    return rows.values[0]


def _length(run: Run, asked: Asked, given: int) -> int:
    """Return how many positions a sequence has at most."""
    if asked.length is not None and asked.seconds is not None:
        raise UserError(f"--seconds: expected none beside --length, got {asked.seconds:g}")
    rate = getattr(run.model.codec, "rate", None)
    name, amount = ("--length", asked.length) if asked.seconds is None else ("--seconds", asked.seconds)
    if asked.seconds is None:
        length = given + run.model.event_shape[0] if asked.length is None else asked.length
    elif rate is None:
        raise UserError(f"--seconds: expected none for {kind_of(run.model.codec)}, which has no rate: --length says")
    elif not math.isfinite(asked.seconds):
        raise UserError(f"--seconds: expected a finite number, got {asked.seconds}")
    else:
        length = round(asked.seconds * rate)
    if length <= given:
        least = f"more than the {given:,} positions of --prompt" if given else "one position or more"
        raise UserError(f"{name}: expected {least}, got {amount}")
    if length > MOST_POSITIONS:
        raise UserError(f"{name}: expected {MOST_POSITIONS:,} positions at most, got {amount}")
    return length


def _contexts(run: Run, asked: Asked) -> Tensor | None:
    """Return what each sequence is conditioned on, (N, *context event): every combination of labels in turn where
    none is given.
    """
    encoder = run.model.encoder
    if asked.context is None and isinstance(encoder, Attributes):
        turns = torch.cartesian_prod(*(torch.arange(size) for size in encoder.sizes)).reshape(-1, len(encoder.sizes))
        return turns[torch.arange(asked.num) % len(turns)]
    one = context_of(run, asked.context)
    return None if one is None else one.expand(asked.num, *one.shape)


def _draw(
    run: Run, asked: Asked, contexts: Tensor | None, options: dict[str, Any]
) -> tuple[list[Made], dict[str, Any]]:
    """Draw sequences, and say how long it took; for --json with log p and log q."""
    from seriatim.tasks import generate, generate_scored

    started, scores = time.perf_counter(), {}
    options = options | {"batch_size": asked.batch_size, "progress": progress("sequences")}
    if asked.json:
        x, log_prob, log_q = generate_scored(run.model, asked.num, contexts, **options)
        scores = {"log_prob_nats": log_prob, "log_q_nats": log_q}
    else:
        x = generate(run.model, asked.num, contexts, **options)
    made = [made_of(run, row, None if contexts is None else contexts[r]) for r, row in enumerate(x)]
    given = 0 if options["prompt"] is None else len(options["prompt"])
    tell_speed(run, sum(len(one.values) - given for one in made), time.perf_counter() - started)
    return made, scores


def _facts(run: Run, one: Made) -> dict[str, Any]:
    """What --json tells of a sequence."""
    codec = run.model.codec
    text = {"text": codec.decode(one.values)} if isinstance(codec, TextCodec) else {}
    return {**text, "values": one.values, "length": len(one.values), "ended": one.ended, "context": one.labels}


def _shown(run: Run, kind: str, made: list[Made]) -> str:
    """Sequences on stdout: texts apart by a line of dashes, others as tables."""
    if kind == "text":
        return _texts(run, made)
    if kind == "series":
        return _series(run, made)
    header, rows = ["sequence", "step", "pitches"], []
    for number, one in enumerate(made):
        rows += [(number, step, shown) for step, shown in enumerate(shown_values(run.model.codec, one.values))]
    return csv_text(header, rows)


def _texts(run: Run, made: list[Made]) -> str:
    texts = [run.model.codec.decode(one.values) for one in made]
    return "\n".join(texts) if isinstance(run.model.head, Ending) else f"\n{'-' * 8}\n".join(texts)


def _series(run: Run, made: list[Made]) -> str:
    codec: Standardised = run.model.codec
    rows: list[list[Any]] = []
    for number, one in enumerate(made):
        rows += [[number, *np.atleast_1d(step).tolist()] for step in codec.decode(one.values)]
    return csv_text(["sequence", *codec.names], rows)


def _write_text(run: Run, made: list[Made], out: Path) -> None:
    write_file(out, lambda file: file.write_text(_texts(run, made), encoding="utf-8"))


def _write_csv(run: Run, made: list[Made], out: Path) -> None:
    write_file(out, lambda file: file.write_text(_series(run, made), encoding="utf-8"))


def _write_values(run: Run, made: list[Made], out: Path) -> None:
    """Write the values of all sequences end to end, and their lengths."""
    values, lengths = np.concatenate([one.values for one in made]), np.array([len(one.values) for one in made])

    def write(file: Path) -> None:
        with open(file, "wb") as stream:
            np.savez_compressed(stream, values=values, lengths=lengths)

    write_file(out, write)


def _write_sound(run: Run, made: list[Made], out: Path) -> None:
    """Write each sequence as sound: NAME.wav, of several NAME-1.wav, NAME-2.wav, ..."""
    from seriatim.report.music import synthesise

    codec = run.model.codec
    for number, one in enumerate(made, 1):
        path = out if len(made) == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}")
        if not len(one.values):
            say(f"{path}: not written, for sequence {number} ended before its first {codec.unit}")
            continue
        if isinstance(codec, Roll):
            samples, rate = synthesise(one.values, codec.rate, _PLAYED, lowest=codec.lowest), _PLAYED
        else:
            samples, rate = codec.decode(one.values), codec.rate
        write_audio(path, samples, rate)
        say(f"wrote {path}" + (f": {one.labels}" if one.labels else ""))


Writer = Callable[[Run, list[Made], Path], None]
WRITERS: dict[str, dict[str, Writer]] = {
    "text": {".txt": _write_text, ".npz": _write_values},
    "sound": {**dict.fromkeys(SOUND, _write_sound), ".npz": _write_values},
    "music": {**dict.fromkeys(SOUND, _write_sound), ".npz": _write_values},
    "series": {".csv": _write_csv, ".npz": _write_values},
}
"""What `--out` writes, by the kind of sequences and the ending of its name."""
