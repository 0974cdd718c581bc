"""`seriatim sample --stream` of sequences: values are written as soon as they are made, of one or several at once."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seriatim.cli.loading import Run
from seriatim.cli.output import say, show, show_json_line
from seriatim.cli.sequence_rows import shown_values
from seriatim.cli.sequences_drawn import Asked, made_of, tell_speed, typed
from seriatim.data import TextCodec
from seriatim.data.audio_files import opened_audio, stream_audio

STDOUT = Path("-")
BLOCKS = {"text": 1, "sound": 800, "music": 1, "series": 1}  # positions that are written at a time

Write = Callable[[int, np.ndarray], None]  # takes the number of a sequence and its next values


def stream_sequences(run: Run, kind: str, asked: Asked, contexts: Tensor | None, options: dict[str, Any]) -> None:
    """Write sequences while they are made: sound to files or stdout, text and tables to stdout, all as JSON lines."""
    started, lengths = time.perf_counter(), [0] * asked.num
    ended = [False] * asked.num

    def parts() -> Iterator[tuple[int, np.ndarray]]:
        from seriatim.tasks import stream

        for row in range(asked.num if options["prompt"] is not None else 0):
            lengths[row] = len(options["prompt"])
            yield row, typed(run, np.asarray(options["prompt"]))
        for block in stream(run.model, asked.num, contexts, chunk=BLOCKS[kind], **options):
            for row in range(asked.num):
                made = made_of(run, block[row], None)
                ended[row] |= made.ended
                lengths[row] += len(made.values)
                yield row, made.values

    if asked.out == STDOUT:
        codec = run.model.codec
        stream_audio(sys.stdout.buffer, (codec.decode(values) for _, values in parts()), codec.rate)
    else:
        with ExitStack() as files:
            write = _writer(run, kind, asked, files)
            for row, values in parts():
                if len(values):
                    write(row, values)
    if asked.json:
        for row, length in enumerate(lengths):
            show_json_line({"sequence": row, "length": length, "ended": ended[row]})
    elif kind == "text":
        show("")
    for row, length in enumerate(lengths):
        if kind == "sound" and asked.out not in (None, STDOUT):
            path = _path(asked, row)
            say(f"wrote {path}" if length else f"{path}: not written, for the sequence ended before its first sample")
    tell_speed(run, sum(lengths), time.perf_counter() - started)


def _path(asked: Asked, row: int) -> Path:
    """NAME.wav, of several NAME-1.wav, NAME-2.wav, ..."""
    assert asked.out is not None
    return asked.out if asked.num == 1 else asked.out.with_name(f"{asked.out.stem}-{row + 1}{asked.out.suffix}")


def _writer(run: Run, kind: str, asked: Asked, files: ExitStack) -> Write:
    """Return what writes the next values of a sequence; sound files are closed with `files`."""
    codec = run.model.codec
    if asked.json:
        return _json_lines(run)
    if kind == "sound":
        sounds: dict[int, Callable[[np.ndarray], None]] = {}

        def sound(row: int, values: np.ndarray) -> None:
            if row not in sounds:
                sounds[row] = files.enter_context(opened_audio(_path(asked, row), codec.rate))
            sounds[row](codec.decode(values))

        return sound
    if isinstance(codec, TextCodec):

        def text(row: int, values: np.ndarray) -> None:
            sys.stdout.buffer.write(codec.decode_bytes(values))
            sys.stdout.buffer.flush()

        return text

    def lines(row: int, values: np.ndarray) -> None:
        for line in shown_values(codec, values):
            show(line)

    return lines


def _json_lines(run: Run) -> Write:
    """A line for every block: the number of its sequence, its values, and of text what they say.

    The bytes of one letter may come in different blocks: the letter is told with the last of them.
    """
    codec, letters = run.model.codec, dict[int, codecs.IncrementalDecoder]()

    def line(row: int, values: np.ndarray) -> None:
        told: dict[str, Any] = {"sequence": row}
        if isinstance(codec, TextCodec):
            own = letters.setdefault(row, codecs.getincrementaldecoder("utf-8")("replace"))
            told["text"] = own.decode(codec.decode_bytes(values))
        show_json_line({**told, "values": values})

    return line
