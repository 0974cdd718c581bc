"""`beam_search`: the most probable sequences that a search of bounded width finds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim import engine as native_engine
from seriatim.autoregressive import Autoregressive, rollout
from seriatim.ending import Ending, ValueOrEnd
from seriatim.engine import Best, Ranker
from seriatim.heads import Categorical
from seriatim.model import AutoregressiveModel
from seriatim.tasks.rows import Joint, as_joint, in_eval_mode, take

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision, Program


_GREEDY = 8  # positions that rows side by side are run between looks at which have ended


class Hypothesis(NamedTuple):
    """A sequence found.

    Attributes:
        values: (n,) without the end; of a model without an end one row of data.
        log_prob: in nats; of the end too, where it has one.
        score: log_prob over the length penalty.
        finished: False where the sequence was cut at the limit, before its end.
    """

    values: Tensor
    log_prob: float
    score: float
    finished: bool


@torch.no_grad()
def beam_search(
    model: AutoregressiveModel | Joint,
    context: Any = None,
    *,
    num_beams: int = 4,
    length_penalty: float = 0.0,
    max_length: int | None = None,
    n_best: int = 1,
    batch_size: int = 64,
    engine: Engine = "auto",
    precision: Precision = "float32",
) -> list[list[Hypothesis]]:
    """Find probable sequences of symbols: of all continuations of `num_beams` sequences, keep the most probable.

        score(x) = log p(x | c) / ((5 + n) / 6)^length_penalty,    n = its values and its end

    An ended sequence is kept where its log p is among the `num_beams` greatest of that position. A search ends when
    so many have ended, or when no sequence alive can reach the score of the `n_best`-th found. One beam is the greedy
    choice. Wide enough, the search is exhaustive.

    Args:
        model: a model, or one order of it, of batch shape () or (N,): its places hold symbols, with an end or without.
        context: of the N rows, (N, *context event), or of one; None with a distribution.
        num_beams: how many sequences are kept at each position.
        length_penalty: 0 ranks by log p, greater numbers favour longer sequences (the paper of the Transformer: 0.6).
        max_length: positions at most, that of the end among them; the model's own length if None.
        n_best: how many to return, at most; up to `num_beams`.
        batch_size: rows at a time. Sources of like lengths side by side are faster.
        engine: as for `Autoregressive.sample`, a program being one lowered with `draw=False`: it finds the same.
        precision: "bf16-weights" searches sooner, in a model whose matrices are rounded to bfloat16, natively only.

    Returns:
        For each row (one for a batch shape of ()) its hypotheses, the best first: fewer than `n_best` where there are
        no more.

    Raises:
        ValueError: values that are no symbols, an ensemble of orders, a number out of its range, or "native" for a
            model without it.

    References: Sequence to Sequence Learning with Neural Networks (Sutskever, Vinyals, Le, 2014); for the penalty,
    Google's Neural Machine Translation System (Wu et al., 2016).

    Example:
        >>> from seriatim.models import LSTM
        >>> _ = torch.manual_seed(0)
        >>> model = LSTM((3,), Categorical(2), hidden_features=4)
        >>> best, second = beam_search(model, num_beams=8, n_best=2)[0]
        >>> bool(best.log_prob >= second.log_prob), best.values.shape, best.finished
        (True, torch.Size([3]), True)
    """
    joint = as_joint(model, context)
    if not isinstance(joint, Autoregressive):
        raise ValueError("model: expected a model or one order of it, got an ensemble of orders")
    head = joint.model.head
    if not isinstance(head.head if isinstance(head, Ending) else head, Categorical):
        raise ValueError(f"model: expected symbols (Categorical, Tokens), with an end or without, got {head}")
    if min(num_beams, batch_size) < 1:
        raise ValueError(f"num_beams, batch_size: expected 1 or more, got {num_beams} and {batch_size}")
    if not 1 <= n_best <= num_beams:
        raise ValueError(f"n_best: expected 1 to num_beams ({num_beams}), got {n_best}")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty: expected a finite number, got {length_penalty}")
    if max_length is not None and max_length != joint.order.length:
        joint = joint.model(joint.context, length=max_length).expand(joint.batch_shape)
    count = joint.batch_shape[0] if joint.batch_shape else 1
    found = []
    with in_eval_mode(joint):
        beams = min(count, batch_size) * num_beams
        asked: dict[str, Any] = {"draw": False, "precision": precision}
        program = native_engine.choose(joint.model, beams, engine, joint.order, **asked).program
        for index in torch.arange(count).split(batch_size):
            own = take(joint, index)
            assert isinstance(own, Autoregressive)
            found += _Search(own, num_beams, length_penalty, n_best).run(program)
    return found


class _Found(NamedTuple):
    """A `Hypothesis` whose values are those of positions, and not yet rows of data."""

    values: np.ndarray
    log_prob: float
    score: float
    finished: bool


class _Search:
    """The search for rows (N,) of a distribution; its beams are rows (R,), those of one source side by side."""

    def __init__(self, joint: Autoregressive, num_beams: int, length_penalty: float, n_best: int) -> None:
        self.joint, self.num_beams, self.length_penalty, self.n_best = joint, num_beams, length_penalty, n_best
        self.length, count = joint.order.length, joint.batch_shape[0]
        self.ending = isinstance(joint.model.head, Ending)
        self.source = np.arange(count)  # (R,) ascending
        self.log_prob = np.zeros(count)  # (R,)
        self.values = np.zeros((count, 0), np.int64)  # (R, t)
        self.found: list[list[_Found]] = [[] for _ in range(count)]

    def run(self, program: Program | None) -> list[list[Hypothesis]]:
        """Return the hypotheses of each source, the best first; the network is run by a program where there is one."""
        if not len(self.source):
            return []
        if program is None:
            for _ in rollout(self.joint, self._choose):
                if not len(self.source):
                    break
        elif self.num_beams == 1:
            self._run_greedy(program)
        else:
            self._run_native(program)
        return [[self._hypothesis(found) for found in own[: self.n_best]] for own in self.found]

    def _ranker(self, program: Program, count: int) -> Ranker:
        joint = self.joint
        own = program.ranked(count, ending=self.ending, greedy=self.num_beams == 1)
        rows = torch.zeros(joint.batch_shape, dtype=torch.int64)
        return Ranker(joint, native_engine.start(joint, rows, 0, own), count)

    def _run_greedy(self, program: Program) -> None:
        """Run the loop over positions natively; rows that have ended are dropped from time to time."""
        ranker, position = self._ranker(program, 1), 0
        while position < self.length and len(self.source):
            count = min(self.length - position, self.length if len(self.source) == 1 else _GREEDY)
            best = ranker.greedy(count)
            position += count
            ends = best.stop > best.log_prob[..., 0]
            ended: np.ndarray = np.asarray(ends.any(1))
            before = np.where(ended, ends.argmax(1), count)  # values, of the positions that were run
            alive, end = -np.logaddexp(0, best.stop), -np.logaddexp(0, -best.stop)
            terms = np.where(ends, end, best.log_prob[..., 0] + alive)
            for row, (source, n) in enumerate(zip(self.source.tolist(), before.tolist(), strict=True)):
                self.log_prob[row] += terms[row, : n + 1].sum()
                if ended[row] or position == self.length:
                    values = np.append(self.values[row], best.symbols[row, :n, 0])
                    finished = bool(ended[row]) or not self.ending
                    self._keep(source, values, float(self.log_prob[row]), finished=finished)
            going = np.flatnonzero(~ended)
            self.values = np.append(self.values, best.symbols[..., 0], axis=1)[going]
            self.source, self.log_prob = self.source[going], self.log_prob[going]
            if len(going) < len(ended):
                ranker.select(torch.from_numpy(going))

    def _run_native(self, program: Program) -> None:
        ranker = self._ranker(program, min(self.num_beams, program.width - int(self.ending)))
        value: np.ndarray | None = None
        for position in range(self.length):
            value, picked = self.go_on(position, ranker.best(value))
            if not len(value):
                break
            if picked is not None:
                ranker.select(torch.from_numpy(picked))

    def _choose(self, position: int, conditional: Any) -> Tensor | tuple[Tensor, Tensor]:
        """Return the values (R', 1) of the beams that go on, and the rows (R',) they continue."""
        ending = isinstance(conditional, ValueOrEnd)
        logits = (conditional.values if ending else conditional).logits[:, 0]
        log_prob, symbols = (part.cpu().numpy() for part in logits.topk(min(self.num_beams, logits.shape[-1]), dim=-1))
        stop = conditional.stop[:, 0].double().cpu().numpy() if ending else np.full(len(log_prob), -np.inf)
        value, rows = self.go_on(position, Best(log_prob.astype(np.float64), symbols, stop))
        device = logits.device
        chosen = torch.from_numpy(value)[:, None].to(device)
        return chosen if rows is None else (chosen, torch.from_numpy(rows).to(device))

    def go_on(self, position: int, best: Best) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (R',) of the beams that go on, and the rows (R',) they continue; None for the present ones.

        What ends here is kept.
        """
        log_prob, rows, values, source = self._ranked(best)
        possible, ends = log_prob > -np.inf, values < 0
        for s, r in zip(*(possible & ends)[:, : self.num_beams].nonzero(), strict=True):
            self._keep(int(source[s]), self.values[rows[s, r]], float(log_prob[s, r]), finished=True)
        going = possible & ~ends
        going &= going.cumsum(1) <= self.num_beams
        if position + 1 == self.length:
            for s, r in zip(*going.nonzero(), strict=True):
                whole = np.append(self.values[rows[s, r]], values[s, r])
                self._keep(int(source[s]), whole, float(log_prob[s, r]), finished=not self.ending)
            going = np.zeros_like(going)
        else:
            greatest = np.where(going, log_prob, -np.inf).max(1)
            going &= ~self._settled(source, greatest, position)[:, None]
        before = len(self.source)
        picked, value = rows[going], values[going]
        self.source, self.log_prob = source.repeat(going.sum(1)), log_prob[going]
        self.values = np.concatenate([self.values[picked], value[:, None]], axis=1)
        return value, None if np.array_equal(picked, np.arange(before)) else picked

    def _ranked(self, best: Best) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rank the continuations of each source: log p, the row continued and the value, -1 for the end, each (S, C).

        The most probable ones, enough for `num_beams` that go on. The last is the source of each line, (S,).
        """
        num_rows, width = len(self.source), best.log_prob.shape[1] + 1
        scores, values = np.empty((num_rows, width)), np.full((num_rows, width), -1)
        scores[:, :-1] = best.log_prob - np.logaddexp(0, best.stop)[:, None]
        scores[:, -1] = -np.logaddexp(0, -best.stop)
        scores += self.log_prob[:, None]
        values[:, :-1] = best.symbols
        # Rows of a source side by side in a table of sources, which may have different numbers of them.
        begins = np.ones(num_rows, bool)
        np.not_equal(self.source[1:], self.source[:-1], out=begins[1:])
        first, line = begins.nonzero()[0], begins.cumsum() - 1
        place = np.arange(num_rows) - first[line]
        table = np.full((len(first), place.max() + 1, width), -np.inf)
        table[line, place] = scores
        table = table.reshape(len(first), -1)
        index = (-table).argsort(axis=1, kind="stable")[:, : 2 * self.num_beams]
        # Cells without a beam have probability 0: any row will do.
        rows = np.minimum(first[:, None] + index // width, num_rows - 1)
        return table[np.arange(len(first))[:, None], index], rows, values[rows, index % width], self.source[first]

    def _keep(self, source: int, values: np.ndarray, log_prob: float, *, finished: bool) -> None:
        length = len(values) + int(self.ending and finished)
        own = self.found[source]
        own.append(_Found(values, log_prob, log_prob / self._penalty(length), finished))
        own.sort(key=lambda found: -found.score)

    def _hypothesis(self, found: _Found) -> Hypothesis:
        values = torch.from_numpy(found.values.copy()).to(self.joint.model.device)
        values = self.joint.order.to_data(values[None])[0] if len(values) == self.length else values
        return Hypothesis(values, *found[1:])

    def _penalty(self, length: int) -> float:
        return ((5 + length) / 6) ** self.length_penalty

    def _settled(self, source: np.ndarray, best: np.ndarray, position: int) -> np.ndarray:
        """Say which sources (S,) are done, the greatest log p of what goes on being `best` (S,)."""
        # A value and an end more, or all positions: log p can only fall.
        penalty = max(self._penalty(position + 2), self._penalty(self.length))
        done = []
        for s, log_prob in zip(source.tolist(), best.tolist(), strict=True):
            own = self.found[s]
            enough = len(own) >= self.n_best and own[self.n_best - 1].score >= log_prob / penalty
            done.append(enough or len(own) >= self.num_beams)
        return np.array(done, bool)
