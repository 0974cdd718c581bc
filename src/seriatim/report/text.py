"""Text on a page: tokens coloured by the bits they cost, with all that is invisible made visible."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup, escape

from seriatim.report.figures import Figure
from seriatim.report.page import Block, Content, Headline, Html, Section, Table, render
from seriatim.report.panels import AXIS, TITLE, along, checked, surprise_panel

EDGES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Bits at which a class of colours ends and the next begins: fixed, so that pages compare; the page has the colours."""

MAX_SHOWN = 100_000
"""Tokens that a page shows; its numbers are of all."""

_BEFORE, _AFTER, _MOST = 28, 12, 10  # characters of context, rows of the table
_LONGEST = 40  # characters of a token in the table
_LONG = 200  # tokens from which the surprise along the text is drawn


def characters(data: bytes, bits: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return bytes as characters with the bits of each, the sum over its bytes; invalid UTF-8 stays byte by byte.

    Args:
        data: T bytes.
        bits: (T,), of each byte.

    Returns:
        Characters, an invalid byte as the surrogate of `errors="surrogateescape"`, and their bits.

    Raises:
        ValueError: bits of another length, or NaN.

    Example:
        >>> found, bits = characters("é!".encode() + bytes([255]), np.array([2.0, 1.0, 4.0, 8.0]))
        >>> found, bits.tolist()
        (['é', '!', '\\udcff'], [3.0, 4.0, 8.0])
    """
    if not data:
        return [], np.zeros(0)
    bits = checked("bits", bits, length=len(data))
    found = list(data.decode("utf-8", "surrogateescape"))
    lengths = [len(c.encode("utf-8", "surrogateescape")) for c in found]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return found, np.add.reduceat(bits, starts)


def visible(token: str) -> Markup:
    """Return a token without line breaks as HTML in which all can be seen.

    Control characters, invalid bytes and other invisible characters are escapes; a space is a dot (which the style of
    the page draws) where it stands alone or beside another; a combining mark that begins a token stands on a circle.

    Example:
        >>> print(visible("a<b\\x07"), visible("\\udcff"), visible(" "))
        a&lt;b<b>\\x07</b> <b>\\xff</b> <u> </u>
    """
    if token.isprintable() and " " not in token:
        start = "◌" if token and unicodedata.combining(token[0]) else ""
        return escape(start + token)
    lone = not token.strip(" ")
    parts = []
    for place, c in enumerate(token):
        if c == " " and (lone or " " in token[max(0, place - 1) : place] + token[place + 1 : place + 2]):
            parts.append("<u> </u>")
        elif c == "\t":
            parts.append('<u class="tab">\t</u>')
        elif c.isprintable():
            parts.append(str(escape(c)))
        else:
            parts.append(f"<b>{_escaped(c)}</b>")
    return Markup("".join(parts))


def coloured_tokens(tokens: Sequence[str], bits: np.ndarray, *, unit: str = "token") -> Markup:
    """Return a text as HTML, each token on a colour by its bits; bits and probability show when the mouse is over it.

    Each line is laid out when it is scrolled to, so that 100,000 tokens stay quick.

    Args:
        tokens: characters, words or pieces, in order; joined they are the text. A lone byte may be a surrogate, as
            `characters` returns it.
        bits: (T,), -log2 p of each token given those before it; infinite where it was impossible.
        unit: what a token is, for the legend.

    Raises:
        ValueError: bits of another length, NaN, or below 0.

    Example:
        >>> html = coloured_tokens(["to", " be", "\\n"], np.array([0.5, 3.2, 7.0]))
        >>> '<i class="c3" title="3.20 bits, p = 0.109"> be</i>' in html, html.count("<div>")
        (True, 1)
    """
    if not len(tokens) and not len(bits):
        return Markup(f'{_legend(unit)}<div class="tokens"></div>')
    bits = _checked(tokens, bits)
    classes = np.searchsorted(EDGES, bits, side="right").tolist()
    lines: list[list[str]] = [[]]
    for token, own, cost in zip(tokens, classes, bits.tolist(), strict=True):
        start = f'<i class="c{own}" title="{_title(cost)}">'
        *broken, last = token.split("\n")
        for part in broken:
            lines[-1].append(f'{start}{visible(part)}<u class="break"></u></i>')
            lines.append([])
        if last or not broken:
            lines[-1].append(f"{start}{visible(last)}</i>")
    if len(lines) > 1 and not lines[-1]:  # the text ends with a line break: no line begins after it
        lines.pop()
    body = "".join(f"<div>{''.join(line)}</div>" for line in lines)
    return Markup(f'{_legend(unit)}<div class="tokens">{body}</div>')


def text_figure(bits: np.ndarray, *, unit: str = "token") -> Figure:
    """Draw the surprise along a text, as a moving mean over a hundredth of it.

    Args:
        bits: (T,), of each token.
        unit: what a token is.

    Raises:
        ValueError: no bits, or NaN.

    Example:
        >>> "bits per byte, mean over 5 bytes" in text_figure(np.ones(500), unit="byte").svg()
        True
    """
    bits = checked("bits", bits)
    window = max(1, len(bits) // 100)
    figure = Figure(TITLE + 110 + AXIS, f"surprise over {len(bits):,} {unit}s")
    title = f"surprise, bits per {unit}" + (f", mean over {window:,} {unit}s" if window > 1 else "")
    along(figure, surprise_panel(figure, (TITLE, 110), (0, len(bits)), bits, title, window), unit, whole=True)
    return figure


def text_page(
    tokens: Sequence[str], bits: np.ndarray, *, title: str, subtitle: str = "", unit: str = "token", note: str = ""
) -> str:
    """Return a whole page that explains a text: what it costs, its coloured tokens, and the most surprising of them.

    Args:
        tokens: characters, words or pieces, in order.
        bits: (T,), -log2 p of each.
        title: of the page.
        subtitle: below it.
        unit: what a token is.
        note: what the bits are, below the text.

    Raises:
        ValueError: no tokens, bits of another length, NaN, or below 0.

    Example:
        >>> html = text_page(["a", "b"], np.array([1.0, 3.0]), title="a <page>", unit="character")
        >>> "a &lt;page&gt;" in html, "bits per character" in html
        (True, True)
    """
    bits = _checked(tokens, bits)
    size = sum(map(_size, "".join(tokens)))
    shown = [
        Headline(_number(bits.mean(), 3), f"bits per {unit}", "Mean surprise", f"{len(tokens):,} {unit}s"),
        Headline(_number(bits.sum(), 1), "bits", "Of the whole text", "−log₂ p"),
        Headline(_number(bits.max(), 2), "bits", "Most surprising", f"at {unit} {int(bits.argmax()) + 1:,}"),
    ]
    if unit != "byte" and size:
        shown.insert(1, Headline(_number(bits.sum() / size, 3), "bits per byte", "The same by size", f"{size:,} bytes"))
    if len(tokens) > MAX_SHOWN:
        note = f"The first {MAX_SHOWN:,} of {len(tokens):,} {unit}s. {note}".strip()
    blocks: list[Block] = [Html(coloured_tokens(tokens[:MAX_SHOWN], bits[:MAX_SHOWN], unit=unit), note)]
    if len(tokens) >= _LONG:
        blocks.insert(0, Html(text_figure(bits, unit=unit).svg()))
    lead = f"The colour is −log₂ p of each {unit} given those before it; rest the mouse on one to read its bits."
    sections = [Section("Where the bits go", blocks, lead), Section("What surprised most", [_most(tokens, bits, unit)])]
    return render(Content(title, subtitle, shown, sections))


def _most(tokens: Sequence[str], bits: np.ndarray, unit: str) -> Table:
    """Return the tokens that cost most, each after what stood before it."""
    rows = []
    for place in np.argsort(-bits, kind="stable")[:_MOST].tolist():
        before = "".join(tokens[max(0, place - _BEFORE) : place])[-_BEFORE:]
        after = "".join(tokens[place + 1 : place + 1 + _AFTER])[:_AFTER]
        token = tokens[place] if len(tokens[place]) <= _LONGEST else tokens[place][:_LONGEST] + "…"
        cells = (_plain(text) for text in (before, token, after))
        rows.append([f"{place + 1:,}", *cells, _number(bits[place], 2), f"{2.0 ** -bits[place]:.2g}"])
    header = (unit, "after", "came", "and then", "bits", "p")
    return Table(header, rows, "Line breaks are ↵, tabs ⇥.", numeric=(0, 4, 5), mono=(1, 2, 3))


def _plain(text: str) -> str:
    marks = {"\n": "↵", "\t": "⇥"}
    shown = "".join(marks.get(c) or (c if c.isprintable() else _escaped(c)) for c in text)
    return shown.replace(" ", "␣") if not shown.strip(" ") else shown


def _escaped(c: str) -> str:
    """Return the escape of a character, of a byte for the surrogate that stands for one."""
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    named = {9: "\\t", 10: "\\n", 13: "\\r"}
    return named.get(code) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    )


def _title(bits: float) -> str:
    return "impossible, p = 0" if math.isinf(bits) else f"{bits:.2f} bits, p = {2.0**-bits:.3g}"


def _size(c: str) -> int:
    """Return the bytes of a character, one where it stands for a lone byte."""
    return 1 if 0xDC80 <= ord(c) <= 0xDCFF else len(c.encode("utf-8", "surrogatepass"))


def _number(value: float, digits: int) -> str:
    return "∞" if math.isinf(value) else f"{value:,.{digits}f}"


def _legend(unit: str) -> str:
    names = [f"< {EDGES[0]:g}", *(f"{low:g}–{high:g}" for low, high in pairwise(EDGES))]
    names.append(f"≥ {EDGES[-1]:g}")
    least = (*(f"p above 1/{2**edge:g}" for edge in EDGES), f"p of 1/{2 ** EDGES[-1]:g} or less")
    cells = "".join(
        f'<span title="{p}"><i class="c{k}"></i>{escape(name)}</span>'
        for k, (name, p) in enumerate(zip(names, least, strict=True))
    )
    return f'<div class="bits-key">{cells}<span class="unit">bits per {escape(unit)}</span></div>'


def _checked(tokens: Sequence[str], bits: np.ndarray) -> np.ndarray:
    bits = checked("bits", bits, length=len(tokens))
    if (bits < -1e-3).any():
        raise ValueError(f"bits: expected 0 or more, got {bits.min():.4g} at step {int(bits.argmin())}")
    return np.maximum(bits, 0.0)
