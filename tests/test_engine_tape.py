"""The tape: what lowers and what does not, where buffers are placed, and the numbers the kernels compute."""

from __future__ import annotations

import ast
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from seriatim import engine, heads
from seriatim.causal import CausalSequential, Residual
from seriatim.engine import assembly, cpu, samplers
from seriatim.engine import program as programs
from seriatim.engine.operands import Act, Arena, CannotLower, Instruction, Op, Operand, Tap
from seriatim.engine.tape import Tape
from seriatim.layers import LSTM, CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.noise import uniforms
from seriatim.order import Order


def model(network, head=None) -> AutoregressiveModel:
    return AutoregressiveModel(network, head or heads.Categorical(3), Order((5,)))


def test_only_the_kernels_import_numba():
    folder = Path(engine.__file__).parent.parent
    for path in folder.rglob("*.py"):
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert path.parent.name == "kernels" or not imported & {"numba", "llvmlite"}, path


# ---- what lowers ----


def test_instructions_of_a_network():
    network = CausalSequential(CausalConv1d(3, 8, 2, dilation=4), nn.ReLU(), LSTM(8, 5), nn.Linear(5, 3))
    program = engine.lower(model(network))
    heads_of_rows = program.code[:, 0].tolist()
    # The activation rides on its LINEAR; taps: the value 4 positions ago and the last one; x and h; h.
    assert heads_of_rows == [Op.LINEAR, 1, 1, Op.LINEAR, 0, 0, Op.LSTM, Op.LINEAR, 0, Op.CATEGORICAL]
    assert program.code[0, 2] == Act.RELU


class Louder(CausalConv1d):
    def advance(self, x, state):
        y, state = super().advance(x, state)
        return 2 * y, state


class Renamed(CausalConv1d):
    """Only constructed otherwise."""


class Lost(nn.Module):
    def lower(self, tape, x):
        return None

    def forward(self, x):
        return x


class Unwritten(Residual):
    def lower(self, tape, x):
        return tape.add(x, tape.recurrent(x.size, lambda state: state))


class Unkept(Residual):
    def lower(self, tape, x):
        return tape.add(x, x.lag(1))


class Other(heads.Bernoulli):
    """A head that may sample otherwise."""


@pytest.mark.parametrize(
    "network, head, reason",
    [
        (Louder(3, 3, 2), None, "Louder redefines advance"),
        (CausalSequential(CausalConv1d(3, 3, 2), nn.Softsign()), None, "Softsign has no lower method"),
        (CausalSequential(CausalConv1d(3, 4, 2), nn.GLU(dim=1)), None, "GLU over axis 1"),
        (CausalConv1d(1, 1, 2), Other(), "the Other head has no sampler"),
        (CausalConv1d(3, 4, 2), None, "the network has 4 outputs, the head 3 parameters"),
    ],
)
def test_what_cannot_be_lowered(network, head, reason):
    with pytest.raises(CannotLower, match=reason):
        engine.lower(model(network, head))


def test_other_dtypes_and_hooks_cannot_be_lowered():
    network = CausalConv1d(3, 3, 2)
    assert engine.can_lower(model(Renamed(3, 3, 2)))
    with pytest.raises(CannotLower, match="float32"):
        engine.lower(model(CausalConv1d(3, 3, 2)).double())
    network.taps.register_forward_hook(lambda module, inputs, output: None)
    with pytest.raises(CannotLower, match="hooks"):
        engine.lower(model(network))


def test_mistakes_of_a_lower_method():
    with pytest.raises(TypeError, match=r"Lost\.lower: expected an Operand"):
        engine.lower(model(CausalSequential(CausalConv1d(3, 3, 2), Lost())))
    for kind in (Unwritten, Unkept):
        with pytest.raises(ValueError, match="ADD: expected operands written before and kept"):
            engine.lower(model(CausalSequential(CausalConv1d(3, 3, 2), kind(CausalConv1d(3, 3, 2)))))
    tape = Tape(num_features=3)
    with pytest.raises(ValueError, match=r"taps: expected a weight of shape \(2, 3\), got \(2, 4\)"):
        tape.linear([(tape.input, torch.zeros(2, 4))], None)
    with pytest.raises(ValueError, match="bias: expected size 2, got 3"):
        tape.linear([(tape.input, torch.zeros(2, 3))], torch.zeros(3))
    with pytest.raises(ValueError, match="b: expected size 3, got 2"):
        tape.add(tape.input, tape.input.part(0, 2))


def test_lowering_takes_no_part_in_gradients():
    program = engine.lower(model(CausalConv1d(3, 3, 2)))
    assert not program.weights.requires_grad


# ---- placement ----


def placed(tape: Tape) -> list[Instruction]:
    """The instructions of a finished tape, their buffers placed."""
    assembly.finish(tape, lambda numbers, first: numbers, width=1)
    return assembly._fuse(tape.instructions)


def bernoulli(tape: Tape, params: Operand) -> None:
    """Let a bit be sampled from the parameters."""
    samplers.draw(tape, heads.Bernoulli(), params, samplers.Draw(tape.input.lag(-1)))


def test_scratch_is_shared_only_between_buffers_not_live_at_once():
    tape = Tape(num_features=8)
    x = tape.lower(nn.Linear(8, 40), tape.input)
    kept = tape.activation(x, Act.TANH)
    for _ in range(20):
        x = tape.lower(nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40)), x)
    bernoulli(tape, tape.lower(nn.Linear(40, 1), tape.add(x, kept)))
    instructions = placed(tape)
    born, last = {}, {}
    for time, instruction in enumerate(instructions):
        for operand in instruction.writes + instruction.all_reads:
            born.setdefault(operand.buffer, time)
            last[operand.buffer] = time
    scratch = [buffer for buffer in born if buffer.arena is Arena.SCRATCH]
    for i, a in enumerate(scratch):
        for b in scratch[:i]:
            together = born[a] <= last[b] and born[b] <= last[a]
            apart = a.offset + a.stride <= b.offset or b.offset + b.stride <= a.offset
            assert apart or not together
    assert max(buffer.offset + buffer.stride for buffer in scratch) <= 4 * 48


def test_activation_is_not_fused_where_its_input_is_read_again():
    tape = Tape(num_features=8)
    x = tape.lower(nn.Linear(8, 8), tape.input)
    bernoulli(tape, tape.add(x, tape.activation(x, Act.RELU)).part(0, 1))
    assert [instruction.op for instruction in placed(tape)] == [Op.LINEAR, Op.ACTIVATE, Op.ADD, Op.BERNOULLI]


def test_lags():
    tape = Tape(num_features=2)
    x: Operand = tape.input
    assert x.lag(2).lag(1).delay == 3
    assert x.part(1, 1).start == 1
    assert tape.history(x, 0, lambda state: state) is x


# ---- the kernels' numbers ----


def test_noise_is_that_of_torch_bit_for_bit():
    from seriatim.engine.kernels.noise import uniform

    rows, positions = torch.tensor([0, 1, 77, 2**31, 2**32 - 1]), torch.tensor([0, 1, 12345, 2**32 - 1])
    for seed in (0, 1, 2**63 - 1, 2**64 - 1, -5, 0x1234567890ABCDEF):
        wanted = uniforms(seed, rows, positions, num_lanes=5)
        keys = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
        got = [[[uniform(*keys, int(row), int(t), lane) for lane in range(5)] for t in positions] for row in rows]
        assert torch.equal(torch.tensor(got, dtype=torch.float64), wanted)


def test_functions_of_one_number():
    from seriatim.engine.kernels import numbers

    for x in [*np.linspace(-690, 0, 200), -1e-300]:
        assert math.isclose(numbers.exp64(x), math.exp(x), rel_tol=1e-15)
    assert numbers.exp64(-math.inf) == 0
    grid = torch.cat([torch.linspace(-20, 20, 401), torch.tensor([-300.0, 300.0, -torch.inf, torch.inf, 1e-6])])
    for ours, theirs in ((numbers.sigmoid, torch.sigmoid), (numbers.tanh, torch.tanh)):
        got = torch.tensor([ours(np.float32(x)) for x in grid])
        assert (got - theirs(grid.double())).abs().max() < 2e-7
        assert math.isnan(ours(np.float32(math.nan)))


def test_code_compiled_from_other_sources_is_refused():
    from seriatim.engine import kernels

    assert kernels.run(kernels.FINGERPRINT + 1, *[0] * 21) == (kernels.STALE, 0)


def test_a_change_in_any_source_of_the_kernels_is_noticed(tmp_path):
    from seriatim.engine.kernels import sources

    folder = Path(sources.__file__).parent
    found = {sources.checksum(folder, programs.LAYOUT), sources.checksum(folder, programs.LAYOUT + 1)}
    copy = tmp_path / "kernels"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert sources.checksum(copy, programs.LAYOUT) == sources.FINGERPRINT
    names = sorted(path.name for path in copy.glob("*.py"))
    for name in names:
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before + b" ")
        found.add(sources.checksum(copy, programs.LAYOUT))
        (copy / name).write_bytes(before)
    assert len(found) == 2 + len(names) > 10


def test_stale_code_is_compiled_again(monkeypatch):
    p = model(CausalConv1d(3, 3, 2))().expand((2,))
    wanted, kernels = p.sample(seed=0, engine="native"), cpu.kernels()
    asked = []

    class Run:
        def __call__(self, *arguments):
            return kernels.run(*arguments) if "again" in asked else (kernels.STALE, 0)

        def recompile(self):
            asked.append("again")

    found = SimpleNamespace(**{name: getattr(kernels, name) for name in kernels.__all__} | {"run": Run()})
    monkeypatch.setattr(cpu, "kernels", lambda: found)
    assert torch.equal(p.sample(seed=0, engine="native"), wanted)
    assert asked == ["again"]


@pytest.mark.parametrize("size, fused", [(32, True), (20, False)])
def test_a_sum_is_made_where_it_is_written(size, fused):
    tape = Tape(num_features=size)
    torch.manual_seed(0)
    first, second, last = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, 1)
    skip = tape.lower(first, tape.input)
    x = tape.add(skip, tape.lower(second, tape.activation(skip, Act.RELU)))
    bernoulli(tape, tape.lower(last, x))
    instructions = placed(tape)
    assert (Op.ADD in [instruction.op for instruction in instructions]) != fused
    sums = [instruction for instruction in instructions if Tap.ADD in [kind for kind, *_ in instruction.taps]]
    assert len(sums) == fused


def test_what_a_loop_reads_is_kept_to_its_end():
    tape = Tape(num_features=8)
    before = tape.lower(nn.Linear(8, 8), tape.input)
    with tape.rows(4):
        first = tape.activation(before, Act.TANH)
        for _ in range(3):
            first = tape.lower(nn.Linear(8, 8), first)
    bernoulli(tape, tape.lower(nn.Linear(8, 1), tape.input))
    inside = [i for i in placed(tape) if i.op is Op.LINEAR and i.writes[0].buffer is not before.buffer]
    assert all(i.writes[0].buffer.offset != before.buffer.offset for i in inside[:3])


def test_activation_is_not_fused_where_its_input_is_kept():
    tape = Tape(num_features=8)
    x = tape.history(tape.lower(nn.Linear(8, 8), tape.input), 1, lambda state: state)
    bernoulli(tape, tape.activation(x, Act.RELU).part(0, 1))
    assert Op.ACTIVATE in [instruction.op for instruction in placed(tape)]
