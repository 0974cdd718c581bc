"""Attention as a picture: a heat map for each layer or head, with the tokens beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seriatim.report.figures import Figure
from seriatim.report.pictures import heat_colours

CELL = 14  # pixels of a weight
_LETTER, _WORD = 6.2, 12  # pixels of a letter, letters of a word that are shown
_GAP, _TITLE, _EDGE, _LEAST = 22, 34, 10, 540
_QUANTILE = 0.99


class Tokens(NamedTuple):
    """What stands beside a map: the words of its rows and of its columns."""

    rows: Sequence[str]
    columns: Sequence[str]


def attention_figure(maps: Mapping[str, np.ndarray], tokens: Mapping[str, Tokens], *, each: str = "layer") -> Figure:
    """Draw maps of attention as a grid: a line for each name, side by side its layers or heads.

    Dark is 0; the palest yellow is a weight that one in a hundred exceeds, told for each name in the first line.

    Args:
        maps: name -> (M, n, S), M maps of the weights of n positions on S others.
        tokens: name -> the words of the n rows and the S columns.
        each: what the M maps are, for their titles: "layer", "layer 2, head".

    Raises:
        ValueError: no maps, another shape, or another number of words.

    Example:
        >>> figure = attention_figure({"cross": np.full((2, 1, 2), 0.5)}, {"cross": Tokens(["dog"], ["der", "Hund"])})
        >>> svg = figure.svg()
        >>> svg.count("<image"), "layer 2" in svg, svg.count("Hund")
        (2, True, 2)
    """
    if not maps:
        raise ValueError("maps: expected one or more, got none")
    for name, own in maps.items():
        wanted = (len(tokens[name].rows), len(tokens[name].columns))
        if own.ndim != 3 or own.shape[1:] != wanted:
            raise ValueError(f"maps: expected {name} of shape (M, {wanted[0]}, {wanted[1]}), got {own.shape}")
    left = {name: _pixels(tokens[name].rows) + _EDGE for name in maps}
    above = {name: _pixels(tokens[name].columns) + _TITLE for name in maps}
    width = max(_EDGE + len(own) * (left[name] + own.shape[2] * CELL + _GAP) for name, own in maps.items())
    height = _TITLE + sum(above[name] + own.shape[1] * CELL + _GAP for name, own in maps.items())
    largest = {name: float(np.quantile(own, _QUANTILE)) for name, own in maps.items()}
    figure = Figure(height, f"attention: {', '.join(maps)}", max(width, _LEAST))
    scale = ", ".join(f"{name} {weight:.2f}" for name, weight in largest.items())
    figure.text(_EDGE, 20, f"rows look at columns; dark: 0, pale yellow: {scale} and more")
    top = _TITLE
    for name, own in maps.items():
        for number, weights in enumerate(own):
            x = _EDGE + number * (left[name] + own.shape[2] * CELL + _GAP) + left[name]
            _panel(figure, weights, tokens[name], (x, top + above[name]), largest[name])
            figure.text(x, top + 14, f"{name}, {each} {number + 1}", anchor="start")
        top += above[name] + own.shape[1] * CELL + _GAP
    return figure


def _panel(figure: Figure, weights: np.ndarray, tokens: Tokens, corner: tuple[int, int], largest: float) -> None:
    """One map with its words; the corner is its left and its top."""
    x, y = corner
    n, s = weights.shape
    colours = heat_colours(weights, largest).repeat(CELL, axis=0).repeat(CELL, axis=1)
    figure.picture(colours, (x, y, s * CELL, n * CELL))
    for row, word in enumerate(tokens.rows):
        figure.text(x - 5, y + (row + 1) * CELL - 3, _short(word), kind="tick", anchor="end")
    for column, word in enumerate(tokens.columns):
        figure.text(x + (column + 1) * CELL - 3, y - 5, _short(word), kind="tick", turned=True)


def _short(word: str) -> str:
    """A token on one line, its blanks to be seen, shortened where it is long."""
    shown = word.replace("\n", "\\n").replace("\t", "\\t").replace(" ", "_") or "~"
    return shown if len(shown) <= _WORD else shown[: _WORD - 2] + ".."


def _pixels(words: Sequence[str]) -> int:
    """The room that the longest of some words takes."""
    return round(max(len(_short(word)) for word in words) * _LETTER) + 8
