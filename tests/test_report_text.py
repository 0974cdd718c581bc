"""Texts in reports: tokens coloured by their bits can be read, copied and pointed at."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from report_checks import across, elements, needs_nothing, points
from seriatim.report.text import EDGES, characters, coloured_tokens, text_figure, text_page, visible


class Reader(HTMLParser):
    """The lines of coloured tokens, and of each token its class, hint and text."""

    def __init__(self):
        super().__init__()
        self.lines, self.tokens, self.depth = [], [], 0

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "div" and (self.depth or found.get("class") == "tokens"):
            self.depth += 1
            self.lines += [""] * (self.depth == 2)
        elif self.depth and tag == "i":
            self.tokens.append([found["class"], found["title"], ""])

    def handle_endtag(self, tag):
        self.depth -= tag == "div" and self.depth > 0

    def handle_data(self, data):
        if self.depth:
            self.lines[-1] += data
            self.tokens[-1][2] += data


def read(html):
    reader = Reader()
    reader.feed(str(html))
    return reader


class TestText:
    def test_the_text_can_be_read_and_copied_from_the_page(self):
        text = "To be,\n\n  or <b>not</b> & so on\tünïcödé 日本\nend"
        found = read(coloured_tokens(list(text), np.ones(len(text))))
        assert "\n".join(found.lines) == text
        assert len(found.tokens) == len(text)
        assert read(coloured_tokens(["a\n", "b\n"], np.ones(2))).lines == ["a", "b"]
        assert read(coloured_tokens(["a\n\nb"], np.ones(1))).lines == ["a", "", "b"]

    def test_colours_and_hints_are_those_of_the_bits(self):
        bits = np.array([0.0, 0.99, 1.0, 2.5, 3.99, 4.0, 7.0, 11.9, 12.0, 60.0, np.inf])
        found = read(coloured_tokens(list("abcdefghijk"), bits)).tokens
        assert [token[0] for token in found] == ["c0", "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c7", "c7"]
        assert found[2][1] == "1.00 bits, p = 0.5"
        assert found[3][1] == "2.50 bits, p = 0.177"
        assert found[-1][1] == "impossible, p = 0"
        both = read(coloured_tokens(["x\ny"], np.array([5.0]))).tokens
        assert both == [["c4", "5.00 bits, p = 0.0312", "x"], ["c4", "5.00 bits, p = 0.0312", "y"]]

    def test_the_page_has_a_colour_for_every_class_and_a_key(self):
        html = text_page(list("ab"), np.ones(2), title="t")
        style = html[: html.index("</style>")]
        assert [int(k) for k in re.findall(r"\.c(\d+) \{", style)] == list(range(len(EDGES) + 1))
        alphas = [float(a) for a in re.findall(r"\.c\d+ \{ background: rgba\(var\(--shade\), ([\d.]+)\)", style)]
        assert alphas == sorted(set(alphas))
        assert len(alphas) == len(EDGES) + 1
        for words in ("< 1", "1–2", "8–12", "≥ 12", "bits per token"):
            assert words.replace("<", "&lt;") in html

    @pytest.mark.parametrize(
        "token, shown",
        [
            ("\x00", "<b>\\x00</b>"),
            ("\x1b[1m", "<b>\\x1b</b>[1m"),
            ("\r", "<b>\\r</b>"),
            ("\udcff", "<b>\\xff</b>"),
            ("\ud800", "<b>\\ud800</b>"),
            ("\u202e", "<b>\\u202e</b>"),
            ("\u00a0", "<b>\\xa0</b>"),
            ("\u2028", "<b>\\u2028</b>"),
            ("\U000e0001", "<b>\\U000e0001</b>"),
            ("\u0301", "◌\u0301"),
            ("<script>", "&lt;script&gt;"),
            ("\t", '<u class="tab">\t</u>'),
            (" ", "<u> </u>"),
            (" be", " be"),
            ("a <b> & c", "a &lt;b&gt; &amp; c"),
            ("a  b", "a<u> </u><u> </u>b"),
        ],
    )
    def test_what_is_invisible_is_shown(self, token, shown):
        assert str(visible(token)) == shown
        coloured_tokens([token], np.ones(1)).encode("utf-8")  # no surrogate is left

    def test_bytes_become_characters_with_the_sum_of_their_bits(self):
        data = "aé日🙂".encode() + b"\xc3\x28\xff"
        bits = 2.0 ** np.arange(len(data))
        found, sums = characters(data, bits)
        assert found == ["a", "é", "日", "🙂", "\udcc3", "(", "\udcff"]
        assert sums.sum() == bits.sum()
        assert sums[:3].tolist() == [1, 6, 56]
        assert "".join(found).encode("utf-8", "surrogateescape") == data
        assert characters(b"", np.zeros(0))[0] == []

    def test_a_page_of_a_long_text_stays_small_and_says_what_it_leaves_out(self, monkeypatch):
        monkeypatch.setattr("seriatim.report.text.MAX_SHOWN", 5000)
        rng = np.random.default_rng(0)
        text = "".join(rng.choice(list("abcdefgh \n"), size=6000))
        bits = rng.exponential(2, size=6000)
        html = text_page(list(text), bits, title="long", unit="character")
        assert len(html) < 60_000 + 5000 * 65  # so that the 100,000 of a usual page are some 6 MB
        assert "The first 5,000 of 6,000 characters." in html
        assert f"{bits.sum():,.1f}" in html  # the numbers are of all
        assert read(html).tokens[0][1].startswith(f"{bits[0]:.2f} bits")
        assert "\n".join(read(html).lines).rstrip("\n") == text[:5000].rstrip("\n")
        needs_nothing(html)

    def test_a_page_says_what_the_text_costs(self):
        tokens = ["Zoë", " ", "\udcff", "x" * 90, "\n"]
        bits = np.array([4.0, 1.0, 8.0, 15.0, 2.0])
        html = text_page(tokens, bits, title="a <title>", subtitle="sub & title", note="Exact.")
        size = 4 + 1 + 1 + 90 + 1
        assert f'<div class="value">{30 / size:.3f}</div><div class="unit">bits per byte' in html
        assert '<div class="value">6.000</div><div class="unit">bits per token' in html
        assert "a &lt;title&gt;" in html
        assert "<td class=m>\\xff</td>" in html
        assert "x" * 40 + "…" in html
        for context in ("Zoë ", "x" * 12, "x" * 28):  # what stood before and behind, next to the token
            assert f"<td class=m>{context}</td>" in html
        html.encode("utf-8")
        needs_nothing(html)
        assert "∞" in text_page(["a"], np.array([np.inf]), title="t")
        assert "bits per byte" in text_page(list("ab"), np.ones(2), title="t", unit="byte")

    def test_the_surprise_along_a_text_is_drawn(self):
        bits = np.ones(1000)
        bits[700:720] = 9
        line = points(elements(text_figure(bits), "news")[0])
        assert line[line[:, 1].argmin(), 0] == pytest.approx(across(0.71), abs=8)

    @pytest.mark.parametrize(
        "bits, words",
        [
            (np.ones(3), "bits: expected .* 2 steps, got 3"),
            (np.array([1, np.nan]), "bits: .* got nan at step 1"),
            (np.array([1, -0.5]), "bits: expected 0 or more, got -0.5 at step 1"),
            (np.ones((2, 1)), "bits: expected a sequence"),
        ],
    )
    def test_bad_bits_are_named(self, bits, words):
        with pytest.raises(ValueError, match=words):
            coloured_tokens(["a", "b"], bits)
        with pytest.raises(ValueError, match=words):
            text_page(["a", "b"], bits, title="t")

    def test_nothing_is_no_text(self):
        assert read(coloured_tokens([], np.zeros(0))).lines == []
        with pytest.raises(ValueError, match="bits"):
            coloured_tokens([], np.ones(1))
        with pytest.raises(ValueError, match="bits"):
            text_page([], np.zeros(0), title="t")
