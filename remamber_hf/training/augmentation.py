# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Variations of a row: its picture, its mask and its sentences together, so that what is said stays true."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from ..data.rle import encode_mask
from ..data.rows import row_mask
from ..pictures import to_rgb


FLIP_SHARE = 0.5
# Factors of brightness, contrast and colour; of the sides of what is seen.
COLOUR_FACTORS = (0.7, 1.35)
ZOOM_FACTORS = (0.8, 1.25)
HANDS = {"left": "right", "right": "left"}
HAND = re.compile(r"\b(left|right)(?=\b|most\b|hand\b|side\b)", re.IGNORECASE)


def mirror_words(sentence: str) -> str:
    """Exchange the English words left and right, and leftmost, righthand and so on, as a mirror does.

    "right" in other senses is exchanged too: "right next to" becomes "left next to".
    """

    def other(found: re.Match) -> str:
        word = HANDS[found[0].lower()]
        return word.upper() if found[0].isupper() else word.capitalize() if found[0][0].isupper() else word

    return HAND.sub(other, sentence)


def _flip(rng: np.random.Generator, picture: Image.Image, mask: np.ndarray, sentences: list[str]):
    if rng.random() >= FLIP_SHARE:
        return picture, mask, sentences
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), mask[:, ::-1], list(map(mirror_words, sentences))


def _colour(rng: np.random.Generator, picture: Image.Image, mask: np.ndarray, sentences: list[str]):
    for enhancer, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), rng.uniform(*COLOUR_FACTORS, size=3)
    ):
        picture = enhancer(picture).enhance(float(factor))
    return picture, mask, sentences


def _zoom(rng: np.random.Generator, picture: Image.Image, mask: np.ndarray, sentences: list[str]):
    """See more than the picture, grey around it, or a part of it, from which nothing of what is meant is missing."""
    factor = float(rng.uniform(*ZOOM_FACTORS))
    across, down = rng.random(size=2).tolist()
    width, height = max(1, round(factor * picture.width)), max(1, round(factor * picture.height))
    left = round(across * (picture.width - width))
    top = round(down * (picture.height - height))
    box = (left, top, left + width, top + height)
    seen = Image.new("RGB", (width, height), (128, 128, 128))
    seen.paste(picture, (-left, -top))
    moved = np.asarray(Image.fromarray(mask).crop(box))
    if moved.sum() < mask.sum():
        return picture, mask, sentences
    return seen, moved, sentences


VARIATIONS: dict[str, Callable] = {"flip": _flip, "colour": _colour, "zoom": _zoom}


def read_variations(names: str) -> tuple[str, ...]:
    """Split names with commas between them; ValueError for one that is no variation."""
    chosen = tuple(name.strip() for name in names.split(","))
    for name in chosen:
        if name not in VARIATIONS:
            raise ValueError(f"augment names {name!r:.50}; give one or more of {','.join(VARIATIONS)}.")
    return chosen


def vary(row: dict, names: tuple[str, ...], seed: tuple[int, ...]) -> dict:
    """Vary a row of `load_refer` by what the seed draws.

    Args:
        row: a row with `image`, `segmentation`, `height`, `width` and `sentences`.
        names: of `VARIATIONS`, in the order to apply them in.
        seed: rows of one picture that get the same seed get the same picture.

    Returns a new row of the same kind, without `bbox`, which it would no longer be that of.
    """
    rng = np.random.default_rng(seed)
    picture, mask, sentences = to_rgb(row["image"]), np.ascontiguousarray(row_mask(row)), list(row["sentences"])
    if picture.size != mask.shape[::-1]:
        return row  # the collator says what is wrong with it
    for name in names:
        picture, mask, sentences = VARIATIONS[name](rng, picture, mask, sentences)
    # As many objects as before: the first stands for all of them, and the others are empty.
    masks = [mask if place == 0 else np.zeros_like(mask) for place in range(len(row["segmentation"]))]
    varied = {
        **row,
        "image": picture,
        "height": picture.height,
        "width": picture.width,
        "sentences": sentences,
        "segmentation": [{"polygons": [], "rles": [encode_mask(each)["counts"]]} for each in masks],
    }
    varied.pop("bbox", None)
    return varied
