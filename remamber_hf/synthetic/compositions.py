# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Compositions: named cut-outs pasted on a background, and drawing them.

Positions and sizes are fractions of the picture's side, as in `scenes`; a later thing covers an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from .cutouts import OPAQUE, Backdrop, Cutout, cutout_levels, read_backdrop
from .drawn_set import bounds_of
from .scenes import BACKGROUND_PAINTERS, Background, Shadow, choose, throw_shadow
from .thing_words import ThingWords
from .things import Thing


SIZES = (0.25, 0.55)  # longer side of a cut-out
MAX_ROTATION = 20.0  # degrees
MIN_THINGS = 2
# How often a further thing is of a noun that is there already, and how often it is put where it may cover another.
REPEATED = 0.55
CROWDED = 0.3
MIN_VISIBLE = 0.6
MEASURED_SIZE = 64
NUM_TRIES = 12
DRAWN_KINDS = ("gradient", "noise", "photo")
# Nouns that a mirror image would make wrong.
HANDED = ("left", "right")


@dataclass(frozen=True)
class Pasted:
    """
    A cut-out in a picture: its centre and its longer side, before it is turned, as fractions of the picture's side;
    `rotation` in degrees, clockwise; `gains` of its three colours; `blur` as a fraction of the picture's side.
    """

    cutout: Cutout
    x: float
    y: float
    size: float
    rotation: float = 0.0
    is_flipped: bool = False
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur: float = 0.0


@dataclass(frozen=True)
class Crop:
    """A square part of a background picture: where it lies, 0 … 1 of the way, and its share of the shorter side."""

    backdrop: Backdrop
    x: float
    y: float
    share: float
    is_flipped: bool


@dataclass(frozen=True)
class Composition:
    """What stands in one picture."""

    background: Background | Crop
    pasted: tuple[Pasted, ...]
    shadow: Shadow | None = None


def sample_composition(
    rng: np.random.Generator,
    cutouts: dict[str, list[Cutout]],
    words: ThingWords,
    backdrops: Sequence[Backdrop] = (),
    max_things: int = 4,
) -> Composition:
    """Draw a composition of 2 to `max_things` things at random, several of a noun more often than not.

    Args:
        rng: what decides.
        cutouts: noun → its pictures.
        words: of these nouns and those of the backgrounds. What could be called as a thing that is on the background,
            or that was pasted and is of another noun, is never pasted.
        backdrops: pictures to paste on; without any the background is drawn.
        max_things: at least 2.
    """
    background = _sample_crop(rng, backdrops) if backdrops else _sample_background(rng)
    shown = background.backdrop.nouns if isinstance(background, Crop) else ()
    nouns = tuple(cutouts)
    wanted = int(rng.integers(MIN_THINGS, max_things + 1))
    gains = rng.uniform(0.8, 1.15) * rng.uniform(0.94, 1.06, size=3)
    pasted: list[Pasted] = []
    for _ in range(NUM_TRIES * wanted):
        if len(pasted) == wanted:
            break
        there = [one.cutout.noun for one in pasted]
        if there and rng.random() < REPEATED:
            noun = choose(rng, there)
        else:
            noun = choose(rng, nouns)
            if noun in shown or words.is_confused(noun, (*there, *shown)):
                continue
        drawn = _sample_pasted(rng, choose(rng, cutouts[noun]), (noun, *words.nouns[noun]), gains, pasted)
        if drawn is not None:
            pasted.append(drawn)
    angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.01, 0.03)
    shadow = Shadow(float(distance * math.cos(angle)), float(distance * math.sin(angle)), float(rng.uniform(0.2, 0.6)))
    return Composition(background, tuple(pasted), shadow if rng.random() < 0.5 else None)


def _sample_crop(rng: np.random.Generator, backdrops: Sequence[Backdrop]) -> Crop:
    x, y, share, flip = rng.random(size=4).tolist()
    return Crop(choose(rng, backdrops), x, y, 0.6 + 0.4 * share, flip < 0.5)


def _sample_background(rng: np.random.Generator) -> Background:
    grey, shade, tint = (rng.uniform(-1, 1, size=size) for size in (1, (3, 1), (3, 3)))
    palette = (128 + 80 * grey + 40 * shade + 40 * tint).clip(0, 255).astype(int).tolist()
    colours = tuple((red, green, blue) for red, green, blue in palette)
    return Background(choose(rng, DRAWN_KINDS), colours, int(rng.integers(2**31)))


def _sample_pasted(
    rng: np.random.Generator, cutout: Cutout, phrases: Sequence[str], gains: np.ndarray, pasted: list[Pasted]
) -> Pasted | None:
    """Put a cut-out that is called by `phrases` somewhere; None where it does not fit."""
    low, high = SIZES
    size = low * (high / low) ** rng.random()
    own_gains = (gains * rng.uniform(0.92, 1.08)).tolist()
    can_flip = not any(hand in phrase for phrase in phrases for hand in HANDED)
    drawn = Pasted(
        cutout,
        x=0.5,
        y=0.5,
        size=float(size),
        rotation=float(MAX_ROTATION * rng.uniform(-1, 1)),
        is_flipped=bool(rng.random() < 0.5) and can_flip,
        gains=(own_gains[0], own_gains[1], own_gains[2]),
        blur=float(rng.uniform(0.002, 0.007)) if rng.random() < 0.2 else 0.0,
    )
    width, height = (extent + 0.02 for extent in _extents(drawn))
    if max(width, height) > 1:
        return None
    may_cover = bool(pasted) and rng.random() < CROWDED
    for _ in range(NUM_TRIES):
        x, y = rng.uniform(size=2).tolist()
        drawn = replace(drawn, x=width / 2 + (1 - width) * x, y=height / 2 + (1 - height) * y)
        if may_cover:
            if _leaves_enough(drawn, pasted):
                return drawn
        elif all(_are_apart(drawn, other) for other in pasted):
            return drawn
    return None


def _extents(pasted: Pasted) -> tuple[float, float]:
    """Width and height of the box around a cut-out that was turned."""
    width, height = cutout_levels(pasted.cutout.path)[0].size
    scale = pasted.size / max(width, height)
    angle = math.radians(pasted.rotation)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    return scale * (width * cos + height * sin), scale * (width * sin + height * cos)


def _are_apart(first: Pasted, second: Pasted) -> bool:
    (width, height), (other_width, other_height) = _extents(first), _extents(second)
    return (
        abs(first.x - second.x) >= (width + other_width) / 2 or abs(first.y - second.y) >= (height + other_height) / 2
    )


def _leaves_enough(drawn: Pasted, pasted: list[Pasted]) -> bool:
    """Whether each thing that was there stays visible for the most part."""
    if all(_are_apart(drawn, other) for other in pasted):
        return True
    whole = [mask_of(one, MEASURED_SIZE) for one in (*pasted, drawn)]
    for index in range(len(pasted)):
        visible = whole[index] & ~np.logical_or.reduce(whole[index + 1 :])
        if visible.sum() < MIN_VISIBLE * whole[index].sum():
            return False
    return True


def draw_cutout(pasted: Pasted, image_size: int) -> tuple[Image.Image, tuple[int, int]]:
    """Draw a cut-out as it stands in a picture: RGBA on a crop, and the crop's left and top pixel."""
    levels = cutout_levels(pasted.cutout.path)
    scale = pasted.size * image_size / max(levels[0].size)
    depth = min(len(levels) - 1, max(0, math.floor(-math.log2(scale))))
    level = levels[depth]
    scale = pasted.size * image_size / max(level.size)
    width, height = (extent * image_size for extent in _extents(pasted))
    left, top = math.floor(pasted.x * image_size - width / 2), math.floor(pasted.y * image_size - height / 2)
    size = math.ceil(width) + 2, math.ceil(height) + 2
    angle = math.radians(pasted.rotation)
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    across, down = (-cos, -sin) if pasted.is_flipped else (cos, sin)
    x, y = pasted.x * image_size - left, pasted.y * image_size - top
    # From a pixel of the crop to where it lies in the level.
    matrix = (
        *(across, down, level.width / 2 - across * x - down * y),
        *(-sin, cos, level.height / 2 + sin * x - cos * y),
    )
    crop = level.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    table = [min(255, round(gain * value)) for gain in pasted.gains for value in range(256)]
    crop = crop.point(table + list(range(256)))
    if pasted.blur:
        crop = crop.convert("RGBa").filter(ImageFilter.GaussianBlur(pasted.blur * image_size)).convert("RGBA")
    return crop, (left, top)


def mask_of(pasted: Pasted, image_size: int) -> np.ndarray:
    """Mask of a cut-out that nothing covers: bool (height, width)."""
    return _place_mask(*draw_cutout(pasted, image_size), image_size)


def _place_mask(crop: Image.Image, corner: tuple[int, int], image_size: int) -> np.ndarray:
    whole = Image.new("L", (image_size, image_size))
    whole.paste(crop.getchannel("A"), corner)
    return np.asarray(whole) >= OPAQUE


def _draw_background(background: Background | Crop, image_size: int) -> Image.Image:
    if isinstance(background, Background):
        return BACKGROUND_PAINTERS[background.kind](background, image_size)
    picture = read_backdrop(background.backdrop.path, image_size)
    side = background.share * min(picture.size)
    left, top = background.x * (picture.width - side), background.y * (picture.height - side)
    box = (left, top, left + side, top + side)
    crop = picture.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if background.is_flipped else crop


def render(composition: Composition, image_size: int) -> tuple[Image.Image, np.ndarray]:
    """Draw a composition.

    Returns the RGB picture and the visible masks, bool (things, height, width): a pixel belongs to the topmost thing
    that is opaque there, by half at least.
    """
    image = _draw_background(composition.background, image_size)
    masks = np.zeros((len(composition.pasted), image_size, image_size), dtype=bool)
    for index, pasted in enumerate(composition.pasted):
        crop, corner = draw_cutout(pasted, image_size)
        if composition.shadow is not None:
            throw_shadow(image, composition.shadow, crop.getchannel("A"), corner)
        image.paste(crop, corner, crop)
        masks[index] = _place_mask(crop, corner, image_size)
        masks[:index] &= ~masks[index]
    return image, masks


def things_of(composition: Composition, masks: np.ndarray) -> list[Thing]:
    """Describe what stands in a picture by its visible masks, bool (things, side, side), and by its background.

    Of what that shows nobody knows how many there are, or where.
    """
    side = masks.shape[-1]
    things = [
        Thing(pasted.cutout.noun, _box_of(mask), float(mask.sum()) / side**2)
        for pasted, mask in zip(composition.pasted, masks)
    ]
    if isinstance(composition.background, Crop):
        nouns = composition.background.backdrop.nouns
        things += [Thing(noun, (0.0, 0.0, 1.0, 1.0), 1.0, is_target=False, is_crowd=True) for noun in nouns]
    return things


def _box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (value / len(mask) for value in bounds_of(mask))
    return left, top, right, bottom
