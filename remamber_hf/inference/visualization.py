# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures that people look at: masks over a picture with a legend, and sheets of many samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont


# RGB. The first seven are told apart with every common kind of colour blindness (Okabe and Ito); each further one is
# as far from all before it, and from black and white, as the Lab space allows.
PALETTE = [
    *[(213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (240, 228, 66), (86, 180, 233), (230, 159, 0)],
    *[(0, 0, 255), (0, 240, 0), (255, 0, 225), (75, 30, 150), (255, 0, 90), (120, 15, 30), (90, 90, 0)],
    *[(90, 165, 15), (255, 165, 135), (195, 135, 255), (0, 240, 135), (195, 210, 135), (210, 0, 135)],
]
# Looked for on the system when a text has letters that Pillow's own font lacks: wide coverage first.
SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "PingFang.ttc"),
    *("arial.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf"),
)
NO_LETTER = "\U0010ffff"  # no font has one; what is drawn for it is the box
BLUR_SHARE = 1 / 60  # of the picture's longer side: the blur's radius
MASK_OPACITY = 0.4
STRIPE_LINES = 4  # widths of an outline that a stripe is wide, where masks overlap
BAND_PIXELS = 2**20  # of a picture that are computed with at a time
TILE_WIDTH, TILE_GAP, TILE_INDENT, TILE_TEXT_SIZE = 320, 16, 16, 14  # pixels
TILE_LINE_WIDTH = 2  # pixels
FADE = 0.6  # share of white outside the mask
TITLE_COLOUR = (110, 110, 110)
MIN_OVERLAY_WIDTH = 480  # pixels; smaller pictures are enlarged so that outlines can be seen
MAX_ENLARGED_SIDE = 2000  # pixels


@dataclass(frozen=True)
class LegendEntry:
    """A line of the legend: a swatch of `colour` (RGB), then `text`, cut where it is too long, and `ending`, whole."""

    colour: tuple[int, int, int]
    text: str
    ending: str = ""


def colour_of(index: int) -> tuple[int, int, int]:
    """The colour (RGB) of the expression at `index`; the palette starts again after its end."""
    return PALETTE[index % len(PALETTE)]


@lru_cache(maxsize=64)
def load_font(name: str | None, size: int) -> ImageFont.FreeTypeFont | None:
    """The font of that file name on this system, Pillow's own for None; None if there is no such file."""
    if name is None:
        return ImageFont.load_default(size)  # type: ignore[return-value]  # with a size it is FreeType's
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def find_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has all letters of a text: Pillow's own, then the system's; Pillow's own if none has."""
    for name in (None, *SYSTEM_FONTS):
        font = load_font(name, size)
        if font is not None:
            box = bytes(font.getmask(NO_LETTER))
            if not any(bytes(font.getmask(letter)) == box for letter in set(text) if letter.isprintable()):
                return font
    return load_font(None, size)  # type: ignore[return-value]  # Pillow's own is always there


def cut_out(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The picture (RGB) as RGBA of the same size, transparent outside the mask, bool (height, width)."""
    hidden = Image.new("RGBA", picture.size)
    return Image.composite(picture.convert("RGBA"), hidden, Image.fromarray(mask))


def blur_background(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """
    The picture (RGB), blurred outside the mask, bool (height, width).

    Only pixels outside the mask are mixed, so that the object leaves no halo.
    """
    blur = ImageFilter.GaussianBlur(BLUR_SHARE * max(picture.size))
    outside = Image.fromarray(np.where(mask, np.uint8(0), np.uint8(255)))
    background = Image.composite(picture, Image.new("RGB", picture.size), outside).filter(blur)
    shares, edges = outside.filter(blur), outside.filter(ImageFilter.GaussianBlur(1))
    mixed = picture.copy()
    for place in bands(picture):
        share, edge = (np.asarray(image.crop(place), dtype=np.float32)[..., None] / 255 for image in (shares, edges))
        pixels, blurred = (np.asarray(image.crop(place), dtype=np.float32) for image in (picture, background))
        rows = pixels + edge * (blurred / np.maximum(share, 1 / 255) - pixels)
        mixed.paste(Image.fromarray(rows.clip(0, 255).round().astype(np.uint8)), place)
    return mixed


def bands(picture: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows that make up a picture: what is computed of one takes many times its memory."""
    num_rows = max(1, BAND_PIXELS // picture.width)
    for top in range(0, picture.height, num_rows):
        yield 0, top, picture.width, min(top + num_rows, picture.height)


def draw_overlay(
    picture: Image.Image, masks: Sequence[np.ndarray | Image.Image], labels: list[tuple[str, str]]
) -> Image.Image:
    """
    The picture with each mask tinted and outlined in its colour, and a legend below.

    Where masks overlap, their colours stand beside each other in stripes: mixed they would be one that no legend has.

    Args:
        picture: RGB.
        masks: bool (height, width) or a PIL image of mode "L", of the picture's size.
        labels: text and ending of the legend's line for each mask.

    Returns:
        an RGB picture; one narrower than 480 px is enlarged by a whole factor first, to at most 2000 px a side.
    """
    factor = max(1, min(-(-MIN_OVERLAY_WIDTH // picture.width), MAX_ENLARGED_SIDE // max(picture.size)))
    size = (picture.width * factor, picture.height * factor)
    overlay = picture.resize(size, Image.Resampling.BICUBIC) if factor > 1 else picture.copy()
    line_width = max(1, min(size) // 200)
    # In bands: what is computed takes many times the memory of a picture. Outlines are found a margin further.
    margin = -(-(line_width + 1) // factor)
    num_rows = max(1, BAND_PIXELS // (size[0] * factor))
    for top in range(0, picture.height if masks else 0, num_rows):
        bottom = min(top + num_rows, picture.height)
        first, last = max(top - margin, 0), min(bottom + margin, picture.height)
        enlarged = [enlarge(rows_of(mask, first, last), factor) for mask in masks]
        inner = slice((top - first) * factor, (bottom - first) * factor)
        lines = [outline_of(mask, line_width)[inner] for mask in enlarged]
        around = np.logical_or.reduce([outline_of(~mask, line_width)[inner] for mask in enlarged])
        stripes = find_stripes((bottom - top) * factor, size[0], top * factor, STRIPE_LINES * line_width)
        place = (0, top * factor, size[0], bottom * factor)
        canvas = np.array(overlay.crop(place), dtype=np.float32)
        for index, tinted in enumerate(share_pixels([mask[inner] for mask in enlarged], stripes)):
            canvas[tinted] += MASK_OPACITY * (np.array(colour_of(index), dtype=np.float32) - canvas[tinted])
        canvas[around] = 255  # a white line around each, should the object have that colour too
        for index, line in enumerate(share_pixels(lines, stripes)):
            canvas[line] = colour_of(index)
        overlay.paste(Image.fromarray(canvas.round().astype(np.uint8)), place)
    return add_legend(overlay, [LegendEntry(colour_of(index), *label) for index, label in enumerate(labels)])


def rows_of(mask: np.ndarray | Image.Image, first: int, last: int) -> np.ndarray:
    """Rows of a mask, bool."""
    if isinstance(mask, Image.Image):
        return np.asarray(mask.crop((0, first, mask.width, last))) > 0
    return mask[first:last]


def enlarge(mask: np.ndarray, factor: int) -> np.ndarray:
    return mask if factor == 1 else mask.repeat(factor, axis=0).repeat(factor, axis=1)


def find_stripes(height: int, width: int, top: int, stripe_width: int) -> np.ndarray:
    """The number of the diagonal stripe that each pixel lies in, int64 (height, width), from row `top` on."""
    return (np.arange(top, top + height)[:, None] + np.arange(width)) // stripe_width


def share_pixels(masks: list[np.ndarray], stripes: np.ndarray) -> list[np.ndarray]:
    """Gives each pixel to one of the masks that hold it, in turns from stripe to stripe."""
    counts = np.sum(masks, axis=0, dtype=np.int64)
    turn = stripes % np.maximum(counts, 1)
    rank = np.zeros_like(counts)
    shares = []
    for mask in masks:
        shares.append(mask & (rank == turn))
        rank += mask
    return shares


def outline_of(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mask that are at most `width` steps from its edge; the border of the picture is no edge."""
    inner = mask
    for _ in range(width):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def add_legend(picture: Image.Image, entries: list[LegendEntry]) -> Image.Image:
    """The picture (RGB) with one line per entry on white below it, at least 480 px wide."""
    width = max(picture.width, MIN_OVERLAY_WIDTH)
    text_size = int(np.clip(width / 32, 14, 32))
    line_height, margin = round(1.7 * text_size), round(0.6 * text_size)
    sheet = Image.new("RGB", (width, picture.height + line_height * len(entries) + margin), "white")
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for index, entry in enumerate(entries):
        top = picture.height + margin // 2 + index * line_height
        middle = top + line_height / 2
        swatch = text_size / 2
        draw.rectangle([margin, middle - swatch, margin + 2 * swatch, middle + swatch], fill=entry.colour)
        left = margin + 2 * swatch + margin
        font = find_font(entry.text + entry.ending, text_size)
        ending_width = draw.textlength(entry.ending, font=font)
        text = cut_text(draw, entry.text, font, width - left - margin - ending_width) + entry.ending
        draw.text((left, middle), text, fill="black", font=font, anchor="lm")
    return sheet


@dataclass(frozen=True)
class Sample:
    """
    A tile of a sheet.

    picture: RGB. mask: bool (height, width) of the picture's size. title: a line in grey. texts: lines below it.
    """

    picture: Image.Image
    mask: np.ndarray
    title: str
    texts: list[str]


def draw_sheet(samples: list[Sample], num_columns: int) -> Image.Image:
    """
    Samples side by side, each with its texts below.

    The mask is outlined and what lies outside it is faded, so the object keeps the colours that its texts speak of.
    """
    tiles = [_draw_tile(sample) for sample in samples]
    rows = [tiles[start : start + num_columns] for start in range(0, len(tiles), num_columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = TILE_GAP + max(len(row) for row in rows) * (TILE_WIDTH + TILE_GAP)
    sheet = Image.new("RGB", (width, TILE_GAP + sum(height + TILE_GAP for height in heights)), "white")
    top = TILE_GAP
    for row, height in zip(rows, heights):
        for column, tile in enumerate(row):
            sheet.paste(tile, (TILE_GAP + column * (TILE_WIDTH + TILE_GAP), top))
        top += height + TILE_GAP
    return sheet


def _draw_tile(sample: Sample) -> Image.Image:
    """The picture and its mask at the tile's width, or at its height if it is tall, and the texts below."""
    scale = min(TILE_WIDTH / sample.picture.width, TILE_WIDTH / sample.picture.height)
    size = (max(1, round(sample.picture.width * scale)), max(1, round(sample.picture.height * scale)))
    picture = sample.picture.resize(size, Image.Resampling.BICUBIC)
    mask = np.asarray(Image.fromarray(sample.mask).resize(size, Image.Resampling.NEAREST))
    overlay = fade(picture, mask)
    font = find_font(sample.title + "".join(sample.texts), TILE_TEXT_SIZE)
    draw = ImageDraw.Draw(overlay)
    lines: list[tuple[str, str | tuple[int, int, int]]] = [
        (cut_text(draw, sample.title, font, TILE_WIDTH), TITLE_COLOUR)
    ]
    for text in sample.texts:
        wrapped = wrap_text(draw, text, font, TILE_WIDTH - TILE_INDENT)
        lines += [(line, "black") for line in ["- " + wrapped[0], *("  " + line for line in wrapped[1:])]]
    line_height = round(1.4 * TILE_TEXT_SIZE)
    tile = Image.new("RGB", (TILE_WIDTH, overlay.height + line_height * len(lines) + line_height // 2), "white")
    tile.paste(overlay, ((TILE_WIDTH - overlay.width) // 2, 0))
    draw = ImageDraw.Draw(tile)
    for index, (line, colour) in enumerate(lines):
        middle = overlay.height + line_height // 4 + (index + 0.5) * line_height
        draw.text((0, middle), line, fill=colour, font=font, anchor="lm")
    return tile


def fade(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """The picture (RGB), mixed with white outside the mask, bool (height, width), and the mask's outline."""
    canvas = np.asarray(picture, dtype=np.float32)
    canvas = np.where(mask[..., None], canvas, canvas + FADE * (255 - canvas))
    canvas[outline_of(mask, TILE_LINE_WIDTH)] = colour_of(0)
    return Image.fromarray(canvas.round().astype(np.uint8))


def wrap_text(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break a text between words into lines of at most `width` pixels; a word that is too long is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append(cut_text(draw, word, font, width))
        else:
            lines[-1] = cut_text(draw, word, font, width)
    return lines


def cut_text(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
