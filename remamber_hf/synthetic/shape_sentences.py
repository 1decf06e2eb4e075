# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The words for drawn shapes, and what reads them: `SHAPES`."""

from __future__ import annotations

from .evaluator import Evaluator, Margins
from .grammar import PLACES, Grammar, Words
from .scenes import COLOURS


# Writers of plain expressions draw from this table, so that it never changes.
PLAIN_WORDS: Words = {
    "shape": {name: (name,) for name in ("circle", "square", "triangle", "star")},
    "any": {None: ("shape", "object", "one")},
    "size": {"small": ("small", "little"), "large": ("large", "big")},
    "superlative": PLACES["superlative"],
    "side": PLACES["side"],
    "quarter": PLACES["quarter"],
}
WORDS: Words = (
    PLACES
    | PLAIN_WORDS
    | {
        "shape": {
            "circle": ("circle", "disc"),
            "square": ("square", "box"),
            "triangle": ("triangle",),
            "star": ("star",),
            "cross": ("cross", "plus sign"),
            "ring": ("ring", "hoop"),
            "heart": ("heart",),
            "diamond": ("diamond", "rhombus"),
            "crescent": ("crescent", "moon"),
        },
        "colour": {name: (name,) for name in COLOURS}
        | {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")},
        "size": {
            "small": ("small", "little", "tiny"),
            "medium": ("medium-sized", "middle-sized"),
            "large": ("large", "big"),
        },
        "texture": {
            "solid": ("solid",),
            "stripes": ("striped", "with stripes"),
            "dots": ("dotted", "spotted", "with dots"),
            "checks": ("checkered", "checked", "with checks"),
        },
        "outline": {"drawn": ("outlined", "with an outline", "with a border")},
        "not": {None: ("not",)},
        "filler": {None: ("the", "a", "that is", "which is", "that are", "which are", "in", "all")},
        "shapes": {
            "circle": ("circles", "discs"),
            "square": ("squares", "boxes"),
            "triangle": ("triangles",),
            "star": ("stars",),
            "cross": ("crosses", "plus signs"),
            "ring": ("rings", "hoops"),
            "heart": ("hearts",),
            "diamond": ("diamonds", "rhombuses"),
            "crescent": ("crescents", "moons"),
        },
        "several": {None: ("shapes", "objects", "ones")},
        "everything": {None: ("everything",)},
        "number": {2: ("both",)},
    }
)
KINDS = ("relation", "negation", "order", "position", "size", "texture", "colour", "shape")
GRAMMAR = Grammar(WORDS, KINDS, "synthetic scenes")
SHAPES = Evaluator(GRAMMAR, Margins())
