"""Pictures of sequences: what is drawn stands where it belongs, what is heard has its pitch, pages need no network."""

from __future__ import annotations

import base64
import io
import re
import wave
from xml.etree import ElementTree

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from report_checks import INNER, across, boxes, elements, needs_nothing, points
from seriatim.report import Content, Html, Section
from seriatim.report.audio import (
    clips,
    player,
    spectrogram,
    spectrogram_figure,
    spectrogram_picture,
    surprise_figure,
    wav_bytes,
    waveform_figure,
)
from seriatim.report.figures import PAINTS, Figure
from seriatim.report.music import roll_figure, roll_picture, synthesise
from seriatim.report.page import render
from seriatim.report.panels import envelope, smoothed, surprise_panel, thinned
from seriatim.report.pictures import heat_colours
from seriatim.report.sequences import ScoredSequences, sequence_score_section
from seriatim.report.series import Stretch, series_figure, stretch_table, stretches
from seriatim.tasks import Surprise

RATE = 8000


def tone(frequency, seconds=0.5, rate=RATE, loudness=1.0):
    return loudness * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


class TestFigures:
    def test_the_page_has_a_colour_for_every_kind_of_shape(self):
        html = render(Content("x"))
        style = html[html.index("<style>") : html.index("</style>")]
        for kind in PAINTS:
            assert re.search(rf"svg \.{kind}\b(?!-)[^}}]*{{", style), kind

    def test_a_block_of_markup_stands_on_the_page_as_it_is(self):
        html = render(Content("x", sections=[Section("y", [Html(Markup("<b>own</b>"), "a < b")])]))
        assert "<b>own</b>" in html
        assert "a &lt; b" in html

    def test_a_line_is_broken_where_a_value_is_missing(self):
        figure = Figure(50, "")
        y = np.array([1.0, 2, np.nan, np.nan, 5, np.nan, 7, 8])
        figure.line(np.stack([np.arange(8.0), y], axis=1), "trace")
        lines = [points(e) for e in elements(figure, "trace")]
        assert [line[:, 1].tolist() for line in lines] == [[1, 2], [5, 5], [7, 8]]  # a lone point is a short dash

    def test_the_png_has_the_shapes_of_the_svg(self):
        figure = Figure(100, "", width=200)
        figure.boxes(np.array([[20.0, 40.0, 50.0, 10.0]]), "note")
        figure.picture(np.full((2, 2, 3), (9, 200, 9), dtype=np.uint8), (100, 50, 60, 40))
        image = np.asarray(Image.open(io.BytesIO(figure.png(scale=2))).convert("RGB")).astype(int)
        assert image.shape == (200, 400, 3)
        note = (image == (0x2F, 0x6F, 0x8F)).all(-1)
        assert (np.argwhere(note).min(0) == (80, 40)).all()
        assert (np.argwhere(note).max(0) == (99, 139)).all()
        assert (image[101:179, 201:319] == (9, 200, 9)).all()
        assert (image[0] == 255).all()

    def test_words_of_any_script_and_control_characters_are_safe(self):
        figure = Figure(50, "<&>\x00")
        figure.text(10, 20, "−1 – ≥ température 温度 <b>\x1b")
        assert "&lt;b&gt;" in figure.svg()
        ElementTree.fromstring(figure.svg_file())
        assert figure.png()[1:4] == b"PNG"
        dashes = [Figure(30, ""), Figure(30, "")]
        for own, words in zip(dashes, ("−1 – 2", "-1 - 2"), strict=True):
            own.text(5, 20, words)
        assert dashes[0].png() == dashes[1].png()

    @pytest.mark.parametrize("window", [1, 2, 3, 8, 50])
    def test_moving_mean_is_that_of_the_window(self, window):
        values = np.random.default_rng(window).normal(size=30)
        back, ahead = (window - 1) // 2, window // 2
        wanted = [values[max(0, t - back) : t + ahead + 1].mean() for t in range(30)]
        np.testing.assert_allclose(smoothed(values, window), wanted)

    def test_thinning_keeps_peaks_and_short_lines(self):
        values = np.zeros(100_000)
        values[77_777], values[12_345] = 9, -5
        x, y = thinned(np.arange(100_000), values, 500)
        assert len(y) == 1000
        assert y.max() == 9
        assert y.min() == -5
        assert abs(x[y.argmax()] - 77_777) <= 200
        assert thinned(np.arange(5), np.arange(5), 500)[1].tolist() == [0, 1, 2, 3, 4]
        low, high = envelope(np.array([np.nan, 1, 2, np.nan, np.nan, np.nan]), 3)
        assert low[:2].tolist() == [1, 2]
        assert np.isnan(high[2])

    def test_impossible_values_are_marked_and_left_out_of_the_mean(self):
        figure, bits = Figure(200, ""), np.full(400, 2.0)
        bits[100] = np.inf
        surprise_panel(figure, (20, 100), (0, 400), bits, "bits", 4)
        assert "bits; 1 impossible" in figure.svg()
        assert "mean 2.00" in figure.svg()
        bar = boxes(elements(figure, "note-news")[0])[0]
        assert bar[0] == pytest.approx(across(100 / 400), abs=0.1)
        assert np.ptp(points(elements(figure, "news")[0])[:, 1]) == 0
        surprise_panel(figure, (20, 100), (0, 3), np.full(3, np.inf), "all", 1)


class TestAudio:
    def test_wav_is_read_back(self):
        samples = np.array([0.0, 0.5, -1.0, 1.0, 3.0, -3.0])
        with wave.open(io.BytesIO(wav_bytes(samples, 16000))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
            read = np.frombuffer(file.readframes(100), "<i2")
        assert read.tolist() == [0, 16384, -32767, 32767, 32767, -32767]

    def test_player_holds_its_sound(self):
        html = player(tone(440, 0.1), RATE, '"<x>"')
        data = re.search(r"base64,([^\"]+)", html).group(1)
        assert base64.b64decode(data) == wav_bytes(tone(440, 0.1), RATE)
        assert "<x>" not in html
        needs_nothing(html)

    @pytest.mark.parametrize("frequency", [250, 1000, 3000])
    def test_spectrogram_finds_a_tone_at_its_loudness(self, frequency):
        found = spectrogram(tone(frequency, loudness=0.1), RATE)
        column = found[:, found.shape[1] // 2]
        assert column.argmax() * RATE / 256 == frequency
        assert column.max() == pytest.approx(-20, abs=0.01)

    def test_spectrogram_finds_a_click_at_its_time(self):
        samples = np.zeros(RATE)
        samples[6000] = 1
        found = spectrogram(samples, RATE, window=0.016, hop=0.01)
        assert found.shape == (65, 101)
        assert found.max(0).argmax() * 0.01 == pytest.approx(0.75)
        assert found[:, 50].max() == -120  # silence
        wide = spectrogram(samples, RATE, window=0.016, hop=0.25)  # of which parts are never looked at
        assert wide.max(0).argmax() == 3
        assert spectrogram(np.ones(1), RATE).shape[1] == 1

    def test_pictures_have_low_frequencies_below_and_one_scale(self):
        found = spectrogram(tone(250), RATE)
        colours = spectrogram_picture(found)
        assert colours.shape == (*found.shape, 3)
        assert colours.dtype == np.uint8
        bright = colours.astype(int).sum((1, 2)).argmax()
        assert bright == found.shape[0] - 1 - 250 * 256 // RATE
        assert spectrogram_picture(found, loudest=40).max() < colours.max()

    def test_a_waveform_peaks_where_the_sound_does(self):
        samples = np.zeros(9000)
        samples[6750], samples[2250] = 0.8, -0.4
        polygon = points(elements(waveform_figure(samples, RATE), "wave")[0])
        high, low = polygon[polygon[:, 1].argmin()], polygon[polygon[:, 1].argmax()]
        assert high[0] == pytest.approx(across(0.75), abs=1)
        assert low[0] == pytest.approx(across(0.25), abs=1)
        middle = np.median(polygon[:, 1])
        assert (middle - high[1]) / (low[1] - middle) == pytest.approx(2, abs=0.1)

    def test_surprise_stands_under_the_sound_that_caused_it(self):
        samples, bits = tone(440, 1.0), np.full(RATE, 3.0)
        bits[6000:6400] = 11
        figure = surprise_figure(samples, bits, RATE, window=0.01)
        line = points(elements(figure, "news")[0])
        peak = line[line[:, 1] <= line[:, 1].min() + 0.2, 0]
        assert peak.min() == pytest.approx(across(0.755), abs=5)
        assert peak.max() == pytest.approx(across(0.795), abs=5)
        svg = figure.svg()
        for words in ("waveform", "spectrogram, kHz", "bits per sample, mean over 10 ms", "mean 3.40", "time, s"):
            assert words in svg
        needs_nothing(svg)
        assert svg.count("<image") == 2  # the spectrogram and its scale
        image = Image.open(io.BytesIO(figure.png()))
        assert image.size == (2 * figure.width, 2 * figure.height)

    def test_a_spectrogram_shorter_than_its_axis_ends_where_the_sound_does(self):
        figure = spectrogram_figure(tone(440, 0.5), RATE, seconds=2)
        picture = next(e for e in ElementTree.fromstring(figure.svg_file()).iter() if e.tag.endswith("image"))
        assert float(picture.get("width")) == pytest.approx(INNER / 4, abs=0.1)

    def test_clips_share_time_and_loudness(self):
        html = clips([("long", tone(440, 1.0)), ("short & quiet", tone(440, 0.25, loudness=0.01))], RATE)
        assert re.findall(r"width:([\d.]+)%", html) == ["100.0", "25.0"]
        assert "short &amp; quiet" in html
        pictures = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            for data in re.findall(r"image/png;base64,([^\"]+)", html)
        ]
        assert pictures[0].max() > pictures[1].max()
        needs_nothing(html)

    def test_long_audio_is_drawn_in_a_picture_of_usual_size(self):
        samples = np.random.default_rng(0).normal(size=RATE * 120).astype(np.float32) / 9
        assert len(surprise_figure(samples, samples**2, RATE).svg()) < 1_500_000

    @pytest.mark.parametrize(
        "call, words",
        [
            (lambda: wav_bytes(np.zeros((2, 3)), RATE), "samples: expected a sequence"),
            (lambda: wav_bytes(np.zeros(0), RATE), "samples: expected a sequence"),
            (lambda: player(np.array([0, np.nan]), RATE), "samples: expected numbers, got nan at step 1"),
            (lambda: wav_bytes(np.array([np.inf]), RATE), "samples: expected numbers, got inf"),
            (lambda: wav_bytes(np.zeros(3), 0), "rate: .* got 0"),
            (lambda: spectrogram(np.zeros(3), RATE, window=0), "window: .* got 0"),
            (lambda: spectrogram(np.zeros(3), RATE, hop=-1), "hop: .* got -1"),
            (lambda: spectrogram_picture(np.zeros(3)), "decibels: expected"),
            (lambda: spectrogram_figure(np.zeros(RATE), RATE, seconds=0.5), "seconds: expected 1.000 or more, got 0.5"),
            (lambda: surprise_figure(np.zeros(3), np.zeros(2), RATE), "bits: expected .* 3 steps, got 2"),
            (lambda: surprise_figure(np.zeros(3), np.array([0, 0, -np.inf]), RATE), "bits: .* got -inf at step 2"),
            (lambda: surprise_figure(np.zeros(3), np.zeros(3), RATE, window=0), "window: .* got 0"),
            (lambda: clips([], RATE), "items: .* none"),
        ],
    )
    def test_bad_input_is_named(self, call, words):
        with pytest.raises(ValueError, match=words):
            call()


def chorale():
    """Middle C for 4 steps, the A above it for 2, silence."""
    roll = np.zeros((8, 88), dtype=np.uint8)
    roll[0:4, 60 - 21] = 1
    roll[4:6, 69 - 21] = 1
    return roll


class TestMusic:
    def test_a_picture_has_time_to_the_right_and_pitch_upward(self):
        colours = roll_picture(chorale(), scale=2)
        assert colours.shape == (176, 16, 3)
        bright = np.argwhere(colours[::2, ::2].min(-1) > 200)
        wanted = {(87 - (60 - 21), t) for t in range(4)} | {(87 - (69 - 21), t) for t in (4, 5)}
        assert set(map(tuple, bright.tolist())) == wanted
        bits = np.zeros((8, 88))
        bits[3, 10], bits[5, 11] = 8, np.inf
        heat = roll_picture(chorale(), bits)
        assert heat[77, 3].tolist() == heat_colours(np.array(1.0), 1.0).tolist()
        assert heat[76, 5].tolist() == heat[77, 3].tolist()
        assert heat[0, 0].tolist() == heat_colours(np.array(0.0), 1.0).tolist()

    def test_notes_stand_on_their_lines_and_surprise_below_them(self):
        bits = np.array([1.0, 1, 1, 1, 9, 1, 1, 1])
        figure = roll_figure(chorale(), bits, steps_per_second=2)
        notes = boxes(elements(figure, "note")[0])
        assert len(notes) == 2  # neighbouring steps are one note
        np.testing.assert_allclose(notes[:, 0], [across(0), across(0.5)], atol=0.1)
        np.testing.assert_allclose(notes[:, 2], [INNER / 2, INNER / 4], atol=1)
        lines = {e.text: float(e.get("y")) - 4 for e in elements(figure, "tick")}
        lane = (lines["C4"] - lines["C5"]) / 12
        assert notes[0, 1] + notes[0, 3] == pytest.approx(lines["C4"], abs=0.5)
        assert notes[1, 1] + notes[1, 3] == pytest.approx(lines["C4"] - 9 * lane, abs=0.5)
        stairs = points(elements(figure, "news")[0])
        top = stairs[stairs[:, 1] == stairs[:, 1].min(), 0]
        np.testing.assert_allclose(top, [across(0.5), across(0.625)], atol=0.1)
        assert "time, s" in figure.svg()
        assert "mean 2.00" in figure.svg()
        assert "step" in [e.text for e in elements(roll_figure(chorale()), "axis")]

    def test_bits_of_notes_are_summed_and_surprising_ones_stand_out(self):
        bits = np.full((8, 88), 0.01)
        bits[0, 60 - 21], bits[1, 60 - 21], bits[7, 5] = 6.5, 5.9, 9  # the last is silent
        figure = roll_figure(chorale(), bits)
        news = boxes(elements(figure, "note-news")[0])
        np.testing.assert_allclose(news[:, 0], [across(0)], atol=0.1)
        assert news[0, 2] == pytest.approx(INNER / 8, abs=1)
        assert f"mean {bits.sum(1).mean():.2f}" in figure.svg()

    def test_a_silent_and_a_small_roll_are_drawn(self):
        assert roll_figure(np.zeros((3, 88)), np.zeros(3)).png()[1:4] == b"PNG"
        assert "C4" in roll_figure(np.ones((3, 1)), lowest=60).svg()

    @pytest.mark.parametrize("note, frequency", [(60, 261.63), (69, 440.0), (81, 880.0)])
    def test_notes_sound_at_their_pitch_and_time(self, note, frequency):
        roll = np.zeros((6, 88))
        roll[2:4, note - 21] = 1
        sound = synthesise(roll, 2.0, RATE)
        assert sound.dtype == np.float32
        assert len(sound) == 3 * RATE + round(0.08 * RATE)
        assert np.abs(sound).max() == pytest.approx(0.9)
        assert (sound[:RATE] == 0).all()
        assert (sound[round(2.1 * RATE) :] == 0).all()
        spectrum = np.abs(np.fft.rfft(sound[RATE : 2 * RATE]))
        assert spectrum.argmax() == pytest.approx(frequency, abs=1)
        early, late = (np.abs(sound[round(s * RATE) : round((s + 0.1) * RATE)]).max() for s in (1.05, 1.85))
        assert late < 0.5 * early  # it dies away
        assert np.abs(sound[RATE : RATE + 4]).max() < 0.15  # no click where it begins or ends
        assert np.abs(sound[round(2.08 * RATE) - 4 : round(2.08 * RATE)]).max() < 0.01

    def test_chords_sound_together_and_silence_is_silent(self):
        roll = np.zeros((2, 88))
        roll[:, [60 - 21, 69 - 21]] = 1
        spectrum = np.abs(np.fft.rfft(synthesise(roll, 2.0, RATE)[:RATE]))
        assert min(spectrum[260:264].max(), spectrum[440]) > 20 * np.median(spectrum)
        silent = synthesise(np.zeros((2, 88)), 2.0, RATE)
        assert (silent == 0).all()
        high = np.zeros((2, 88))
        high[:, 87] = 1  # 4186 Hz, above half the rate: nothing that would fold back
        assert (synthesise(high, 2.0, RATE) == 0).all()

    @pytest.mark.parametrize(
        "call, words",
        [
            (lambda: roll_picture(np.zeros(88)), "roll: expected"),
            (lambda: roll_picture(np.zeros((0, 88))), "roll: expected"),
            (lambda: roll_picture(np.full((2, 88), 0.5)), "roll: expected 0 and 1, got values from 0.5 to 0.5"),
            (lambda: roll_picture(chorale(), np.zeros(8)), "bits: expected"),
            (lambda: roll_figure(chorale(), np.zeros(7)), r"bits: expected \(8,\) or \(8, 88\), got \(7,\)"),
            (lambda: roll_figure(chorale(), np.full(8, np.nan)), "bits: .* NaN"),
            (lambda: roll_figure(chorale(), steps_per_second=0), "steps_per_second: .* got 0"),
            (lambda: roll_figure(chorale(), window=0), "window: .* got 0"),
            (lambda: synthesise(chorale(), 0), "steps_per_second: .* got 0"),
            (lambda: synthesise(chorale(), 2, 0), "rate: .* got 0"),
            (lambda: synthesise(np.zeros((2, 2, 2)), 2), "roll: expected"),
        ],
    )
    def test_bad_input_is_named(self, call, words):
        with pytest.raises(ValueError, match=words):
            call()


def planted(length=2000, where=((300, 340), (900, 905), (1990, 2000)), seed=0):
    bits = np.random.default_rng(seed).uniform(0, 4, size=length)
    for start, stop in where:
        bits[start:stop] = 10
    return bits


class TestSeries:
    def test_planted_anomalies_are_found_exactly(self):
        found = stretches(planted(), threshold=5)
        assert found == [(300, 340, 10.0), (900, 905, 10.0), (1990, 2000, 10.0)]

    def test_small_gaps_are_merged_and_count_in_the_mean(self):
        bits = planted(where=((0, 10), (13, 20), (24, 30)))
        bits[10:13], bits[20:24] = 1, 1
        assert [s[:2] for s in stretches(bits, 5)] == [(0, 10), (13, 20), (24, 30)]
        assert [s[:2] for s in stretches(bits, 5, merge=2)] == [(0, 10), (13, 20), (24, 30)]
        assert [s[:2] for s in stretches(bits, 5, merge=3)] == [(0, 20), (24, 30)]
        whole = stretches(bits, 5, merge=4)
        assert whole == [(0, 30, pytest.approx((23 * 10 + 7) / 30))]

    @pytest.mark.parametrize("seed", range(6))
    def test_stretches_agree_with_a_plain_loop(self, seed):
        rng = np.random.default_rng(seed)
        bits, merge = rng.normal(size=60), int(rng.integers(4))
        wanted: list[list[int]] = []
        for t in np.flatnonzero(bits > 0.3):
            if wanted and t - wanted[-1][1] <= merge:
                wanted[-1][1] = int(t) + 1
            else:
                wanted.append([int(t), int(t) + 1])
        found = stretches(bits, 0.3, merge)
        assert [[s.start, s.stop] for s in found] == wanted
        for start, stop, mean in found:
            assert mean == pytest.approx(bits[start:stop].mean())

    def test_nothing_all_and_infinity(self):
        assert stretches(np.zeros(5), 0) == []
        assert stretches(np.ones(5), 0) == [(0, 5, 1.0)]
        assert stretches(np.array([0, np.inf, 0]), 100)[0].mean_bits == np.inf

    def test_stretches_are_shaded_in_each_panel_where_they_are(self):
        values = np.random.default_rng(1).normal(size=(2000, 2))
        found = stretches(planted(), 5)
        figure = series_figure(values, planted(), names=["flow, l/s", "<heat>"], found=found, threshold=5)
        shades = np.concatenate([boxes(e) for e in elements(figure, "stretch")])
        assert len(shades) == 3 * 3  # two columns and the surprise
        np.testing.assert_allclose(shades[:3, 0], [across(s.start / 2000) for s in found], atol=0.01)
        assert shades[0, 2] == pytest.approx(INNER * 40 / 2000, abs=0.01)
        assert len(elements(figure, "limit")) == 1
        for words in ("flow, l/s", "&lt;heat&gt;", "bits per step; threshold 5", ">step<"):
            assert words in figure.svg()
        assert Image.open(io.BytesIO(figure.png())).size == (2 * figure.width, 2 * figure.height)

    def test_values_and_surprise_share_their_steps(self):
        values, bits = np.zeros(100), np.full(100, -3.0)  # densities may cost less than 0 bits
        values[80], bits[80] = 5, 7
        figure = series_figure(values, bits)
        line, stairs = points(elements(figure, "trace")[0]), points(elements(figure, "news")[0])
        assert line[line[:, 1].argmin(), 0] == pytest.approx(across(0.805), abs=0.1)
        top = stairs[stairs[:, 1] == stairs[:, 1].min(), 0]
        np.testing.assert_allclose(top, [across(0.80), across(0.81)], atol=0.1)
        assert "mean −2.90" in figure.svg()

    def test_missing_values_are_gaps_in_long_series_too(self):
        for length in (100, 50_000):
            values = np.sin(np.arange(length) / 9.0)
            values[length // 2 : length * 3 // 4] = np.nan
            lines = [points(e) for e in elements(series_figure(values, np.ones(length)), "trace")]
            assert len(lines) == 2
            assert lines[0][-1, 0] == pytest.approx(across(0.5), abs=5)
            assert lines[1][0, 0] == pytest.approx(across(0.75), abs=5)
        series_figure(np.full(5, np.nan), np.ones(5)).png()
        series_figure(np.full(5, 3.0), np.ones(5)).png()

    def test_a_table_lists_the_worst_first(self):
        found = [Stretch(5, 8, 6.0), Stretch(2000, 2001, 9.5), Stretch(30, 31, 7.0)]
        table = stretch_table(found, most=2)
        assert table.rows == [["2,000", "2,000", "1", "9.50"], ["30", "30", "1", "7.00"]]
        assert "1 more" in table.caption
        times = [f"day {t}" for t in range(3000)]
        assert stretch_table(found, times=times).rows[2][:2] == ["day 5", "day 7"]

    @pytest.mark.parametrize(
        "call, words",
        [
            (lambda: stretches(np.zeros((2, 2)), 1), "bits: expected a sequence"),
            (lambda: stretches(np.array([np.nan]), 1), "bits: .* got nan"),
            (lambda: stretches(np.zeros(2), np.nan), "threshold: .* NaN"),
            (lambda: stretches(np.zeros(2), 1, merge=-1), "merge: .* got -1"),
            (lambda: series_figure(np.zeros((3, 9)), np.zeros(3)), r"values: expected .* got shape \(3, 9\)"),
            (lambda: series_figure(np.zeros(3), np.zeros(4)), "bits: expected .* 3 steps, got 4"),
            (lambda: series_figure(np.zeros(3), np.zeros(3), names=["a", "b"]), "names: expected 1, got 2"),
            (lambda: series_figure(np.zeros(3), np.zeros(3), window=0), "window: .* got 0"),
        ],
    )
    def test_bad_input_is_named(self, call, words):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_score_without_an_interval_shows_none():
    def section(interval):
        found = Surprise([np.log([0.5, 0.5])], None, interval, 0.95)
        scored = ScoredSequences("LSTM", found, [], "step", True)
        return render(Content("x", sections=[sequence_score_section(scored, "rows")]))

    assert "bootstrap interval" in section((0.6, 0.8))
    assert "bootstrap interval" not in section((0.7, 0.7))
