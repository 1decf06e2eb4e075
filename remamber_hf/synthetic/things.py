# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Named things in a picture, whether photographed or pasted: where each lies, and how two of them compare.

Lengths are fractions of the picture's longer side, x to the right and y downwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .evaluator import Margins


# Of photographs people say with less distance what is clear: edges must agree too (`Thing.precedes`).
THING_MARGINS = Margins(position=0.06, relation=0.08)
# Part of the smaller extent of two things that may overlap where one is called left of (above …) the other.
MAX_OVERLAP = 0.25
# Part of the smaller height (width) that two things must share where one is next to (above, below) the other.
MIN_ALONGSIDE = 0.5
# Somebody could call a thing next to another where the gap between them is so many times what is certain.
POSSIBLE_GAPS = 3


@dataclass(frozen=True)
class Noun:
    """What a noun means: the categories that it certainly is of, and those that somebody could call so."""

    certain: frozenset[str]
    possible: frozenset[str]


@dataclass(frozen=True)
class Thing:
    """
    One thing of a picture.

    Attributes:
        category: its name in the data set.
        box: left, top, right, bottom of what is seen of it.
        area: of its mask, as a fraction of the square of the longer side; NaN where it has no mask, and then nobody
            knows what is larger.
        frame: width and height of the picture, of which the longer is 1.
        is_target: whether a sentence may be about it; a thing that is cut off or tiny is there all the same.
        is_crowd: whether it stands for an unknown number of its category.
        is_stuff: whether it is of what is not counted, as the sky; it is called by its name only.
        is_anchor: whether a sentence may say where it is that something else lies; a tiny thing is no landmark.
    """

    category: str
    box: tuple[float, float, float, float]
    area: float
    frame: tuple[float, float] = (1.0, 1.0)
    is_target: bool = True
    is_crowd: bool = False
    is_stuff: bool = False
    is_anchor: bool = True

    @property
    def x(self) -> float:
        return (self.box[0] + self.box[2]) / 2

    @property
    def y(self) -> float:
        return (self.box[1] + self.box[3]) / 2

    # What `evaluator.Located` asks of an object.

    def has(self, role: str, value: Noun) -> bool:
        return not self.is_crowd and self.category in value.certain

    def may_have(self, role: str, value: Noun) -> bool:
        return self.category in value.possible

    def distance_to(self, side: str) -> float:
        near, far = self.edges(side)
        return (near + far) / 2

    def fraction_to(self, side: str) -> float:
        return self.distance_to(side) / self.frame[side in ("top", "bottom")]

    def edges(self, side: str) -> tuple[float, float]:
        """Distances from a side of the picture of its nearest and its farthest edge."""
        left, top, right, bottom = self.box
        width, height = self.frame
        return {
            "left": (left, right),
            "right": (width - right, width - left),
            "top": (top, bottom),
            "bottom": (height - bottom, height - top),
        }[side]

    def precedes(self, other: Thing, side: str, margin: float) -> bool:
        """Its centre is nearer by the margin, and both its edges are nearer too."""
        (near, far), (other_near, other_far) = self.edges(side), other.edges(side)
        return self.distance_to(side) + margin <= other.distance_to(side) and near <= other_near and far <= other_far

    def outsizes(self, other: Thing, ratio: float) -> bool:
        """The root of its area is ahead by the ratio, and its box is larger too."""
        return math.sqrt(self.area) >= ratio * math.sqrt(other.area) and _box_area(self) >= _box_area(other)

    def is_clear_of(self, anchor: Thing, side: str) -> bool:
        """Along that way, the two share at most a quarter of the smaller extent."""
        (near, far), (anchor_near, anchor_far) = self.edges(side), anchor.edges(side)
        shared = min(far, anchor_far) - max(near, anchor_near)
        return shared <= MAX_OVERLAP * min(far - near, anchor_far - anchor_near)

    def is_next_to(self, anchor: Thing, reach: float, strictly: bool) -> bool:
        """
        Side by side: at most `reach` between them, at most a quarter of the smaller width shared, and at least half of
        the smaller height. Not strictly: at most three times as far, in any direction.
        """
        gaps = []
        for side in ("left", "top"):
            (near, far), (anchor_near, anchor_far) = self.edges(side), anchor.edges(side)
            gaps.append(max(near, anchor_near) - min(far, anchor_far))  # below 0 where they overlap
        if not strictly:
            return max(gaps) <= POSSIBLE_GAPS * reach
        (top, bottom), (anchor_top, anchor_bottom) = self.edges("top"), anchor.edges("top")
        is_alongside = -gaps[1] >= MIN_ALONGSIDE * min(bottom - top, anchor_bottom - anchor_top)
        return is_alongside and gaps[0] <= reach and self.is_clear_of(anchor, "left")


def _box_area(thing: Thing) -> float:
    left, top, right, bottom = thing.box
    return (right - left) * (bottom - top)
