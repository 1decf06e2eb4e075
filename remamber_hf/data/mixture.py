# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The data that a run is told to read: names, folders or a name on the Hub → sources → one training set.

`--data_dir` with a metadata file        a folder of one's own, see `folder.py`
`--data_dir` and `--dataset NAMES`       one or several REFER sets, see `refer.py`
`--dataset NAME` alone                   a data set of the Hub, or a folder of Parquet files

Several sets share COCO's pictures, and what one of them trains on another one tests on. So a mixture trains on no
picture that any of its sets holds in another split than the training split. PhraseCut's pictures are Visual Genome's,
many of which are COCO's too, as its list of pictures says: these count as the same.

Where a sentence of any set may mean nothing or several objects, the rows of all take that form: lists of objects, one
in each row of a plain set. The mask of such a row is then the union of its parts, as in gRefCOCO, also where two
parts overlap, which alone the published rule of a plain set makes background (see `row_mask`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ..messages import describe, shorten
from .discovery import DataSetFile, find_data_sets, find_metadata
from .folder import load_referring_folder, rows_from_columns
from .phrasecut import read_coco_ids
from .published import GENERALIZED_SETS, PUBLISHED_SETS, REFS_NAMES, published_name
from .reading import check_tree, decode_text, read_regular_file
from .refer import load_refer
from .refer_config import ReferConfig
from .rows import is_generalized, refer_features, writable_cache


OTHER_PICTURES = ("refclef",)  # sets whose pictures have other ids than COCO's
MAX_CARD_VALUES = 100_000
MAX_ROWS = 100_000_000  # of a Parquet file
MAX_UNFOLDED = 50  # times its size; pictures are compressed already, and masks and text are small beside them
LEAST_UNFOLDED = 256 * 2**20  # bytes, below which it may do as it likes
# What `datasets` raises for a folder or a name that it cannot load.
LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    pa.ArrowException,
    yaml.YAMLError,
    datasets.exceptions.DatasetsError,
)


@dataclass(frozen=True)
class DataSource:
    """A data set: its name, all its splits, and who split it and which text was read if it is a REFER set.

    `coco_ids` has COCO's id of each picture that is one of COCO's under another id.
    """

    name: str
    splits: datasets.DatasetDict
    split_by: str | None = None
    sentences: str | None = None
    coco_ids: dict[int, int] | None = None

    def __str__(self) -> str:
        return self.name if self.split_by is None else f"{self.name} ({self.split_by})"

    def rows(self, split: str, option: str) -> datasets.Dataset:
        """The rows of a split; ValueError, which names `option`, if there is none of that name."""
        if split not in self.splits:
            raise ValueError(f"{self} has no split {split!r}; choose one of {', '.join(self.splits)} with {option}.")
        return self.splits[split]


def load_sources(
    dataset: str | None,
    split_by: str | None,
    data_dir: str | os.PathLike | None,
    on_error: str = "raise",
    generalized: bool = False,
    sentences: str = "sent",
) -> list[DataSource]:
    """Load the data sets that a run is told.

    Args:
        dataset: a name, several with commas between them, or None for the one that is in `data_dir`.
        split_by: one for each data set, with commas between them; None takes what is there, and if several are, the
            first of `PUBLISHED_SETS`.
        data_dir: folder of REFER sets or of one's own data; None for a data set of the Hub.
        on_error: "raise" or "skip", see `refer.py`; only for REFER sets.
        generalized: whether to take grefs(…).json, as is always done for grefcoco.
        sentences: "sent" or "raw", see `load_refer`; only for REFER sets.

    Raises FileNotFoundError or ValueError with one line that names the option to change.
    """
    check_names(dataset, split_by, data_dir)
    if data_dir is None:
        refuse_refer_options(split_by, generalized, on_error, sentences)
        return [load_hub_source(dataset)]
    if not os.path.isdir(data_dir):
        raise FileNotFoundError(f"--data_dir {shorten(str(data_dir))} is no folder; give the one that holds the data.")
    if not is_refer(dataset, data_dir):
        refuse_refer_options(split_by, generalized, on_error, sentences)
        return [DataSource(os.path.basename(os.path.abspath(data_dir)), load_referring_folder(data_dir))]
    files = choose_files(data_dir, dataset, split_by, generalized)
    return [load_refer_source(data_dir, file, on_error, sentences) for file in files]


def is_refer(dataset: str | None, data_dir: str | os.PathLike | None) -> bool:
    """Whether a run that is told these reads REFER sets, and not the Hub, Parquet or one's own folder."""
    return data_dir is not None and (dataset is not None or find_metadata(data_dir) is None)


def load_one(
    dataset: str | None,
    split_by: str | None,
    data_dir: str | os.PathLike | None,
    on_error: str = "raise",
    generalized: bool = False,
    sentences: str = "sent",
) -> DataSource:
    """Load the data set that a command is told, as `load_sources` does; ValueError for several."""
    check_names(dataset, split_by, data_dir)
    if data_dir is not None and dataset is not None and len(_list(dataset)) > 1:
        raise ValueError(f"--dataset {dataset} names several data sets; name one.")
    (source,) = load_sources(dataset, split_by, data_dir, on_error, generalized, sentences)
    return source


def check_names(dataset, split_by, data_dir) -> None:
    """ValueError for what a recipe has in the place of a name or a folder."""
    for option, value in {"--dataset": dataset, "--split_by": split_by, "--data_dir": data_dir}.items():
        is_text = isinstance(value, str) or (isinstance(value, os.PathLike) and option == "--data_dir")
        if value is not None and not (is_text and "\0" not in os.fspath(value)):
            raise ValueError(f"{option} is {describe(value)}; give text.")


def choose_files(
    data_dir: str | os.PathLike, dataset: str | None, split_by: str | None, generalized: bool = False
) -> list[DataSetFile]:
    """Choose the refs files of `data_dir` that are meant, see `load_sources`."""
    there = find_data_sets(data_dir)
    # Of a published set there is one file; of others, grefs(…).json is asked for, in a mixture of those that have one.
    is_mixture = dataset is not None and len(_list(dataset)) > 1
    with_grefs = {file.dataset for file in there if file.generalized}
    found = []
    for file in there:
        if file.dataset in GENERALIZED_SETS or file.dataset in REFS_NAMES:
            wants_grefs = file.dataset == "grefcoco"
        else:
            wants_grefs = generalized and (file.dataset in with_grefs or not is_mixture)
        if file.generalized == wants_grefs:
            found.append(file)
    names_there = list(dict.fromkeys(file.dataset for file in found))
    if there and not found:
        change = "leave --generalized out" if generalized else "--generalized reads it, in the commands that have it"
        raise ValueError(f"--data_dir {data_dir} holds {', '.join(map(str, there))}; {change}.")
    if not found:
        raise ValueError(
            f"--data_dir {data_dir} holds neither metadata.jsonl nor a REFER data set; "
            f"`remamber data check --data_dir {data_dir}` says what is missing."
        )
    if dataset is None and len(names_there) > 1:
        raise ValueError(f"--data_dir {data_dir} holds {', '.join(names_there)}; choose with --dataset.")
    names = names_there if dataset is None else [published_name(name) for name in _list(dataset)]
    if len(set(names)) != len(names):
        raise ValueError(f"--dataset {dataset} names a data set twice; name each once.")
    wanted = [None] * len(names) if split_by is None else _list(split_by)
    if len(wanted) != len(names):
        raise ValueError(
            f"--split_by {split_by} has {len(wanted)} names for {len(names)} data sets; give one for each, with "
            "commas between them, or leave it out."
        )
    return [_choose_file(data_dir, found, *pair) for pair in zip(names, wanted)]


def _choose_file(data_dir, found: list[DataSetFile], name: str, split_by: str | None) -> DataSetFile:
    there = {file.split_by: file for file in found if file.dataset == name}
    if not there:
        names_there = ", ".join(dict.fromkeys(file.dataset for file in found))
        missing = ""
        if name in PUBLISHED_SETS:
            missing = f" `remamber data check --data_dir {data_dir} --dataset {name}` says what is missing."
        raise ValueError(f"--dataset {name} is not in {data_dir}, which holds {names_there}.{missing}")
    if split_by is None:
        preferred = [choice for choice in PUBLISHED_SETS.get(name, ()) if choice in there]
        choices = preferred[:1] or list(there)
        if len(choices) > 1:
            raise ValueError(f"{name} in {data_dir} is split by {', '.join(choices)}; choose with --split_by.")
        split_by = choices[0]
    if split_by not in there:
        raise ValueError(
            f"--split_by {split_by} is not there: {name} in {data_dir} is split by {', '.join(there)}; choose one of "
            "these."
        )
    return there[split_by]


def refuse_refer_options(
    split_by: str | None, generalized: bool = False, on_error: str = "raise", sentences: str = "sent"
):
    """ValueError for an option that only REFER sets know, where the data is no REFER set."""
    given = {
        f"--split_by {split_by}": split_by,
        "--generalized": generalized,
        "--on_error skip": on_error == "skip",
        "--sentences raw": sentences == "raw",
    }
    for option, is_given in given.items():
        if is_given:
            raise ValueError(
                f"{option} is for REFER sets, which need --data_dir and --dataset; give these, or leave it out."
            )


def load_refer_source(data_dir: str | os.PathLike, file: DataSetFile, on_error: str, sentences: str) -> DataSource:
    splits = load_refer(
        file.dataset,
        file.split_by,
        data_dir=data_dir,
        generalized=file.generalized,
        on_error=on_error,
        sentences=sentences,
    )
    coco_ids = None
    if file.dataset == "phrasecut":
        coco_ids = read_coco_ids(ReferConfig(data_dir=os.fspath(data_dir), dataset=file.dataset).refs_path)
    return DataSource(file.dataset, splits, file.split_by, sentences, coco_ids)


def load_hub_source(name: str | None) -> DataSource:
    """Load a data set by its name on the Hub, or a folder of Parquet files, see `rows_from_columns`."""
    if name is None:
        raise ValueError("no data is named; give --data_dir, --dataset (a name on the Hub), or both (a REFER set).")
    published = [each for each in map(published_name, _list(name)) if each in PUBLISHED_SETS]
    if published:
        raise ValueError(
            f"--dataset {published[0]} is read from its files; give --data_dir, the folder that holds "
            f"{published[0]}/ and the pictures."
        )
    is_folder = os.path.isdir(name)
    if is_folder and find_metadata(name) is not None:
        raise ValueError(f"{name} holds a metadata file; give it as --data_dir, without --dataset.")
    try:
        if is_folder:
            check_card(name)
            check_parquet(name)
        with writable_cache():
            data = datasets.load_dataset(name)
    except LOAD_ERRORS as error:
        reason = shorten((str(error).splitlines() or [type(error).__name__])[0], 400).rstrip(".")
        raise ValueError(
            f"--dataset {shorten(name)} cannot be loaded, neither from the Hub nor as a folder of Parquet files: "
            f"{reason}. A REFER data set needs --data_dir too."
        ) from None
    short_name = os.path.basename(os.path.abspath(name)) if is_folder else name
    return DataSource(short_name, rows_from_columns(data, name if is_folder else None))


def check_card(folder: str | os.PathLike) -> None:
    """ValueError if the README.md of a folder of Parquet files sends `datasets` to files elsewhere, or is a bomb."""
    path = os.path.join(folder, "README.md")
    if not os.path.lexists(path):
        return
    header = re.match(r"---\r?\n(.*?)\r?\n---", decode_text(read_regular_file(path), path), re.DOTALL)
    try:
        card = yaml.safe_load(header[1]) if header else None
        check_tree(card, MAX_CARD_VALUES)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"the header of README.md is not read ({type(error).__name__}: {error})") from None
    waiting = [card.get("configs")] if isinstance(card, dict) else []
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, dict)):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and ("://" in value or "::" in value or ".." in value or os.path.isabs(value)):
            raise ValueError(f"README.md names {describe(value)}, which is not in the folder")


def check_parquet(folder: str | os.PathLike) -> None:
    """ValueError if a Parquet file of a folder unfolds to many times its size, or is none; nothing of it is read."""
    for path in sorted(Path(folder).rglob("*.parquet")):
        name = shorten(str(path.relative_to(folder)))
        if not path.is_file():
            raise ValueError(f"{name} is no regular file")
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        whole = sum(max(group.total_byte_size, 0) for group in groups)
        if metadata.num_rows > MAX_ROWS or whole > max(MAX_UNFOLDED * path.stat().st_size, LEAST_UNFOLDED):
            raise ValueError(f"{name} unfolds from {path.stat().st_size} bytes to {metadata.num_rows} rows of {whole}")


def mix_training_rows(sources: list[DataSource], train_split: str) -> tuple[datasets.Dataset, dict[str, int]]:
    """Put the training rows of all sources together, without the pictures that any of them holds out.

    Pictures are told apart by `image_id`, which is COCO's but in `OTHER_PICTURES` and where a source has `coco_ids`. A
    single source is left as it is published. If a row of any source holds a list of objects, all do.

    Returns the rows, and the number of rows that were removed from each source.

    Raises ValueError if a source has no split of that name, or none of its rows is left.
    """
    parts = [source.rows(train_split, "--train_split") for source in sources]
    if len(sources) == 1:
        return parts[0], {sources[0].name: 0}
    held_out: dict[str, set[int]] = {}
    for source in sources:
        ids = held_out.setdefault(_pictures_of(source), set())
        for split, rows in source.splits.items():
            if split != train_split:
                ids.update(_image_ids(source, rows))
    takes_lists = any(is_generalized(rows) for rows in parts)
    kept, num_removed = [], {}
    for source, rows in zip(sources, parts):
        is_kept = ~np.isin(_image_ids(source, rows), list(held_out[_pictures_of(source)]))
        num_removed[source.name] = int((~is_kept).sum())
        if not is_kept.any():
            raise ValueError(f"every picture of {source} is in val or test of the other data sets; leave it out.")
        rows = rows.select(np.flatnonzero(is_kept))
        kept.append(with_lists(rows) if takes_lists else rows)
    return datasets.concatenate_datasets(kept), num_removed


def with_lists(rows: datasets.Dataset) -> datasets.Dataset:
    """Give rows of one object each the columns of a set in which a sentence may mean nothing or several."""
    if is_generalized(rows):
        return rows
    features = refer_features(generalized=True)
    stored = rows.cast_column("image", datasets.Image(decode=False))
    features["image"] = datasets.Image(decode=False)
    with writable_cache():
        listed = stored.map(_put_into_lists, batched=True, features=features, desc="One object → a list of one")
    return listed.cast_column("image", datasets.Image())


def _put_into_lists(rows: dict[str, list]) -> dict[str, list]:
    return {name: [[value] for value in rows[name]] for name in ("ann_id", "category", "bbox")}


def _pictures_of(source: DataSource) -> str:
    """Whose ids the pictures of a source have."""
    return source.name if source.name in OTHER_PICTURES else "COCO"


def _image_ids(source: DataSource, rows: datasets.Dataset) -> list[int]:
    ids = rows.select_columns("image_id").with_format(None)[:]["image_id"]
    if source.coco_ids is None:
        return ids
    # Below 0: no picture of COCO.
    return [source.coco_ids.get(image_id, -1 - image_id) for image_id in ids]


def _list(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]
