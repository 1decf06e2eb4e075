# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Refs → checked rows, by the rules at the top of `refer.py`; what is left out is counted."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from pathlib import PurePosixPath

from PIL import Image
from tqdm import tqdm

from ..messages import describe, shorten
from ..pictures import PILLOW_ERRORS, readable_formats
from .arefcoco import ARefCocoFiles
from .coco import check_segmentation
from .phrasecut import SMALL_OUTLINE, PhraseCutFiles, draw_outlines
from .picture_files import encode_png, ends_well, is_rotated
from .reading import Defect, are_within, integer_of, is_integer, text_of
from .refer_config import ReferConfig
from .refs import Instances, Meaning, ReferFiles
from .rows import SPLIT_NAME, TARGET_KINDS, is_split_name, papers_order


logger = logging.getLogger(__name__)

# What is left out, or only noticed, without a row being lost.
SMALL_POLYGON = "polygon under 3 points"
CROWD = "crowd in a generalised ref"
REPEATED_SENTENCE_ID = "repeated sentence id"
MAX_SPLITS = 100
SENTENCE_ID = "id of the row"  # in a sentence, beside what its file has
Files = ReferFiles | ARefCocoFiles | PhraseCutFiles
FORMATS: dict[str, type[Files]] = {"arefcoco": ARefCocoFiles, "phrasecut": PhraseCutFiles}  # all others are REFER's


class RowReader:
    """refs file → rows, by the rules at the top of `refer.py`; counts what is left out."""

    def __init__(self, config: ReferConfig):
        self.config = config
        self.files = FORMATS.get(config.dataset, ReferFiles)(config)
        self.refs = self.files.refs
        if not self.refs:
            raise ValueError(f"{shorten(str(config.refs_path))} holds no ref. Get the file again.")
        number_sentences(self.refs)
        if len({split for ref in self.refs if isinstance(split := ref.get("split"), str)}) > MAX_SPLITS:
            raise ValueError(
                f"{shorten(str(config.refs_path))} names more than {MAX_SPLITS} splits. Get the file again."
            )
        self.left_out = self.files.left_out
        self.noticed = self.files.noticed
        self.num_meaning: Counter[tuple[str, str]] = Counter()  # sentences of each split and `TARGET_KINDS`
        self.ref_ids: set[int] = set()
        self.sentence_ids: set[int] = set()
        self.pictures: dict[tuple[str, int], dict | Defect] = {}
        self.segmentations: dict[tuple[str, int], dict] = {}

    def rows_by_split(self) -> dict[str, list[dict]]:
        """Return the rows of every split that the refs file names, in the papers' order."""
        rows: dict[str, list[dict]] = {}
        for ref in tqdm(self.refs, desc=f"Checking {self.config.name}", disable=None):
            try:
                rows_of_split = rows.setdefault(_split(ref), [])
                self._notice_ref(ref)
                meanings = self.files.meanings_of(ref)
            except Defect as defect:
                self._report(defect, ref)
                continue
            for meaning in meanings:
                kind = TARGET_KINDS[min(len(meaning.annotations or meaning.ann_ids), 2)]
                self.num_meaning[_split(ref), kind] += len(meaning.sentences)
                try:
                    rows_of_split.append(self._row(ref, meaning))
                except Defect as defect:
                    self._report(defect, ref)
            ref.pop("Polygons", None)  # PhraseCut's, which would fill the memory
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
        instances = self.files.instances_of(ref)
        image = instances.entries["images"].get(_hashable(ref.get("image_id")), {})
        what, file = self.files.place_of(ref)
        message = (
            f"{self.config.dataset} ({self.config.split_by}), {what} of {file}, "
            f"picture {describe(image.get('file_name'))}: {defect}"
        )
        if self.config.on_error == "raise":
            raise ValueError(
                f'{message}. Mend the files, or leave out and count what is wrong: on_error="skip", --on_error skip.'
            ) from None
        logger.warning("%s; left out.", message)
        self.left_out[defect.kind] += 1

    def _notice_ref(self, ref: dict) -> None:
        ref_id = integer_of(ref, "ref_id")
        if ref_id in self.ref_ids:
            raise Defect("repeated ref id", "another ref has this id")
        self.ref_ids.add(ref_id)

    def _row(self, ref: dict, meaning: Meaning) -> dict:
        instances = self.files.instances_of(ref)
        image_id = integer_of(ref, "image_id")
        image = self._entry(instances, "images", image_id)
        height, width = integer_of(image, "height"), integer_of(image, "width")
        # Before the masks: the size of the picture itself bounds what is drawn.
        picture = self._picture(instances, image_id)
        annotations = meaning.annotations
        if annotations is None:
            annotations = [self._entry(instances, "annotations", ann_id) for ann_id in meaning.ann_ids]
        annotations = self._without_crowds(annotations)
        objects = [self._object(instances, annotation, image_id, height, width) for annotation in annotations]
        entries = self._with_text(ref, meaning.sentences)
        one_or_all = list if self.files.is_generalized else next
        return {
            "image": picture,
            "sentences": [entry[self.config.sentences] for entry in entries],
            "sentence_ids": [entry[SENTENCE_ID] for entry in entries],
            "ref_id": ref["ref_id"],
            "ann_id": one_or_all(annotation["id"] for annotation in annotations),
            "image_id": image_id,
            "category": one_or_all(each["category"] for each in objects),
            "bbox": one_or_all(each["bbox"] for each in objects),
            "height": height,
            "width": width,
            "split": _split(ref),
            "segmentation": [each["segmentation"] for each in objects],
        }

    @staticmethod
    def _entry(instances: Instances, key: str, entry_id: int) -> dict:
        if entry_id not in instances.entries[key]:
            raise Defect(f"unknown id in {key}", f"{instances.name} has no {entry_id} in {key}")
        if entry_id in instances.repeated[key]:
            times = instances.repeated[key][entry_id]
            raise Defect(f"repeated id in {key}", f"{instances.name} has {entry_id} {times} times in {key}")
        return instances.entries[key][entry_id]

    def _without_crowds(self, annotations: list[dict]) -> list[dict]:
        """Leave out what the readers of gRefCOCO leave out, in a grefs file only."""
        if not self.config.generalized:
            return annotations
        kept = [annotation for annotation in annotations if not annotation.get("iscrowd")]
        if annotations and not kept:
            raise Defect("only crowds", "each of its annotations has iscrowd, which readers of gRefCOCO leave out")
        if len(kept) < len(annotations):
            self.left_out[CROWD] += len(annotations) - len(kept)
        return kept

    def _with_text(self, ref: dict, entries: list[dict]) -> list[dict]:
        """The sentences that say something."""
        kept = []
        for number, entry in enumerate(entries, start=1):
            sentence = text_of(entry, self.config.sentences)
            where = f"sentence {describe(entry.get('sent_id', number))}"
            if sentence.strip():
                kept.append(entry)
                self._notice_id(entry)
            else:
                self._report(Defect("empty sentence", where), ref)
        if not kept:
            raise Defect("no sentence", "none of its sentences has text")
        return kept

    def _notice_id(self, entry: dict) -> None:
        sentence_id = _hashable(entry.get("sent_id"))
        if sentence_id is None:
            return
        if sentence_id in self.sentence_ids:
            self.noticed[REPEATED_SENTENCE_ID] += 1
        self.sentence_ids.add(sentence_id)

    def _object(self, instances: Instances, annotation: dict, image_id: int, height: int, width: int) -> dict:
        if annotation.get("image_id") != image_id:
            raise Defect(
                "annotation of another picture",
                f"annotation {annotation['id']} is of image {describe(annotation.get('image_id'))}",
            )
        bbox = annotation.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not are_within(bbox, -1e6, 1e6):
            raise Defect("malformed entry", f"bbox is {describe(bbox)}, four numbers are needed")
        if "outlines" in annotation:
            return {
                "category": annotation["category"],
                "bbox": bbox,
                "segmentation": self._draw(annotation, height, width),
            }
        key = instances.name, annotation["id"]
        if key not in self.segmentations:
            self.segmentations[key] = self._segmentation(annotation, height, width)
        category = self._entry(instances, "categories", integer_of(annotation, "category_id"))
        return {"category": text_of(category, "name"), "bbox": bbox, "segmentation": self.segmentations[key]}

    def _segmentation(self, annotation: dict, height: int, width: int) -> dict:
        where = f"annotation {annotation['id']}"
        segmentation, num_small = check_segmentation(annotation.get("segmentation"), height, width, where)
        if num_small:
            self.left_out[SMALL_POLYGON] += num_small
        return segmentation

    def _draw(self, annotation: dict, height: int, width: int) -> dict:
        where = f"instance {annotation['id'] % 1000}"
        rle, num_small = draw_outlines(annotation["outlines"], height, width, where)
        if num_small:
            self.left_out[SMALL_OUTLINE] += num_small
        return check_segmentation(rle, height, width, where)[0]

    def _picture(self, instances: Instances, image_id: int) -> dict:
        """Return the picture as `datasets.Image` stores it; each is looked at once."""
        key = instances.name, image_id
        if key not in self.pictures:
            try:
                self.pictures[key] = self._check_picture(instances.entries["images"][image_id])
            except Defect as defect:
                self.pictures[key] = defect
        picture = self.pictures[key]
        if isinstance(picture, Defect):
            raise picture
        return picture

    def _check_picture(self, image: dict) -> dict:
        name = text_of(image, "file_name")
        if not name or "\0" in name or "\\" in name or name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise Defect("picture name leaves the folder", f"file_name is {describe(name)}")
        path = next((path for folder in self.config.image_folders if os.path.isfile(path := folder / name)), None)
        if path is None:
            places = self.config.image_folders or self.config.image_places
            raise Defect("missing picture", f"there is no {describe(name)} in {' or '.join(map(str, places))}")
        wanted = f"{describe(image.get('height'))}×{describe(image.get('width'))}"
        try:
            with Image.open(path, formats=readable_formats()) as picture:
                size = (picture.height, picture.width)
                if size != (image.get("height"), image.get("width")):
                    came = f"{shorten(str(path))} is {size[0]}×{size[1]}"
                    raise Defect("picture of another size", f"{came}, the annotations have {wanted}")
                if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
                    raise ValueError(f"it has {size[0] * size[1]} pixels, at most {Image.MAX_IMAGE_PIXELS} are read")
                is_turned = is_rotated(picture)
                if is_turned or not ends_well(path, picture.format):
                    picture.load()
                content = encode_png(picture) if is_turned else None
        except Defect:
            raise
        except PILLOW_ERRORS as error:
            raise Defect("unreadable picture", f"{shorten(str(path))}: {shorten(str(error))}") from None
        return {"path": None if is_turned else str(path), "bytes": content}


def number_sentences(refs: list[dict]) -> None:
    """Put the id of its row into every sentence of a file: its `sent_id`, or the least number that is nobody's.

    The numbers go up from 1 in the order of the file, over all splits and also over what is left out, so that they
    are the same at every reading.
    """
    of_file = [ref for ref in refs if isinstance(ref.get("sentences"), list)]
    entries = [entry for ref in of_file for entry in ref["sentences"] if isinstance(entry, dict)]
    taken = {entry["sent_id"] for entry in entries if is_integer(entry.get("sent_id"))}
    free = (number for number in itertools.count(1) if number not in taken)
    for ref in of_file:
        # Copies: a pickle can have one dict in several places.
        ref["sentences"] = [
            {**entry, SENTENCE_ID: entry["sent_id"] if is_integer(entry.get("sent_id")) else next(free)}
            if isinstance(entry, dict)
            else entry
            for entry in ref["sentences"]
        ]


def _split(ref: dict) -> str:
    split = text_of(ref, "split")
    if not is_split_name(split):
        raise Defect("malformed entry", f"split is {describe(split)}, {SPLIT_NAME} is needed")
    return split


def _hashable(value):
    return value if isinstance(value, (int, str)) else None
