"""Multi30k: translation of captions, test 2016, sacreBLEU; within an hour of one core.

The encoder turns the source into the context, the decoder is an ordinary autoregressive model of the target. A
run goes on where it stopped; the weights are those of the epoch of lowest validation.
"""

from __future__ import annotations

import gzip
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import WORK, load_rows, store, table, told_time
from benchmarks.training import trained
from seriatim.data import Ragged, Sequences, load
from seriatim.ending import Ending
from seriatim.heads import Tokens
from seriatim.layers.source import SourceEncoder
from seriatim.models.transformer import Transformer
from seriatim.tasks import surprise
from seriatim.tasks.beam import beam_search
from seriatim.training import TrainConfig

TITLE = "Transformer: Multi30k"
RESULTS = "transformer-multi30k"
ABOUT = (
    "29,000 pairs for training, 1,014 for validation, the 1,000 of test 2016; joint byte pairs, 4,000, learnt from the "
    "training pairs. BLEU is sacreBLEU's, cased and detokenised (13a), of a beam of five. Nats and perplexity are of "
    "tokens, their ends left out. One thread of a shared machine; minutes are of one core."
)
TOKENS = 4000
NUM_BEAMS, LENGTH_PENALTY, MAX_LENGTH = 5, 0.6, 80


class Entry(NamedTuple):
    """A row of the table: the data, the sizes, the dropout, how it is trained, the target in BLEU."""

    data: str
    sizes: dict[str, Any]
    dropout: float
    config: TrainConfig
    target: float | None = None


SMALL: dict[str, Any] = {"hidden_features": 192, "num_layers": 3, "num_heads": 4, "feedforward_features": 512}
LARGE: dict[str, Any] = {"hidden_features": 384, "num_layers": 4, "num_heads": 6, "feedforward_features": 1024}


def config(epochs: int, **changes: Any) -> TrainConfig:
    """Return the settings that all rows share, and those given."""
    shared: dict[str, Any] = {"batch_values": 2500, "learning_rate": 2e-3, "warmup_steps": 600, "weight_decay": 1e-3}
    shared |= {"label_smoothing": 0.1, "gradient_clip": 1.0, "ema_decay": 0.998}
    return TrainConfig(epochs=epochs, **{**shared, **changes})


ENTRIES: dict[str, dict[str, Entry]] = {
    "cpu": {
        "German to English": Entry("multi30k_de_en", SMALL, 0.1, config(9), 30.0),
        "English to German": Entry("multi30k_en_de", SMALL, 0.1, config(9)),
    },
    "cuda": {
        "German to English": Entry("multi30k_de_en", LARGE, 0.3, config(40, batch_values=8000, device="cuda"), 38.0),
        "English to German": Entry("multi30k_en_de", LARGE, 0.3, config(40, batch_values=8000, device="cuda")),
    },
}


def model_of(entry: Entry, data: Sequences) -> Transformer:
    """Return the model of an entry with its first weights."""
    torch.manual_seed(entry.config.seed)
    shared = {"dropout": entry.dropout, "norm": "pre"}
    size = entry.sizes["hidden_features"]
    inner = {name: value for name, value in entry.sizes.items() if name != "hidden_features"}
    encoder = SourceEncoder(TOKENS, size, **inner, **shared)
    return Transformer((MAX_LENGTH,), Ending(Tokens(TOKENS)), **entry.sizes, **shared, tied=True, encoder=encoder)


def sources_of(data: Sequences, split: str) -> Tensor:
    """Return the sources of a split, padded with -1."""
    assert data.sources is not None
    own: Ragged = data.sources[split]
    padded = np.full((len(own), int(own.lengths.max())), -1, dtype=np.int64)
    for row, values in enumerate(own):
        padded[row, : len(values)] = values
    return torch.from_numpy(padded)


def translations(model: Transformer, data: Sequences, num_beams: int = NUM_BEAMS) -> list[str]:
    """Return the best hypothesis for every test source, those of like length side by side."""
    assert data.sources is not None
    sources, lengths = sources_of(data, "test"), data.sources["test"].lengths
    order = np.argsort(lengths, kind="stable")
    options = {"num_beams": num_beams, "length_penalty": LENGTH_PENALTY, "max_length": MAX_LENGTH}
    found = beam_search(model, sources[torch.from_numpy(order)], **options)
    texts = [""] * len(order)
    for row, hypotheses in zip(order, found, strict=True):
        texts[row] = data.codec.decode(hypotheses[0].values.numpy()) if hypotheses and data.codec else ""
    return texts


def references(folder: Path, language: str) -> list[str]:
    """Return the test sentences of a language as they are."""
    file = folder / "text" / "multi30k_en_de" / f"test_2016_flickr.{language}.gz"
    with gzip.open(file, "rt", encoding="utf8") as lines:
        return lines.read().splitlines()


def measure(folder: Path, device: str, name: str, entry: Entry) -> dict[str, Any]:
    """Train (or go on training) one entry, translate the test sources and score."""
    import sacrebleu

    data = load(entry.data, data_dir=folder, tokens=f"bpe:{TOKENS}", joint=True)
    assert isinstance(data, Sequences)
    model, where = model_of(entry, data), WORK / RESULTS / device / name.replace(" ", "_")
    _, facts = trained(model, data, entry.config, where)
    model.to(device)
    test = surprise(model, list(data.test), sources_of(data, "test"))
    started = time.process_time()
    texts = translations(model, data)
    decoding = time.process_time() - started
    metric = sacrebleu.metrics.BLEU()
    wanted = references(folder, entry.data[-2:])
    bleu = metric.corpus_score(texts, [wanted])
    greedy = metric.corpus_score(translations(model, data, 1), [wanted])
    return {
        "bleu": round(bleu.score, 2),
        "greedy_bleu": round(greedy.score, 2),
        "signature": str(metric.get_signature()),
        "test_nats": round(test.nats, 4),
        "perplexity": round(math.exp(test.nats), 3),
        "decoding_seconds": round(decoding, 1),
        "examples": [[wanted[k], texts[k]] for k in (0, 100, 500)],
        **facts,
    }


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all entries of a device (or some) and print the table."""
    torch.set_num_threads(threads)
    for name in only or ENTRIES[device]:
        if name not in load_rows(RESULTS).get(device, {}):
            row = measure(folder, device, name, ENTRIES[device][name])
            store(RESULTS, {device: {**load_rows(RESULTS).get(device, {}), name: row}})
            print(f"{name}: BLEU {row['bleu']:.2f}, {row['cpu_seconds']} s", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored, and some sentences."""
    stored, rows, examples = load_rows(RESULTS), [], []
    for device, own in ENTRIES.items():
        for name, entry in own.items():
            row, target = stored.get(device, {}).get(name), entry.target or ""
            if row is None:
                rows.append([name, device, "not run", "", "", "", "", "", target])
                continue
            cells = [name, device, f"{row['bleu']:.1f}", f"{row['greedy_bleu']:.1f}", f"{row['perplexity']:.2f}"]
            rows.append(
                [*cells, f"{row['parameters']:,}", told_time(row, device), f"{row['decoding_seconds']:.0f} s", target]
            )
            examples += [f"- {name}: *{wanted}* / {found}" for wanted, found in row["examples"]]
            signature = f"\n\nSignature: `{row['signature']}`."
    header = ["direction", "device", "BLEU", "greedy", "perplexity", "parameters", "training", "decoding", "target"]
    shown = table(header, rows)
    return f"{shown}{signature}\n\nReference / translation:\n\n" + "\n".join(examples) if examples else shown
