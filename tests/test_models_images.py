"""Image models: odd shapes, every split, blind spots, scans, the cost of sampling."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from seriatim.autoregressive import OrderEnsemble
from seriatim.context import Labels, SpatialMap
from seriatim.heads import Categorical
from seriatim.layers.scan import diagonal_scan, lstm_cell
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
