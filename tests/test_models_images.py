"""Image models: odd shapes, every split, blind spots, scans, the cost of sampling."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from seriatim.context import Labels, SpatialMap
from seriatim.ensemble import OrderEnsemble
from seriatim.heads import Categorical
from seriatim.layers.scan import diagonal_scan, lstm_cell, row_scan
from seriatim.models import DiagonalBiLSTM, GatedPixelCNN, PixelCNN, PixelSNAIL, RowLSTM
from seriatim.order import RandomOrder, Scan, scans
from zoo import randomised

SMALL = {
    "pixelcnn": (PixelCNN, {"hidden_features": 3, "num_layers": 1}),
    "gated_pixelcnn": (GatedPixelCNN, {"hidden_features": 3, "num_layers": 2}),
    "row_lstm": (RowLSTM, {"hidden_features": 3, "num_layers": 1}),
    "diagonal_bilstm": (DiagonalBiLSTM, {"hidden_features": 3, "num_layers": 1}),
    "pixelsnail": (PixelSNAIL, {"hidden_features": 4, "num_blocks": 1, "layers_per_block": 1, "num_heads": 2}),
}


def made(name, shape, head=None, **options):
    kind, sizes = SMALL[name]
    return randomised(kind(shape, head, **{**sizes, **options})).double().eval()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 5), (5, 2), (1, 3, 2), (3, 1, 3)], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_odd_shapes_obey_the_law_of_chunks_for_every_split(name, shape):
    model = made(name, shape)
    network, length = model.network, math.prod(shape)
    x = torch.randn(2, length, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, _ = network(x, network.initial_state(2, None, length))
        splits = itertools.chain.from_iterable(itertools.combinations(range(1, length), k) for k in (1, 2))
        for cuts in [*itertools.islice(splits, 60), tuple(range(1, length))]:
            state, parts = network.initial_state(2, None, length), []
            for a, b in pairwise((0, *cuts, length)):
                y, state = network(x[:, a:b], state)
                parts.append(y)
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-9, atol=1e-9)


def seen_from(model, shape, pixel):
    """The image of the pixels on which the output at one pixel depends, by gradients."""
    x = torch.randn(4, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    sequence = model.order.to_positions(x)[..., None]
    shifted = torch.cat([torch.zeros_like(sequence[:, :1]), sequence[:, :-1]], dim=1)
    y, _ = model.network(shifted, model.network.initial_state(4, None, math.prod(shape)))
    y[:, pixel[0] * shape[1] + pixel[1]].sum().backward()
    return (x.grad != 0).any(0)


def before(shape, pixel):
    place = pixel[0] * shape[1] + pixel[1]
    return (torch.arange(math.prod(shape)) < place).reshape(shape)


@pytest.mark.parametrize("name", ["gated_pixelcnn", "diagonal_bilstm", "pixelsnail"])
def test_these_see_every_pixel_before(name):
    layers = {"gated_pixelcnn": {"num_layers": 6}, "diagonal_bilstm": {"num_layers": 1}, "pixelsnail": {}}[name]
    model = made(name, (6, 7), **layers)
    assert torch.equal(seen_from(model, (6, 7), (5, 2)), before((6, 7), (5, 2)))


def test_pixelcnn_has_its_blind_spot_and_no_other():
    seen = seen_from(made("pixelcnn", (7, 9), num_layers=8, first_kernel_size=3), (7, 9), (6, 2))
    wedge = torch.tensor([[column - 2 > 6 - row for column in range(9)] for row in range(7)])
    assert torch.equal(seen, before((7, 9), (6, 2)) & ~wedge)


def test_row_lstm_sees_a_triangle():
    seen = seen_from(made("row_lstm", (6, 9), first_kernel_size=3), (6, 9), (5, 4))
    assert torch.equal(seen[4], torch.tensor([0, 1, 1, 1, 1, 1, 0, 0, 0], dtype=torch.bool))
    assert seen[0].all()
    assert not seen[5, 4:].any()


@pytest.mark.parametrize("name", SMALL)
def test_a_scan_is_the_model_of_the_flipped_image(name):
    natural = made(name, (4, 3), encoder=SpatialMap((4, 3), 2))
    scan = Scan((3, 4), flip_columns=True, transpose=True)
    scanned = made(name, (3, 4), encoder=SpatialMap((3, 4), 2), order=scan)
    scanned.load_state_dict(natural.state_dict())
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(5, 3, 4, generator=generator) < 0.5).double()
    context = torch.randn(5, 3, 4, 2, generator=generator).double()
    flipped = natural(context.flip(2).transpose(1, 2)).log_prob(x.flip(2).transpose(1, 2))
    torch.testing.assert_close(scanned(context).log_prob(x), flipped)


def test_an_ensemble_over_scans_is_a_distribution():
    members = [made("gated_pixelcnn", (2, 3), order=scan)() for scan in scans((2, 3))]
    ensemble = OrderEnsemble(members)
    space = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6))).reshape(-1, 2, 3)
    assert ensemble.log_prob(space).exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert ensemble.sample((4,), seed=0).shape == (4, 2, 3)


@pytest.mark.parametrize("name", SMALL)
def test_other_orders_are_refused(name):
    with pytest.raises(ValueError, match="order: expected a raster scan"):
        made(name, (2, 3), order=RandomOrder((2, 3), seed=3))
    with pytest.raises(ValueError, match="order: expected a raster scan"):
        made(name, (6,))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [(), (2,)], ids=["grey", "channels"])
def test_sampling_all_pixels_costs_about_one_pass(name, channels):
    shape = (10, 9, *channels)
    sizes = {"hidden_features": 16, "first_kernel_size": 3}
    model = made(name, shape, Categorical(2), encoder=Labels(2), **sizes).requires_grad_(False)
    p = model(torch.tensor([0, 1]))
    x = p.sample(seed=0)

    def flops(run):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        return counter.get_total_flops()

    assert 0 < flops(lambda: p.sample(seed=0, engine="reference")) <= 1.35 * flops(lambda: p.log_prob(x))


def scan_inputs(shape, told_shape, size):
    """Images (B, H, W, F), what their gates are told and the weights of a diagonal scan, in float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = shape, (2, 4 * size, *told_shape), (2, 4 * size, shape[-1] + 2 * size)
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]


@pytest.mark.parametrize("told", [(1, 1), (1, 3), (20, 3)], ids=["all", "images", "pixels"])
@torch.no_grad()
def test_the_diagonal_scan_is_the_loop_over_pixels(told):
    x, told, weight = scan_inputs((3, 4, 5, 2), told, 6)
    hidden = diagonal_scan(x, told, weight)
    told = told.expand(-1, -1, 20, 3).unflatten(2, (4, 5))
    for k, columns in enumerate([range(5), range(4, -1, -1)]):
        h, c = torch.zeros(3, 5, 7, 6).double(), torch.zeros(3, 5, 7, 6).double()  # zeros above and on both sides
        for i, j in itertools.product(range(4), columns):
            beside = (i + 1, j + (0, 2)[k])
            read = torch.cat([x[:, i, j], h[:, *beside], h[:, i, j + 1]], dim=1)
            gates = read @ weight[k].mT + told[k, :, i, j].mT
            h[:, i + 1, j + 1], c[:, i + 1, j + 1] = lstm_cell(gates, c[:, *beside])
        torch.testing.assert_close(hidden[k], h[:, 1:, 1:-1])


@pytest.mark.parametrize("told", [(1, 1), (1, 2), (6, 2)], ids=["all", "images", "pixels"])
def test_gradients_of_the_diagonal_scan(told):
    assert torch.autograd.gradcheck(diagonal_scan, scan_inputs((2, 3, 2, 1), told, 2))


def test_the_diagonal_scan_computes_in_the_precision_of_its_weights():
    x, told, weight = [part.detach().float().requires_grad_() for part in scan_inputs((2, 3, 2, 1), (1, 1), 2)]
    full = diagonal_scan(x, told, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = diagonal_scan(x.bfloat16(), told, weight)
    mixed.sum().backward()
    assert mixed.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(mixed, diagonal_scan(x.bfloat16().float(), told, weight))
    torch.testing.assert_close(mixed, full, rtol=0, atol=0.02)


ROWS = {  # H, W and what a row is told, (1 or H, 1 or B, 1 or W); the kernels of x and of the row above
    "all": ((4, 5), (1, 1, 1), 2, 3),
    "images": ((3, 4), (1, 3, 1), 1, 5),
    "pixels": ((3, 4), (3, 3, 4), 3, 3),
    "narrower than the kernels": ((3, 1), (3, 1, 1), 3, 5),
    "one row": ((1, 3), (1, 1, 3), 2, 1),
}


def row_inputs(case, size=2):
    """Images (B, H, W, F), what their gates are told and the weights of a scan down the rows, in float64."""
    shape, (rows, batch, columns), inputs, above = ROWS[case]
    generator = torch.Generator().manual_seed(0)
    shapes = (3, *shape, 2), (rows, 4 * size, batch, columns), (4 * size, inputs, 2), (4 * size, above, size)
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]


def plain_row_scan(x, told, inputs, above):
    """The scan by convolutions of padded rows, its gradient by autograd."""
    h = c = torch.zeros(*x.shape[:1], *x.shape[2:3], above.shape[2]).double()
    rows = []
    for k in range(x.shape[1]):
        own = F.conv1d(F.pad(x[:, k].mT, (inputs.shape[1] - 1, 0)), inputs.mT)
        gates = own + F.conv1d(h.mT, above.mT, padding=above.shape[1] // 2) + told[k % len(told)].movedim(0, 1)
        h, c = lstm_cell(gates.mT, c)
        rows.append(h)
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("case", ROWS)
def test_the_row_scan_and_its_gradient_are_those_of_padded_convolutions(case):
    read, seen = (
        row_inputs(case),
        torch.randn(3, *ROWS[case][0], 2, generator=torch.Generator().manual_seed(1)).double(),
    )
    ours, plain = row_scan(*read), plain_row_scan(*read)
    torch.testing.assert_close(ours, plain)
    # A kernel over a row above that is not there has no gradient.
    gradients = [torch.autograd.grad((y * seen).sum(), read, materialize_grads=True) for y in (ours, plain)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("case", ROWS)
def test_gradients_of_the_row_scan(case):
    assert torch.autograd.gradcheck(row_scan, row_inputs(case))


def test_the_row_scan_computes_in_the_precision_of_its_weights_and_keeps_what_it_needs():
    x, told, inputs, above = [part.detach().float().requires_grad_() for part in row_inputs("pixels")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = row_scan(x.bfloat16(), told, inputs, above)
    torch.testing.assert_close(mixed, row_scan(x.bfloat16().float(), told, inputs, above))
    torch.testing.assert_close(mixed, row_scan(x, told, inputs, above), rtol=0, atol=0.05)
    mixed.sum().backward(retain_graph=True)
    once = above.grad.clone()
    mixed.sum().backward()  # what the scan has kept is as it was
    assert mixed.dtype == once.dtype == torch.float32
    torch.testing.assert_close(above.grad, 2 * once)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2)], ids=str)
def test_the_gradient_of_a_row_lstm_is_that_of_its_chunks(shape):
    model = made("row_lstm", shape, num_layers=2, encoder=Labels(2))
    network, length = model.network, math.prod(shape)
    x = torch.randn(2, length, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradients(cuts):
        state, parts = network.initial_state(2, model.encoder(torch.tensor([0, 1])).double(), length), []
        for a, b in pairwise((0, *cuts, length)):
            y, state = network(x[:, a:b], state)
            parts.append(y)
        return torch.autograd.grad((torch.cat(parts, dim=1) ** 2).sum(), list(model.parameters()))

    for whole, chunks in zip(gradients(()), gradients((7,)), strict=True):
        torch.testing.assert_close(whole, chunks)
