"""The Transformer: positions, its layers against torch's own, sources and their padding, tokens, tied tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import test_models_sequences as sequences
from seriatim import distributions as d
from seriatim import vocabulary
from seriatim.causal import clone, leaves
from seriatim.config import from_config
from seriatim.context import Frames, Labels, SpatialMap
from seriatim.ending import Ending, ValueOrEnd
from seriatim.heads import Bernoulli, Categorical, Normal, Tokens
from seriatim.layers import CrossAttention, LearnedPositions, SelfAttention, SinusoidalPositions
from seriatim.layers.attention import SourceAttention
from seriatim.layers.positions import rotate, sinusoids
from seriatim.layers.source import EncoderLayer
from seriatim.models import SourceEncoder, Transformer
from zoo import padded_sources, randomised

SIZES = {"hidden_features": 8, "num_layers": 2, "num_heads": 2}


def source_encoder(num_symbols=5, num_features=8, **options):
    return SourceEncoder(num_symbols, num_features, num_layers=2, num_heads=2, **options)


def transformer(length=5, head=None, **options):
    model = Transformer((length,), head or Ending(Tokens(3)), **{**SIZES, **options})
    return randomised(model).double().eval()


def translator(length=5, **options):
    """A model of targets given sources of five symbols."""
    own = options.pop("source", {})
    encoder = source_encoder(norm=options.get("norm", "post"), **own)
    return transformer(length, encoder=encoder, **options)


SOURCE_OPTIONS = {"plain": {}, "nearest": {"kernel_size": 5}, "rotary": {"positions": "rotary"}}
SOURCES = torch.tensor([[0, 1, 2, 3, 4], [4, 2, -1, -1, -1], [1, -1, -1, -1, -1], [3, 3, 0, -1, -1]])


# ---- positions


@pytest.mark.parametrize("num_features", [6, 5])
def test_sinusoids_are_those_of_the_paper(num_features):
    found = sinusoids(3, 40, num_features)
    for row, t in enumerate(range(3, 43)):
        for f in range(num_features):
            angle = t / 10000 ** (2 * (f // 2) / num_features)
            assert found[row, f].item() == pytest.approx(math.sin(angle) if f % 2 == 0 else math.cos(angle), abs=1e-12)


def test_positions_are_added_from_where_the_chunk_starts():
    for layer in (SinusoidalPositions(6), LearnedPositions(9, 6)):
        x = torch.zeros(2, 9, 6)
        whole, _ = layer(x)
        torch.testing.assert_close(sequences.in_chunks(layer, x, layer.initial_state(2), 4), whole)
        assert not torch.equal(whole[:, 0], whole[:, 4])
    with pytest.raises(ValueError, match="x: expected at most 9 positions, got 10"):
        LearnedPositions(9, 6)(torch.zeros(1, 10, 6))


def test_rotations_keep_lengths_and_tell_distances_only():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 3, 8, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(rotate(q, 17).norm(dim=-1), q.norm(dim=-1))
    scores = [[(rotate(q, s + t) * rotate(k, t)).sum(-1) for t in (0, 5, 900)] for s in (0, 1, 7)]
    for own in scores:
        torch.testing.assert_close(own[1], own[0])
        torch.testing.assert_close(own[2], own[0])
    assert not torch.allclose(scores[1][0], scores[0][0])
    turned = rotate(torch.tensor([1.0, 0, 1, 0]).view(1, 1, 1, 4).double(), 3).flatten().tolist()
    assert turned == pytest.approx([math.cos(3), math.sin(3), math.cos(0.03), math.sin(0.03)])


# ---- layers: torch's own with the same weights


def copied(layer, attentions, maps, norms):
    """Put our weights into one of torch's layers."""
    with torch.no_grad():
        for theirs, ours in zip((layer.self_attn, getattr(layer, "multihead_attn", None)), attentions, strict=False):
            weight, bias = ours.qkv.weight, ours.qkv.bias
            theirs.in_proj_weight.copy_(weight)
            theirs.in_proj_bias.copy_(bias)
            theirs.out_proj.load_state_dict(ours.out.state_dict())
        for name, ours in zip(("linear1", "linear2"), maps, strict=True):
            getattr(layer, name).load_state_dict(ours.state_dict())
        for number, ours in enumerate(norms, 1):
            getattr(layer, f"norm{number}").load_state_dict(ours.state_dict())
    return layer


class Joined(nn.Module):
    """Cross-attention's maps as torch keeps them: one matrix for query, key and value."""

    def __init__(self, cross):
        super().__init__()
        self.qkv = nn.Linear(cross.q.in_features, 3 * cross.q.in_features)
        self.qkv.weight.data = torch.cat([cross.q.weight, cross.kv.weight])
        self.qkv.bias.data = torch.cat([cross.q.bias, cross.kv.bias])
        self.out = cross.out


def linears(module):
    return [own for own in module.modules() if type(own) is nn.Linear]


def torch_options(norm, activation):
    return {
        "dim_feedforward": 32,
        "dropout": 0.0,
        "activation": activation,
        "batch_first": True,
        "norm_first": norm == "pre",
        "dtype": torch.float64,
    }


@pytest.mark.parametrize(("norm", "activation"), [("post", "relu"), ("pre", "gelu")])
def test_the_encoder_is_torchs_own(norm, activation):
    encoder = source_encoder(norm=norm, activation=activation).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.3)
    memory, mask = encoder(SOURCES)
    x = encoder.table[SOURCES.clamp_min(0)] * math.sqrt(8) + sinusoids(0, 5, 8)
    for ours in encoder.layers:
        theirs = nn.TransformerEncoderLayer(8, 2, **torch_options(norm, activation))
        x = copied(theirs, [ours.attention], linears(ours.forwards), ours.norms)(x, src_key_padding_mask=SOURCES < 0)
    x = encoder.last(x)
    torch.testing.assert_close(memory[mask], x[mask], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("norm", "activation"), [("post", "relu"), ("pre", "gelu")])
def test_the_decoder_is_torchs_own(norm, activation):
    model = translator(norm=norm, activation=activation)
    decoder = model.network.network
    memory, mask = model.encoder(SOURCES)
    x = torch.tensor([[0, 2, 1, -1, -1], [1, 1, 1, 1, 1], [2, -1, -1, -1, -1], [-1, -1, -1, -1, -1]])
    read = torch.cat([torch.full((4, 1), -1), x[:, :-1]], dim=1)
    h = decoder.table[read.clamp_min(0)] * math.sqrt(8) * (read >= 0)[..., None] + sinusoids(0, 5, 8)
    h[:, 0] += decoder.start
    parts = [own for own in decoder.layers.modules() if isinstance(own, SelfAttention | CrossAttention | nn.LayerNorm)]
    attentions = [own for own in parts if not isinstance(own, nn.LayerNorm)]
    norms = [own for own in parts if isinstance(own, nn.LayerNorm)]
    maps = [own for own in linears(decoder.layers) if 32 in own.weight.shape]
    for layer in range(2):
        own, cross = attentions[2 * layer : 2 * layer + 2]
        theirs = nn.TransformerDecoderLayer(8, 2, **torch_options(norm, activation))
        copied(theirs, [own, Joined(cross)], maps[2 * layer : 2 * layer + 2], norms[3 * layer : 3 * layer + 3])
        causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
        h = theirs(h, memory, tgt_mask=causal, memory_key_padding_mask=~mask, tgt_is_causal=True)
    h = norms[-1](h) if norm == "pre" else h
    params = decoder.output(h)
    conditional = model(SOURCES).conditionals(x)
    free = (x >= 0) | (torch.arange(5) == model.lengths(x)[:, None])  # up to the first end
    torch.testing.assert_close(conditional.stop[free], params[..., 0][free], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(conditional.values.params[free], params[..., 1:][free], rtol=1e-9, atol=1e-9)


# ---- sources


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("source", SOURCE_OPTIONS.values(), ids=SOURCE_OPTIONS)
def test_padding_of_sources_and_of_targets_never_leaks(source, dtype):
    model = translator(6, source=source).to(dtype)
    assert_padding_never_leaks(model)


def assert_padding_never_leaks(model):
    wide = F.pad(SOURCES, (0, 3), value=-1)
    x = model(SOURCES).sample(seed=0)
    lengths = model.lengths(x)
    together = model(wide).log_prob_terms(x)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[model.dtype]
    for row, length in enumerate(lengths.tolist()):
        source = SOURCES[row, SOURCES[row] >= 0]
        n = min(length + 1, model.order.length)
        alone = model(source, length=n).log_prob_terms(x[row, :n])
        torch.testing.assert_close(together[row, :n], alone, rtol=tolerance, atol=tolerance)
        assert bool((together[row, n:] == 0).all())


@pytest.mark.parametrize("source", SOURCE_OPTIONS.values(), ids=SOURCE_OPTIONS)
def test_padding_of_sources_sends_no_gradient(source):
    model, found = translator(source=source), []
    for source in (SOURCES[1:2], SOURCES[1:2, :2]):
        model.zero_grad()
        model(source).log_prob(torch.tensor([[1, 2, -1, -1, -1]])).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)


def test_the_nearest_symbols_of_a_source_are_summed_before_the_layers():
    encoder, context = source_encoder(kernel_size=3).double(), torch.tensor([[3, 1, 4]])
    given = []
    encoder.layers[0].register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
    encoder(context)
    vectors = math.sqrt(8) * encoder.table[context[0]] + sinusoids(0, 3, 8)
    weights = encoder.nearest.weight[:, 0].T  # of the symbol before, the own one, the one after
    for s in range(3):
        near = sum(weights[j + 1] * vectors[s + j] for j in (-1, 0, 1) if 0 <= s + j < 3)
        torch.testing.assert_close(given[0][0, s], vectors[s] + near)


def test_rotary_attention_to_a_source_knows_distances_only():
    """A phrase is read alike wherever it stands, where nothing else is in sight."""
    layer = EncoderLayer(8, 2, 16, rotary=True).double()
    generator = torch.Generator().manual_seed(0)
    before, phrase = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    sees = torch.tensor([False] * 3 + [True] * 3)
    late = layer(torch.cat([before, phrase])[None], sees[None])[0, 3:]
    torch.testing.assert_close(late, layer(phrase[None], sees[None, 3:])[0])
    turned = layer(phrase.flip(0)[None], sees[None, 3:])[0].flip(0)
    assert float((turned - late).detach().abs().max()) > 1e-3  # their order counts


def test_rotary_weights_of_a_source_are_those_of_turned_queries_and_keys():
    layer = SourceAttention(8, 2, rotary=True).double()
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q, k, v = layer.qkv(x)[0].chunk(3, dim=-1)
    pair, mixed = torch.view_as_complex, []
    for head, part in enumerate((slice(0, 4), slice(4, 8))):
        angles = torch.arange(5)[:, None] / 10000 ** (torch.arange(2) / 2)
        turned = [pair(t[:, part].unflatten(1, (2, 2)).contiguous()) * torch.exp(1j * angles) for t in (q, k)]
        weights = ((turned[0] @ turned[1].mH).real / 2).softmax(-1)
        torch.testing.assert_close(layer.weights(x, torch.ones(1, 5, dtype=torch.bool))[0, head], weights)
        mixed.append(weights @ v[:, part])
    expected = layer.out(torch.cat(mixed, dim=1))
    torch.testing.assert_close(layer(x, torch.ones(1, 5, dtype=torch.bool))[0], expected)


def test_keys_and_values_of_the_source_are_projected_once_for_a_whole_sequence():
    model, calls = translator(), []
    for layer in model.modules():
        if isinstance(layer, CrossAttention):
            layer.kv.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    model(SOURCES).sample(seed=0)
    assert calls == [(4, 5, 16)] * 2


def test_a_source_reads_in_both_directions():
    encoder = source_encoder().double().eval()
    changed = SOURCES.clone()
    changed[0, 4] = 0
    differs = (encoder(changed)[0] - encoder(SOURCES)[0]).abs().amax(-1) > 1e-9
    assert bool(differs[0].all())
    assert not bool(differs[1:].any())


def test_sources_that_do_not_fit_are_refused():
    model = translator()
    refused = {
        r"context: expected integer symbols \(\.\.\., S\), got torch\.float32 \(1, 2\)": torch.zeros(1, 2),
        r"context: expected symbols in 0\.\.4 or -1, got 0\.\.5": torch.tensor([[0, 5]]),
        r"context: expected symbols in 0\.\.4 or -1, got -2\.\.0": torch.tensor([[0, -2]]),
        "context: expected one symbol or more in every source": torch.tensor([[1, 2], [-1, -1]]),
        "context: expected -1 after the symbols of a source only": torch.tensor([[1, -1, 2]]),
    }
    for message, context in refused.items():
        with pytest.raises(ValueError, match=message):
            model(context)


def test_a_source_may_have_other_features_than_the_decoder():
    model = transformer(encoder=source_encoder(num_features=6))
    assert model(SOURCES).log_prob(model(SOURCES).sample(seed=0)).shape == (4,)


# ---- lengths, ends, states


@pytest.mark.parametrize("head", [Tokens(2), Categorical(2), Bernoulli()], ids=str)
def test_sequences_that_ended_and_sequences_that_have_not_share_all_probability(head):
    sequences.assert_the_end_is_absorbing(transformer(3, Ending(head), positions="rotary"))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_it_runs_over_any_length(positions):
    short, long = (transformer(n, positions=positions, encoder=Labels(2)) for n in (4, 9))
    labels = torch.tensor([0, 1])
    x = short(labels, length=9).sample(seed=0)
    assert torch.equal(x, long(labels).sample(seed=0))
    assert torch.equal(short(labels, length=9).log_prob(x), long(labels).log_prob(x))


@pytest.mark.parametrize("positions", ["learned", "raster"])
def test_tables_of_positions_have_one_length(positions):
    model = Transformer((2, 2) if positions == "raster" else (4,), positions=positions, **SIZES)
    with pytest.raises(ValueError, match="length: expected None, for weights of Decoder belong to positions, got 9"):
        model(length=9)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_keys_and_values_stay_in_the_buffers_given_with_gradients_off(positions):
    model = translator(positions=positions)
    network, x = model.network, model.shifted(model(SOURCES).sample(seed=0), model.order)
    with torch.no_grad():
        state = model(SOURCES).initial_state()
        buffers = [t.data_ptr() for t in leaves(state) if t.shape == (4, 5, 8) and not t.any()]
        assert len(buffers) == 4  # keys and values of two layers, for five positions
        for t in range(5):
            _, state = network(x[:, t : t + 1], state)
        assert {*buffers} <= {t.data_ptr() for t in leaves(state)}
    state = model(SOURCES).initial_state()
    before = clone(state)
    network(x[:, :2], state)
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), leaves(before), strict=True))


def test_a_state_too_short_for_a_sequence_grows():
    model = transformer(9, Tokens(3))
    x = model.shifted(model.sample((2,), seed=0), model.order)
    with torch.no_grad():
        whole, _ = model.network(x)
        short = model.network.initial_state(2, max_length=2)
        torch.testing.assert_close(sequences.in_chunks(model.network, x, short, 2), whole)


def test_scoring_in_chunks_is_one_pass():
    model = translator(6)
    x = model(SOURCES).sample(seed=1)
    u = model.shifted(x, model.order)
    y = sequences.in_chunks(model.network, u, model(SOURCES).initial_state(), 4)
    torch.testing.assert_close(model.head(y).log_prob(x).sum(1), model(SOURCES).log_prob(x), rtol=1e-12, atol=1e-12)


def test_the_native_engine_draws_what_the_loop_draws():
    model = transformer(7, Categorical(4), encoder=Labels(2)).float()
    p = model(torch.tensor([0, 1]))
    x = p.sample((40,), seed=0, engine="native")
    assert (x == p.sample((40,), seed=0, engine="reference")).double().mean() > 0.99  # apart from ties


# ---- tokens and tied tables


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_codes_and_one_hot_vectors_are_one_model(end, tied):
    codes, vectors = (transformer(6, Ending(head) if end else head, tied=tied) for head in (Tokens(4), Categorical(4)))
    assert_the_same_model(codes, vectors)


def assert_the_same_model(codes, vectors):
    vectors.load_state_dict(codes.state_dict())
    x = codes.sample((20,), seed=0)
    found = []
    for model in (codes, vectors):
        assert torch.equal(x, model.sample((20,), seed=0))
        model.zero_grad()
        log_prob = model.log_prob(x)
        log_prob.sum().backward()
        found.append((log_prob.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_tied_vectors_are_the_weights_of_the_output():
    free, tied = (transformer(4, Ending(Tokens(50)), tied=tied) for tied in (False, True))
    decoder = tied.network.network
    assert decoder.symbols.data_ptr() == decoder.output.weight[1:].data_ptr()
    sizes = [sum(p.numel() for p in model.parameters()) for model in (free, tied)]
    assert sizes[0] - sizes[1] == 50 * 8
    with pytest.raises(ValueError, match=r"tied: expected a head of symbols, got Normal"):
        transformer(4, Normal(), tied=True)


def test_a_saved_configuration_makes_the_same_model():
    model = translator(tied=True, positions="rotary")
    again = from_config(model.config)
    again.load_state_dict(model.state_dict())
    x = model(SOURCES).sample(seed=0)
    assert torch.equal(again.double().eval()(SOURCES).log_prob(x), model(SOURCES).log_prob(x))


def test_codes_that_a_dtype_cannot_hold_are_refused():
    model = Transformer((3,), Tokens(300), **SIZES).to(torch.bfloat16)
    with pytest.raises(ValueError, match=r"dtype: expected one that holds codes up to 300, got torch\.bfloat16"):
        model.log_prob(torch.tensor([[1, 299, 257]]))


@pytest.mark.parametrize("count", [1, 7, 3000])
def test_terms_of_tokens_and_their_gradients_are_those_of_a_softmax(count):
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(3, 70, count + 1, dtype=torch.float64, generator=generator, requires_grad=True)
    x = torch.randint(-1, count, (3, 70), generator=generator)
    weights = torch.randn(3, 3, 70, dtype=torch.float64, generator=generator)
    plain = ValueOrEnd(Ending(Categorical(count)), params[..., 0], Categorical(count)(params[..., 1:]))
    mean = torch.where(x < 0, 0, params[..., 1:].log_softmax(-1).mean(-1))
    value, stop = plain.log_prob_parts(x)
    wanted = torch.stack([value, mean, stop])
    terms = Ending(Tokens(count))(params).terms(x)
    found = torch.stack(terms)
    torch.testing.assert_close(found, wanted)
    # All terms, and one term with the others unused.
    for own, other in ((found * weights, wanted * weights), *zip(terms, wanted, strict=True)):
        gradients = [torch.autograd.grad(term.sum(), params, retain_graph=True)[0] for term in (own, other)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_a_distribution_of_tokens_is_a_categorical_one():
    logits = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, plain = vocabulary.Tokens(logits), d.Categorical(logits=logits)
    values = torch.arange(6)[:, None, None]
    torch.testing.assert_close(tokens.log_prob(values), plain.log_prob(values))
    torch.testing.assert_close(tokens.logits, plain.logits)
    torch.testing.assert_close(tokens.entropy(), plain.entropy())
    u = torch.rand(2, 5, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(tokens.from_uniforms(u), plain.from_uniforms(u))
    assert tokens.expand((3, 2, 5)).log_prob(values[:, None]).shape == (6, 3, 2, 5)
    assert tokens.log_prob(torch.zeros(0, 2, 5)).shape == (0, 2, 5)
    half = vocabulary.Tokens(logits.to(torch.bfloat16)).log_prob(values)
    assert half.dtype is torch.float32


def test_output_biases_start_at_the_shares_of_a_large_vocabulary():
    model = Transformer((4,), Ending(Tokens(9000)), **SIZES)
    x = torch.tensor([[7, 7, 0, -1], [7, -1, -1, -1], [7, 7, 7, 7]])
    model.initialise_output(x)
    bias = model.network.output_bias
    assert bias[0].sigmoid().item() == pytest.approx((2 + 0.5) / (10 + 1), abs=1e-6)
    assert bias[1:].softmax(0)[7].item() == pytest.approx((7 + 0.5) / (8 + 4500), rel=1e-4)


# ---- options


def test_options_are_checked():
    refused = {
        "num_layers: expected 1 or more, got 0": {"num_layers": 0},
        "norm: expected 'post' or 'pre', got 'last'": {"norm": "last"},
        "activation: expected one of 'relu', 'gelu', got 'tanh'": {"activation": "tanh"},
        r"dropout: expected a rate from 0 to below 1, got 1\.0": {"dropout": 1.0},
        "positions: expected 'sinusoidal', 'learned', 'rotary' or 'raster', got 'none'": {"positions": "none"},
        "num_heads: expected a divisor of 8, got 3": {"num_heads": 3},
        "rotary: expected heads of an even size, got 1": {"positions": "rotary", "num_heads": 8},
        r"order: expected a raster scan of \(H, W\)": {"positions": "raster"},
        "encoder: expected one of a vector or of a source, got Frames": {"encoder": Frames(2, hop=2)},
        "encoder: expected one of a vector or of a source, got SpatialMap": {"encoder": SpatialMap((2, 2), 2)},
    }
    for message, options in refused.items():
        with pytest.raises(ValueError, match=message):
            Transformer((4,), **{**SIZES, **options})
    with pytest.raises(ValueError, match="num_symbols: expected 1 or more, got 0"):
        SourceEncoder(0)
    with pytest.raises(ValueError, match="positions: expected 'sinusoidal' or 'rotary', got 'learned'"):
        SourceEncoder(5, positions="learned")
    with pytest.raises(ValueError, match="rotary: expected heads of an even size, got 3"):
        SourceEncoder(5, 6, num_heads=2, positions="rotary")
    for size in (0, 4):
        with pytest.raises(ValueError, match=f"kernel_size: expected an odd number, 1 or more, got {size}"):
            SourceEncoder(5, kernel_size=size)


def test_dropout_is_for_training():
    model = transformer(encoder=source_encoder(dropout=0.3), dropout=0.3)
    x = model(SOURCES).sample(seed=0)
    assert torch.equal(model(SOURCES).log_prob(x), model(SOURCES).log_prob(x))
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model(SOURCES).log_prob(x), model(SOURCES).log_prob(x))


def test_sources_drawn_for_the_zoo_have_symbols_first():
    sources = padded_sources(9)
    assert SourceEncoder(3, 4, num_layers=1, num_heads=1)(sources)[1].sum(1).tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 1]
