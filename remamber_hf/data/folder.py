"""People's own data: a folder of pictures and masks with a metadata file, or columns of any data set → checked rows.

    <folder>/metadata.jsonl or metadata.csv     one line per object
    <folder>/...                                pictures and mask PNGs, where the metadata says

| column | what it holds |
|---|---|
| `file_name` | path of the picture in the folder |
| `expression` | a text, or a list of texts for the same object |
| one of `mask_file_name` | path of a picture of the same size; 0 for the background and one other value or colour |
| … `polygon` | [x1, y1, x2, y2, …] in pixels, or a list of such lists |
| … `rle` | COCO's {"size": [height, width], "counts": …}, compressed or not |
| `split`, `category` | optional text; "train" and "" if left out |

In a CSV file `polygon` and `rle` are JSON, and `expression` may be a JSON list. In a data set the picture is the
column `image` and a mask picture is `mask`; `sentences` may stand for `expression`.

A picture with an EXIF rotation is turned upright, so its mask and polygons are those of the upright picture.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from pathlib import Path, PurePosixPath

import datasets
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from ..pictures import palette_map
from .refer import (
    EXIF_ORIENTATION,
    PICTURE_ERRORS,
    Defect,
    check_segmentation,
    encode_parts,
    ends_well,
    one_row_per_sentence,
    refer_features,
)


logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
MASK_COLUMNS = ("mask_file_name", "polygon", "rle")
OPTIONAL_COLUMNS = ("split", "category")
FOLDER_COLUMNS = ("file_name", "expression", *MASK_COLUMNS, *OPTIONAL_COLUMNS)
EXIF_SIDEWAYS = (5, 6, 7, 8)
MASK_FORMS = (
    "a polygon is one flat list [x1, y1, x2, y2, …] or a list of such lists, an RLE is "
    '{"size": [height, width], "counts": …}'
)
LOSSY_FORMATS = ("JPEG", "MPO")


def find_metadata(folder: str | os.PathLike) -> Path | None:
    """Return the metadata file of a folder, None if it has none; ValueError if it has two."""
    paths = [path for path in (Path(folder) / name for name in METADATA_NAMES) if path.is_file()]
    if len(paths) == 2:
        raise ValueError(f"{folder} holds {METADATA_NAMES[0]} and {METADATA_NAMES[1]}; keep one of them.")
    return paths[0] if paths else None


def load_referring_folder(
    folder: str | os.PathLike, split: str | None = None, *, expand_sentences: bool = False
) -> datasets.Dataset | datasets.DatasetDict:
    """Load pictures, masks and expressions of one's own, laid out as at the top of this file.

    Args:
        folder: holds metadata.jsonl or metadata.csv, and what that names.
        split: one of the column `split`; None gives all of them.
        expand_sentences: one row per sentence (evaluation) instead of one row per line (training).

    Returns a data set, or one per split if `split` is None, with the columns of `load_refer`. `ref_id` and `ann_id`
    count the lines and `image_id` the pictures, from 1; `bbox` is that of the mask.

    Raises FileNotFoundError without a metadata file, and ValueError, with the line, for whatever is wrong in it.
    """
    rows = FolderReader(folder).rows_by_split()
    if split is not None and split not in rows:
        raise ValueError(f"{folder} has no split {split!r}; its splits are {', '.join(rows)}.")
    data = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_list(rows_of_split, refer_features(), split=datasets.NamedSplit(name))
            for name, rows_of_split in rows.items()
            if split in (None, name)
        }
    )
    data = data if split is None else data[split]
    return one_row_per_sentence(data) if expand_sentences else data


class FolderReader:
    """metadata file → rows, by the rules at the top of this file."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(os.path.abspath(os.path.expanduser(folder)))
        metadata = find_metadata(self.folder)
        if metadata is None:
            raise FileNotFoundError(
                f"{self.folder} holds no {' or '.join(METADATA_NAMES)}; write one line per object."
            )
        self.metadata = metadata
        self.records = read_metadata(metadata)
        self.image_ids: dict[str, int] = {}

    def rows_by_split(self) -> dict[str, list[dict]]:
        """Return the rows of every split that the metadata file names."""
        rows: dict[str, list[dict]] = {}
        for number, (line, record) in enumerate(
            tqdm(self.records, desc=f"Checking {self.folder.name}", disable=None), start=1
        ):
            try:
                row = self._row(number, record)
            except Defect as defect:
                self._report(defect, line)
                continue
            rows.setdefault(row["split"], []).append(row)
        return rows

    def _report(self, defect: Defect, line: int) -> None:
        raise ValueError(f"{self.metadata}, line {line}: {defect}. Mend the line or leave it out.") from None

    def _row(self, number: int, record: dict) -> dict:
        path = self._path(record, "file_name")
        size = self._picture_size(path)
        given = _mask_column(record, MASK_COLUMNS)
        parts = read_mask(self._path(record, given), *size) if given == "mask_file_name" else record[given]
        image_id = self.image_ids.setdefault(str(path), len(self.image_ids) + 1)
        return build_row(number, {"path": str(path), "bytes": None}, size, parts, record, image_id=image_id)

    def _path(self, record: dict, column: str) -> Path:
        name = record.get(column)
        if not isinstance(name, str) or not name:
            raise Defect("malformed entry", f"{column} is {name!r:.200}, the path of a file is needed")
        if name.startswith("/") or "\0" in name or "\\" in name or ".." in PurePosixPath(name).parts:
            raise Defect("file outside the folder", f"{column} is {name!r:.200}; give a path in the folder, with /")
        path = self.folder / name
        if not path.is_file():
            raise Defect("missing file", f"there is no {path}")
        return path

    def _picture_size(self, path: Path) -> tuple[int, int]:
        return upright_size(path, path)


def read_metadata(path: Path) -> list[tuple[int, dict]]:
    """Read a metadata file: (line, columns that hold something) per object; tell of columns that nobody reads.

    Raises ValueError if it is no JSON lines or CSV, is empty, or lacks a needed column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        records = _read_csv(text) if path.suffix == ".csv" else _read_json_lines(text)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is not read: {error}.") from None
    if not records:
        raise ValueError(f"{path} is empty; write one line per object.")
    columns = list(dict.fromkeys(name for _, record in records for name in record))
    _check_columns(columns, ("file_name",), ("expression",), MASK_COLUMNS, str(path))
    _tell_ignored(columns, FOLDER_COLUMNS, str(path))
    return [(line, {name: value for name, value in record.items() if _is_given(value)}) for line, record in records]


def _read_json_lines(text: str) -> list[tuple[int, dict]]:
    records = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except ValueError as error:
            raise ValueError(f"line {line} is no JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"line {line} is {content!r:.200}, a JSON object is needed")
        records.append((line, record))
    return records


def _read_csv(text: str) -> list[tuple[int, dict]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    records = []
    for record in reader:
        line = reader.line_num
        if None in record:
            raise ValueError(f"line {line} has more cells than the first; quote a cell that holds a comma")
        for column in ("polygon", "rle", "expression"):
            # A sentence may begin with a bracket without being a list.
            if column != "expression" or re.match(r'\s*\[\s*"', record.get(column) or ""):
                record[column] = _parse_cell(record.get(column), column, line)
        records.append((line, record))
    return records


def _parse_cell(cell: str | None, column: str, line: int):
    try:
        return json.loads(cell) if cell else None
    except ValueError as error:
        raise ValueError(f"line {line}: {column} is no JSON ({error})") from None


def rows_from_columns(
    data: datasets.Dataset | datasets.DatasetDict,
) -> datasets.Dataset | datasets.DatasetDict:
    """Turn a data set of the Hub or from Parquet into one with the columns of `load_refer`.

    Args:
        data: has all columns of `load_refer` (what `remamber data export` writes), which then are taken as they are,
            or `image`, `expression` (or `sentences`) and one of `mask`, `polygon` and `rle`, as at the top of this
            file. Other columns are left out, and named in the log.

    Returns the same kind of object. In the second case `ref_id`, `ann_id` and `image_id` count the rows from 1, and
    `split` is the name of the split.

    Raises ValueError for a missing column, and with the row for whatever is wrong in it.
    """
    if isinstance(data, datasets.DatasetDict):
        return datasets.DatasetDict({name: _convert(part, str(name)) for name, part in data.items()})
    if not isinstance(data, datasets.Dataset):
        raise ValueError(f"{type(data).__name__} came; give a Dataset or DatasetDict, which streaming=False loads.")
    return _convert(data, str(data.split or "train"))


def _convert(data: datasets.Dataset, split: str) -> datasets.Dataset:
    where = f"split {split}"
    wanted = refer_features()
    if set(wanted) <= set(data.column_names):
        _tell_ignored(data.column_names, [*wanted, "mask"], where)
        is_generalized = isinstance(data.features["ann_id"], (list, datasets.List))
        data, wanted = data.select_columns(list(wanted)), refer_features(is_generalized)
        return data if data.features == wanted else data.cast(wanted)
    expressions, masks = ("expression", "sentences"), ("mask", "polygon", "rle")
    _check_columns(data.column_names, ("image",), expressions, masks, where)
    _tell_ignored(data.column_names, ("image", *expressions, *masks, *OPTIONAL_COLUMNS), where)
    for name in ("image", "mask"):
        if name in data.column_names:
            if not isinstance(data.features[name], datasets.Image):
                raise ValueError(
                    f"The column {name} of {where} is {data.features[name]}; cast it to datasets.Image()."
                )
            data = data.cast_column(name, datasets.Image(decode=False))
    return data.map(
        _convert_row,
        with_indices=True,
        fn_kwargs={"split": split, "masks": masks},
        remove_columns=data.column_names,
        features=wanted,
        desc=f"Checking {where}",
    )


def _convert_row(record: dict, index: int, split: str, masks: tuple[str, ...]) -> dict:
    record = {name: value for name, value in record.items() if _is_given(value)}
    record["expression"] = record.get("expression", record.get("sentences"))
    try:
        image = record.get("image")
        if image is None:
            raise Defect("malformed entry", "image is empty")
        size = upright_size(_source(image), "image")
        given = _mask_column(record, masks)
        parts = read_mask(_source(record["mask"]), *size) if given == "mask" else record[given]
        return build_row(index + 1, image, size, parts, {**record, "split": split}, image_id=index + 1)
    except Defect as defect:
        raise ValueError(f"Row {index} of split {split}: {defect}. Mend the row or filter it out.") from None


def _source(value: dict):
    """What Pillow opens of a value that `datasets.Image` stores."""
    return io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"]


def _is_given(value) -> bool:
    return value is not None and value != "" and value != []


def _check_columns(columns, picture, expression, masks, where: str) -> None:
    for alternatives in (picture, expression, masks):
        if not set(alternatives) & set(columns):
            raise ValueError(
                f"{where} has no column {' or '.join(alternatives)}; its columns are {', '.join(columns)}. Rename "
                "the one that holds it."
            )


def _tell_ignored(columns, known, where: str) -> None:
    ignored = [name for name in columns if name not in known]
    if ignored:
        logger.warning("%s: the columns %s are not read.", where, ", ".join(ignored))


def _mask_column(record: dict, masks: tuple[str, ...]) -> str:
    given = [name for name in masks if name in record]
    if not given:
        raise Defect("no mask", f"give one of {', '.join(masks)}")
    if len(given) > 1:
        raise Defect("several masks", f"{' and '.join(given)} are given; keep one")
    return given[0]


def build_row(number: int, image: dict, size: tuple[int, int], parts, record: dict, *, image_id: int) -> dict:
    """Return the row of one object; Defect if its mask or expression is of no use.

    Args:
        number: counts the objects.
        image: as `datasets.Image` stores it.
        size: (height, width) of the upright picture.
        parts: an RLE dict, a polygon, or a list of either.
        record: has `expression`, and maybe `split` and `category`.
        image_id: counts the pictures.
    """
    height, width = size
    if isinstance(parts, list) and isinstance(parts[0], (int, float)):
        parts = [parts]
    if not _is_flat(parts):
        raise Defect("malformed entry", f"the mask is {parts!r:.100}; {MASK_FORMS}")
    segmentation, num_small = check_segmentation(parts, height, width, "the object")
    if num_small:
        raise Defect("polygon under 3 points", f"{num_small} of {len(parts)} polygons")
    split, category = record.get("split", "train"), record.get("category", "")
    if not isinstance(split, str) or not re.fullmatch(r"\w+", split):
        raise Defect("malformed entry", f"split is {split!r:.200}, a word is needed")
    if not isinstance(category, str):
        raise Defect("malformed entry", f"category is {category!r:.200}, text is needed")
    mask = coco_mask.merge(encode_parts(segmentation, height, width))
    return {
        "image": image,
        "sentences": _check_expressions(record.get("expression")),
        "ref_id": number,
        "ann_id": number,
        "image_id": image_id,
        "category": category,
        "bbox": coco_mask.toBbox(mask).tolist(),
        "height": height,
        "width": width,
        "split": split,
        "segmentation": [segmentation],
    }


def _is_flat(parts) -> bool:
    """Whether it is an RLE dict or a list of these and of flat lists of numbers, longer than a point."""
    if isinstance(parts, dict):
        return True
    return (
        isinstance(parts, list)
        and all(
            isinstance(part, dict)
            or (isinstance(part, list) and all(isinstance(number, (int, float)) for number in part))
            for part in parts
        )
        and not (len(parts) > 2 and all(isinstance(part, list) and len(part) == 2 for part in parts))
    )


def _check_expressions(expressions) -> list[str]:
    texts = expressions if isinstance(expressions, list) else [expressions]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise Defect("empty expression", f"expression is {expressions!r:.200}; say which object is meant")
    return texts


def upright_size(source, name) -> tuple[int, int]:
    """Return (height, width) of a picture, turned upright; Defect if it cannot be read. A file object is decoded."""
    try:
        with Image.open(source) as picture:
            if not isinstance(source, (str, os.PathLike)) or not ends_well(source, picture.format):
                picture.load()
            is_sideways = picture.getexif().get(EXIF_ORIENTATION) in EXIF_SIDEWAYS
            width, height = picture.size
    except PICTURE_ERRORS as error:
        raise Defect("unreadable picture", f"{name}: {error}") from None
    return (width, height) if is_sideways else (height, width)


def read_mask(source, height: int, width: int) -> dict:
    """Read a mask picture as an RLE dict; Defect unless it is of the given size, lossless and not all zero."""
    try:
        with Image.open(source) as picture:
            picture.load()
    except PICTURE_ERRORS as error:
        raise Defect("unreadable mask", str(error)) from None
    if picture.format in LOSSY_FORMATS:
        raise Defect("lossy mask", f"a mask is a {picture.format}, whose zeros are not exact; save it as PNG")
    if picture.mode in ("LA", "PA", "RGBA"):
        raise Defect("transparent mask", "a mask has an alpha channel; save it as grey, 0 for the background")
    if picture.size != (width, height):
        raise Defect(
            "mask of another size",
            f"the mask is {picture.height}×{picture.width}, its upright picture {height}×{width} (height × width)",
        )
    values = np.asarray(palette_map(picture) if picture.mode == "P" else picture)
    pixels = values.any(axis=-1) if values.ndim == 3 else values != 0
    if not pixels.any():
        raise Defect("empty mask", "no pixel of the mask differs from 0")
    colours = values[pixels]
    if (colours != colours[0]).any():
        came = np.unique(colours, axis=0)
        raise Defect(
            "mask of several values",
            f"the mask has {len(came)} values besides 0, such as {came[0].tolist()} and {came[1].tolist()}; save one "
            "object as one value, without soft edges or a value for pixels to be ignored",
        )
    rle = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    return {**rle, "counts": rle["counts"].decode("ascii")}
