# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
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
| … `no_target` | true: the expression means nothing in the picture, and there is no mask |
| `split`, `category` | optional text; "train" and "" if left out |

In a CSV file `polygon` and `rle` are JSON, and `expression` may be a JSON list. In a data set the picture is the
column `image` and a mask picture is `mask`; `sentences` may stand for `expression`. `no_target` may be false beside a
mask; in a CSV file it is `true`, `false` or empty, in letters of any size. A line without a mask that does not say so
is an error. One line of no target gives all rows the columns of a set in which a sentence may mean nothing: lists of
objects.

A picture with an EXIF rotation is turned upright, so its mask and polygons are those of the upright picture.
"""

from __future__ import annotations

import csv
import itertools
import logging
import os
import re
from pathlib import Path, PurePosixPath

import datasets
from pycocotools import mask as coco_mask
from tqdm import tqdm

from ..messages import describe, shorten
from .coco import check_segmentation, encode_parts
from .discovery import METADATA_NAMES, find_metadata
from .picture_files import check_picture, read_mask, source_of
from .reading import Defect, are_within, check_text, decode_text, read_csv, read_json, read_regular_file
from .refer import READ_HERE
from .rows import (
    SPLIT_NAME,
    is_generalized,
    is_generalized_row,
    is_split_name,
    one_row_per_sentence,
    papers_order,
    refer_features,
    writable_cache,
)


logger = logging.getLogger(__name__)

MASK_COLUMNS = ("mask_file_name", "polygon", "rle")
NO_TARGET_COLUMN = "no_target"
OPTIONAL_COLUMNS = (NO_TARGET_COLUMN, "split", "category")
FOLDER_COLUMNS = ("file_name", "expression", *MASK_COLUMNS, *OPTIONAL_COLUMNS)
CSV_WORDS: dict = {"true": True, "false": False}
ANYWHERE = os.sep
MASK_FORMS = (
    "a polygon is one flat list [x1, y1, x2, y2, …] or a list of such lists, an RLE is "
    '{"size": [height, width], "counts": …}'
)


def load_referring_folder(
    folder: str | os.PathLike, split: str | None = None, *, expand_sentences: bool = False
) -> datasets.Dataset | datasets.DatasetDict:
    """Load pictures, masks and expressions of one's own, laid out as at the top of this file.

    Args:
        folder: holds metadata.jsonl or metadata.csv, and what that names.
        split: one of the column `split`; None gives all of them.
        expand_sentences: one row per sentence (evaluation) instead of one row per line (training).

    Returns a data set, or one per split if `split` is None, with the columns of `load_refer`. `ref_id` and `ann_id`
    count the lines, `sentence_ids` the expressions and `image_id` the pictures, from 1 over all splits; `bbox` is that
    of the mask. If any line means nothing, `ann_id`, `category` and `bbox` are lists in all rows.

    Raises FileNotFoundError without a metadata file, and ValueError, with the line, for whatever is wrong in it.
    """
    reader = FolderReader(folder)
    rows = reader.rows_by_split()
    if split is not None and split not in rows:
        raise ValueError(f"{folder} has no split {describe(split)}; its splits are {', '.join(rows)}.")
    data = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_list(
                rows_of_split, refer_features(reader.is_generalized), split=datasets.NamedSplit(name)
            )
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
        self.is_generalized = any(record.get(NO_TARGET_COLUMN) is True for _, record in self.records)
        self.image_ids: dict[str, int] = {}
        self.num_sentences = 0

    def rows_by_split(self) -> dict[str, list[dict]]:
        """Return the rows of every split that the metadata file names, in the papers' order."""
        rows: dict[str, list[dict]] = {}
        for number, (line, record) in enumerate(
            tqdm(self.records, desc=f"Checking {self.folder.name}", disable=None), start=1
        ):
            try:
                row = self._row(number, record)
            except Defect as defect:
                self._report(defect, line)
                continue
            first = self.num_sentences + 1
            self.num_sentences += len(row["sentences"])
            row["sentence_ids"] = list(range(first, first + len(row["sentences"])))
            rows.setdefault(row["split"], []).append(row)
        return {split: rows[split] for split in papers_order(rows)}

    def _report(self, defect: Defect, line: int) -> None:
        raise ValueError(
            f"{shorten(str(self.metadata))}, line {line}: {defect}. Mend the line or leave it out."
        ) from None

    def _row(self, number: int, record: dict) -> dict:
        path = self._path(record, "file_name")
        image, size = self._picture(path)
        given = _mask_column(record, MASK_COLUMNS)
        parts = None if given is None else record[given]
        if given == "mask_file_name":
            parts = read_mask(self._path(record, given), *size)
        image_id = self.image_ids.setdefault(str(path), len(self.image_ids) + 1)
        row = build_row(number, image, size, parts, record, image_id=image_id)
        return put_into_lists(row) if self.is_generalized else row

    def _path(self, record: dict, column: str) -> Path:
        name = record.get(column)
        if not isinstance(name, str) or not name:
            raise Defect("malformed entry", f"{column} is {describe(name)}, the path of a file is needed")
        check_text(name, column)
        if name.startswith("/") or "\0" in name or "\\" in name or ".." in PurePosixPath(name).parts:
            raise Defect("file outside the folder", f"{column} is {describe(name)}; give a path in the folder, with /")
        path = self.folder / name
        if not os.path.isfile(path):
            raise Defect("missing file", f"there is no {shorten(str(path))}")
        return path

    def _picture(self, path: Path) -> tuple[dict, tuple[int, int]]:
        return check_picture({"path": str(path), "bytes": None}, path)


def read_metadata(path: Path) -> list[tuple[int, dict]]:
    """Read a metadata file: (line, columns that hold something) per object; tell of columns that nobody reads.

    Raises ValueError if it is no JSON lines or CSV, is empty, or lacks a needed column.
    """
    try:
        text = decode_text(read_regular_file(path), path.name)
        records = _read_csv_lines(text) if path.suffix == ".csv" else _read_json_lines(text)
    except ValueError as error:
        reason = shorten(str(error), 400).rstrip(".")
        raise ValueError(f"{shorten(str(path))} is not read: {reason}.") from None
    if not records:
        raise ValueError(f"{shorten(str(path))} is empty; write one line per object.")
    columns = list(dict.fromkeys(name for _, record in records for name in record))
    _check_columns(columns, ("file_name",), ("expression",), (*MASK_COLUMNS, NO_TARGET_COLUMN), str(path))
    _tell_ignored(columns, FOLDER_COLUMNS, str(path))
    return [(line, {name: value for name, value in record.items() if _is_given(value)}) for line, record in records]


def _read_json_lines(text: str) -> list[tuple[int, dict]]:
    records = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            record = read_json(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {line} is no JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"line {line} is {describe(content)}, a JSON object is needed")
        records.append((line, record))
    return records


def _read_csv_lines(text: str) -> list[tuple[int, dict]]:
    try:
        _, records = read_csv(text)
    except csv.Error as error:
        raise ValueError(f"{error}. What is too long for a cell goes into metadata.jsonl") from None
    for line, record in records:
        for column in ("polygon", "rle", "expression"):
            # A sentence may begin with a bracket without being a list.
            if column != "expression" or re.match(r'\s*\[\s*"', record.get(column) or ""):
                record[column] = _parse_cell(record.get(column), column, line)
        said = record.get(NO_TARGET_COLUMN)
        if isinstance(said, str) and said.lower() in CSV_WORDS:  # pandas writes True
            record[NO_TARGET_COLUMN] = CSV_WORDS[said.lower()]
    return records


def _parse_cell(cell: str | None, column: str, line: int):
    try:
        return read_json(cell) if cell else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {line}: {column} is no JSON ({error})") from None


def rows_from_columns(
    data: datasets.Dataset | datasets.DatasetDict, folder: str | os.PathLike | None = None
) -> datasets.Dataset | datasets.DatasetDict:
    """Turn a data set of the Hub or from Parquet into one with the columns of `load_refer`.

    Args:
        data: has all columns of `load_refer` (what `remamber data export` writes), which then are kept as they are, or
            `image`, `expression` (or `sentences`) and one of `mask`, `polygon`, `rle` and `no_target`, as at the top
            of this file. Other columns are left out, and named in the log.
        folder: where pictures may be read from that are not in their rows, but named there by a path. None: nowhere,
            unless the data set was made in this process, by `Dataset.from_dict`, `load_refer` or the like.

    Returns the same kind of object. In the second case `ref_id`, `ann_id` and `image_id` count the rows from 1, and
    `split` is the name of the split; with a column `no_target`, `ann_id`, `category` and `bbox` are lists. There, and
    where a split has no column `sentence_ids`, as an older export, the sentences are numbered from 1 over all splits.

    Raises ValueError for a missing column, and with the row for whatever is wrong in it.
    """
    if isinstance(data, datasets.DatasetDict):
        splits = papers_order(map(str, data))
        return _number_sentences({split: _convert_split(data[split], split, folder) for split in splits})
    if not isinstance(data, datasets.Dataset):
        raise ValueError(f"{type(data).__name__} came; give a Dataset or DatasetDict, which streaming=False loads.")
    split = str(data.split or "train")
    return _number_sentences({split: _convert_split(data, split, folder)})[split]


def _number_sentences(splits: dict[str, datasets.Dataset]) -> datasets.DatasetDict:
    """Number the sentences from 1 over all splits, unless each split has numbers."""
    if all("sentence_ids" in rows.column_names for rows in splits.values()):
        return datasets.DatasetDict(splits)
    next_id, numbered = 1, datasets.DatasetDict()
    for split, rows in splits.items():
        if "sentence_ids" in rows.column_names:
            rows = rows.remove_columns("sentence_ids")
        stored = rows.with_format(None).cast_column("image", datasets.Image(decode=False))
        bounds = list(itertools.accumulate(map(len, stored["sentences"]), initial=next_id))
        ids = [list(range(*pair)) for pair in itertools.pairwise(bounds)]
        next_id = bounds[-1]
        with writable_cache():
            stored = stored.add_column("sentence_ids", ids, feature=refer_features()["sentence_ids"])
        numbered[split] = stored.select_columns(list(refer_features())).cast_column("image", datasets.Image())
        numbered[split].set_format(**{**rows.format, "columns": [*rows.format["columns"], "sentence_ids"]})
    return numbered


def _convert_split(data: datasets.Dataset, split: str, folder) -> datasets.Dataset:
    folder = ANYWHERE if folder is None and _is_made_here(data) else folder
    with writable_cache():
        try:
            return _convert(data, split, folder)
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise ValueError(
                f"Row {_find_bad_text(data)} of split {split} has text that is no UTF-8: {error}."
            ) from None


def _is_made_here(data: datasets.Dataset) -> bool:
    """Whether the paths in a data set are words of this process, and not of a file that somebody wrote."""
    files = [os.path.dirname(file["filename"]) for file in data.cache_files]
    return set(files) <= READ_HERE if files else data.info.builder_name is None


def _find_bad_text(data: datasets.Dataset) -> int | None:
    data = data.with_format("arrow")
    for index in range(len(data)):
        try:
            data[index].to_pylist()
        except UnicodeDecodeError:
            return index
    return None


def _convert(data: datasets.Dataset, split: str, folder) -> datasets.Dataset:
    where = f"split {split}"
    wanted = refer_features()
    needed = [name for name in wanted if name != "sentence_ids"]  # which may be missing
    if set(needed) <= set(data.column_names):
        _tell_ignored(data.column_names, [*wanted, "mask"], where)
        wanted = _kept(refer_features(is_generalized(data)), data.column_names)
        data = data.select_columns(list(wanted))
        data = data if data.features == wanted else data.cast(wanted)
        return _check_rows(data, split, folder)
    expressions, masks = ("expression", "sentences"), ("mask", "polygon", "rle")
    _check_columns(data.column_names, ("image",), expressions, (*masks, NO_TARGET_COLUMN), where)
    # The values of a column are not looked at for this: all splits of a data set have the same columns.
    takes_lists = NO_TARGET_COLUMN in data.column_names
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
        fn_kwargs={"split": split, "masks": masks, "folder": folder, "takes_lists": takes_lists},
        remove_columns=data.column_names,
        features=_kept(refer_features(takes_lists), needed),
        desc=f"Checking {where}",
    )


def _kept(features: datasets.Features, names) -> datasets.Features:
    return datasets.Features({name: feature for name, feature in features.items() if name in names})


def _check_rows(data: datasets.Dataset, split: str, folder) -> datasets.Dataset:
    """Check rows with the columns of `load_refer`, and make the paths of their pictures absolute."""
    stored = data.with_format(None).cast_column("image", datasets.Image(decode=False))
    # It is cached by `datasets`: a data set on disk is checked once.
    paths = stored.map(
        _check_row,
        with_indices=True,
        fn_kwargs={"split": split, "folder": folder},
        remove_columns=stored.column_names,
        features=datasets.Features({"path": datasets.Value("string")}),
        desc=f"Checking split {split}",
    )["path"][:]
    if folder != ANYWHERE and any(path is not None for path in paths):
        stored = stored.map(_put_path, with_indices=True, fn_kwargs={"paths": paths})
        data = stored.cast_column("image", datasets.Image())
    return data


def _put_path(row: dict, index: int, paths: list[str | None]) -> dict:
    return {"image": {**row["image"], "path": paths[index] or row["image"]["path"]}}


def _check_row(row: dict, index: int, split: str, folder) -> dict[str, str | None]:
    try:
        if row["image"] is None:
            raise Defect("malformed entry", "image is empty")
        image, (height, width) = check_picture(_own_picture(row["image"], folder), "image")
        if (row["height"], row["width"]) != (height, width):
            came = f"height and width are {row['height']} and {row['width']}"
            raise Defect("picture of another size", f"{came}, the picture is {height}×{width}")
        _check_expressions(row["sentences"])
        ids, num_sentences = row.get("sentence_ids", row["sentences"]), len(row["sentences"])
        if ids is None or len(ids) != num_sentences or None in ids:
            came = f"sentence_ids is {describe(ids)}"
            raise Defect("malformed entry", f"{came}, one integer for each of {num_sentences} sentences is needed")
        if not is_split_name(row["split"]):
            raise Defect("malformed entry", f"split is {describe(row['split'])}, {SPLIT_NAME} is needed")
        is_one_of_several = is_generalized_row(row)
        names = ("ann_id", "category", "bbox")
        ann_ids, categories, boxes = (row[name] if is_one_of_several else [row[name]] for name in names)
        objects = row["segmentation"] or []
        if not len(ann_ids) == len(categories or []) == len(boxes or []) == len(objects):
            lengths = f"{len(ann_ids)}, {len(categories or [])}, {len(boxes or [])} and {len(objects)}"
            raise Defect("malformed entry", f"ann_id, category, bbox and segmentation are of {lengths} objects")
        if any(value is None for value in (row["ref_id"], row["image_id"], *ann_ids, *categories)):
            raise Defect("malformed entry", "an id or a category is empty")
        for category, box, segmentation in zip(categories, boxes, objects):
            check_text(category, "category")
            if box is None or len(box) != 4 or not are_within(box, -1e6, 1e6):
                raise Defect("malformed entry", f"bbox is {describe(box)}, four numbers are needed")
            rles = [{"size": [height, width], "counts": counts} for counts in segmentation["rles"] or []]
            _, num_small = check_segmentation([*(segmentation["polygons"] or []), *rles], height, width, "the object")
            if num_small:
                raise Defect("polygon under 3 points", f"{num_small} of {len(segmentation['polygons'])} polygons")
    except Defect as defect:
        raise ValueError(f"Row {index} of split {split}: {defect}. Mend the row or filter it out.") from None
    return {"path": None if image["bytes"] is not None else image["path"]}


def _convert_row(record: dict, index: int, split: str, masks: tuple[str, ...], folder, takes_lists: bool) -> dict:
    record = {name: value for name, value in record.items() if _is_given(value)}
    record["expression"] = record.get("expression", record.get("sentences"))
    try:
        image = record.get("image")
        if image is None:
            raise Defect("malformed entry", "image is empty")
        image, size = check_picture(_own_picture(image, folder), "image")
        given = _mask_column(record, masks)
        parts = None if given is None else record[given]
        if given == "mask":
            parts = read_mask(source_of(_own_picture(record["mask"], folder)), *size)
        row = build_row(index + 1, image, size, parts, {**record, "split": split}, image_id=index + 1)
        return put_into_lists(row) if takes_lists else row
    except Defect as defect:
        raise ValueError(f"Row {index} of split {split}: {defect}. Mend the row or filter it out.") from None


def _own_picture(value: dict, folder) -> dict:
    """A picture as `datasets.Image` stores it, its path made absolute; Defect unless it is in its row or `folder`."""
    path = value["path"]
    if value["bytes"] is not None:
        return value
    if not isinstance(path, str) or not path or "\0" in path:
        raise Defect("malformed entry", f"a picture has no content, and its path is {describe(path)}")
    if folder is None:
        raise Defect(
            "picture outside its row",
            f"it is named by a path, {describe(path)}; put pictures into the rows, or give the folder they are in",
        )
    root = os.path.realpath(folder)
    whole = os.path.realpath(os.path.join(os.getcwd() if folder == ANYWHERE else root, path))
    if os.path.commonpath([root, whole]) != root or not os.path.isfile(whole):
        raise Defect("picture outside the folder", f"there is no {describe(path)} in {shorten(root)}")
    return {"path": whole, "bytes": None}


def _is_given(value) -> bool:
    return value is not None and value != "" and value != []


def _check_columns(columns, picture, expression, masks, where: str) -> None:
    for alternatives in (picture, expression, masks):
        if not set(alternatives) & set(columns):
            raise ValueError(
                f"{where} has no column {' or '.join(alternatives)}; its columns are "
                f"{shorten(', '.join(columns))}. Rename the one that holds it."
            )


def _tell_ignored(columns, known, where: str) -> None:
    ignored = [name for name in columns if name not in known]
    if ignored:
        logger.warning("%s: the columns %s are not read.", where, shorten(", ".join(ignored)))


def _mask_column(record: dict, masks: tuple[str, ...]) -> str | None:
    """The column that holds the mask, None where the expression means nothing."""
    given = [name for name in masks if name in record]
    no_target = record.get(NO_TARGET_COLUMN, False)
    if not isinstance(no_target, bool):
        raise Defect("malformed entry", f"no_target is {describe(no_target)}, true or false is needed")
    if no_target and given:
        raise Defect("contradiction", f"no_target is true, and {given[0]} is given; keep one")
    if no_target:
        return None
    if not given:
        raise Defect("no mask", f"give one of {', '.join(masks)}, or no_target: true where nothing is meant")
    if len(given) > 1:
        raise Defect("several masks", f"{' and '.join(given)} are given; keep one")
    return given[0]


def build_row(number: int, image: dict, size: tuple[int, int], parts, record: dict, *, image_id: int) -> dict:
    """Return the row of one object, or of none; Defect if its mask or expression is of no use.

    Args:
        number: counts the objects.
        image: as `datasets.Image` stores it.
        size: (height, width) of the upright picture.
        parts: an RLE dict, a polygon, or a list of either; None if nothing is meant: see `put_into_lists`.
        record: has `expression`, and maybe `split` and `category`.
        image_id: counts the pictures.
    """
    height, width = size
    objects = [] if parts is None else [_check_parts(parts, height, width)]
    split, category = record.get("split", "train"), record.get("category", "")
    if not is_split_name(split):
        raise Defect("malformed entry", f"split is {describe(split)}, {SPLIT_NAME} is needed")
    if not isinstance(category, str):
        raise Defect("malformed entry", f"category is {describe(category)}, text is needed")
    check_text(category, "category")
    masks = [coco_mask.merge(encode_parts(segmentation, height, width)) for segmentation in objects]
    return {
        "image": image,
        "sentences": _check_expressions(record.get("expression")),
        "ref_id": number,
        "ann_id": number,
        "image_id": image_id,
        "category": category,
        "bbox": coco_mask.toBbox(masks[0]).tolist() if masks else [],
        "height": height,
        "width": width,
        "split": split,
        "segmentation": objects,
    }


def put_into_lists(row: dict) -> dict:
    """Give a row of `build_row` the columns of a set in which a sentence may mean nothing."""
    names = ("ann_id", "category", "bbox")
    return {**row, **{name: [row[name]] if row["segmentation"] else [] for name in names}}


def _check_parts(parts, height: int, width: int) -> dict:
    if isinstance(parts, list) and isinstance(parts[0], (int, float)):
        parts = [parts]
    if not _is_flat(parts):
        raise Defect("malformed entry", f"the mask is {describe(parts)}; {MASK_FORMS}")
    segmentation, num_small = check_segmentation(parts, height, width, "the object")
    if num_small:
        raise Defect("polygon under 3 points", f"{num_small} of {len(parts)} polygons")
    return segmentation


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
    for text in texts or [None]:
        if not isinstance(text, str) or not text.strip():
            raise Defect("empty expression", f"expression is {describe(expressions)}; say which object is meant")
        check_text(text, "expression")
    return texts
