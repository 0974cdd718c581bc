"""Data sets: from names, files, folders, arrays and data frames to rows or sequences in three splits."""

from seriatim.data.arrays import array_dataset, check_array, recognise_array
from seriatim.data.audio import audio_sequences
from seriatim.data.audio_files import read_audio, read_blocks, resample, stream_audio, write_audio
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
from seriatim.data.loading import as_dataset, load
from seriatim.data.music import music_sequences
from seriatim.data.named import NAMED, NamedSet, load_named
from seriatim.data.numpy_files import load_archive, load_array, load_parts
from seriatim.data.pairs import pair_sequences, read_lines, read_pairs
from seriatim.data.scaling import scale_images
from seriatim.data.schema import UNSEEN, Column, Schema
from seriatim.data.sequences import Codec, Ragged, Sequences
from seriatim.data.series import series_sequences
from seriatim.data.splits import split_indices
from seriatim.data.tables import Table, from_frame, is_frame, read_table, write_csv
from seriatim.data.tabular import table_dataset
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
    "audio_sequences",
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
    "music_sequences",
    "pair_sequences",
    "quantise",
    "read_audio",
    "read_blocks",
    "read_lines",
    "read_pairs",
    "read_table",
    "recognise_array",
    "resample",
    "save_grid",
    "scale_images",
    "series_sequences",
    "split_folders",
    "split_indices",
    "stream_audio",
    "table_dataset",
    "text_codec",
    "text_sequences",
    "write_audio",
    "write_csv",
]
