"""Folders of images in, picture grids out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from seriatim.data.arrays import array_dataset
from seriatim.data.dataset import DISCRETE, Dataset
from seriatim.data.files import replacing
from seriatim.data.grey import binarise as _binarise
from seriatim.data.grey import parse_binarise, quantise
from seriatim.data.scaling import fit_image, height_width
from seriatim.data.splits import FRACTIONS, SPLITS

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm"})
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
_PAD = 128  # the grey between the pictures of a grid


class ImageFolder(NamedTuple):
    """The images of a folder.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8 in 0..levels-1.
        labels: (N,) int64, the subfolder of each image; None if the images lie in the folder itself.
        class_names: names of the subfolders, sorted; None without labels.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: list[str] | None


def load_image_folder(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    levels: int = 256,
    binarise: str | None = None,
    seed: int = 0,
) -> ImageFolder:
    """Read a folder of images whose subfolders, if there are any, are the classes.

    The order is that of the class names and of the paths below them. Files with other endings and names that
    begin with a dot are passed over. Transparent pixels become white, 16-bit grey becomes 8-bit, the rotation
    that a camera noted is applied, and of an animation the first frame is read.

    Args:
        path: the folder.
        size: side, or (height, width), to which every image is scaled (smoothly, by Pillow's bilinear filter); if
            not given, all images must have one size.
        grey: True: one channel, False: three; if not given, one where all files are grey.
        levels: number of grey levels (`quantise`), 2..256.
        binarise: None, or a rule of `binarise`, applied to the levels.
        seed: of a "sampled" (or "dynamic", the same here) binarisation.

    Returns:
        The images, their classes and the classes' names.

    Raises:
        ValueError: no folder, no images, a file that is no whole image, images of two sizes; names the files.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("L", (3, 2), 128).save(folder / "grey.png")
        >>> load_image_folder(folder).images.shape
        (1, 2, 3)
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"{path}: expected a folder of images, got {'a file' if path.exists() else 'nothing'}")
    files, labels, names = _find(path)
    if grey is None:
        grey = all(_mode(file) in _GREY_MODES for file in files)
    shape = height_width(size)
    pixels = [_pixels(file, grey, shape) for file in files]
    for file, array in zip(files, pixels, strict=True):
        if array.shape != pixels[0].shape:
            (height, width), (h, w) = pixels[0].shape[:2], array.shape[:2]
            raise ValueError(
                f"{file}: expected {height} x {width} pixels as in {files[0].name}, got {h} x {w}; "
                "size=(height, width) scales all images (--resize HEIGHTxWIDTH)"
            )
    images = quantise(np.stack(pixels), levels)
    if binarise is not None:
        images = _binarise(images, binarise, levels=levels, seed=seed)
    return ImageFolder(images, labels, names)


def image_folder_dataset(
    path: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    levels: int = 256,
    binarise: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    split_seed: int = 0,
) -> Dataset:
    """Make a data set of a folder of images; subfolders called train, valid (or val) and test are the splits.

    Args:
        path: the folder.
        size: as in `load_image_folder`.
        grey: as in `load_image_folder`.
        levels: number of grey levels, 2..256.
        binarise: None, "threshold:T", "sampled" or "dynamic" (`coarsen`).
        fractions: shares of train, valid and test.
        split_seed: decides the cut and the binarisation.

    Returns:
        The data set, binary or of kind "integer" with `levels` levels.

    Raises:
        ValueError: as `load_image_folder`.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for k in range(10):
        ...     Image.new("L", (3, 2), 20 * k).save(folder / f"{k}.png")
        >>> data = image_folder_dataset(folder)
        >>> data.event_shape, len(data.train)
        ((2, 3), 8)
    """
    path = Path(path)
    folders = split_folders(path)
    parts, labels = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for split, folder in folders.items():
        read = load_image_folder(folder, size=size, grey=grey, levels=levels)
        grey = read.images.ndim == 3
        parts[split] = read.images
        if read.labels is not None and read.class_names is not None:
            labels[split] = np.array(read.class_names)[read.labels]
    _refuse_new_classes(folders, labels)
    resize = None if size is None else list(parts["train"].shape[1:3])
    data = array_dataset(
        parts["train"],
        valid=parts.get("valid"),
        test=parts.get("test"),
        labels=labels if set(labels) == set(parts) else None,
        kind="binary" if levels == 2 else "integer",
        levels=levels,
        fractions=fractions,
        split_seed=split_seed,
        name=path.name,
        provenance={"path": str(path), "resize": resize, "grey": grey},
    )
    return coarsen(data, binarise=binarise, seed=split_seed)


def _refuse_new_classes(folders: dict[str, Path], labels: dict[str, np.ndarray]) -> None:
    """Raise ValueError where a held-out split has a class that the training rows lack."""
    for split, names in labels.items():
        if "train" in labels and (new := sorted(set(names.tolist()) - set(labels["train"].tolist()))):
            raise ValueError(f"{folders['train']}: expected images of the class {new[0]!r}, as in {split}, got none")


def split_folders(path: str | Path) -> dict[str, Path]:
    """Return the folders of the splits: subfolders train, valid (or val) and test, or all rows as train.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "train").mkdir(), (folder / "val").mkdir()
        (None, None)
        >>> [f"{split}: {found.name}" for split, found in split_folders(folder).items()]
        ['train: train', 'valid: val']
    """
    path = Path(path)
    if not (path / "train").is_dir():
        return {"train": path}
    valid = "valid" if (path / "valid").is_dir() else "val"
    names = {"train": "train", "valid": valid, "test": "test"}
    return {split: path / name for split, name in names.items() if (path / name).is_dir()}


def coarsen(data: Dataset, *, levels: int | None = None, binarise: str | None = None, seed: int = 0) -> Dataset:
    """Return a discrete data set with fewer levels, or in black and white.

    With "sampled" each split is drawn once; with "dynamic" so are valid and test, while `Dataset.redraw` draws
    train anew each epoch. The two are different tasks: never compare their numbers in one table.

    Args:
        data: of kind binary, categorical or integer; to quantise, bytes with 256 levels.
        levels: number of levels to quantise to, or None.
        binarise: "threshold:T", "sampled", "dynamic" or None.
        seed: of the draws.

    Returns:
        The data set; its provenance names what was done.

    Raises:
        ValueError: continuous data or a table, or an unknown rule.

    Example:
        >>> x = np.arange(0, 250, 10, dtype=np.uint8).reshape(-1, 1)
        >>> coarsen(array_dataset(x, kind="integer", levels=256), binarise="threshold:0.5").kind
        'binary'
    """
    if levels is None and binarise is None:
        return data
    if data.kind not in DISCRETE:
        raise ValueError(f"data: expected binary, categorical or integer entries, got {data.kind}")
    if levels is not None and levels != data.levels:
        if data.levels != 256:
            raise ValueError(f"levels: expected 256 levels to quantise from, got {data.levels}")
        coarse: dict[str, Any] = {name: quantise(x, levels) for name, x in data.splits.items()}
        provenance = {**data.provenance, "quantised_to": levels}
        coarse["kind"] = "binary" if levels == 2 else "integer"
        data = replace(data, **coarse, levels=levels, provenance=provenance)
    if binarise is None:
        return data
    parse_binarise(binarise)
    grey_levels = int(data.levels or 2)
    parts: dict[str, Any] = {
        name: _binarise(x, binarise, levels=grey_levels, seed=seed, stream=SPLITS.index(name))
        for name, x in data.splits.items()
    }
    dynamic = binarise == "dynamic"
    return replace(
        data,
        **parts,
        kind="binary",
        levels=2,
        provenance={
            **data.provenance,
            "binarise": binarise,
            "binarise_seed": seed,
            "grey_levels": grey_levels,
        },
        grey=data.train if dynamic else None,
        grey_levels=grey_levels if dynamic else None,
    )


def save_grid(
    path: str | Path,
    images: np.ndarray,
    *,
    levels: int,
    columns: int | None = None,
    scale: int = 1,
    pad: int = 1,
) -> Path:
    """Draw images side by side, row by row, in one PNG file, whole or not at all.

    Args:
        path: the file, ending in .png.
        images: (N, H, W) or (N, H, W, 3), numbers in 0..levels-1; 0 is black.
        levels: number of grey levels, at least 2.
        columns: images in one row; about the square root of N if not given.
        scale: side of the square that one pixel becomes.
        pad: width of the grey lines around the images, in pixels of the file.

    Returns:
        The path.

    Raises:
        ValueError: another ending or shape, or a number outside 0..levels-1.

    Example:
        >>> import tempfile
        >>> file = save_grid(Path(tempfile.mkdtemp()) / "grid.png", np.eye(3)[None].repeat(4, 0), levels=2)
        >>> Image.open(file).size
        (9, 9)
    """
    path = Path(path)
    images = np.asarray(images)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path: expected a name ending in .png, got {path}")
    if images.ndim not in (3, 4) or not images.size or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(f"images: expected shape (N, H, W) or (N, H, W, 3), got {images.shape}")
    if levels < 2 or not (images.min() >= 0 and images.max() <= levels - 1):
        raise ValueError(
            f"images: expected numbers in 0..levels-1 = 0..{levels - 1}, got {images.min()}..{images.max()}"
        )
    if scale < 1 or pad < 0 or (columns is not None and columns < 1):
        raise ValueError(f"expected scale >= 1, pad >= 0 and columns >= 1, got {scale}, {pad} and {columns}")
    grey = np.round(images.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    tiles = grey.repeat(scale, axis=1).repeat(scale, axis=2)
    num, height, width = tiles.shape[:3]
    columns = columns or square(num)
    rows = math.ceil(num / columns)
    canvas = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, *tiles.shape[3:]), _PAD, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        canvas[top : top + height, left : left + width] = tile
    with replacing(path) as temporary:
        Image.fromarray(canvas).save(temporary, format="PNG")
    return path


def square(num: int) -> int:
    """Return how many columns lay so many pictures in a square.

    Example:
        >>> square(10)
        4
    """
    return math.ceil(math.sqrt(num))


def _find(path: Path) -> tuple[list[Path], np.ndarray | None, list[str] | None]:
    """Image files in order, their classes and the names of the classes."""
    here = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in here if entry.is_file() and entry.suffix.lower() in SUFFIXES]
    folders = [entry for entry in here if entry.is_dir()]
    below = {
        folder.name: sorted(
            (entry for entry in folder.rglob("*") if entry.is_file() and entry.suffix.lower() in SUFFIXES),
            key=lambda entry: entry.relative_to(path).as_posix(),
        )
        for folder in folders
    }
    below = {name: [entry for entry in found if not entry.name.startswith(".")] for name, found in below.items()}
    if files and any(below.values()):
        raise ValueError(
            f"{path}: expected images either in the folder or in subfolders (its classes), got both: "
            f"{files[0].name} and {next(name for name, found in below.items() if found)}"
        )
    if files:
        return files, None, None
    if not any(below.values()):
        raise ValueError(f"{path}: expected images ({', '.join(sorted(SUFFIXES))}), got none")
    for name, found in below.items():
        if not found:
            raise ValueError(f"{path / name}: expected images of the class {name!r}, got none")
    labels = np.repeat(np.arange(len(below)), [len(found) for found in below.values()])
    return [file for found in below.values() for file in found], labels, list(below)


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except Exception as error:  # decoders raise whatever they meet: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{file}: expected an image, got: {error}") from error


def _mode(file: Path) -> str:
    with _open(file) as image:
        return image.mode


def _pixels(file: Path, grey: bool, size: tuple[int, int] | None) -> np.ndarray:
    """One image, whole, as (H, W) or (H, W, 3) bytes."""
    with _open(file) as image:
        try:
            image.load()
            image = ImageOps.exif_transpose(image)
        except Exception as error:  # as above
            raise ValueError(f"{file}: expected a whole image, got: {error}") from error
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"{file}: expected at most 16 bits per pixel, got values {wide.min()}..{wide.max()}")
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise ValueError(f"{file}: expected whole grey values or colours, got floating-point pixels")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return fit_image(image, grey, size)
