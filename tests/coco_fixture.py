# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Small files in COCO format, and their pictures."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


HEIGHT, WIDTH = 100, 200
CATEGORIES = ("dog", "cat", "car", "sky")


def square(left: float, top: float, width: float = 20, height: float = 20) -> list[list[float]]:
    """The segmentation of a box, in pixels."""
    right, bottom = left + width, top + height
    return [[left, top, right, top, right, bottom, left, bottom]]


class CocoFile:
    """A file that grows: pictures with their own content, and annotations of boxes."""

    def __init__(self, folder: Path, categories=CATEGORIES):
        self.images = folder / "pictures"
        self.images.mkdir(parents=True)
        self.path = folder / "instances.json"
        self.names = list(categories)
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        }

    def add_image(self, image_id: int, **fields) -> dict:
        name = f"{image_id}.png"
        pixels = np.random.default_rng(image_id % 2**32).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(self.images / name)
        entry = {"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH, **fields}
        self.content["images"].append(entry)
        return entry

    def add(self, image_id: int, category: str, segmentation, **fields) -> dict:
        """Add an annotation; its bbox is not to be believed."""
        entry = {
            "id": len(self.content["annotations"]) + 1,
            "image_id": image_id,
            "category_id": self.names.index(category) + 1,
            "segmentation": segmentation,
            "bbox": [0, 0, 1, 1],
            "area": 1,
            "iscrowd": 0,
            **fields,
        }
        self.content["annotations"].append(entry)
        return entry

    def write(self) -> "CocoFile":
        self.path.write_text(json.dumps(self.content))
        return self
