# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A tiny data set in the REFER layout: six pictures, one ref each, to be changed and written by the tests."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask


LAYOUTS = {
    "lavt": "images/mscoco/images/train2014",
    "remamber": "train2014",
    "grefcoco": "images/train2014",
    "mscoco": "images/mscoco/train2014",
    "mscoco_flat": "mscoco/train2014",
    "coco": "coco/train2014",
    "refclef": "images/saiapr_tc-12",
    "refclef_flat": "saiapr_tc-12",
}
SIZES = [(40, 60), (60, 40), (32, 32), (50, 70), (24, 80), (64, 48)]  # (height, width)
SPLITS = ["train", "train", "train", "val", "testA", "testB"]
CATEGORIES = {1: "person", 3: "car"}


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A polygon."""
    return [left, top, right, top, right, bottom, left, bottom]


class TinyRefer:
    """`images`, `annotations`, `refs` and `grefs` as the files will hold them; change them, then `write`."""

    def __init__(self):
        self.images, self.annotations, self.refs, self.grefs = [], [], [], []
        self.categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
        for number, ((height, width), split) in enumerate(zip(SIZES, SPLITS), start=1):
            name = f"COCO_train2014_{number:012d}.jpg"
            self.images.append({"id": number, "file_name": name, "height": height, "width": width})
            self.annotations.append(
                {
                    "id": 100 + number,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [2.5, 3.0, 10.0, 12.0],
                    "segmentation": [rectangle(2.5, 3.0, 12.5, 15.0)],
                }
            )
            self.refs.append(self.ref(number, [f"the left one {number}", f"person {number}"], split))

    @property
    def sentence_ids(self):
        return [sentence["sent_id"] for ref in self.refs + self.grefs for sentence in ref["sentences"]]

    def ref(self, number: int, sentences: list[str], split: str) -> dict:
        """The ref of picture `number`. Its file name is wrong on purpose, as in the published files."""
        first = len(self.sentence_ids)
        return {
            "ref_id": 1000 + number,
            "ann_id": 100 + number,
            "image_id": number,
            "category_id": 1,
            "split": split,
            "file_name": f"COCO_train2014_{number:012d}_{100 + number}.jpg",
            "sent_ids": list(range(first, first + len(sentences))),
            "sentences": [
                {"sent_id": first + offset, "sent": text, "raw": text.upper(), "tokens": text.split()}
                for offset, text in enumerate(sentences)
            ],
        }

    def add_generalized(self):
        """Two refs of several objects or none, for grefs(unc).json."""
        second = {**self.annotations[0], "id": 201, "category_id": 3, "bbox": [5, 5, 20, 20]}
        second["segmentation"] = [rectangle(5, 5, 25, 25)]
        self.annotations.append(second)
        several = {**self.ref(1, ["both of them"], "train"), "ann_id": [101, 201], "category_id": [1, 3]}
        self.grefs = [several]
        nothing = {**self.ref(2, ["a green dog"], "val"), "ann_id": [-1], "category_id": [-1], "no_target": True}
        self.grefs = [several, nothing]

    def write(
        self,
        root,
        dataset: str = "refcoco",
        split_by: str = "unc",
        layout: str = "lavt",
        *,
        refs_content: bytes | None = None,
    ) -> Path:
        """Write the files; pictures that are already there stay."""
        root = Path(root)
        (root / dataset).mkdir(parents=True, exist_ok=True)
        (root / LAYOUTS[layout]).mkdir(parents=True, exist_ok=True)
        instances = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        (root / dataset / "instances.json").write_text(json.dumps(instances))
        if self.grefs:
            (root / dataset / f"grefs({split_by}).json").write_text(json.dumps(self.grefs))
        refs_content = pickle.dumps(self.refs, protocol=2) if refs_content is None else refs_content
        (root / dataset / f"refs({split_by}).p").write_bytes(refs_content)
        for number, (height, width) in enumerate(SIZES, start=1):
            path = root / LAYOUTS[layout] / f"COCO_train2014_{number:012d}.jpg"
            if not path.exists():
                picture(height, width).save(path, quality=95)
        return root


def picture(height: int, width: int) -> Image.Image:
    """A picture with a bright upper left quarter, so that a turn shows."""
    pixels = np.full((height, width, 3), 40, dtype=np.uint8)
    pixels[: height // 2, : width // 2] = 220
    return Image.fromarray(pixels)


def published_mask(parts: list[dict]) -> np.ndarray:
    """The published rule, written out: decode all parts at once, add up, keep what equals 1."""
    return coco_mask.decode(parts).sum(axis=2).astype(np.uint8) == 1


def python2_pickle(value, protocol: int = 2, encoding: str = "utf-8") -> bytes:
    """What Python 2 pickles for lists, dicts, ints and byte strings (its `str`), with text encoded into the latter."""
    header = b"\x80\x02" if protocol == 2 else b""
    return header + _python2(value, protocol, encoding) + b"."


def _python2(value, protocol: int, encoding: str) -> bytes:
    if isinstance(value, str):
        content = value.encode(encoding)
        if protocol == 2:
            return b"T" + struct.pack("<i", len(content)) + content
        return b"S'" + "".join(f"\\x{byte:02x}" for byte in content).encode("ascii") + b"'\n"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value) if protocol == 2 else b"I%d\n" % value
    if isinstance(value, list):
        items = (_python2(item, protocol, encoding) + b"a" for item in value)
        return (b"]" if protocol == 2 else b"(l") + b"".join(items)
    items = (
        _python2(key, protocol, encoding) + _python2(item, protocol, encoding) + b"s" for key, item in value.items()
    )
    return (b"}" if protocol == 2 else b"(d") + b"".join(items)
