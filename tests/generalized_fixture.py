# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny copies of Ref-ZOM, R-RefCOCO, aRefCOCO and PhraseCut, in the formats in which they are published."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from refer_fixture import SIZES, TinyRefer, picture, rectangle


def ref_zom() -> TinyRefer:
    """One object, two objects and nothing; in train and in test."""
    tiny = TinyRefer()
    second = {**tiny.annotations[0], "id": 201, "category_id": 3, "bbox": [5, 5, 20, 20]}
    second["segmentation"] = [rectangle(5, 5, 25, 25)]
    tiny.annotations.append(second)
    tiny.refs = [
        {**tiny.ref(1, ["both of them", "the two"], "train"), "ann_id": [101, 201], "source": "many"},
        {**tiny.ref(2, ["a person"], "train"), "ann_id": 102, "source": "one"},
        {**tiny.ref(3, ["a green dog"], "train"), "ann_id": [], "source": "zero"},
        {**tiny.ref(4, ["a person"], "test"), "ann_id": [104], "source": "one"},
    ]
    for ref in tiny.refs:
        del ref["category_id"]
    return tiny


def robust() -> TinyRefer:
    """R-RefCOCO: REFER's refs, whose first has two further sentences that are true of nothing."""
    tiny = TinyRefer()
    tiny.refs[0]["sentences"] += [
        {"sent_id": 900 + number, "sent": text, "raw": text, "tokens": text.split(), "exist": False}
        for number, text in enumerate(["the blue horse", "the left horse"])
    ]
    tiny.refs[0]["sentences"][0]["exist"] = True
    return tiny


def write_arefcoco(root: Path, entries: list[dict]) -> Path:
    """aRefCOCO beside RefCOCO (unc) and G-Ref (umd), whose refs have the same ids and other objects."""
    TinyRefer().write(root, "refcoco", "unc")
    other = TinyRefer()
    for annotation in other.annotations:
        annotation["segmentation"] = [rectangle(1, 1, 9, 20)]
    other.write(root, "refcocog", "umd")
    (root / "arefcoco").mkdir(exist_ok=True)
    (root / "arefcoco" / "arefcoco.json").write_text(json.dumps({"annotations": entries}))
    return root


def ambiguous_entries() -> list[dict]:
    described = {"entity_id": 5, "ref_id": 1001, "split": "test", "category_name": "person", "bbox": [2, 3, 10, 12]}
    return [
        {**described, "original_dataset": "refcoco", "descriptions": ["the person beside another", "a long one"]},
        {**described, "original_dataset": "refcocog", "descriptions": ["the person of G-Ref"]},
        {**described, "original_dataset": "refcocog", "ref_id": 1004, "split": "train", "descriptions": ["another"]},
    ]


class TinyPhraseCut:
    """`pictures` and `tasks` by split, as the files will hold them; change them, then `write`."""

    def __init__(self):
        self.pictures, self.tasks = [], {}
        for number, split in enumerate(("train", "val", "test", "miniv"), start=1):
            height, width = SIZES[number - 1]
            image_id = 2_300_000 + number
            self.pictures.append(
                {
                    "image_id": image_id,
                    "coco_id": number if number < 4 else None,
                    "flickr_id": None,
                    "width": width,
                    "height": height,
                    "url": "https://example.org/a.jpg",
                    "split": split,
                }
            )
            self.tasks[split] = [self.task(image_id, "walking people", [[[[2.9, 3], [12, 3.5], [12, 15]]], SQUARES])]

    @staticmethod
    def task(image_id: int, phrase: str, polygons: list, number: int = 0) -> dict:
        return {
            "task_id": f"{image_id}__{number}",
            "image_id": image_id,
            "ann_ids": [1023, 1024, 1025],
            "instance_boxes": [[2, 3, 10, 12] for _ in polygons],
            "Polygons": polygons,
            "phrase": phrase,
            "phrase_structure": {
                "name": "people",
                "attributes": ["walking"],
                "relation_ids": [],
                "relation_descriptions": [],
                "type": "attribute",
            },
        }

    def write(self, root: Path, folder: str = "VGPhraseCut_v0", pictures: str = "image_data_split.json") -> Path:
        (root / folder / "images").mkdir(parents=True, exist_ok=True)
        (root / folder / pictures).write_text(json.dumps(self.pictures))
        for split, tasks in self.tasks.items():
            (root / folder / f"refer_{split}.json").write_text(json.dumps(tasks))
        for number, (height, width) in enumerate(SIZES[:4], start=1):
            picture(height, width).save(root / folder / "images" / f"{2_300_000 + number}.jpg")
        return root


SQUARES = [[[4, 4], [9, 4], [9, 9], [4, 9]], [[14, 4], [19.7, 4], [19, 9]]]  # one instance in two parts


def phrasecut_mask(polygons: list, height: int, width: int) -> np.ndarray:
    """The published rule, written out: each polygon by itself, its points cut to integers, all added up."""
    total = np.zeros((height, width))
    for instance in polygons:
        for polygon in instance:
            alone = Image.new("L", (width, height), 0)
            ImageDraw.Draw(alone).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
            total += np.array(alone)
    return total > 0


def rename_ref_zom(root: Path, folder: str, name: str) -> None:
    """Call its folder and its refs file as they are called when downloaded."""
    shutil.move(root / "ref-zom", root / folder)
    shutil.move(root / folder / "refs(final).p", root / folder / name)


def write_refs(root: Path, dataset: str, name: str, refs: list[dict]) -> None:
    (root / dataset / name).write_bytes(pickle.dumps(refs, protocol=2))
