# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What COCO's categories of stuff are called in a sentence.

COCO panoptic joins what it had told apart ("wall-other-merged"), and several curtains are one mask. So a word is here
only for what people do not count, and for the others no sentence is written.
"""

# Name in COCO → the word; "" for what no sentence is about.
COCO_STUFF: dict[str, str] = {
    "ceiling-merged": "ceiling",
    "floor-other-merged": "floor",
    "floor-wood": "floor",
    "grass-merged": "grass",
    "river": "water",
    "road": "road",
    "sand": "sand",
    "sea": "water",
    "sky-other-merged": "sky",
    "snow": "snow",
    "tree-merged": "trees",
    "wall-brick": "wall",
    "wall-other-merged": "wall",
    "wall-stone": "wall",
    "wall-tile": "wall",
    "wall-wood": "wall",
    "water-other": "water",
} | dict.fromkeys(
    (
        *("banner", "blanket", "bridge", "building-other-merged", "cabinet-merged", "cardboard", "counter", "curtain"),
        *("dirt-merged", "door-stuff", "fence-merged", "flower", "food-other-merged", "fruit", "gravel", "house"),
        *("light", "mirror-stuff", "mountain-merged", "net", "paper-merged", "pavement-merged", "pillow", "platform"),
        *("playingfield", "railroad", "rock-merged", "roof", "rug-merged", "shelf", "stairs", "table-merged", "tent"),
        *("towel", "window-blind", "window-other"),
    ),
    "",
)
# Where one of these is, somebody could call it so.
SIMILAR_STUFF: dict[str, tuple[str, ...]] = {
    "bridge": ("road",),
    "building-other-merged": ("wall",),
    "dirt-merged": ("grass", "road", "sand"),
    "fence-merged": ("wall",),
    "flower": ("grass", "trees"),
    "gravel": ("road", "sand"),
    "house": ("wall",),
    "pavement-merged": ("floor", "road"),
    "platform": ("floor",),
    "playingfield": ("grass", "sand"),
    "railroad": ("road",),
    "rock-merged": ("sand", "wall"),
    "roof": ("ceiling",),
    "rug-merged": ("floor",),
    "stairs": ("floor",),
    "window-blind": ("wall",),
}
