"""Mixed precision: the network's products may be rounded, what log p adds up is not."""

from __future__ import annotations

import pytest
import torch

from seriatim.models import LSTM, PixelCNN
from seriatim.nested import Nested
from seriatim.reading import Reading
from seriatim.training import TrainConfig, train
from zoo import ZOO, of_three_rows


@pytest.mark.parametrize("name", list(ZOO))
@torch.no_grad()
def test_a_head_is_told_rounded_parameters_and_rounds_nothing_more(name: str) -> None:
    p = of_three_rows(name)
    x = p.sample(seed=0, engine="reference")
    told = []
    handle = p.model.network.register_forward_hook(lambda module, given, found: told.append(found[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, total = p.log_prob_terms(x), p.log_prob(x)
    handle.remove()
    assert mixed.dtype == total.dtype == torch.float32
    torch.testing.assert_close(total, mixed.flatten(1).sum(1), rtol=1e-5, atol=1e-4)
    if any(isinstance(part, Nested) for part in p.model.head.modules()):
        return  # the network inside is rounded as well
    params, rows = told[0].float(), p.order.to_positions(x)
    expected = p.model.head(params, p.order.permutation).log_prob(rows)
    torch.testing.assert_close(mixed, p.order.to_data(expected), rtol=1e-5, atol=1e-5)


def test_a_long_sum_is_not_rounded() -> None:
    torch.manual_seed(0)
    model, x = PixelCNN((20, 20), hidden_features=4, num_layers=1), torch.rand(6, 20, 20).round()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        total = model().log_prob(x)
    assert total.dtype is torch.float32
    assert not torch.equal(total, total.bfloat16().float())
    torch.testing.assert_close(total, model().log_prob(x).detach(), rtol=1e-4, atol=0)


def test_what_is_read_in_parts_is_not_rounded() -> None:
    torch.manual_seed(0)
    model, x = LSTM((8,), hidden_features=6).eval(), torch.rand(2, 8).round()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = Reading(model().expand((2,))).read(x).log_prob(x)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, model().log_prob_terms(x).detach(), rtol=0.02, atol=0.01)


def test_a_training_in_mixed_precision_ends_near_the_full_one(tmp_path) -> None:
    torch.manual_seed(0)
    x = (torch.rand(120, 1, 1) + 0.2 * torch.rand(120, 6, 6)).clamp(0, 1).round()
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(1)
        model = PixelCNN((6, 6), hidden_features=8, num_layers=2)
        settings = {"epochs": 4, "batch_size": 20, "learning_rate": 1e-2, "gradient_clip": 50.0, "device": "cpu"}
        config = TrainConfig(**settings, precision=precision)
        result = train(model, (x[:100], x[100:]), config, tmp_path / precision, progress=False)
        found[precision] = result.valid_nats
        assert all(parameter.dtype is torch.float32 for parameter in model.parameters())
        assert result.valid_nats == pytest.approx(-float(model().log_prob(x[100:]).detach().mean()), rel=0.01)
    assert found["bf16-mixed"] == pytest.approx(found["32-true"], rel=0.05)
    assert found["bf16-mixed"] != found["32-true"]
