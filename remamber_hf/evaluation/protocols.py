# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""How released evaluations count, and this package: at which size, with which threshold and overlap."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ..data.rle import decode_rle
from ..data.rows import row_mask


THRESHOLD = 0.5


@dataclass(frozen=True)
class Protocol:
    """
    How a published code counts, or this package: "full". Facts were read in those codes.

    name: None for settings that have none. resize: how logits get the size that is counted at. side: of the square
    that the truth is squashed to, or None for the picture's own size. mask_overlap: see `row_mask`. truth: where it is
    squashed, "mask" (nearest) or "polygons". threshold: an object is where the probability is above it. epsilon: what
    is added to unions of single samples. is_strict: whether precision counts IoU > X, where X is in float32, instead
    of IoU ≥ X. sentences: which text of a REFER set is read. image_backend: what prepares pictures, None for what is
    installed. takes_generalized: whether that code knows sets in which a sentence may mean nothing or several.
    """

    name: str | None = None
    resize: str = "bilinear"
    side: int | None = None
    mask_overlap: str = "published"
    truth: str = "mask"
    threshold: float = THRESHOLD
    epsilon: float = 0.0
    is_strict: bool = False
    sentences: str = "sent"
    image_backend: str | None = "PIL"
    takes_generalized: bool = False

    def truth_of(self, row: dict) -> np.ndarray:
        """The true mask of a row, bool, at the size that is counted at."""
        if self.side is None:
            return row_mask(row, self.mask_overlap)
        if self.truth == "polygons":
            return squashed_union(row, self.side)
        mask = Image.fromarray(row_mask(row, self.mask_overlap).astype(np.uint8))
        return np.asarray(mask.resize((self.side, self.side), Image.Resampling.NEAREST)).astype(bool)

    def describe(self) -> dict:
        """What results.json says of it."""
        return {
            "name": self.name,
            "resize": self.resize,
            "size": "the picture's" if self.side is None else [self.side, self.side],
            "threshold": self.threshold,
            "mask_overlap": self.mask_overlap,
            "precision": "IoU > X" if self.is_strict else "IoU ≥ X",
            "epsilon": self.epsilon,
        }


OURS = Protocol("full", image_backend=None, takes_generalized=True)
EPSILON = 1e-6
PROTOCOLS = {
    "full": OURS,
    "published": Protocol("published", "nearest", epsilon=EPSILON),
    "lavt": Protocol("lavt", side=480, sentences="raw"),
    "rela": Protocol(
        "rela", side=480, mask_overlap="union", truth="polygons", sentences="raw", takes_generalized=True
    ),
    "cris": Protocol("cris", mask_overlap="union", threshold=0.35, epsilon=EPSILON, is_strict=True),
}


def protocol_of(described: dict) -> Protocol:
    """The protocol of which `Protocol.describe` says this, as far as scores depend on it."""
    known = PROTOCOLS.get(described["name"] or "", OURS)
    return replace(known, name=described["name"], epsilon=described["epsilon"])


def squashed_union(row: dict, side: int) -> np.ndarray:
    """The union of a row's objects with polygons scaled to a square before they are drawn; RLEs are drawn first."""
    height, width = int(row["height"]), int(row["width"])
    scale = np.array([side / width, side / height])
    mask = np.zeros((side, side), dtype=bool)
    for segmentation in row["segmentation"]:
        polygons = [(np.reshape(part, (-1, 2)) * scale).ravel().tolist() for part in segmentation["polygons"]]
        if polygons:
            mask |= decode_rle(coco_mask.merge(coco_mask.frPyObjects(polygons, side, side)))
        else:
            one = {**row, "segmentation": [segmentation]}
            drawn = Image.fromarray(row_mask(one, "union").astype(np.uint8))
            mask |= np.asarray(drawn.resize((side, side), Image.Resampling.NEAREST)).astype(bool)
    return mask
