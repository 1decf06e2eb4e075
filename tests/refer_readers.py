# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Readers of another make: what `refer.py`, `grefer.py` and ReLA's loader do with the files; nothing of this package.

Written from what those readers do, in few words: they trust the files, know the names of four sets, and look at the
first part of a segmentation to know all of them.
"""

import json
import pickle
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask


class Refer:
    """RefCOCO, RefCOCO+, G-Ref and RefCLEF, as LAVT and CRIS have them read."""

    coco = "images/mscoco/images/train2014"
    places = {"refcoco": coco, "refcoco+": coco, "refcocog": coco, "refclef": "images/saiapr_tc-12"}

    def __init__(self, root, dataset: str, split_by: str):
        self.pictures = Path(root) / self.places[dataset]
        self.folder = Path(root) / dataset
        self.refs = {ref["ref_id"]: ref for ref in self.read_refs(split_by)}
        instances = json.loads((self.folder / "instances.json").read_text())
        self.annotations = {entry["id"]: entry for entry in instances["annotations"]}
        self.images = {entry["id"]: entry for entry in instances["images"]}
        self.categories = {entry["id"]: entry["name"] for entry in instances["categories"]}
        self.sentences = {}
        for ref in self.refs.values():
            for sentence in ref["sentences"]:
                self.sentences[sentence["sent_id"]] = (ref["ref_id"], sentence["raw"], tuple(sentence["tokens"]))

    def read_refs(self, split_by: str) -> list[dict]:
        return pickle.loads((self.folder / f"refs({split_by}).p").read_bytes())

    def of_split(self, split: str) -> list[dict]:
        """The refs of a split; `test` is every test, and testA every split with that letter."""
        if split in ("train", "val"):
            return [ref for ref in self.refs.values() if ref["split"] == split]
        if split == "test":
            return [ref for ref in self.refs.values() if "test" in ref["split"]]
        assert split in ("testA", "testB", "testC"), split
        return [ref for ref in self.refs.values() if split[-1] in ref["split"]]

    def picture(self, ref: dict) -> Path:
        return self.pictures / self.images[ref["image_id"]]["file_name"]

    def layers(self, annotation: dict) -> np.ndarray:
        """How many parts of an object cover each pixel."""
        image, parts = self.images[annotation["image_id"]], annotation["segmentation"]
        if isinstance(parts[0], list):
            parts = coco_mask.frPyObjects(parts, image["height"], image["width"])
        return coco_mask.decode(parts).sum(axis=2).astype(np.uint8)

    def mask(self, ref: dict) -> np.ndarray:
        """The mask that LAVT trains on: where one part covers a pixel."""
        return self.layers(self.annotations[ref["ann_id"]]) == 1

    def objects(self, ref: dict) -> list[dict]:
        return [self.annotations[ref["ann_id"]]]


class GRefer(Refer):
    """gRefCOCO, as ReLA has it read."""

    places = {"grefcoco": "images/train2014"}

    def read_refs(self, split_by: str) -> list[dict]:
        assert not (self.folder / f"grefs({split_by}).p").exists()  # which would be read first
        return json.loads((self.folder / f"grefs({split_by}).json").read_text())

    def of_split(self, split: str) -> list[dict]:
        assert split in {ref["split"] for ref in self.refs.values()}
        return [ref for ref in self.refs.values() if ref["split"] == split]

    def objects(self, ref: dict) -> list[dict]:
        if -1 in ref["ann_id"]:
            assert ref["ann_id"] == ref["category_id"] == [-1] and ref["no_target"] is True
            return []
        assert ref["no_target"] is False and len(ref["category_id"]) == len(ref["ann_id"])
        return [self.annotations[ann_id] for ann_id in ref["ann_id"]]

    def mask(self, ref: dict) -> np.ndarray:
        image = self.images[ref["image_id"]]
        total = np.zeros((image["height"], image["width"]), dtype=int)
        for annotation in self.objects(ref):
            assert not annotation["iscrowd"]
            total += self.layers(annotation)
        return total > 0


def rela_mask(reader: Refer, ref: dict) -> np.ndarray | None:
    """The mask that ReLA's training makes; None for a ref that it leaves out: it takes polygons of 3 points only."""
    image = reader.images[ref["image_id"]]
    mask = np.zeros((image["height"], image["width"]), dtype=bool)
    for annotation in reader.objects(ref):
        assert annotation["image_id"] == ref["image_id"]
        polygons = [part for part in annotation["segmentation"] if len(part) >= 6 and len(part) % 2 == 0]
        if not polygons:
            return None
        mask |= coco_mask.decode(coco_mask.frPyObjects(polygons, *mask.shape)).any(axis=2)
    return mask
