"""`seriatim sample` of sequences: text, sound, rolls and series, whole and as they are made, and what it refuses."""

from __future__ import annotations

import io
import json
import wave

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from seriatim.cli import app, sample_sequences, sample_streams
from seriatim.context import Attributes
from seriatim.data import Bytes, Characters, MuLaw, Roll, Standardised
from seriatim.data.audio_files import read_audio, write_audio
from seriatim.ending import Ending
from seriatim.heads import Bernoulli, Categorical, Normal
from seriatim.independent import Independent
from seriatim.models import GRU, LSTM
from seriatim.runs import save

pytest.importorskip("soundfile")
LABELS = Attributes({"digit": ["one", "two"], "speaker": ["ann", "bob", "cid"]})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Saved models of every kind, with random weights."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    models = {
        "text": (LSTM((12,), Categorical(4), hidden_features=5), Characters(symbols="ab \n")),
        "bytes": (LSTM((12,), Categorical(256), hidden_features=5), Bytes()),
        "words": (GRU((9,), Ending(Categorical(4)), hidden_features=5), Characters(symbols="abcd")),
        "sound": (GRU((80,), Categorical(16), hidden_features=5, encoder=LABELS), MuLaw(rate=800, levels=16)),
        "music": (GRU((6,), Ending(Independent(Bernoulli(), (88,))), hidden_features=5), Roll(rate=2.0)),
        "series": (
            GRU((5,), Independent(Normal(), (2,)), hidden_features=5),
            Standardised(mean=(10.0, -5.0), scale=(2.0, 1.0), names=("warm", "cold")),
        ),
    }
    for name, (model, codec) in models.items():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.codec = codec
        save(model.eval(), folder / name)
    return folder


def seriatim(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)])


def test_text_goes_to_stdout_and_begins_with_its_prompt(runs):
    result = seriatim(runs / "text", "--length", 40, "--prompt", "ab ba", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("ab ba")
    assert len(result.stdout) == 41
    assert set(result.stdout) <= set("ab \n")
    streamed = seriatim(runs / "text", "--length", 40, "--prompt", "ab ba", "--seed", 3, "--stream")
    assert streamed.stdout == result.stdout
    greedy = [seriatim(runs / "text", "--top-k", 1, "--seed", seed).stdout for seed in (0, 1)]
    assert greedy[0] == greedy[1]


def test_several_texts_are_apart_and_do_not_depend_on_their_number(runs, tmp_path):
    out = tmp_path / "x.txt"
    assert seriatim(runs / "text", "-n", 3, "--seed", 5, "--out", out).exit_code == 0
    texts = out.read_text().split("\n--------\n")
    assert len(texts) == 3
    assert texts[0] == seriatim(runs / "text", "--seed", 5).stdout[:-1]
    lines = seriatim(runs / "words", "-n", 20, "--length", 9, "--seed", 1).stdout.splitlines()
    assert len(lines) == 20
    assert len({len(line) for line in lines}) > 1


def test_json_tells_values_ends_and_scores(runs):
    found = json.loads(seriatim(runs / "words", "-n", 8, "--json", "--seed", 2, "--temperature", 0.7).stdout)
    model, codec = GRU((9,), Ending(Categorical(4)), hidden_features=5), Characters(symbols="abcd")
    from seriatim.runs import load

    model = load(runs / "words")
    for one, log_prob in zip(found["samples"], found["log_prob_nats"], strict=True):
        assert codec.decode(np.array(one["values"], dtype=int)) == one["text"]
        assert one["ended"] == (one["length"] < 9)
        row = torch.full((1, 9), -1)
        row[0, : one["length"]] = torch.tensor(one["values"], dtype=torch.int64)
        assert float(model.log_prob(row).detach()) == pytest.approx(log_prob, abs=1e-4)
    assert found["temperature"] == 0.7
    assert found["log_q_nats"] != found["log_prob_nats"]


def test_sound_is_written_by_label_and_by_the_second(runs, tmp_path):
    out = tmp_path / "x.wav"
    result = seriatim(runs / "sound", "--seconds", 0.5, "--context", "speaker=bob,digit=two", "--out", out, "--seed", 4)
    assert result.exit_code == 0, result.output
    samples, rate = read_audio(out)
    assert (len(samples), rate) == (400, 800)
    result = seriatim(runs / "sound", "-n", 7, "--out", tmp_path / "y.flac")
    assert (tmp_path / "y-7.flac").exists()
    assert "y-4.flac: digit=two,speaker=ann" in result.stderr
    assert "y-7.flac: digit=one,speaker=ann" in result.stderr
    same = ["--seconds", 0.5, "--context", "digit=two,speaker=bob", "--seed", 4]
    streamed = seriatim(runs / "sound", *same, "--out", "-", "--stream")
    with wave.open(io.BytesIO(streamed.stdout_bytes)) as sound:
        whole = np.frombuffer(sound.readframes(10_000), "<i2")
    np.testing.assert_array_equal(whole[:400], np.round(samples * 32768).clip(-32768, 32767).astype(int))


def test_several_streams_are_written_side_by_side_and_are_those_drawn_at_once(runs, tmp_path):
    same = ["-n", 3, "--seconds", 1.5, "--seed", 4]
    assert seriatim(runs / "sound", *same, "--out", tmp_path / "whole.wav").exit_code == 0
    told = seriatim(runs / "sound", *same, "--out", tmp_path / "part.wav", "--stream")
    assert told.exit_code == 0, told.output
    for number in (1, 2, 3):
        whole, part = (read_audio(tmp_path / f"{name}-{number}.wav")[0] for name in ("whole", "part"))
        assert len(whole) == 1200
        np.testing.assert_array_equal(whole, part)
        assert f"part-{number}.wav" in told.stderr
    assert len(list(tmp_path.iterdir())) == 6


def test_streams_as_lines_of_json_say_whose_values_come(runs):
    same = ["-n", 12, "--seed", 2, "--length", 9, "--json"]
    whole = json.loads(seriatim(runs / "words", *same).stdout)["samples"]
    result = seriatim(runs / "words", *same, "--stream")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["sequence"] for line in lines if "values" in line] != sorted(
        line["sequence"] for line in lines if "values" in line
    )  # side by side, not one after the other
    for row, one in enumerate(whole):
        own = [line for line in lines if line["sequence"] == row]
        assert [value for line in own[:-1] for value in line["values"]] == one["values"]
        assert "".join(line["text"] for line in own[:-1]) == one["text"]
        assert own[-1] == {"sequence": row, "length": one["length"], "ended": one["ended"]}


def test_a_stream_of_sound_may_be_lines_of_json_too(runs):
    same = ["-n", 2, "--length", 30, "--context", "digit=one,speaker=ann", "--json"]
    result = seriatim(runs / "sound", *same, "--stream")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["length"] for line in lines if "length" in line] == [30, 30]
    whole = json.loads(seriatim(runs / "sound", *same).stdout)["samples"]
    for row, one in enumerate(whole):
        parts = [line["values"] for line in lines if line["sequence"] == row and "values" in line]
        assert [value for part in parts for value in part] == one["values"]


def test_the_speed_is_that_of_what_was_drawn(runs):
    assert "6 characters in" in seriatim(runs / "text", "--length", 10, "--prompt", "ab a").stderr


def test_chords_of_pieces_that_end_take_controls(runs):
    greedy = [seriatim(runs / "music", "--length", 6, "--top-k", 1, "--seed", seed) for seed in (1, 2)]
    assert greedy[0].exit_code == 0, greedy[0].output
    assert greedy[0].stdout == greedy[1].stdout
    assert seriatim(runs / "music", "--length", 6, "--temperature", 0.8, "--top-p", 0.9).exit_code == 0


def test_ctrl_c_is_told_in_one_line(runs, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sample_sequences, "_draw", interrupted)
    result = seriatim(runs / "text", "--length", 9)
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "seriatim: interrupted\n"


def test_a_letter_of_several_bytes_is_streamed_whole():
    class Run:
        class model:
            codec = Bytes()

    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_streams, "show_json_line", written.append)
        write = sample_streams._json_lines(Run)
        for row, value in ((0, 0xC3), (1, 0x61), (0, 0xA9)):
            write(row, np.array([value]))
    assert [(line["sequence"], line["text"]) for line in written] == [(0, ""), (1, "a"), (0, "é")]


def test_sound_goes_on_from_a_file(runs, tmp_path):
    codec = MuLaw(rate=800, levels=16)
    given = codec.decode(np.arange(50) % 16)
    write_audio(tmp_path / "given.wav", given, 800)
    out = tmp_path / "on.npz"
    arguments = ["--prompt", tmp_path / "given.wav", "--length", 70, "--context", "digit=one,speaker=cid", "--out", out]
    result = seriatim(runs / "sound", *arguments)
    assert result.exit_code == 0, result.output
    with np.load(out) as file:
        np.testing.assert_array_equal(file["values"][:50], np.arange(50) % 16)
        assert file["lengths"].tolist() == [70]


def test_music_is_pitches_an_archive_or_sound(runs, tmp_path):
    shown = seriatim(runs / "music", "-n", 2, "--length", 6).stdout.splitlines()
    assert shown[0] == "sequence,step,pitches"
    result = seriatim(runs / "music", "-n", 12, "--out", tmp_path / "x.wav")
    assert result.exit_code == 0, result.output
    assert "ended before its first step" in result.stderr
    written = sorted(tmp_path.glob("x-*.wav"))
    assert 0 < len(written) < 12
    assert read_audio(written[0])[1] == 16000
    assert seriatim(runs / "music", "-n", 3, "--out", tmp_path / "x.npz").exit_code == 0
    with np.load(tmp_path / "x.npz") as file:
        assert file["values"].shape[1] == 88
        assert file["lengths"].sum() == len(file["values"])


def test_a_series_is_in_its_own_units(runs, tmp_path):
    result = seriatim(runs / "series", "-n", 50, "--length", 20)
    rows = np.array([line.split(",") for line in result.stdout.splitlines()[1:]], dtype=float)
    assert result.stdout.splitlines()[0] == "sequence,warm,cold"
    assert rows.shape == (1000, 3)
    assert rows[:, 1].mean() > 3 > -2 > rows[:, 2].mean()
    (tmp_path / "on.csv").write_text("warm,cold\n10,-5\n12,-4\n")
    result = seriatim(runs / "series", "--prompt", tmp_path / "on.csv", "--length", 4)
    assert [line.split(",")[1] for line in result.stdout.splitlines()[1:3]] == ["10.0", "12.0"]


@pytest.mark.parametrize(
    "run, arguments, message",
    [
        ("text", ["--prompt", "abz"], "--prompt"),
        ("text", ["--seconds", 1], "--seconds: expected none for text"),
        (
            "text",
            ["--length", 3, "--prompt", "ab a"],
            "--length: expected more than the 4 positions of --prompt, got 3",
        ),
        ("text", ["--length", 0], "--length: expected one position or more, got 0"),
        ("text", ["--length", 10**17], "--length: expected 4,294,967,296 positions at most, got 1"),
        ("sound", ["--seconds", -1, "--out", "x.wav"], "--seconds: expected one position or more, got -1"),
        ("sound", ["--seconds", "nan", "--out", "x.wav"], "--seconds: expected a finite number, got nan"),
        ("sound", ["--seconds", "inf", "--out", "x.wav"], "--seconds: expected a finite number, got inf"),
        ("sound", ["--seconds", 1e12, "--out", "x.wav"], "--seconds: expected 4,294,967,296 positions at most"),
        ("sound", ["--context", "digit=one,digit=two,speaker=ann", "--out", "x.wav"], "--context: expected digit once"),
        ("text", ["--out", "x.wav"], "--out: expected a name ending in .txt, .npz"),
        ("text", ["--context", "digit=one"], "--context: expected none"),
        ("text", ["--orders", 2], "--orders: expected an order-agnostic model"),
        ("text", ["--stream", "-n", 2], "--stream: expected --json, to tell sequences apart, or one sequence"),
        ("sound", ["--stream", "--json", "--out", "x.wav"], "--stream: expected no --out, for --json goes to stdout"),
        ("sound", ["--stream", "-n", 2, "--out", "-"], "--out: expected a file for several sequences"),
        ("text", ["--out", "-"], "--out: expected a file"),
        ("text", ["--top-p", 2], "--top-p"),
        ("sound", [], "--out: expected a name ending in .wav"),
        ("sound", ["--stream"], "--stream: expected --out - or"),
        ("sound", ["--context", "digit=one", "--out", "x.wav"], "expected digit, speaker, got digit"),
        ("sound", ["--context", "digit=six,speaker=ann", "--out", "x.wav"], "expected digit among one, two, got six"),
        ("sound", ["--length", 5, "--seconds", 1, "--out", "x.wav"], "--seconds: expected none beside --length"),
        ("sound", ["--prompt", "no.wav", "--out", "x.wav"], "--prompt: "),
        ("music", ["--stream", "--out", "x.wav"], "--stream: expected no --out"),
    ],
)
def test_what_does_not_fit_is_refused(runs, run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = seriatim(runs / run, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not list(tmp_path.iterdir())
