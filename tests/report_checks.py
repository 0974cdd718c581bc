"""What tests of figures in reports share: shapes of a figure, and pages that need no network."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np

from seriatim.report.charts import WIDTH
from seriatim.report.panels import LEFT, RIGHT

INNER = WIDTH - LEFT - RIGHT


def elements(figure, kind, tag="*"):
    """The shapes of one kind in a figure, which must be well-formed XML."""
    tree = ElementTree.fromstring(figure.svg_file())
    found = [e for e in tree.iter() if e.get("class") == kind]
    return [e for e in found if tag in ("*", e.tag.split("}")[1])]


def points(element):
    return np.array([[float(v) for v in pair.split(",")] for pair in element.get("points").split()])


def boxes(element):
    """Left, top, width and height of the boxes of a path."""
    found = re.findall(r"M([\d.-]+) ([\d.-]+)h([\d.-]+)v([\d.-]+)h", element.get("d"))
    return np.array([[float(v) for v in box] for box in found])


def across(share):
    """How far from the left a share of the horizontal axis stands."""
    return LEFT + share * INNER


def needs_nothing(html):
    links = re.findall(r"""(?:src|href)=["'](.{0,5})""", html)
    assert set(links) <= {"data:"}
    assert "url(" not in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "<script" not in html
