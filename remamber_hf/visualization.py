# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Pictures that people look at: masks over a picture with a legend."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont


# Told apart with every common kind of colour blindness (Okabe and Ito), as RGB.
PALETTE = [(213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233), (230, 159, 0)]
MASK_OPACITY = 0.5
MIN_OVERLAY_WIDTH = 480  # pixels; smaller pictures are enlarged so that outline and legend can be read


@dataclass(frozen=True)
class LegendEntry:
    """A line of the legend: a swatch of `colour` (RGB), then `text`."""

    colour: tuple[int, int, int]
    text: str


def colour_of(index: int) -> tuple[int, int, int]:
    """The colour (RGB) of the expression at `index`; the palette starts again after its end."""
    return PALETTE[index % len(PALETTE)]


def draw_overlay(picture: Image.Image, masks: list[np.ndarray], labels: list[str]) -> Image.Image:
    """
    The picture with each mask tinted and outlined in its own colour, and a legend below.

    Args:
        picture: RGB.
        masks: bool (height, width), of the picture's size.
        labels: a text for each mask.

    Returns:
        an RGB picture; one narrower than 480 px is enlarged by a whole factor first.
    """
    factor = -(-MIN_OVERLAY_WIDTH // picture.width)
    size = (picture.width * factor, picture.height * factor)
    canvas = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    line_width = max(1, min(size) // 200)
    for index, mask in enumerate(masks):
        mask = np.kron(mask, np.ones((factor, factor), dtype=bool))
        colour = np.array(colour_of(index), dtype=np.float32)
        opacity = np.where(mask, MASK_OPACITY, 0.0)
        opacity[_outline(mask, line_width)] = 1.0
        canvas = canvas + opacity[..., None] * (colour - canvas)
    overlay = Image.fromarray(canvas.round().astype(np.uint8))
    return add_legend(overlay, [LegendEntry(colour_of(index), text) for index, text in enumerate(labels)])


def _outline(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mask that are at most `width` steps from its edge; the border of the picture is no edge."""
    inner = mask
    for _ in range(width):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def add_legend(picture: Image.Image, entries: list[LegendEntry]) -> Image.Image:
    """The picture (RGB) with one line per entry on white below it; a text that is too long is cut with an ellipsis."""
    text_size = int(np.clip(picture.width / 32, 14, 32))
    font = ImageFont.load_default(text_size)
    line_height, margin = round(1.7 * text_size), round(0.6 * text_size)
    sheet = Image.new("RGB", (picture.width, picture.height + line_height * len(entries) + margin), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for index, entry in enumerate(entries):
        top = picture.height + margin // 2 + index * line_height
        middle = top + line_height / 2
        swatch = text_size / 2
        draw.rectangle([margin, middle - swatch, margin + 2 * swatch, middle + swatch], fill=entry.colour)
        left = margin + 2 * swatch + margin
        text = _cut(draw, entry.text, font, picture.width - left - margin)
        draw.text((left, middle), text, fill="black", font=font, anchor="lm")
    return sheet


def _cut(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
