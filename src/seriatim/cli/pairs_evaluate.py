"""How near the targets that a search finds are to those of the data: BLEU, and the share that is the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from seriatim.cli.loading import Run
from seriatim.cli.output import say
from seriatim.cli.pairs import BEAMS, LENGTH_PENALTY, search
from seriatim.cli.sequence_rows import SequenceRows


@dataclass(frozen=True)
class Agreement:
    """Targets that were searched for, beside those of the data.

    Attributes:
        num_beams: the width of the search.
        same: (N,) bool, which targets are those of the data, character by character.
        num_cut: how many were cut at the model's length, before their end.
        bleu: sacreBLEU of all targets together, cased, of the texts as they are (13a); None without the library.
        signature: of that score, which tells its settings and its version.
        groups: (N,) the name of the group that each pair is of, where the data have one attribute.
    """

    num_beams: int
    same: np.ndarray
    num_cut: int
    bleu: float | None
    signature: str | None
    groups: list[str] | None = None

    @property
    def accuracy(self) -> float:
        """The share of the targets that are those of the data."""
        return float(self.same.mean())

    @property
    def by_group(self) -> dict[str, float]:
        """The same of each group."""
        names = np.array(self.groups or [])
        return {str(name): float(self.same[names == name].mean()) for name in dict.fromkeys(self.groups or [])}

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        facts: dict[str, Any] = {"num_beams": self.num_beams, "length_penalty": LENGTH_PENALTY, "bleu": self.bleu}
        facts |= {"bleu_signature": self.signature, "exact_match": self.accuracy, "num_cut": self.num_cut}
        return facts | ({"exact_match_by_group": self.by_group} if self.groups else {})

    def lines(self) -> list[str]:
        """Return it for people."""
        how = "greedy" if self.num_beams == 1 else f"{self.num_beams} beams"
        lines = [] if self.bleu is None else [f"sacreBLEU: {self.bleu:.2f} ({how}; {self.signature})"]
        lines.append(f"exact match: {self.accuracy:.4f} of {len(self.same):,} targets ({how})")
        lines += [f"  {name}: {share:.4f}" for name, share in self.by_group.items()]
        if self.num_cut:
            lines.append(f"cut at the model's length, before their end: {self.num_cut:,} targets")
        return lines


def agreement_of(
    run: Run, rows: SequenceRows, *, num_beams: int = BEAMS, groups: list[str] | None = None, batch_size: int = 64
) -> Agreement:
    """Search for a target of each source, and compare it with that of the data.

    Args:
        run: of pairs.
        rows: with their sources.
        num_beams: the width of the search; 1 is greedy.
        groups: the name of the group that each pair is of.
        batch_size: sources at a time.
    """
    assert rows.sources is not None
    decode = run.model.codec.decode
    options = {"length_penalty": LENGTH_PENALTY, "max_length": run.model.event_shape[0], "batch_size": batch_size}
    say(f"searching for the targets of {len(rows.sources):,} sources (beam width {num_beams}; --beams 0 leaves it out)")
    found = [own[0] for own in search(run, rows.sources, num_beams=num_beams, **options)]
    texts = [decode(one.values.cpu().numpy()) for one in found]
    references = [decode(own) for own in rows.values]
    same = np.array([text == reference for text, reference in zip(texts, references, strict=True)])
    cut = sum(not one.finished for one in found)
    return Agreement(num_beams, same, cut, *bleu_of(texts, references), groups)


def bleu_of(texts: list[str], references: list[str]) -> tuple[float | None, str | None]:
    """Return sacreBLEU of texts and its signature; None for both, and a message, where the library is missing.

    Reference: A Call for Clarity in Reporting BLEU Scores (Post, 2018).

    Example:
        >>> round(bleu_of(["the cat sat on the mat"], ["the cat sat on a mat"])[0], 1)
        53.7
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        say("sacreBLEU: not computed, for sacrebleu is not installed: pip install 'seriatim[text]'")
        return None, None
    metric = BLEU()
    score = metric.corpus_score(texts, [references])
    return float(score.score), str(metric.get_signature())
