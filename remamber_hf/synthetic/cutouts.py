# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of cut-outs, pictures of one named thing each, and of backgrounds to paste them on.

    <cutouts>/nouns.tsv          optional: columns file, noun, and maybe group; tabs between, one line a picture
    <cutouts>/...                PNG or WebP with an alpha channel, where the table says, or in images/ beside it

Without a table a picture is called as its file, numbers at the end left out ("red_apple_2.png": red apple), and as its
folder where its name is a number ("dog/001.png"). Backgrounds are pictures of any size, in folders below too:

    <backgrounds>/nouns.tsv      optional: columns file, noun; one line for each thing that a background shows
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.reading import decode_text, read_regular_file
from ..messages import describe, shorten
from ..pictures import PILLOW_ERRORS, open_image, to_rgb, turn_upright
from .thing_words import clean_noun


TABLE = "nouns.tsv"
CUTOUT_SUFFIXES = (".png", ".webp")
BACKGROUND_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".bmp")
# Pixels of the longer side that is kept: a thing takes somewhat more than half of a picture at most.
KEPT_SIDE = 256
# Of a background that is longer, in relation to its shorter side, the middle is kept: all of it would fill the memory.
MAX_ASPECT = 4
OPAQUE = 128  # of 255: from here on a pixel is the thing's


@dataclass(frozen=True)
class Cutout:
    """A picture of one thing: its file, what it is called, and the group that it is of."""

    path: str
    noun: str
    group: str = ""


@dataclass(frozen=True)
class Backdrop:
    """A picture to paste on: its file, and the nouns of what it shows."""

    path: str
    nouns: tuple[str, ...] = ()


def find_cutouts(folder: str | os.PathLike) -> list[Cutout]:
    """List the cut-outs of a folder; ValueError for a table or a picture that is wrong, or if there is none."""
    rows = _read_table(Path(folder), CUTOUT_SUFFIXES)
    if rows is None:
        paths = _find_pictures(Path(folder), CUTOUT_SUFFIXES)
        rows = [(path, _noun_of(path), "") for path in paths]
    if not rows:
        raise ValueError(f"{shorten(str(folder))} has no cut-out; give a folder of PNG or WebP pictures with alpha.")
    cutouts = [Cutout(str(path), clean_noun(noun), group) for path, noun, group in rows]
    for cutout in cutouts:
        cutout_levels(cutout.path)
    return cutouts


def find_backdrops(folder: str | os.PathLike) -> list[Backdrop]:
    """List the backgrounds of a folder; ValueError for a table that is wrong, or if there is none."""
    shown: dict[Path, list[str]] = {path: [] for path in _find_pictures(Path(folder), BACKGROUND_SUFFIXES)}
    for path, noun, _ in _read_table(Path(folder), BACKGROUND_SUFFIXES) or ():
        shown.setdefault(path, []).append(clean_noun(noun))
    if not shown:
        raise ValueError(f"{shorten(str(folder))} has no picture; give a folder of photographs.")
    return [Backdrop(str(path), tuple(dict.fromkeys(nouns))) for path, nouns in sorted(shown.items())]


def _find_pictures(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{shorten(str(folder))} is no folder; give one with pictures.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())


def _noun_of(path: Path) -> str:
    name = re.sub(r"[\s_-]*\d*$", "", path.stem)
    return (name or path.parent.name).replace("-", " ")


def _read_table(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, str, str]] | None:
    """Read the table of a folder: path, noun and group of each line; None if it has none."""
    table = folder / TABLE
    if not table.exists():
        return None
    lines = decode_text(read_regular_file(table), table).splitlines()
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    if reader.fieldnames is None or not {"file", "noun"} <= set(reader.fieldnames):
        raise ValueError(f"{shorten(str(table))} has no columns file and noun in its first line; give these.")
    rows = []
    root = folder.resolve()
    for row in reader:
        name, noun = row["file"] or "", row["noun"] or ""
        where = f"{shorten(str(table))}, line {reader.line_num}"
        if not noun.strip():
            raise ValueError(f"{where}: {describe(name)} has no noun; give one, or leave the line out.")
        paths = [path for path in (folder / name, folder / "images" / name) if _is_file(path)]
        if not paths or not paths[0].resolve().is_relative_to(root) or paths[0].suffix.lower() not in suffixes:
            raise ValueError(
                f"{where}: {describe(name)} is no picture in the folder; give a file that ends in "
                f"{' or '.join(suffixes)}."
            )
        rows.append((paths[0], noun, row.get("group") or ""))
    return rows


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except ValueError:  # a NUL in the name
        return False


@lru_cache(maxsize=4096)
def cutout_levels(path: str) -> tuple[Image.Image, ...]:
    """Read a cut-out, cropped to what is not transparent: RGBA at most `KEPT_SIDE` long, then each half as large.

    Raises ValueError where a file is no picture, has no alpha channel, or shows nothing.
    """
    try:
        with open_image(path) as picture:
            upright = turn_upright(picture)
            if not ("A" in upright.getbands() or "transparency" in upright.info):
                raise ValueError("it has no alpha channel; cut the thing out")
            cutout = upright.convert("RGBA")
    except PILLOW_ERRORS as error:
        raise ValueError(f"{shorten(path)} cannot be used as a cut-out: {shorten(str(error))}") from None
    bounds = Image.fromarray(np.asarray(cutout)[..., 3] >= OPAQUE).getbbox()
    if bounds is None:
        raise ValueError(f"{shorten(path)} cannot be used as a cut-out: all of it is transparent")
    cutout = cutout.crop(bounds)
    if max(cutout.size) > KEPT_SIDE:
        scale = KEPT_SIDE / max(cutout.size)
        width, height = (max(1, round(side * scale)) for side in cutout.size)
        cutout = cutout.resize((width, height), Image.Resampling.BOX)
        if np.asarray(cutout)[..., 3].max() < OPAQUE:
            raise ValueError(
                f"{shorten(path)} cannot be used as a cut-out: hardly anything of it is opaque, and nothing at "
                f"{KEPT_SIDE} pixels"
            )
    return tuple(_halve(cutout))


def _halve(picture: Image.Image) -> Iterator[Image.Image]:
    while True:
        yield picture
        if min(picture.size) < 16:
            return
        # With colours weighted by how opaque they are: what is transparent has any.
        picture = picture.convert("RGBa").reduce(2).convert("RGBA")


@lru_cache(maxsize=64)
def read_backdrop(path: str, least: int) -> Image.Image:
    """Read a background as RGB, its shorter side at least `least` pixels, at most twice that; ValueError as above."""
    try:
        with open_image(path) as picture:
            picture.draft("RGB", (2 * least, 2 * least))
            upright = to_rgb(turn_upright(picture))
    except PILLOW_ERRORS as error:
        raise ValueError(f"{shorten(path)} cannot be used as a background: {shorten(str(error))}") from None
    longest = MAX_ASPECT * min(upright.size)
    left, top = (max(0, side - longest) // 2 for side in upright.size)
    upright = upright.crop((left, top, upright.width - left, upright.height - top))
    scale = 1.5 * least / min(upright.size)
    width, height = (max(least, round(side * scale)) for side in upright.size)
    return upright.resize((width, height), Image.Resampling.BICUBIC)
