# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Look at data on disk: what is there, does it agree with the published counts, what would not load.

find_data_sets → check_refer → CheckResult, one per refs file. Nothing is written, and no defect of the data raises.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..messages import describe, shorten
from ..pictures import PILLOW_ERRORS, open_image
from .coco import INSTANCE_LISTS
from .discovery import DataSetFile, find_data_sets, find_metadata
from .folder import FolderReader
from .published import (
    ANNOTATION_ARCHIVES,
    ANNOTATION_FILES,
    COCO_ARCHIVE,
    FOLDERS,
    IMAGE_ARCHIVES,
    LATER_SPLITS,
    PHRASECUT_VAL,
    PUBLISHED_COUNTS,
    PUBLISHED_SETS,
    KindCount,
    SplitCount,
    picture_folders,
    published_name,
)
from .reading import Defect
from .refer_config import ReferConfig
from .row_reader import SMALL_POLYGON, RowReader
from .rows import TARGET_KINDS, is_split_name, papers_order, target_kind


MISSING_PICTURE = "missing picture"


@dataclass
class Problem:
    """A kind of defect: how many refs, lines or files have it, how many pictures if it is of those, and the first."""

    kind: str
    count: int = 0
    pictures: int = 0
    first: str = ""


@dataclass
class CheckResult:
    """What was found in one data set."""

    name: str
    counts: dict[str, SplitCount] = field(default_factory=dict)
    published: dict[str, SplitCount] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    mended_polygons: int = 0
    notes: list[str] = field(default_factory=list)
    missing_archives: list[str] = field(default_factory=list)

    def agrees(self, split: str) -> bool | None:
        """Whether a split is as published, as far as that is known; None where nothing is."""
        if not self.published:
            return None
        wanted = self.published.get(split)
        found = self.counts.get(split)
        if wanted is not None and not wanted.is_known:
            return None
        if wanted is None or found is None:
            return False
        return all(number in (None, getattr(found, kind, None)) for kind, number in vars(wanted).items())

    @property
    def splits(self) -> list[str]:
        """The splits that are there, and those that should be, in the papers' order."""
        return papers_order(dict.fromkeys([*self.counts, *self.published]))

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong or missing, and the counts are the published ones."""
        agree = all(self.agrees(split) is not False for split in self.splits)
        return agree and not self.problems and not self.missing_archives

    def add(self, defect: Defect, where: str) -> None:
        """Count a defect of a ref or line."""
        first = f"{where}, {str(defect).removeprefix(defect.kind + ': ')}"
        self.problems.setdefault(defect.kind, Problem(defect.kind, first=first)).count += 1


def check_data(
    data_dir: str | os.PathLike, dataset: str | None = None, split_by: str | None = None
) -> list[CheckResult]:
    """Check all that is in `data_dir`, or one data set of it; a folder of one's own counts as a data set.

    Raises FileNotFoundError if there is no such folder, and ValueError for an unknown name.
    """
    dataset = None if dataset is None else published_name(dataset)
    found = find_data_sets(data_dir)
    meant = [file for file in found if dataset in (None, file.dataset) and split_by in (None, file.split_by)]
    if not meant and (dataset is not None or split_by is not None):
        there = ", ".join(map(str, found)) or "none"
        if dataset is not None and dataset not in PUBLISHED_SETS and dataset not in {file.dataset for file in found}:
            raise ValueError(f"{data_dir} holds no data set {describe(dataset)}; those that it holds: {there}.")
        choices = PUBLISHED_SETS.get(dataset or "") or sorted(
            {file.split_by for file in found if dataset in (None, file.dataset)}
        )
        if choices and split_by is not None and split_by not in choices:
            what = f"what is in {data_dir}" if dataset is None else dataset
            raise ValueError(
                f"{what} is not split by {describe(split_by)}; choose one of {', '.join(choices)} with --split_by."
            )
    results = [check_refer(data_dir, file) for file in meant]
    if dataset is None and find_metadata(data_dir) is not None:
        results.append(check_folder(data_dir))
    begun = [
        name
        for name in PUBLISHED_SETS
        if any((Path(data_dir) / folder).is_dir() for folder in FOLDERS.get(name, (name,)))
    ]
    lacking = [dataset] if dataset is not None else begun
    lacking = [name for name in lacking if name not in {file.dataset for file in meant}]
    if not results and not lacking:
        lacking = list(PUBLISHED_SETS)
    for name in lacking:
        archives = [missing_annotations(data_dir, name)]
        if not image_folders_of(data_dir, name):
            archives.append(missing_pictures(data_dir, name))
        results.append(CheckResult(name, missing_archives=archives))
    return results


def image_folders_of(data_dir: str | os.PathLike, dataset: str) -> list[Path]:
    """Return the folders that are there of those that may hold the pictures of a data set."""
    return ReferConfig(data_dir=os.fspath(data_dir), dataset=dataset).image_folders


def check_refer(data_dir: str | os.PathLike, file: DataSetFile) -> CheckResult:
    """Read one refs file, its annotations and every picture that it names, and say what is wrong."""
    config = ReferConfig(
        data_dir=os.fspath(data_dir),
        dataset=file.dataset,
        split_by=file.split_by,
        generalized=file.generalized,
        on_error="skip",
    )
    published = PUBLISHED_COUNTS.get((file.dataset, file.split_by), {})
    result = CheckResult(str(file), published=dict(published))
    if file.generalized != (file.dataset == "grefcoco"):
        result.published = {}
    if not all(path.is_file() for path in config.annotation_paths):
        result.missing_archives.append(missing_annotations(data_dir, file.dataset))
        return result
    if not config.image_folders:
        result.missing_archives.append(missing_pictures(config.root, file.dataset))
    try:
        reader = CheckingReader(config, result)
    except (ValueError, FileNotFoundError) as error:
        result.problems["unreadable file"] = Problem("unreadable file", 1, first=str(error))
        return result
    result.counts = count_splits(reader.refs)
    for split in LATER_SPLITS.get(file.dataset, ()):
        if split not in result.counts:
            result.published.pop(split, None)
    reader.rows_by_split()
    if reader.files.is_generalized:
        for split, count in result.counts.items():
            result.counts[split] = with_kinds(count, {kind: reader.num_meaning[split, kind] for kind in TARGET_KINDS})
    result.mended_polygons = reader.left_out.pop(SMALL_POLYGON, 0)
    result.notes = [f"{count} × {kind}, left out" for kind, count in reader.left_out.items()]
    result.notes += [f"{count} × {kind}, read all the same" for kind, count in reader.noticed.items()]
    joint = [split for split in result.counts if re.fullmatch("test[A-Z]{2,}", split)]
    if joint:
        result.notes.append(f"REFER's own reader joins {', '.join(joint)} to testA, testB and so on; here it is apart")
    if file.dataset == "phrasecut":
        result.notes.append(PHRASECUT_VAL)
    for instances in reader.files.all_instances:
        for key in INSTANCE_LISTS:
            kind, counts = f"repeated id in {key}", instances.repeated[key]
            if counts and kind not in result.problems:
                times = f"{next(iter(counts))} {next(iter(counts.values()))} times"
                first = f"{instances.name} has {times}; no ref needs it"
                result.problems[kind] = Problem(kind, len(counts), first=first)
    for kind, num_pictures in reader.count_pictures().items():
        result.problems[kind].pictures = num_pictures
    if MISSING_PICTURE in result.problems and config.image_folders and file.dataset in PUBLISHED_SETS:
        archive, page = IMAGE_ARCHIVES.get(file.dataset, COCO_ARCHIVE)
        result.missing_archives.append(
            f"a part of {archive}, from {page}; unpack it again so that its pictures are in {config.image_folders[0]}"
        )
    return result


def check_folder(folder: str | os.PathLike) -> CheckResult:
    """Read a folder of one's own, see `load_referring_folder`, and say what is wrong."""
    result = CheckResult(Path(folder).resolve().name)
    try:
        reader = CheckingFolderReader(folder, result)
    except ValueError as error:
        result.problems["unreadable file"] = Problem("unreadable file", 1, first=str(error))
        return result
    for split, rows in reader.rows_by_split().items():
        num_images = len({row["image_id"] for row in rows})
        count = SplitCount(len(rows), num_images, sum(len(row["sentences"]) for row in rows))
        if reader.is_generalized:
            kinds = Counter[str]()
            for row in rows:
                kinds[target_kind(row)] += len(row["sentences"])
            count = with_kinds(count, kinds)
        result.counts[split] = count
    return result


class CheckingReader(RowReader):
    """Puts defects into a `CheckResult`, without a line of log for each, and decodes every picture."""

    def __init__(self, config: ReferConfig, result: CheckResult):
        super().__init__(config)
        self.result = result

    def _report(self, defect: Defect, ref: dict) -> None:
        what, file = self.files.place_of(ref)
        self.result.add(defect, what if file == self.config.refs_path.name else f"{what} of {file}")

    def _check_picture(self, image: dict) -> dict:
        picture = super()._check_picture(image)
        if picture["path"] is not None:
            _decode(picture["path"])
        return picture

    def count_pictures(self) -> Counter[str]:
        """Return how many pictures are missing, unreadable and so on."""
        return Counter(picture.kind for picture in self.pictures.values() if isinstance(picture, Defect))


class CheckingFolderReader(FolderReader):
    """Puts defects into a `CheckResult`, and decodes every picture."""

    def __init__(self, folder: str | os.PathLike, result: CheckResult):
        super().__init__(folder)
        self.result = result

    def _report(self, defect: Defect, line: int) -> None:
        self.result.add(defect, f"line {line}")

    def _picture(self, path: Path) -> tuple[dict, tuple[int, int]]:
        picture = super()._picture(path)
        _decode(path)
        return picture


def _decode(path: str | Path) -> None:
    try:
        with open_image(path) as picture:
            picture.load()
    except PILLOW_ERRORS as error:
        raise Defect("unreadable picture", f"{shorten(str(path))}: {shorten(str(error))}") from None


def count_splits(refs: list[dict]) -> dict[str, SplitCount]:
    """Count refs, pictures and sentences of each split as the refs file has them, whole or not."""
    counts: dict[str, SplitCount] = {}
    pictures: dict[str, set] = {}
    for ref in refs:
        given = ref.get("split")
        split = given if is_split_name(given) else describe(given)
        count = counts.setdefault(split, SplitCount(0, 0, 0))
        count.refs = (count.refs or 0) + 1
        sentences = ref.get("sentences")
        count.sentences = (count.sentences or 0) + (len(sentences) if isinstance(sentences, list) else 0)
        pictures.setdefault(split, set()).add(describe(ref.get("image_id")))
    for split, image_ids in pictures.items():
        counts[split].images = len(image_ids)
    return {split: counts[split] for split in papers_order(counts)}


def with_kinds(count: SplitCount, kinds: Mapping[str, int]) -> KindCount:
    """Add how many sentences mean nothing, one object and several."""
    return KindCount(**vars(count), none=kinds["none"], one=kinds["one"], many=kinds["many"])


def missing_annotations(data_dir: str | os.PathLike, dataset: str) -> str:
    """Say which archive holds the annotations of a data set and where it belongs."""
    config = ReferConfig(data_dir=os.fspath(data_dir), dataset=dataset)
    if dataset not in ANNOTATION_ARCHIVES:
        return f"instances.json of {dataset}; put it into {config.folder}"
    archive, page = ANNOTATION_ARCHIVES[dataset]
    usual = ("instances.json", *(f"refs({split_by}).p" for split_by in PUBLISHED_SETS[dataset]))
    *names, last = ANNOTATION_FILES.get(dataset, usual)
    listed = f"{', '.join(names)} and {last} are" if names else f"{last} is"
    return f"{archive}, from {page}; unpack it so that {listed} in {config.folder}"


def missing_pictures(data_dir: str | os.PathLike, dataset: str) -> str:
    """Say which archive holds the pictures of a data set and where it belongs."""
    folders = " or ".join(str(Path(data_dir) / folder) for folder in picture_folders(dataset))
    if dataset not in PUBLISHED_SETS:
        return f"the pictures of {shorten(dataset)}; put them into {folders}"
    archive, page = IMAGE_ARCHIVES.get(dataset, COCO_ARCHIVE)
    return f"{archive}, from {page}; unpack it so that its pictures are in {folders}"
