"""Folders of images, grey levels, black and white, picture grids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seriatim.data import (
    array_dataset,
    binarise,
    coarsen,
    image_folder_dataset,
    load,
    load_image_folder,
    quantise,
    save_grid,
    scale_images,
)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


def grey(value: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width), value, dtype=np.uint8)


def classes(folder: Path) -> Path:
    """Two classes of 4 x 6 images, each of one grey value."""
    for name, values in {"b": [30, 20], "a": [10, 0]}.items():
        for i, value in enumerate(values):
            save(folder / name / f"{i}.png", grey(value))
    (folder / "a" / "notes.txt").write_text("no image")
    (folder / "a" / ".hidden.png").write_text("no image")
    return folder


def test_subfolders_are_classes_in_order(tmp_path: Path) -> None:
    images, labels, names = load_image_folder(classes(tmp_path))
    assert images.shape == (4, 4, 6)
    assert images.dtype == np.uint8
    assert images[:, 0, 0].tolist() == [10, 0, 30, 20]
    assert labels is not None
    assert labels.tolist() == [0, 0, 1, 1]
    assert names == ["a", "b"]


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "2.png", grey(2))
    save(tmp_path / "10.png", grey(10))
    images, labels, names = load_image_folder(tmp_path)
    assert images[:, 0, 0].tolist() == [10, 2]  # by name, as text
    assert labels is None
    assert names is None


def test_sizes_must_agree_or_be_given(tmp_path: Path) -> None:
    save(tmp_path / "a.png", grey(100))
    save(tmp_path / "b.png", grey(200, 8, 5))
    with pytest.raises(ValueError, match=r"b\.png: expected 4 x 6 pixels as in a\.png, got 8 x 5"):
        load_image_folder(tmp_path)
    images = load_image_folder(tmp_path, size=(2, 3)).images
    assert images.shape == (2, 2, 3)
    assert images[:, 0, 0].tolist() == [100, 200]
    assert load_image_folder(tmp_path, size=5).images.shape == (2, 5, 5)
    with pytest.raises(ValueError, match="size: expected a side"):
        load_image_folder(tmp_path, size=0)


def test_colour(tmp_path: Path) -> None:
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = 255
    save(tmp_path / "a.png", grey(7))
    save(tmp_path / "b.png", red)
    images = load_image_folder(tmp_path).images  # one colour image makes all of them colour images
    assert images.shape == (2, 4, 6, 3)
    assert images[:, 0, 0].tolist() == [[7, 7, 7], [255, 0, 0]]
    assert load_image_folder(tmp_path, grey=True).images[:, 0, 0].tolist() == [7, 76]


def test_transparency_depth_and_rotation(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), dtype=np.uint8)  # transparent black
    save(tmp_path / "rgba" / "a.png", rgba)
    assert (load_image_folder(tmp_path / "rgba").images == 255).all()
    wide = np.array([[0, 250, 65535]], dtype=np.uint16)
    save(tmp_path / "wide" / "a.png", wide)
    assert load_image_folder(tmp_path / "wide").images[0].tolist() == [[0, 1, 255]]
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    save(tmp_path / "turned" / "a.png", np.array([[1, 2, 3]], dtype=np.uint8), exif=exif)
    assert load_image_folder(tmp_path / "turned").images[0].tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_a_bad_image_is_named(tmp_path: Path, damage: str) -> None:
    save(tmp_path / "good.png", grey(1, 40, 40))
    noise = np.random.RandomState(0).randint(0, 256, (40, 40)).astype(np.uint8)
    raw = bytearray(save(tmp_path / "worse.png", noise).read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 0xFF
    bad = {"cut": raw[: len(raw) // 2], "text": b"hello", "flipped": raw}[damage]
    (tmp_path / "worse.png").write_bytes(bad)
    with pytest.raises(ValueError, match=r"worse\.png: expected an? (whole )?image"):
        load_image_folder(tmp_path)


def test_folders_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder of images, got nothing"):
        load_image_folder(tmp_path / "none")
    with pytest.raises(ValueError, match=r"expected images \(.*\), got none"):
        load_image_folder(tmp_path)
    classes(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(ValueError, match="expected images of the class 'c', got none"):
        load_image_folder(tmp_path)
    save(tmp_path / "x.png", grey(1))
    with pytest.raises(ValueError, match=r"either in the folder or in subfolders .* got both: x\.png and a"):
        load_image_folder(tmp_path)


def test_quantise() -> None:
    every = np.arange(256, dtype=np.uint8)
    for levels in (2, 3, 17, 255, 256):
        coarse = quantise(every, levels)
        assert coarse.min() == 0
        assert coarse.max() == levels - 1
        assert len(np.unique(coarse)) == levels
        assert (np.diff(coarse.astype(int)) >= 0).all()
        counts = np.bincount(coarse)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(quantise(every, 256), every)
    assert quantise(np.array([0.0, 0.499, 0.5, 1.0]), 2).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"levels: expected 2..256, got 1"):
        quantise(every, 1)
    with pytest.raises(ValueError, match=r"expected floats in \[0, 1\], got 0..2"):
        quantise(np.array([0.0, 2.0]), 4)
    with pytest.raises(ValueError, match="floats in"):
        quantise(np.array([0.0, np.nan]), 4)
    with pytest.raises(TypeError, match="int64"):
        quantise(np.array([0, 2]), 4)


def test_binarise() -> None:
    x = np.repeat(np.arange(5, dtype=np.uint8), 4000).reshape(5, 4000)
    drawn = binarise(x, "sampled", levels=5)
    np.testing.assert_allclose(drawn.mean(axis=1), [0, 0.25, 0.5, 0.75, 1], atol=0.03)
    assert drawn[0].max() == 0
    assert drawn[4].min() == 1
    np.testing.assert_array_equal(drawn, binarise(x, "sampled", levels=5))
    assert (drawn != binarise(x, "sampled", levels=5, seed=1)).any()
    assert (drawn != binarise(x, "sampled", levels=5, stream=1)).any()
    assert binarise(x, "threshold:0.5", levels=5)[:, 0].tolist() == [0, 0, 1, 1, 1]
    for bad in ("fixed", "threshold:0", "threshold:x", "threshold:1.5"):
        with pytest.raises(ValueError, match=f"binarise: expected .* got '{bad}'"):
            binarise(x, bad, levels=5)


def test_dynamic_binarisation_is_redrawn_each_epoch() -> None:
    x = np.random.RandomState(0).randint(0, 256, (40, 6, 6)).astype(np.uint8)
    data = array_dataset(x, kind="integer", levels=256)
    dynamic = coarsen(data, binarise="dynamic", seed=3)
    assert (dynamic.kind, dynamic.levels) == ("binary", 2)
    np.testing.assert_array_equal(dynamic.redraw(0), dynamic.train)
    np.testing.assert_array_equal(dynamic.redraw(5), dynamic.redraw(5))
    draws = [dynamic.redraw(epoch) for epoch in range(200)]
    assert (draws[1] != draws[2]).any()
    np.testing.assert_allclose(np.mean(draws, axis=0), data.train / 255, atol=0.2)
    fixed = coarsen(data, binarise="sampled", seed=3)
    np.testing.assert_array_equal(fixed.train, dynamic.train)
    np.testing.assert_array_equal(fixed.redraw(5), fixed.train)
    assert fixed.provenance["binarise"] == "sampled"
    same = coarsen(array_dataset(x, valid=x, test=x, kind="integer", levels=256), binarise="sampled")
    assert (same.train != same.valid).any()  # each split has a draw of its own
    assert (same.valid != same.test).any()
    assert coarsen(data, levels=4).train.max() == 3
    assert coarsen(data) is data
    with pytest.raises(ValueError, match="expected binary, categorical or integer entries, got continuous"):
        coarsen(array_dataset(x / 7), binarise="sampled")
    with pytest.raises(ValueError, match="levels: expected 256 levels to quantise from, got 4"):
        coarsen(coarsen(data, levels=4), levels=3)


def test_image_data_set(tmp_path: Path) -> None:
    for i in range(10):
        save(tmp_path / "all" / ("odd" if i % 2 else "even") / f"{i}.png", grey(20 * i))
    data = image_folder_dataset(tmp_path / "all", levels=16)
    assert (data.kind, data.levels, data.event_shape, len(data.train)) == ("integer", 16, (4, 6), 8)
    assert data.class_names == ["even", "odd"]
    binary = load(tmp_path / "all", binarise="threshold:0.5", size=3)
    assert (binary.kind, binary.event_shape) == ("binary", (3, 3))
    assert binary.provenance["resize"] == [3, 3]


def test_folders_of_splits(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    save(tmp_path / "val" / "b" / "0.png", grey(99))
    save(tmp_path / "test" / "b" / "0.png", grey(200))
    data = load(tmp_path)
    assert (len(data.train), len(data.valid), len(data.test)) == (4, 1, 1)
    assert data.test.max() == 200
    assert data.labels is not None
    assert {split: y.tolist() for split, y in data.labels.items()} == {
        "train": [0, 0, 1, 1],
        "valid": [1],
        "test": [1],
    }


def test_grid_content(tmp_path: Path) -> None:
    images = np.array([[[0, 1]], [[2, 3]], [[3, 0]]])  # three images of 1 x 2, four levels
    path = save_grid(tmp_path / "deep" / "grid.png", images, levels=4, columns=2, scale=2, pad=1)
    drawn = np.asarray(Image.open(path))
    p = 128
    row = [p, 0, 0, 85, 85, p, 170, 170, 255, 255, p]
    last = [p, 255, 255, 0, 0, p, p, p, p, p, p]
    assert drawn.tolist() == [[p] * 11, row, row, [p] * 11, last, last, [p] * 11]
    assert os.listdir(path.parent) == ["grid.png"]


def test_grid_of_colours_without_pad(tmp_path: Path) -> None:
    images = np.random.RandomState(0).randint(0, 256, (3, 2, 2, 3))
    drawn = np.asarray(Image.open(save_grid(tmp_path / "g.png", images, levels=256, columns=3, pad=0)))
    np.testing.assert_array_equal(drawn, np.concatenate(list(images), axis=1))


def test_grid_refusals_leave_nothing(tmp_path: Path) -> None:
    good = np.zeros((2, 3, 3))
    for images in (good + 2, good - 1, good + np.nan):
        with pytest.raises(ValueError, match=r"images: expected numbers in 0..levels-1 = 0..1"):
            save_grid(tmp_path / "g.png", images, levels=2)
    with pytest.raises(ValueError, match=r"path: expected a name ending in \.png"):
        save_grid(tmp_path / "g.jpg", good, levels=2)
    with pytest.raises(ValueError, match=r"expected shape \(N, H, W\)"):
        save_grid(tmp_path / "g.png", good[0], levels=2)
    with pytest.raises(ValueError, match="scale >= 1"):
        save_grid(tmp_path / "g.png", good, levels=2, scale=0)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match="path: expected a file to write, got the folder"):
        save_grid(tmp_path / "folder.png", good, levels=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="path: expected a folder to write into"):
        save_grid(tmp_path / "file" / "g.png", good, levels=2)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_arrays_are_scaled_as_folders_are(tmp_path: Path) -> None:
    x = np.random.RandomState(0).randint(0, 256, (3, 6, 8, 3)).astype(np.uint8)
    for number, image in enumerate(x):
        save(tmp_path / f"{number}.png", image)
    for size, one in ((None, True), ((3, 4), None), (5, True), (5, False)):
        expected = load_image_folder(tmp_path, size=size, grey=one).images
        np.testing.assert_array_equal(scale_images(x, size=size, grey=one), expected)
        np.testing.assert_array_equal(scale_images(x.astype(float), size=size, grey=one), expected)
    assert scale_images(x[..., 0], grey=False).shape == (3, 6, 8, 3)
    assert scale_images(x) is x
    for wrong, words in ((x[..., :2], "images"), (x / 2, "whole"), (x.astype(int) - 9, "whole"), (x[0, 0], "images")):
        with pytest.raises(ValueError, match=f"x: expected {words}"):
            scale_images(wrong, size=4)
    with pytest.raises(ValueError, match="size: expected a side"):
        scale_images(x, size=(0, 4))
