# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of cut-outs that are painted by hand."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


# Nouns → colour. A wedge that points to the right: turned or in a mirror it looks otherwise.
NOUNS = {"dog": (220, 30, 30), "cat": (30, 60, 220), "left shoe": (30, 180, 60), "hot dog": (240, 200, 40)}


def paint_wedge(colour: tuple[int, int, int], side: int = 80) -> Image.Image:
    picture = Image.new("RGBA", (side + 20, side), (0, 0, 0, 0))
    ImageDraw.Draw(picture).polygon([(5, 5), (side - 5, side // 2), (5, side - 5)], fill=(*colour, 255))
    return picture


def write_cutouts(folder: Path, nouns=tuple(NOUNS)) -> Path:
    folder.mkdir(parents=True)
    for noun in nouns:
        paint_wedge(NOUNS[noun]).save(folder / f"{noun.replace(' ', '_')}.png")
    return folder


def write_backgrounds(folder: Path, shown: dict[str, tuple[str, ...]]) -> Path:
    """Grey pictures, by name what each shows."""
    folder.mkdir(parents=True)
    for name in shown:
        Image.fromarray(np.full((60, 90, 3), 128, np.uint8)).save(folder / name)
    lines = [f"{name}\t{noun}" for name, nouns in shown.items() for noun in nouns]
    (folder / "nouns.tsv").write_text("\n".join(["file\tnoun", *lines]) + "\n")
    return folder
