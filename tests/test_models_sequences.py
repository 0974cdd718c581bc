"""Models of sequences: any length."""

from __future__ import annotations

import pytest
import torch

from seriatim.causal import Recompute
from seriatim.columns import Columns
from seriatim.context import Labels
from seriatim.heads import Bernoulli, Categorical
from seriatim.model import AutoregressiveModel
from seriatim.models import MADE
from seriatim.order import Order
from zoo import CATEGORIES, Assembled, randomised


def assembled(network, head=None, length=4, **options):
    return randomised(Assembled(network, head or Categorical(3), Order((length,)), **options)).double().eval()


# ---- any length


@pytest.mark.parametrize("network", ["rnn", "lstm2", "dilated"])
def test_a_distribution_over_another_length_is_that_of_a_model_of_that_length(network):
    short, long = assembled(network, encoder=Labels(2)), assembled(network, encoder=Labels(2), length=9)
    labels = torch.tensor([0, 1])
    p = short(labels, length=9)
    x = p.sample((3,), seed=0)
    assert p.event_shape == (9,)
    assert torch.equal(x, long(labels).sample((3,), seed=0))
    assert torch.equal(p.log_prob(x), long(labels).log_prob(x))
    assert p.log_prob_terms(x).shape == (3, 2, 9)


def test_the_first_values_of_a_long_sequence_have_the_terms_of_a_short_one():
    model = assembled("gru")
    x = model(length=7).sample((5,), seed=1)
    torch.testing.assert_close(model(length=7).log_prob_terms(x)[:, :4], model().log_prob_terms(x[:, :4]))
    torch.testing.assert_close(model(length=1).log_prob(x[:, :1]), model().log_prob_terms(x[:, :4])[:, 0])


def test_a_length_is_refused_where_it_has_no_meaning():
    refused = {
        "weights of MaskedAutoencoder belong to positions, got 5": MADE((4,), hidden_features=(4,)),
        r"Columns has a distribution for each place, got 5": assembled("rnn", Columns(CATEGORIES), length=3),
        r"the positions of Order\(\(2, 2\)\) are no plain": Assembled("rnn", Bernoulli(), Order((2, 2))),
        r"the positions of Order\(\(2,\), \[1, 0\]\) are": Assembled("rnn", Bernoulli(), Order((2,), [1, 0])),
        "weights of Recompute belong": AutoregressiveModel(Recompute(torch.nn.Identity()), Bernoulli(), Order((2,))),
    }
    for message, model in refused.items():
        with pytest.raises(ValueError, match=f"length: expected None, for {message}"):
            model(length=5)
    with pytest.raises(ValueError, match="length: expected 1 or more, got 0"):
        assembled("rnn")(length=0)
