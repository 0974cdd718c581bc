"""Planted bugs that are not of one model: each must be caught by the test that is named after it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seriatim import distributions, heads
from seriatim.ensemble import OrderEnsemble
from seriatim.heads import Bernoulli
from seriatim.model import AutoregressiveModel
from seriatim.models import NADE, OrderAgnosticMADE
from seriatim.models.made import OrderAgnosticAutoencoder
from seriatim.order import Order
from seriatim.testing.case import space
from test_mutants import failing
from zoo import ZOO, Assembled, Source, model_of, randomised, sources


class AveragedTerms(OrderEnsemble):
    """What an ensemble must not do: average logs instead of probabilities."""

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_prob_terms(value).sum(-1)


class AveragedLogits(OrderEnsemble):
    """What an ensemble must not do: average each variable's logit over the orders."""

    def log_prob(self, value: Tensor) -> Tensor:
        logits = []
        for member in self.members:
            logits.append(member.order.to_data(member.conditionals(value).logits))
        return distributions.Bernoulli(logits=torch.stack(logits).mean(0)).log_prob(value).sum(-1)


def test_an_ensemble_of_averaged_logs_is_no_likelihood():
    model = randomised(OrderAgnosticMADE((4,), hidden_features=(6,))).double()
    everything = torch.stack(space(model)).double()
    members = model.ensemble(num_orders=5).members

    def total(ensemble: type[OrderEnsemble]) -> float:
        with torch.no_grad():
            return float(ensemble(members).log_prob(everything).exp().sum())

    assert total(OrderEnsemble) == pytest.approx(1, abs=1e-12)
    assert total(AveragedTerms) < 0.99
    assert abs(total(AveragedLogits) - 1) > 1e-3


def weights_left(model: OrderAgnosticMADE) -> float:
    """Return the share of the weights that are not zero after one batch in each of 8 orders."""
    x = torch.ones(2, model.order.length)
    for order in [member.order for member in model.ensemble(num_orders=8).members]:
        model(order=order).log_prob(x).sum().backward()
    weights = [parameter for name, parameter in model.named_parameters() if "weight" in name]
    return sum(int((w != 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def test_masks_do_not_erode_the_weights(monkeypatch):
    model = randomised(OrderAgnosticMADE((8,), hidden_features=(32,)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert weights_left(model) == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def in_place(self, x, state):
        order = state["variables"][0].argsort()
        for layer in (self.input, self.direct, self.output):
            mask = layer.mask
            if layer is not self.output:
                mask = mask.unflatten(1, (len(order), -1))[:, order].flatten(1)
            if layer is not self.input:
                mask = mask.unflatten(0, (len(order), -1))[order].flatten(0, 1)
            layer.weight.data.mul_(mask)
        return advance(self, x, state)

    advance = OrderAgnosticAutoencoder.advance
    monkeypatch.setattr(OrderAgnosticAutoencoder, "advance", in_place)
    assert weights_left(model) < 0.2


def padded_difference(model: AutoregressiveModel) -> float:
    """Return how much log p changes when the sources are padded to twice their length."""
    context = sources(6)
    x = model(context).sample(seed=0)
    longer = F.pad(context, (0, context.shape[1]))
    with torch.no_grad():
        return float((model(longer).log_prob(x) - model(context).log_prob(x)).abs().max())


def test_padding_of_a_source_does_not_leak(monkeypatch):
    model = model_of(ZOO["encoder_decoder"]()).double()
    assert padded_difference(model) < 1e-12
    forward = Source.forward
    monkeypatch.setattr(Source, "forward", lambda self, c: (forward(self, c)[0], torch.ones_like(c, dtype=torch.bool)))
    assert padded_difference(model) > 1e-3


def test_probabilities_are_not_mixed_up_with_logits(monkeypatch):
    """NADE trained on probabilities in place of logits: the known error of pytorch-generative."""
    forward = heads.Bernoulli.forward
    monkeypatch.setattr(heads.Bernoulli, "forward", lambda self, p, v=None: forward(self, torch.sigmoid(p), v))
    assert failing(randomised(NADE((4,), hidden_features=4)), ("normalisation", "sample_law", "point_mass")) == {
        "point_mass"
    }


def test_the_point_mass_check_allows_a_short_window():
    """A row in which a window comes back with another value after it cannot be learnt by heart, which is no bug."""
    model = randomised(Assembled("dilated", Bernoulli(), Order((12,))))
    assert failing(model, ("point_mass",)) == set()
