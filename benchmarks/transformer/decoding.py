"""Decoding: tokens a second of ours, of Hugging Face's `generate` with its cache, and of CTranslate2 in float32.

All have weights of the same shapes, drawn at random, and write as many tokens as they are asked for: no text ends
earlier. All that a line compares is measured in turns in one run, and a ratio is the median of the ratios of the turns.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import load_rows, provenance, store, table
from benchmarks.images.speed import medians, ratios, turns
from seriatim.ending import Ending
from seriatim.engine import lower
from seriatim.heads import Tokens
from seriatim.models import SourceEncoder, Transformer
from seriatim.tasks import beam_search, generate

TITLE = "Transformer: speed of decoding"
RESULTS = "transformer-decoding"
REPEATS = 3
SOURCE = 16
NAMES = {
    "native": "ours, native",
    "eager": "ours, eager",
    "huggingface": "Hugging Face",
    "prefix": "Hugging Face, no cache",
    "ctranslate2": "CTranslate2",
}
ABOUT = (
    "One thread, float32, random weights of the same shapes. Tokens written a second of CPU time, medians of turns; "
    "the time of the encoder is among it. *Multi30k*: encoder and decoder of 3 layers x 192, 4,000 tokens, sources of "
    f"{SOURCE} tokens and targets of 24; greedy, and a beam of four whose best is counted. *Text*: a decoder of 6 "
    "layers x 384, 96 symbols, sampled up to its 256 positions. Peers: `generate` of MarianMT and GPT-2 with its cache "
    "(without it every step reads the whole prefix again: batch 1), and CTranslate2. Models are built, loaded and "
    "lowered before."
)


class Case(NamedTuple):
    """A model to decode with, and how: its sizes, whether it has a source, how many beams (0: samples), the length."""

    symbols: int
    source: bool
    features: int
    layers: int
    heads: int
    inside: int
    length: int
    beams: int
    batch: int


PAIRS = Case(4000, True, 192, 3, 4, 512, 24, 1, 1)
TEXT = Case(96, False, 384, 6, 6, 1536, 256, 0, 1)
CASES = {
    "Multi30k, greedy, batch 1": PAIRS,
    "Multi30k, greedy, batch 64": PAIRS._replace(batch=64),
    "Multi30k, beam 4, batch 1": PAIRS._replace(beams=4),
    "Multi30k, beam 4, batch 64": PAIRS._replace(beams=4, batch=64),
    "Text, sampled, batch 1": TEXT,
    "Text, sampled, batch 64": TEXT._replace(batch=64),
}
Ways = dict[str, Callable[[], Any]]
"""What is measured: the name of a way, and a call that decodes once."""


def make(case: Case) -> Transformer:
    """Return our model of a case; of pairs the end is out of reach, so that all targets have the length asked for."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_layers": case.layers, "num_heads": case.heads, "feedforward_features": case.inside}
    encoder = SourceEncoder(case.symbols, case.features, **sizes) if case.source else None
    head = Ending(Tokens(case.symbols)) if case.source else Tokens(case.symbols)
    model = Transformer((case.length,), head, hidden_features=case.features, **sizes, encoder=encoder)
    if case.source:
        model.network.output_bias[0] = -30.0
    return model.eval()


def sources(case: Case) -> Tensor | None:
    """Return the sources (B, S), or None."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, case.symbols, (case.batch, SOURCE), generator=generator) if case.source else None


def ours(case: Case) -> Ways:
    """Return our ways: by a program of the native engine, and step by step in PyTorch."""
    model, given = make(case), sources(case)
    program = lower(model, draw=not case.beams)

    def decode(engine: Any) -> Callable[[], Any]:
        if case.beams:
            options: dict[str, Any] = {"num_beams": case.beams, "max_length": case.length, "engine": engine}
            return lambda: beam_search(model, given, **options)
        return lambda: generate(model, case.batch, seed=0, batch_size=case.batch, engine=engine)

    return {"native": decode(program), "eager": decode("reference")}


def hugging_face(case: Case) -> Ways:
    """Return the ways of transformers: with its cache, and for scale without; nothing where it is not installed."""
    try:
        import transformers
    except ImportError:
        return {}
    torch.manual_seed(0)
    shared: dict[str, Any] = {"min_new_tokens": case.length, "max_new_tokens": case.length, "pad_token_id": 0}
    if case.source:
        layers = {"encoder_layers": case.layers, "decoder_layers": case.layers}
        heads = {"encoder_attention_heads": case.heads, "decoder_attention_heads": case.heads}
        inside = {"encoder_ffn_dim": case.inside, "decoder_ffn_dim": case.inside}
        special = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": None}
        config = transformers.MarianConfig(
            vocab_size=case.symbols + 1, d_model=case.features, activation_function="relu", **layers, **heads,
            **inside, **special,
        )  # fmt: skip
        model: Any = transformers.MarianMTModel(config)
        shared |= {"input_ids": sources(case), "num_beams": case.beams, "do_sample": False}
    else:
        config = transformers.GPT2Config(
            vocab_size=case.symbols, n_positions=case.length + 1, n_embd=case.features, n_layer=case.layers,
            n_head=case.heads, n_inner=case.inside, bos_token_id=0, eos_token_id=None,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
        start = torch.zeros(case.batch, 1, dtype=torch.int64)
        shared |= {"input_ids": start, "attention_mask": torch.ones_like(start), "do_sample": True, "top_k": 0}
    model.eval()
    ways = {"huggingface": lambda: model.generate(**shared, use_cache=True)}
    if case.batch == 1:  # for scale
        ways["prefix"] = lambda: model.generate(**shared, use_cache=False)
    return ways


def ctranslate(case: Case) -> Ways:
    """Return the way of CTranslate2 in float32; nothing where it is not installed."""
    try:
        import ctranslate2
        from ctranslate2 import specs
    except ImportError:
        return {}
    size = case.symbols + 1 if case.source else case.symbols
    tokens = ["<unk>", "<s>", "</s>", *(f"t{number}" for number in range(size - 3))]
    if case.source:
        spec: Any = specs.TransformerSpec.from_config((case.layers, case.layers), case.heads, pre_norm=False)
        spec.register_source_vocabulary(tokens)
        spec.register_target_vocabulary(tokens)
    else:
        activation = specs.Activation.GELU
        spec = specs.TransformerDecoderModelSpec.from_config(case.layers, case.heads, activation=activation)
        spec.register_vocabulary(tokens)
    _fill(spec, case, size)
    spec.validate()
    threads: dict[str, Any] = {"inter_threads": 1, "intra_threads": torch.get_num_threads(), "compute_type": "float32"}
    exactly: dict[str, Any] = {"beam_size": max(1, case.beams)}
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        if case.source:
            translator = ctranslate2.Translator(folder, device="cpu", **threads)
            given = sources(case)
            assert given is not None
            texts = [[tokens[number] for number in row] for row in given.tolist()]
            exactly |= {"min_decoding_length": case.length, "max_decoding_length": case.length}
            return {"ctranslate2": lambda: translator.translate_batch(texts, max_batch_size=0, **exactly)}
        generator = ctranslate2.Generator(folder, device="cpu", **threads)
    exactly |= {"min_length": case.length, "max_length": case.length, "sampling_topk": 0}
    exactly |= {"include_prompt_in_result": False}
    starts = [["<s>"]] * case.batch
    return {"ctranslate2": lambda: generator.generate_batch(starts, **exactly)}


def _fill(spec: Any, case: Case, symbols: int) -> None:
    """Put random weights of the shapes of a case into a specification of CTranslate2."""
    rng, size = np.random.default_rng(0), case.features

    def drawn(*shape: int) -> np.ndarray:
        return (0.05 * rng.standard_normal(shape)).astype(np.float32)

    def norm(own: Any) -> None:
        own.gamma, own.beta = np.ones(size, np.float32), np.zeros(size, np.float32)

    def linear(own: Any, outputs: int, inputs: int) -> None:
        own.weight, own.bias = drawn(outputs, inputs), np.zeros(outputs, np.float32)

    sides = [spec.encoder, spec.decoder] if case.source else [spec.decoder]
    for side in sides:
        embeddings = side.embeddings if side is spec.decoder else side.embeddings[0]
        embeddings.weight = drawn(symbols, size)
        side.position_encodings.encodings = drawn(max(case.length, SOURCE) + 8, size)
        if hasattr(side, "layer_norm"):
            norm(side.layer_norm)
        for layer in side.layer:
            linear(layer.self_attention.linear[0], 3 * size, size)
            linear(layer.self_attention.linear[1], size, size)
            norm(layer.self_attention.layer_norm)
            if hasattr(layer, "attention"):
                linear(layer.attention.linear[0], size, size)
                linear(layer.attention.linear[1], 2 * size, size)
                linear(layer.attention.linear[2], size, size)
                norm(layer.attention.layer_norm)
            linear(layer.ffn.linear_0, case.inside, size)
            linear(layer.ffn.linear_1, size, case.inside)
            norm(layer.ffn.layer_norm)
    linear(spec.decoder.projection, symbols, size)


def compare(name: str) -> dict[str, Any]:
    """Measure a case: milliseconds, tokens a second and ratios of our native way to each."""
    case = CASES[name]
    ways = ours(case) | hugging_face(case) | ctranslate(case)
    with torch.no_grad():
        seconds = turns(ways, REPEATS)
    row: dict[str, Any] = {}
    for way, own in seconds.items():
        times = medians(own)
        row[way] = {**times, "tokens_per_second": round(case.batch * case.length / times["cpu_ms"] * 1e3, 1)}
        row[way]["ours_over_it"] = ratios(own, seconds["native"])
    return row


def run(only: list[str], threads: int) -> None:
    """Measure all cases (or some) and print the table."""
    if unknown := [name for name in only if name not in CASES]:
        sys.exit(f"benchmarks: --only: expected one of {', '.join(map(repr, CASES))}, got {unknown[0]!r}")
    torch.set_num_threads(threads)
    for name in only or CASES:
        load = round(os.getloadavg()[0], 2)
        store(RESULTS, {name: {**compare(name), "load_average": load, "provenance": provenance()}})
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored: tokens a second, and how many times as fast ours is."""
    stored, rows = load_rows(RESULTS), []
    for name in CASES:
        row, cells = stored.get(name), [name]
        for way in NAMES:
            if row is None:
                cells.append("not run")
            elif way not in row:
                cells.append("" if way == "prefix" and CASES[name].batch > 1 else "not installed")
            else:
                own = row[way]
                faster = "" if way == "native" else f" ({own['ours_over_it']['cpu']:.2f})"
                cells.append(f"{own['tokens_per_second']:,.0f}{faster}")
        rows.append(cells)
    shown = table(["tokens a second (native over it)", *NAMES.values()], rows)
    loads = [row["load_average"] for row in stored.values()]
    busy = f"Load average of the machine when the lines were measured: {min(loads)} to {max(loads)}." if loads else ""
    return "\n\n".join([shown, "Target: native at batch 1 at least 2 times Hugging Face.", busy]).rstrip()
