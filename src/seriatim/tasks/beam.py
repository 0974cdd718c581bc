"""`beam_search`: the most probable sequences that a search of bounded width finds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seriatim import engine as native_engine
from seriatim.autoregressive import Autoregressive
from seriatim.ending import Ending, ValueOrEnd
from seriatim.heads import Categorical
from seriatim.model import AutoregressiveModel
from seriatim.tasks.rows import Joint, as_joint, in_eval_mode, take
from seriatim.tasks.steps import steps

if TYPE_CHECKING:
    from seriatim.engine import Engine, Program


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
        program = native_engine.choose(joint.model, beams, engine, joint.order, draw=False).program
        for index in torch.arange(count).split(batch_size):
            own = take(joint, index)
            assert isinstance(own, Autoregressive)
            found += _Search(own, num_beams, length_penalty, n_best).run(program)
    return found


class _Search:
    """The search for rows (N,) of a distribution; its beams are rows (R,), those of one source side by side."""

    def __init__(self, joint: Autoregressive, num_beams: int, length_penalty: float, n_best: int) -> None:
        self.joint, self.num_beams, self.length_penalty, self.n_best = joint, num_beams, length_penalty, n_best
        self.length, count = joint.order.length, joint.batch_shape[0]
        device = joint.model.device
        self.source = torch.arange(count, device=device)  # (R,) ascending
        self.log_prob = torch.zeros(count, dtype=torch.float64, device=device)  # (R,)
        self.values = torch.zeros(count, 0, dtype=torch.int64, device=device)  # (R, t)
        self.found: list[list[Hypothesis]] = [[] for _ in range(count)]

    def run(self, program: Program | None) -> list[list[Hypothesis]]:
        """Return the hypotheses of each source, the best first; the network is run by a program where there is one."""
        if len(self.source):
            for _ in steps(self.joint, self.choose, program):
                if not len(self.source):
                    break
        return [own[: self.n_best] for own in self.found]

    def choose(self, position: int, conditional: Any) -> Tensor | tuple[Tensor, Tensor]:
        """Return the values (R', 1) of the beams that go on, and the rows (R',) they continue."""
        log_prob, rows, values, source = self._ranked(conditional)
        possible, ends = log_prob > -torch.inf, values < 0
        rank = torch.arange(log_prob.shape[1], device=log_prob.device)
        for s, r in (possible & ends & (rank < self.num_beams)).nonzero().tolist():
            self._keep(int(source[s]), int(rows[s, r]), [], float(log_prob[s, r]), finished=True)
        going = possible & ~ends
        going &= going.cumsum(1) <= self.num_beams
        if position + 1 == self.length:
            finished = not isinstance(self.joint.model.head, Ending)
            for s, r in going.nonzero().tolist():
                last = [int(values[s, r])]
                self._keep(int(source[s]), int(rows[s, r]), last, float(log_prob[s, r]), finished=finished)
            going = torch.zeros_like(going)
        else:
            going &= ~self._settled(source, torch.where(going, log_prob, -torch.inf).amax(1), position)[:, None]
        picked, rows, value = source[:, None].expand_as(rows)[going], rows[going], values[going][:, None]
        same = torch.equal(rows, torch.arange(len(self.source), device=rows.device))
        self.source, self.log_prob = picked, log_prob[going]
        self.values = torch.cat([self.values[rows], value], dim=1)
        return value if same else (value, rows)

    def _ranked(self, conditional: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rank the continuations of each source: log p, the row continued and the value, -1 for the end, each (S, C).

        The most probable ones, enough for `num_beams` that go on. The last is the source of each line, (S,).
        """
        ending = isinstance(conditional, ValueOrEnd)
        logits = (conditional.values if ending else conditional).logits[:, 0]
        best, values = logits.topk(min(self.num_beams, logits.shape[-1]), dim=-1)
        if ending:
            stop = conditional.stop[:, :1]
            best = torch.cat([best + F.logsigmoid(-stop), F.logsigmoid(stop)], dim=-1)
            values = F.pad(values, (0, 1), value=-1)
        best = best.double() + self.log_prob[:, None]
        # Rows of a source side by side in a table of sources, which may have different numbers of them.
        source, line, count = self.source.unique_consecutive(return_inverse=True, return_counts=True)
        place = torch.arange(len(line), device=line.device) - (count.cumsum(0) - count)[line]
        beams, width = int(count.max()), best.shape[1]
        table = best.new_full((len(source), beams, width), -torch.inf)
        table[line, place] = best
        log_prob, index = table.flatten(1).topk(min(2 * self.num_beams, beams * width), dim=-1)
        first = (count.cumsum(0) - count)[:, None]
        # Cells without a beam have probability 0: any row will do.
        rows = (first + index // width).clamp(max=len(line) - 1)
        return log_prob, rows, values[rows, index % width], source

    def _keep(self, source: int, row: int, last: list[int], log_prob: float, *, finished: bool) -> None:
        values = torch.cat([self.values[row], self.values.new_tensor(last)])
        length = len(values) + int(isinstance(self.joint.model.head, Ending) and finished)
        values = self.joint.order.to_data(values[None])[0] if len(values) == self.length else values
        own = self.found[source]
        own.append(Hypothesis(values, log_prob, log_prob / self._penalty(length), finished))
        own.sort(key=lambda hypothesis: -hypothesis.score)

    def _penalty(self, length: int) -> float:
        return ((5 + length) / 6) ** self.length_penalty

    def _settled(self, source: Tensor, best: Tensor, position: int) -> Tensor:
        """Say which sources (S,) are done, the greatest log p of what goes on being `best` (S,)."""
        # A value and an end more, or all positions: log p can only fall.
        penalty = max(self._penalty(position + 2), self._penalty(self.length))
        done = []
        for s, log_prob in zip(source.tolist(), best.tolist(), strict=True):
            own = self.found[s]
            enough = len(own) >= self.n_best and own[self.n_best - 1].score >= log_prob / penalty
            done.append(enough or len(own) >= self.num_beams)
        return torch.tensor(done, device=source.device)
