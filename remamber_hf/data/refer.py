# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""RefCOCO, RefCOCO+, G-Ref, RefCLEF and gRefCOCO from their published REFER files.

instances.json + refs(split_by).p + pictures → checked rows → Arrow cache; `row_mask` draws a row's mask on demand.

    <data_dir>/<dataset>/instances.json
    <data_dir>/<dataset>/refs(<split_by>).p              grefs(<split_by>).json for gRefCOCO
    <data_dir>/images/mscoco/images/train2014/           LAVT's layout
    <data_dir>/train2014/                                ReMamber's layout
    <data_dir>/images/train2014/                         gRefCOCO's layout
    <data_dir>/images/<dataset>/JPEGImages/              RRSIS-D's layout

`COCO_FOLDERS` has more places for COCO's pictures. RefCLEF's are in `images/saiapr_tc-12/` or `saiapr_tc-12/`. Any
further folder with the first two files is a data set too, whose pictures may be in `images/<dataset>/`. This file
stands alone: datasets < 4 loads it as a script, newer versions go through `load_refer`.

What is handled by rule:
- The splits are the exact names in the refs file, in the papers' order; nothing is joined to a "test". REFER's own
  reader joins the refs of RefCLEF's testAB to its testA and testB, and likewise for every such name: to have its
  testA, concatenate the splits testA and testAB.
- A picture's name is that of instances.json, and its rows have its size. The name in the refs file is not read.
- A picture with an EXIF rotation is copied into the cache as it is stored, since the annotations are not rotated.
- Python 2 text is read as UTF-8, and as Latin-1 where it is not UTF-8.
- An RLE dict (a crowd) and a list of them (RefCLEF) are masks like polygons, compressed or not.
- In a generalised set crowds (`iscrowd`) are left out, as the published readers of gRefCOCO do, and counted.
- A polygon under 3 points covers nothing: it is left out and counted. (pycocotools would read 4 numbers as a box.)
- What an annotation has outside the picture is cut off.
- A sentence id that came before is counted, and its sentence kept: sentences are read from their refs, never by id.

What is reported, with data set, ref id and file names: a ref or annotation without a needed field, a ref id that came
before, an id that stands twice in images, annotations or categories, an unknown one, an annotation of another picture,
an annotation that has no polygon of 3 points or covers no pixel or reaches further than one picture size outside, an
RLE whose runs do not fill the picture, a ref of crowds only in a generalised set, an empty sentence, one that is not
Unicode text, one of which the file says that it is true of nothing ("exist": false, in R-RefCOCO), a picture that is
missing, unreadable, truncated or of another size, a picture name that leaves the folder. `on_error="raise"` stops
there. `on_error="skip"` logs it and leaves the row out (only the sentence, where a sentence is empty or absent); the
counts are logged at every load and kept in `info.description`. A split of which nothing is left raises.

The files are anybody's: nothing in them is executed, and what a message shows of them is cut and escaped.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import pickle
import re
import reprlib
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import ClassVar, TypeGuard

import datasets
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm


logger = logging.getLogger(__name__)

# Caches that `load_refer` filled or opened in this process: the paths of pictures in them are those of its `data_dir`.
READ_HERE: set[str] = set()
# Raise it when the rows change: the Arrow cache knows no hash of this file.
VERSION = datasets.Version("1.1.0")
PUBLISHED_SETS = {
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
    "refclef": ("unc", "berkeley"),
    "grefcoco": ("unc",),
}
COCO_FOLDERS = (
    "images/mscoco/images/train2014",
    "train2014",
    "images/train2014",
    "images/mscoco/train2014",
    "mscoco/train2014",
    "coco/train2014",
)
IMAGE_FOLDERS = {"refclef": ("images/saiapr_tc-12", "saiapr_tc-12")}
ON_ERROR = ("raise", "skip")
SENTENCES = ("sent", "raw")
MASK_OVERLAPS = ("published", "union")
INSTANCE_LISTS = ("images", "annotations", "categories")
NO_TARGET = [-1]
# What is left out, or only noticed, without a row being lost.
SMALL_POLYGON = "polygon under 3 points"
CROWD = "crowd in a generalised ref"
REPEATED_SENTENCE_ID = "repeated sentence id"
SPLIT_ORDER = ("train", "trainval", "val", "validation", "dev")  # then tests, then all others
MAX_SPLIT_LETTERS = 50  # a split names files
MAX_SPLITS = 100
SPLIT_NAME = f"a word of at most {MAX_SPLIT_LETTERS} letters"
MAX_TEXT_LETTERS = 10_000
MAX_FILE_BYTES = 4 * 2**30
# Pixels along the outlines of one object; pycocotools takes up to 100 bytes for each.
MAX_OUTLINE = 4_000_000
# No number in COCO's compressed counts is longer: 12 characters hold 60 bits.
MAX_COUNT_LETTERS = 12
# Those of `pictures.py`. Pillow starts other programs for some that it knows besides (Ghostscript for EPS).
PICTURE_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
EXIF_ORIENTATION = 0x0112
# The last bytes of a whole file. A file that ends otherwise is decoded to know.
FILE_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
PICTURE_ERRORS = (
    Image.DecompressionBombError,
    Warning,  # where warnings are errors
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
PICKLE_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass
class ReferConfig(datasets.BuilderConfig):
    """One data set and the way it is split.

    Args:
        dataset (`str`): name of the folder with the annotations.
        split_by (`str`): who split it: the name in the parentheses of the refs file.
        generalized (`bool`): read grefs(split_by).json, in which a sentence may mean several objects or none.
        on_error (`str`): "raise" or "skip", see the top of the file.
        sentences (`str`): "sent", the text as it was cleaned, or "raw", as it was written.
    """

    version: datasets.Version = VERSION
    dataset: str = ""
    split_by: str = ""
    generalized: bool = False
    on_error: str = "raise"
    sentences: str = "sent"

    def __post_init__(self):
        self.name = f"{self.dataset}_{self.split_by}"
        super().__post_init__()

    @property
    def root(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(self.data_dir)))

    @property
    def instances_path(self) -> Path:
        return self.root / self.dataset / "instances.json"

    @property
    def refs_path(self) -> Path:
        name = f"grefs({self.split_by}).json" if self.generalized else f"refs({self.split_by}).p"
        return self.root / self.dataset / name

    @property
    def image_folders(self) -> list[Path]:
        """The folders of pictures that are there."""
        return [folder for folder in self.image_places if folder.is_dir()]

    @property
    def image_places(self) -> list[Path]:
        """Where the pictures are looked for."""
        return [self.root / folder for folder in picture_folders(self.dataset)]

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the name of the cache folder: it changes with the arguments and with the files they point to."""
        self._check()
        return super().create_config_id({**config_kwargs, "fingerprint": self._fingerprint()}, custom_features)

    def _check(self) -> None:
        for name, choices in (("on_error", ON_ERROR), ("sentences", SENTENCES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {show(getattr(self, name))}; choose one of {', '.join(choices)}.")
        if self.data_dir is None:
            raise ValueError(f"data_dir is missing; give the folder that holds {self.dataset}/ and the pictures.")
        for path in (self.instances_path, self.refs_path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing; data_dir must hold {self.dataset}/{self.instances_path.name} and "
                    f"{self.dataset}/{self.refs_path.name}."
                )
        if not self.image_folders:
            wanted = " or ".join(picture_folders(self.dataset))
            raise FileNotFoundError(f"{self.root} holds no folder of pictures; put them into {wanted}.")

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(os.fsencode(self.root))
        for path in (self.instances_path, self.refs_path):
            digest.update(hashlib.sha256(read_regular_file(path)).digest())
        if self.on_error == "skip":
            # A picture that was missing may have come since.
            for folder in self.image_folders:
                for parent, _, names in sorted(os.walk(folder)):
                    for name in sorted(names):
                        size = os.stat(os.path.join(parent, name)).st_size
                        digest.update(os.fsencode(f"{parent}/{name}\0{size}\0"))
        return digest.hexdigest()


def picture_folders(dataset: str) -> tuple[str, ...]:
    """Return the folders in `data_dir` that may hold the pictures of a data set."""
    if dataset in PUBLISHED_SETS or not dataset:
        return IMAGE_FOLDERS.get(dataset, COCO_FOLDERS)
    return (f"images/{dataset}/JPEGImages", f"images/{dataset}", *COCO_FOLDERS)


def papers_order(splits) -> list[str]:
    """Return names of splits as the papers list them: train, val, then tests by name, then all others as they came."""

    def place(name: str) -> tuple[int, str]:
        if name in SPLIT_ORDER:
            return SPLIT_ORDER.index(name), ""
        return (len(SPLIT_ORDER), name) if name.startswith("test") else (len(SPLIT_ORDER) + 1, "")

    return sorted(splits, key=place)


class ShortRepr(reprlib.Repr):
    """`repr` in bounded time, whatever the value holds."""

    def __init__(self):
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 160

    def repr_int(self, number: int, level: int) -> str:
        # Python refuses to write the digits of very long ones.
        return repr(number) if number.bit_length() < 100 else f"<an integer of {number.bit_length()} bits>"

    def repr_dict(self, value: dict, level: int) -> str:
        # That of reprlib sorts all keys first.
        if level <= 0 and value:
            return "{...}"
        entries = [f"{self.repr1(key, level - 1)}: {self.repr1(value[key], level - 1)}" for key in list(value)[:4]]
        return "{" + ", ".join(entries + ["..."] * (len(value) > 4)) + "}"


def show(value) -> str:
    """Return what came, for a message: in one line, cut, made in bounded time, what no terminal shows escaped."""
    return show_text(ShortRepr().repr(value))


def show_text(text: str, length: int = 200) -> str:
    """Return text of a file for a message, without quotes: cut, and what no terminal shows escaped."""
    text = text if len(text) <= length else f"{text[: length - 50]}…{text[-40:]}"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def read_regular_file(path: str | os.PathLike) -> bytes:
    """Read a file; ValueError if it is a pipe, a device or larger than any file of annotations."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{show_text(os.fspath(path))} is no regular file; give one.")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(
            f"{show_text(os.fspath(path))} has {status.st_size} bytes, at most {MAX_FILE_BYTES} are read; divide it."
        )
    with open(path, "rb") as file:
        return file.read()


def decode_text(content: bytes, name: str | os.PathLike) -> str:
    """Decode UTF-8, with or without a byte order mark; ValueError with the file's name, the line and advice."""
    is_utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]
    try:
        if not is_utf_16:
            return content.decode("utf-8-sig")
        place, reason = 0, "it looks like UTF-16"
    except UnicodeDecodeError as error:
        mark = len(content) - len(content.removeprefix(b"\xef\xbb\xbf"))  # the codec counts from behind it
        place = error.start + mark
        reason = f"byte 0x{content[place]:02x} is no UTF-8, as Latin-1 or Windows-1252 would have it"
    line = content.count(b"\n", 0, place) + 1
    raise ValueError(f"{show_text(os.fspath(name))}, line {line}: {reason}; save the file as UTF-8.")


def read_json(content: str | bytes):
    """Read JSON; ValueError if a name stands twice in one object: `json` itself takes the last without a word."""
    return json.loads(content, object_pairs_hook=_without_repeats)


def _without_repeats(pairs: list[tuple]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{show(name)} stands twice in one object")
    return fields


def refer_features(generalized: bool = False) -> datasets.Features:
    """Return the columns of a row; in a generalised set `ann_id`, `category` and `bbox` are lists, one per object."""
    integer, text, number = (datasets.Value(name) for name in ("int64", "string", "float64"))
    return datasets.Features(
        {
            "image": datasets.Image(),
            "sentences": [text],
            "ref_id": integer,
            "ann_id": [integer] if generalized else integer,
            "image_id": integer,
            "category": [text] if generalized else text,
            "bbox": [[number]] if generalized else [number],
            "height": datasets.Value("int32"),
            "width": datasets.Value("int32"),
            "split": text,
            # float64: pycocotools rounds coordinates, and float32 would move some pixels of the border.
            "segmentation": [{"polygons": [[number]], "rles": [text]}],
        }
    )


class ReferBuilder(datasets.GeneratorBasedBuilder):
    """refs file → `RowReader` → one Arrow file per split, with pictures by path and masks as polygons or RLE."""

    BUILDER_CONFIG_CLASS = ReferConfig
    BUILDER_CONFIGS = [
        ReferConfig(dataset=dataset, split_by=split_by, generalized=dataset == "grefcoco")
        for dataset, all_split_by in PUBLISHED_SETS.items()
        for split_by in all_split_by
    ]

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            features=refer_features(self.config.generalized), homepage="https://github.com/lichengunc/refer"
        )

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        reader = RowReader(self.config)
        self._rows = reader.rows_by_split()
        self.info.description = reader.summary()
        for split, rows in self._rows.items():
            if not rows:
                raise ValueError(f"All of split {split} is left out; mend the files. {self.info.description}")
        return [datasets.SplitGenerator(name=split, gen_kwargs={"split": split}) for split in self._rows]

    def _generate_examples(self, split: str):
        yield from enumerate(self._rows[split])


def load_refer(
    dataset: str,
    split_by: str,
    split: str | None = None,
    *,
    data_dir: str | os.PathLike,
    generalized: bool | None = None,
    expand_sentences: bool = False,
    on_error: str = "raise",
    sentences: str = "sent",
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset | datasets.DatasetDict:
    """Load a REFER data set from files on disk, without the network.

    Args:
        dataset: "refcoco", "refcoco+", "refcocog", "refclef", "grefcoco", or any further folder of `data_dir`.
        split_by: "unc", "google", "umd" or "berkeley", as the data set has it.
        split: exact name of a split; None gives all of them.
        data_dir: folder of one of the layouts at the top of this file.
        generalized: read grefs(split_by).json instead of refs(split_by).p; by default only for "grefcoco".
        expand_sentences: one row per sentence (evaluation) instead of one row per object (training).
        on_error: "raise" or "skip", see the top of this file.
        sentences: "sent", the text as it was cleaned, or "raw", as it was written, which LAVT and ReLA read.
        cache_dir: folder of the Arrow cache; by default that of `datasets`.

    Returns a data set, or one per split if `split` is None. A row has `image` (decoded when it is read), `sentences`,
    `ref_id`, `ann_id`, `image_id`, `category`, `bbox` (x, y, width, height in pixels), `height`, `width`, `split` and
    `segmentation` (one entry per object; see `row_mask`). In a generalised set `ann_id`, `category` and `bbox` are
    lists with one entry per object, and empty if the sentence means nothing in the picture.

    Raises ValueError for an unknown name or a defect in the files, FileNotFoundError for a missing file, and OSError
    where the cache cannot be written.
    """
    if dataset in PUBLISHED_SETS and split_by not in PUBLISHED_SETS[dataset]:
        raise ValueError(
            f"{dataset} is not split by {show(split_by)}; choose one of {', '.join(PUBLISHED_SETS[dataset])}."
        )
    with writable_cache(cache_dir):
        data = _load(dataset, split_by, split, data_dir, generalized, on_error, sentences, cache_dir)
        return one_row_per_sentence(data) if expand_sentences else data


@contextmanager
def writable_cache(cache_dir: str | os.PathLike | None = None) -> Iterator[None]:
    """Say which variable to set where the cache of `datasets` cannot be written."""
    homes = (cache_dir or datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME)
    caches = [os.path.abspath(home) for home in homes]
    try:
        yield
    except OSError as error:
        name = os.path.abspath(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else ""
        # Of the cache, or a folder on the way to it.
        if not name or not any(name.startswith(cache) or cache.startswith(name) for cache in caches):
            raise
        raise OSError(
            f"the cache of data sets, {show_text(caches[0])}, cannot be written ({error.strerror}: {show_text(name)})."
            " Set HF_HOME (or HF_DATASETS_CACHE) to a folder that can be, or give cache_dir."
        ) from error


def _load(dataset, split_by, split, data_dir, generalized, on_error, sentences, cache_dir):
    builder = ReferBuilder(
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        data_dir=os.path.abspath(os.path.expanduser(data_dir)),
        dataset=dataset,
        split_by=split_by,
        generalized=dataset == "grefcoco" if generalized is None else generalized,
        on_error=on_error,
        sentences=sentences,
    )
    builder.download_and_prepare()
    READ_HERE.add(builder.cache_dir)
    if "Left out" in builder.info.description or "Noticed" in builder.info.description:
        logger.warning(builder.info.description)
    if split is not None and split not in builder.info.splits:
        names = ", ".join(builder.info.splits)
        raise ValueError(f"{dataset} ({split_by}) has no split {show(split)}; its splits are {names}.")
    return builder.as_dataset(split=split)


def one_row_per_sentence(data: datasets.Dataset | datasets.DatasetDict) -> datasets.Dataset | datasets.DatasetDict:
    """Repeat each row for its sentences; only the splits that are asked for are written to the cache a second time."""
    if isinstance(data, datasets.DatasetDict):
        return datasets.DatasetDict({split: one_row_per_sentence(rows) for split, rows in data.items()})
    plain = data.with_format(None).cast_column("image", datasets.Image(decode=False))  # a transform comes afterwards
    expanded = plain.map(_repeat_for_sentences, batched=True).cast_column("image", datasets.Image())
    expanded.set_format(**data.format)
    return expanded


def _repeat_for_sentences(rows: dict[str, list]) -> dict[str, list]:
    repeated = {
        name: [value for value, sentences in zip(column, rows["sentences"]) for _ in sentences]
        for name, column in rows.items()
    }
    return {**repeated, "sentences": [[sentence] for sentences in rows["sentences"] for sentence in sentences]}


def row_mask(row: dict, mask_overlap: str = "published") -> np.ndarray:
    """Draw the mask of a row: all parts of all its objects.

    Args:
        row: a row of `load_refer`.
        mask_overlap: what becomes of pixels that two parts of an object cover. "published": background, as in the
            evaluation of LAVT and ReMamber, which adds up the parts and keeps what equals 1; the evaluation of
            gRefCOCO (a row whose `ann_id` is a list) takes the union. "union": the object.

    Raises ValueError for polygons, RLEs or a size that cannot be those of a picture.

    Returns the mask, bool (height, width), in memory column by column, as pycocotools decodes and encodes; all False
    if the sentence means nothing in the picture.
    """
    if mask_overlap not in MASK_OVERLAPS:
        raise ValueError(f"mask_overlap is {show(mask_overlap)}; choose one of {', '.join(MASK_OVERLAPS)}.")
    height, width = int(row["height"]), int(row["width"])
    if height < 1 or width < 1 or height * width > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise ValueError(f"a row is of {height}×{width} pixels; no picture that is read has this size.")
    parts = [part for segmentation in row["segmentation"] for part in encode_parts(segmentation, height, width)]
    if not parts:
        return np.zeros((height, width), dtype=bool, order="F")
    union = coco_mask.merge(parts)
    is_generalized = np.ndim(row["ann_id"]) == 1
    # The areas of parts add up to that of their union just where none overlap. `area` of a list of 256 overflows.
    num_covered = sum(int(coco_mask.area(part)) for part in parts)
    if mask_overlap == "published" and not is_generalized and num_covered != coco_mask.area(union):
        return count_covering(parts, height, width) == 1
    return decode_rle(union)


def _runs_of(rle: dict) -> list[int]:
    """The lengths of the runs of an RLE dict of pycocotools; ValueError if its counts are no such text."""
    runs = _run_lengths(rle["counts"])
    if runs is None:
        raise ValueError(f"the counts of an RLE are {show(rle['counts'])}; give the text that pycocotools encodes.")
    return runs


def decode_rle(rle: dict) -> np.ndarray:
    """Decode an RLE dict of pycocotools: bool (height, width), in memory column by column.

    As `pycocotools.mask.decode`, which warns at every call under numpy 2.
    """
    height, width = rle["size"]
    runs = _runs_of(rle)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((height, width), order="F")


def count_covering(parts: list[dict], height: int, width: int) -> np.ndarray:
    """Return how many of these RLEs cover each pixel: int (height, width), in memory column by column."""
    changes = np.zeros(height * width + 1, dtype=np.int32)
    for part in parts:
        ends = np.cumsum(_runs_of(part))
        np.add.at(changes, ends[0::2], 1)
        np.add.at(changes, ends[1::2], -1)
    return changes.cumsum()[:-1].reshape((height, width), order="F")


class Defect(ValueError):
    """What is wrong with a ref: its kind, by which it is counted, and the particulars."""

    def __init__(self, kind: str, particulars: str):
        super().__init__(f"{kind}: {particulars}")
        self.kind = kind


def encode_parts(segmentation: dict, height: int, width: int) -> list[dict]:
    """Return an object's polygons and RLEs as the RLE dicts of pycocotools; Defect for what cannot be drawn.

    Rows may come from anywhere, and pycocotools takes memory for every pixel of an outline, and trusts all numbers.
    """
    low, high = (-width, -height), (2 * width, 2 * height)
    polygons, outline = [], 0.0
    for polygon in segmentation["polygons"]:
        points = np.asarray(polygon, dtype=np.float64)
        is_whole = points.ndim == 1 and len(points) >= 6 and len(points) % 2 == 0
        points = points.reshape(-1, 2) if is_whole else np.empty((0, 2))
        if not (len(points) and (points >= low).all() and (points <= high).all()):  # a NaN fails both comparisons
            raise Defect("polygon that cannot be drawn", f"it is {show(polygon)}, in a picture of {width}×{height}")
        outline += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        polygons.append(points.flatten().tolist())
    if outline > MAX_OUTLINE:
        raise Defect("endless polygon", f"outlines of {outline:.0f} pixels, at most {MAX_OUTLINE} are read")
    parts = coco_mask.frPyObjects(polygons, height, width) if polygons else []
    for rle in segmentation["rles"]:
        runs = _run_lengths(rle)
        if runs is None or min(runs, default=0) < 0 or sum(runs) != height * width:
            raise Defect("RLE that does not fill the picture", f"it is {show(rle)}, the picture {height}×{width}")
        parts.append({"size": [height, width], "counts": rle.encode("ascii")})
    return parts


class PlainUnpickler(pickle._Unpickler):
    """An unpickler that knows containers, strings and numbers, and refuses every class and function by name.

    Built on the one in pure Python: the one in C makes room for any memo index that a file names.
    """

    stack: list
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(
            f"it asks for {show_text(f'{module}.{name}')}, and only containers, strings and numbers are read"
        )

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it asks for a persistent object, and only containers, strings, numbers are read")

    def _decode_string(self, content: bytes) -> str:
        """Read a text of Python 2."""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")

    def load_setitem(self):
        self._check_keys(self.stack[-2:-1])
        super().load_setitem()  # type: ignore[misc]  # typeshed does not know what loads an opcode

    def load_setitems(self):
        self._check_keys(self.stack[0::2])
        super().load_setitems()  # type: ignore[misc]

    def load_dict(self):
        self._check_keys(self.stack[0::2])
        super().load_dict()  # type: ignore[misc]

    def refuse(self):
        raise pickle.UnpicklingError("it holds a set or a buffer, and only lists, dicts, strings and numbers are read")

    def _check_keys(self, keys: list):
        # The hash of tuples in tuples can take for ever.
        if not all(isinstance(key, (str, bytes, int, float, type(None))) for key in keys):
            raise pickle.UnpicklingError("a key of a dict is no text or number")

    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    for code in (pickle.EMPTY_SET, pickle.FROZENSET, pickle.BYTEARRAY8, pickle.NEXT_BUFFER):
        dispatch[code[0]] = refuse


def read_refs(path: str | os.PathLike) -> list[dict]:
    """Read a refs file, `.p` or `.json`: a list of dicts, whose text still has to go through `_text`.

    Raises ValueError if the file holds something else, a class or function of Python for one.
    """
    path = Path(path)
    content = read_regular_file(path)
    try:
        if path.suffix == ".json":
            refs = read_json(content)
        else:
            refs = PlainUnpickler(io.BytesIO(content)).load()
            check_tree(refs, 10 * len(content))
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except PICKLE_ERRORS as error:
        raise ValueError(
            f"{show_text(str(path))} is not read: {type(error).__name__}: {show_text(str(error))}. Get the file from "
            "its publisher again."
        ) from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(
            f"{show_text(str(path))} holds {type(refs).__name__}, a list of dicts is needed. Get the file again."
        )
    return refs


def check_tree(value, most: int) -> None:
    """ValueError if there are more than `most` values in a value, those that stand in several places counted for each.

    A pickle can put one list into many places, so that a few bytes unfold to more than any memory, or into itself.
    """
    waiting, count = [value], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
            count += len(value)
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)
            count += len(value)
        if count > most:
            raise ValueError("it holds lists that stand in too many places, or in themselves")


def _read_instances(path: Path) -> tuple[dict[str, dict[int, dict]], dict[str, Counter]]:
    """Read instances.json: {"images": {id: image}, "annotations": {id: annotation}, "categories": {id: category}}.

    Returns these, and for each of the three how often an id stands there that does so more than once.
    """
    content = read_regular_file(path)
    try:
        instances = read_json(content)
        entries = {key: [_with_id(entry) for entry in instances[key]] for key in INSTANCE_LISTS}
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{show_text(str(path))} is not read: {type(error).__name__}: {show_text(str(error))}. It needs the lists "
            "images, annotations and categories, with an id in every entry; get the file again."
        ) from error
    by_id = {key: {entry["id"]: entry for entry in entries[key]} for key in INSTANCE_LISTS}
    repeated: dict[str, Counter] = {key: Counter() for key in INSTANCE_LISTS}
    for key in INSTANCE_LISTS:
        if len(by_id[key]) < len(entries[key]):
            counts = Counter(entry["id"] for entry in entries[key])
            repeated[key] = Counter({entry_id: count for entry_id, count in counts.items() if count > 1})
    return by_id, repeated


def _with_id(entry: dict) -> dict:
    if not _is_integer(entry["id"]):
        raise ValueError(f"an id is {show(entry['id'])}, an integer is needed")
    return entry


class RowReader:
    """refs file → rows, by the rules at the top of this file; counts what is left out."""

    def __init__(self, config: ReferConfig):
        self.config = config
        self.instances, self.repeated = _read_instances(config.instances_path)
        self.refs = read_refs(config.refs_path)
        if not self.refs:
            raise ValueError(f"{show_text(str(config.refs_path))} holds no ref. Get the file again.")
        if len({split for ref in self.refs if isinstance(split := ref.get("split"), str)}) > MAX_SPLITS:
            raise ValueError(
                f"{show_text(str(config.refs_path))} names more than {MAX_SPLITS} splits. Get the file again."
            )
        self.left_out: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self.ref_ids: set[int] = set()
        self.sentence_ids: set[int] = set()
        self.pictures: dict[int, dict | Defect] = {}
        self.segmentations: dict[int, dict] = {}

    def rows_by_split(self) -> dict[str, list[dict]]:
        """Return the rows of every split that the refs file names, in the papers' order."""
        rows: dict[str, list[dict]] = {}
        for ref in tqdm(self.refs, desc=f"Checking {self.config.name}", disable=None):
            try:
                rows_of_split = rows.setdefault(_split(ref), [])
                row = self._row(ref)
            except Defect as defect:
                self._report(defect, ref)
                continue
            rows_of_split.append(row)
        return {split: rows[split] for split in papers_order(rows)}

    def summary(self) -> str:
        """Say in one line what was read and what was left out."""
        summary = f"{self.config.dataset} ({self.config.split_by}) from {len(self.refs)} refs."
        if self.left_out:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.left_out.items()))
            summary += f" Left out: {kinds}."
        if self.noticed:
            kinds = ", ".join(f"{count} × {kind}" for kind, count in sorted(self.noticed.items()))
            summary += f" Noticed: {kinds}."
        return summary

    def _report(self, defect: Defect, ref: dict) -> None:
        image = self.instances["images"].get(_hashable(ref.get("image_id")), {})
        message = (
            f"{self.config.dataset} ({self.config.split_by}), ref {show(ref.get('ref_id'))} of "
            f"{self.config.refs_path.name}, picture {show(image.get('file_name'))}: {defect}"
        )
        if self.config.on_error == "raise":
            raise ValueError(
                f'{message}. Mend the files, or leave out and count what is wrong: on_error="skip", --on_error skip.'
            ) from None
        logger.warning("%s; left out.", message)
        self.left_out[defect.kind] += 1

    def _row(self, ref: dict) -> dict:
        ref_id = _integer(ref, "ref_id")
        if ref_id in self.ref_ids:
            raise Defect("repeated ref id", "another ref has this id")
        self.ref_ids.add(ref_id)
        image_id = _integer(ref, "image_id")
        image = self._entry("images", image_id)
        height, width = _integer(image, "height"), _integer(image, "width")
        # Before the masks: the size of the picture itself bounds what is drawn.
        picture = self._picture(image_id)
        annotations = [self._entry("annotations", ann_id) for ann_id in self._annotation_ids(ref)]
        annotations = self._without_crowds(annotations)
        objects = [self._object(annotation, image_id, height, width) for annotation in annotations]
        one_or_all = list if self.config.generalized else next
        return {
            "image": picture,
            "sentences": self._sentences(ref),
            "ref_id": ref_id,
            "ann_id": one_or_all(annotation["id"] for annotation in annotations),
            "image_id": image_id,
            "category": one_or_all(each["category"] for each in objects),
            "bbox": one_or_all(each["bbox"] for each in objects),
            "height": height,
            "width": width,
            "split": _split(ref),
            "segmentation": [each["segmentation"] for each in objects],
        }

    def _entry(self, key: str, entry_id: int) -> dict:
        if entry_id not in self.instances[key]:
            raise Defect(f"unknown id in {key}", f"instances.json has no {entry_id} in {key}")
        if entry_id in self.repeated[key]:
            times = self.repeated[key][entry_id]
            raise Defect(f"repeated id in {key}", f"instances.json has {entry_id} {times} times in {key}")
        return self.instances[key][entry_id]

    def _without_crowds(self, annotations: list[dict]) -> list[dict]:
        """Leave out what the readers of gRefCOCO leave out, in a generalised set only."""
        if not self.config.generalized:
            return annotations
        kept = [annotation for annotation in annotations if not annotation.get("iscrowd")]
        if annotations and not kept:
            raise Defect("only crowds", "each of its annotations has iscrowd, which readers of gRefCOCO leave out")
        if len(kept) < len(annotations):
            self.left_out[CROWD] += len(annotations) - len(kept)
        return kept

    def _annotation_ids(self, ref: dict) -> list[int]:
        if not self.config.generalized:
            return [_integer(ref, "ann_id")]
        ann_ids = ref.get("ann_id")
        if ann_ids == NO_TARGET:
            return []
        if not isinstance(ann_ids, list) or not ann_ids or not all(_is_integer(ann_id) for ann_id in ann_ids):
            raise Defect("malformed entry", f"ann_id is {show(ann_ids)}, a list of integers is needed")
        return ann_ids

    def _sentences(self, ref: dict) -> list[str]:
        entries = ref.get("sentences")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Defect("malformed entry", f"sentences is {show(entries)}, a list of dicts is needed")
        sentences = []
        for entry in entries:
            sentence, where = _text(entry, self.config.sentences), f"sentence {show(entry.get('sent_id'))}"
            if entry.get("exist", True) is False or entry.get("exist") == 0:
                reason = f'{where} has "exist": false, so it means nothing in the picture, which is not read yet'
                self._report(Defect("absent object", reason), ref)
            elif sentence.strip():
                sentences.append(sentence)
                self._notice_id(entry)
            else:
                self._report(Defect("empty sentence", where), ref)
        if not sentences:
            raise Defect("no sentence", "none of its sentences has text")
        return sentences

    def _notice_id(self, entry: dict) -> None:
        sentence_id = _hashable(entry.get("sent_id"))
        if sentence_id is not None and sentence_id in self.sentence_ids:
            self.noticed[REPEATED_SENTENCE_ID] += 1
        self.sentence_ids.add(sentence_id)

    def _object(self, annotation: dict, image_id: int, height: int, width: int) -> dict:
        if annotation.get("image_id") != image_id:
            raise Defect(
                "annotation of another picture",
                f"annotation {annotation['id']} is of image {show(annotation.get('image_id'))}",
            )
        bbox = annotation.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not are_within(bbox, -1e6, 1e6):
            raise Defect("malformed entry", f"bbox is {show(bbox)}, four numbers are needed")
        if annotation["id"] not in self.segmentations:
            self.segmentations[annotation["id"]] = self._segmentation(annotation, height, width)
        return {
            "category": _text(self._entry("categories", _integer(annotation, "category_id")), "name"),
            "bbox": bbox,
            "segmentation": self.segmentations[annotation["id"]],
        }

    def _segmentation(self, annotation: dict, height: int, width: int) -> dict:
        where = f"annotation {annotation['id']}"
        segmentation, num_small = check_segmentation(annotation.get("segmentation"), height, width, where)
        if num_small:
            self.left_out[SMALL_POLYGON] += num_small
        return segmentation

    def _picture(self, image_id: int) -> dict:
        """Return the picture as `datasets.Image` stores it; each is looked at once."""
        if image_id not in self.pictures:
            try:
                self.pictures[image_id] = self._check_picture(self.instances["images"][image_id])
            except Defect as defect:
                self.pictures[image_id] = defect
        picture = self.pictures[image_id]
        if isinstance(picture, Defect):
            raise picture
        return picture

    def _check_picture(self, image: dict) -> dict:
        name = _text(image, "file_name")
        if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise Defect("picture name leaves the folder", f"file_name is {show(name)}")
        path = next((path for folder in self.config.image_folders if os.path.isfile(path := folder / name)), None)
        if path is None:
            places = self.config.image_folders or self.config.image_places
            raise Defect("missing picture", f"there is no {show(name)} in {' or '.join(map(str, places))}")
        wanted = f"{show(image.get('height'))}×{show(image.get('width'))}"
        try:
            with Image.open(path, formats=picture_formats()) as picture:
                size = (picture.height, picture.width)
                if size != (image.get("height"), image.get("width")):
                    came = f"{show_text(str(path))} is {size[0]}×{size[1]}"
                    raise Defect("picture of another size", f"{came}, instances.json has {wanted}")
                if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
                    raise ValueError(f"it has {size[0] * size[1]} pixels, at most {Image.MAX_IMAGE_PIXELS} are read")
                is_rotated = _is_rotated(picture)
                if is_rotated or not ends_well(path, picture.format):
                    picture.load()
                content = _encode_png(picture) if is_rotated else None
        except Defect:
            raise
        except PICTURE_ERRORS as error:
            raise Defect("unreadable picture", f"{show_text(str(path))}: {show_text(str(error))}") from None
        return {"path": None if is_rotated else str(path), "bytes": content}


def _is_rotated(picture: Image.Image) -> bool:
    """Whether `datasets` would turn a picture, or fail where it looks whether it has to."""
    try:
        return picture.getexif().get(EXIF_ORIENTATION, 1) != 1
    except PICTURE_ERRORS:
        return True


@cache
def picture_formats() -> list[str]:
    """Return those of `PICTURE_FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in PICTURE_FORMATS if name in Image.OPEN]


def ends_well(source: str | os.PathLike | io.BytesIO, file_format: str | None) -> bool:
    """Whether a file, by its path or content, ends as a whole file of its format does."""
    file_end = FILE_ENDS.get(file_format or "")
    if file_end is None:
        return False
    if isinstance(source, io.BytesIO):
        return source.getvalue().endswith(file_end)
    with open(source, "rb") as file:
        file.seek(-len(file_end), os.SEEK_END)
        return file.read() == file_end


def _encode_png(picture: Image.Image) -> bytes:
    """Encode the pixels as they are stored, without the EXIF data that would turn them."""
    content = io.BytesIO()
    Image.fromarray(np.asarray(picture.convert("RGB"))).save(content, "PNG")
    return content.getvalue()


def _split(ref: dict) -> str:
    split = _text(ref, "split")
    if not is_split_name(split):
        raise Defect("malformed entry", f"split is {show(split)}, {SPLIT_NAME} is needed")
    return split


def is_split_name(name: object) -> TypeGuard[str]:
    """Whether it is a word, and short enough to name files."""
    return isinstance(name, str) and len(name) <= MAX_SPLIT_LETTERS and re.fullmatch(r"\w+", name) is not None


def _text(record: dict, key: str) -> str:
    text = record.get(key)
    if not isinstance(text, str):
        raise Defect("malformed entry", f"{key} is {show(text)}, text is needed")
    return check_text(text, key)


def check_text(text: str, key: str) -> str:
    """Return the text; Defect if it is too long, or no Unicode text."""
    if len(text) > MAX_TEXT_LETTERS:
        raise Defect("malformed entry", f"{key} has {len(text)} letters, at most {MAX_TEXT_LETTERS} are read")
    if not is_unicode(text):
        raise Defect("malformed entry", f"{key} is {show(text)}, which is not Unicode text (half of a surrogate)")
    return text


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8: it has no half of a surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _integer(record: dict, key: str) -> int:
    number = record.get(key)
    if not _is_integer(number):
        raise Defect("malformed entry", f"{key} is {show(number)}, an integer is needed")
    return number


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _hashable(value):
    return value if isinstance(value, (int, str)) else None


def are_within(numbers: list, low: float, high: float) -> bool:
    return all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and low <= number <= high
        for number in numbers
    )


def check_segmentation(parts, height: int, width: int, where: str) -> tuple[dict, int]:
    """Check polygons and RLEs as COCO writes them; raise Defect about `where` if they make no mask.

    Returns the `segmentation` of one object in a row, and the number of polygons under 3 points that are left out.
    """
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not all(isinstance(part, (list, dict)) for part in parts):
        raise Defect("malformed entry", f"the segmentation of {where} is {show(parts)}")
    rles = [_check_rle(part, height, width, where) for part in parts if isinstance(part, dict)]
    lists = [part for part in parts if isinstance(part, list)]
    polygons = [_check_polygon(part, height, width, where) for part in lists if len(part) >= 6]
    if not rles and not polygons:
        lengths = ", ".join(str(len(part)) for part in lists[:10]) or "no"
        raise Defect("no polygon of 3 points", f"the polygons of {where} have {lengths} numbers, 3 points are 6")
    segmentation = {"polygons": polygons, "rles": rles}
    if coco_mask.area(coco_mask.merge(encode_parts(segmentation, height, width))) == 0:
        raise Defect("annotation off the picture", f"{where} covers no pixel of {width}×{height}")
    return segmentation, len(lists) - len(polygons)


def _check_polygon(polygon: list, height: int, width: int, where: str) -> list[float]:
    if len(polygon) % 2:
        raise Defect("malformed entry", f"a polygon of {where} has {len(polygon)} numbers, pairs are needed")
    # pycocotools walks along every edge, so an endless one would take all memory.
    if not are_within(polygon[0::2], -width, 2 * width) or not are_within(polygon[1::2], -height, 2 * height):
        raise Defect("annotation off the picture", f"a polygon of {where} leaves {width}×{height} by its size or more")
    return [float(number) for number in polygon]


def _check_rle(rle: dict, height: int, width: int, where: str) -> str:
    """Return the compressed counts of an RLE dict; pycocotools itself reads beyond runs that do not fill the mask."""
    counts = rle.get("counts")
    counts = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    runs = counts if isinstance(counts, list) else _run_lengths(counts)
    if rle.get("size") != [height, width]:
        reason = f"the size is {show(rle.get('size'))}, the picture is [{height}, {width}], height first"
    elif runs is None or not all(_is_integer(run) and run >= 0 for run in runs):
        reason = f"the counts are {show(counts)}, which are no run lengths as COCO writes them"
    elif sum(runs) != height * width:
        reason = f"the runs add up to {sum(runs)}, the picture has {height * width} pixels"
    else:
        reason = None
    if reason is not None:
        raise Defect("RLE that does not fill the picture", f"{where}: {reason}")
    if isinstance(counts, str):
        return counts
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"].decode("ascii")


def _run_lengths(counts: object) -> list[int] | None:
    """Read COCO's compressed counts; None if they are not such text.

    A number is a row of characters from "0" on with 5 bits each, the lowest first, and bit 6 set if more follow; from
    the fourth number on it is the difference to the one two places before.
    """
    try:
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        return None
    if not isinstance(counts, bytes):
        return None
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero(codes & 0x20 == 0)
    if codes.min(initial=0) < 0 or codes.max(initial=0) > 0x3F or (len(codes) and codes[-1] & 0x20):
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    lengths = ends + 1 - starts
    if lengths.max(initial=0) > MAX_COUNT_LETTERS:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 0x1F) << shifts, starts) if len(starts) else codes
    numbers -= np.where(codes[ends] & 0x10, 1 << 5 * lengths, 0)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers.tolist()
