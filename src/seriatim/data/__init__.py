"""Data sets: from names, files, folders, arrays and data frames to rows or sequences in three splits."""

from seriatim.data.arrays import array_dataset, check_array, recognise_array
from seriatim.data.codecs import MuLaw, Pcm, Roll, Standardised, codec_of
from seriatim.data.dataset import Dataset, Kind
from seriatim.data.grey import binarise, how_drawn, quantise
from seriatim.data.images import (
    ImageFolder,
    coarsen,
    image_folder_dataset,
    load_image_folder,
    save_grid,
    split_folders,
)
from seriatim.data.infer import infer_schema
from seriatim.data.loading import as_dataset, load, table_dataset
from seriatim.data.named import NAMED, NamedSet, load_named
from seriatim.data.numpy_files import load_archive, load_array, load_parts
from seriatim.data.scaling import scale_images
from seriatim.data.schema import UNSEEN, Column, Schema
from seriatim.data.sequences import Codec, Ragged, Sequences
from seriatim.data.splits import split_indices
from seriatim.data.tables import Table, from_frame, is_frame, read_table, write_csv
from seriatim.data.text import text_codec, text_sequences
from seriatim.data.text_codecs import BytePairs, Bytes, Characters, TextCodec

__all__ = [
    "NAMED",
    "UNSEEN",
    "BytePairs",
    "Bytes",
    "Characters",
    "Codec",
    "Column",
    "Dataset",
    "ImageFolder",
    "Kind",
    "MuLaw",
    "NamedSet",
    "Pcm",
    "Ragged",
    "Roll",
    "Schema",
    "Sequences",
    "Standardised",
    "Table",
    "TextCodec",
    "array_dataset",
    "as_dataset",
    "binarise",
    "check_array",
    "coarsen",
    "codec_of",
    "from_frame",
    "how_drawn",
    "image_folder_dataset",
    "infer_schema",
    "is_frame",
    "load",
    "load_archive",
    "load_array",
    "load_image_folder",
    "load_named",
    "load_parts",
    "quantise",
    "read_table",
    "recognise_array",
    "save_grid",
    "scale_images",
    "split_folders",
    "split_indices",
    "table_dataset",
    "text_codec",
    "text_sequences",
    "write_csv",
]
