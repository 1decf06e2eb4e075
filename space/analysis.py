# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the Space does with a visitor's picture, without any user interface: read, analyse, draw."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import Pipeline

from remamber_hf import open_picture
from remamber_hf.inference.explanation import draw_heat
from remamber_hf.inference.visualization import colour_of, cut_out, draw_overlay
from remamber_hf.pictures import PILLOW_ERRORS, open_regular
from remamber_hf.post_processing_remamber import PRESENCE_THRESHOLD


MAX_BYTES = 10 * 2**20
MAX_PIXELS = 50_000_000  # the largest cameras of phones
MAX_SIDE = 1280  # pixels; larger pictures are made smaller, so that redrawing stays quick and little is kept
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # Pillow hands others, such as EPS, to programs outside
MAX_EXPRESSIONS = 6  # whose colours are told apart with every common kind of colour blindness
MAX_LETTERS = 200  # per expression


@dataclass(frozen=True, eq=False)
class Analysis:
    """
    What is kept of a visitor's request, so that a new threshold needs no model.

    picture: RGB.
    probabilities: for each model's name, one float32 map (height, width) in [0, 1] per expression.
    presence: likewise the probability that each expression means anything; None where a model does not say.
    """

    picture: Image.Image
    expressions: list[str]
    probabilities: dict[str, list[np.ndarray]]
    presence: dict[str, list[float | None]]

    def masks(self, model: str, threshold: float) -> list[np.ndarray]:
        """The masks of one model, bool (height, width), one per expression; empty of what it says is not there."""
        return [
            (probabilities > threshold) & (not is_absent(presence))
            for probabilities, presence in zip(self.probabilities[model], self.presence[model])
        ]


def is_absent(presence: float | None) -> bool:
    """Whether a model says that an expression means nothing in the picture."""
    return presence is not None and presence < PRESENCE_THRESHOLD


def read_expressions(text) -> list[str]:
    """One expression per line that is not blank; ValueError for no text, none, too many, or one that is too long."""
    if text is not None and not isinstance(text, str):
        raise ValueError("The expressions are no text. Write what to look for, such as “the left dog”.")
    expressions = [line.strip() for line in (text or "").splitlines() if line.strip()]
    if not expressions:
        raise ValueError("There is no expression. Write what to look for, such as “the left dog”.")
    if len(expressions) > MAX_EXPRESSIONS:
        raise ValueError(f"These are {len(expressions)} expressions. Give at most {MAX_EXPRESSIONS}, one per line.")
    for number, expression in enumerate(expressions, start=1):
        if len(expression) > MAX_LETTERS:
            raise ValueError(f"Expression {number} has {len(expression)} letters. Use at most {MAX_LETTERS}.")
        if any("\ud800" <= letter <= "\udfff" for letter in expression):
            raise ValueError(f"Expression {number} has half of a letter. Write it again.")
    return expressions


def read_threshold(threshold) -> float:
    """A probability as a browser sends it; ValueError for all else."""
    is_number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise ValueError("The threshold is no number from 0 to 1. Move its slider.")
    return float(threshold)


def find_upload(upload, folder: str | os.PathLike) -> Path:
    """
    The file that a request names, which anybody can write as they like.

    Args:
        upload: {"path": …}, as Gradio's page sends it; None for no picture.
        folder: where this server puts what visitors upload.

    Raises:
        FileNotFoundError: for all that is no regular file inside the folder, links resolved: always the same.
        ValueError: no picture.
    """
    if upload is None:
        raise ValueError("There is no picture. Upload one, take one with the camera, or choose an example.")
    path = upload.get("path") if isinstance(upload, Mapping) else None
    try:
        found = Path(path).resolve()
        if found.is_relative_to(Path(folder).resolve()) and found.is_file():
            return found
    except (OSError, RuntimeError, TypeError, ValueError):  # no path, or a loop of links
        pass
    raise FileNotFoundError("There is no such upload.")


def open_upload(path: str | os.PathLike) -> Image.Image:
    """
    Opens a visitor's file as upright RGB, made smaller where a side is longer than `MAX_SIDE`.

    Raises:
        FileNotFoundError: the file is no longer there.
        ValueError: too many bytes or pixels (seen before anything is decoded), or no picture of `FORMATS`.
    """
    too_many_pixels = f"The picture has too many pixels. Use one of at most {MAX_PIXELS // 10**6} megapixels."
    unreadable = f"The file cannot be read as a picture. Use an undamaged {', '.join(FORMATS[:-1])} or {FORMATS[-1]}."
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise ValueError(f"The file is too large. Use a picture of at most {MAX_BYTES // 2**20} MB.")
        try:
            image = Image.open(file, formats=FORMATS)  # reads the header only
        except Image.DecompressionBombError:
            raise ValueError(too_many_pixels) from None
        except PILLOW_ERRORS:
            raise ValueError(unreadable) from None
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(too_many_pixels)
        try:
            picture = open_picture(image)
        except ValueError:
            raise ValueError(unreadable) from None
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture


def analyse(segmenters: dict[str, Pipeline], picture: Image.Image, expressions: list[str]) -> Analysis:
    """Runs every model, one after the other; ValueError if an expression is longer than a model reads."""
    for segmenter in segmenters.values():
        processor = segmenter.processor
        for number, expression in enumerate(expressions, start=1):
            if processor.count_tokens(expression) > processor.text_length:
                raise ValueError(f"Expression {number} is too long for the model. Use at most about 15 words.")
    probabilities, presence = {}, {}
    for name, segmenter in segmenters.items():
        results = segmenter(picture, expressions, return_probabilities=True)
        probabilities[name] = [result["probabilities"] for result in results]
        presence[name] = [result.get("presence") for result in results]
    return Analysis(picture, expressions, probabilities, presence)


def draw_overlays(analysis: Analysis, model: str, threshold: float) -> Image.Image:
    """The picture with the mask of each expression in its colour, and a legend."""
    words = [": not in the picture" if is_absent(presence) else "" for presence in analysis.presence[model]]
    labels = list(zip(analysis.expressions, words))
    return draw_overlay(analysis.picture, analysis.masks(model, threshold), labels)


def draw_masks(analysis: Analysis, model: str, threshold: float) -> list[tuple[Image.Image, str]]:
    """The bare masks, white on black, each with its expression."""
    masks = [Image.fromarray(mask.astype(np.uint8) * 255) for mask in analysis.masks(model, threshold)]
    return list(zip(masks, analysis.expressions))


def draw_cut_outs(analysis: Analysis, model: str, threshold: float) -> list[tuple[Image.Image, str]]:
    """The objects, transparent around them and as small as they are, each with its expression."""
    objects = []
    for mask, expression in zip(analysis.masks(model, threshold), analysis.expressions):
        whole = cut_out(analysis.picture, mask)
        objects.append((whole.crop(whole.getchannel("A").getbbox()), expression))  # an empty mask: the whole, empty
    return objects


def draw_heat_maps(analysis: Analysis, model: str, threshold: float) -> list[tuple[Image.Image, str]]:
    """The probabilities as colours, the mask outlined, each with its expression."""
    maps = zip(analysis.probabilities[model], analysis.masks(model, threshold), analysis.expressions)
    size = analysis.picture.size
    return [(draw_heat(values, 0, 1, size, mask), expression) for values, mask, expression in maps]


def tabulate(analysis: Analysis, threshold: float) -> str:
    """HTML: for each model a table with a row per expression, its colour, and the mask's score and area."""
    tables = []
    for model, maps in analysis.probabilities.items():
        name = escape(model) if len(analysis.probabilities) > 1 else ""
        rows = [f"<tr><th>{name}</th><th>score</th><th>area</th></tr>"]
        answers = zip(analysis.expressions, maps, analysis.presence[model])
        for index, (expression, probabilities, presence) in enumerate(answers):
            swatch = f'<span class="swatch" style="background: rgb{colour_of(index)}"></span>'
            cells = _describe(probabilities, presence, threshold)
            rows.append(f"<tr><td>{swatch}{escape(expression)}</td>{cells}</tr>")
        tables.append(f'<table class="objects">{"".join(rows)}</table>')
    return f'<div class="tables">{"".join(tables)}</div>'


def _describe(probabilities: np.ndarray, presence: float | None, threshold: float) -> str:
    """Two cells: mean probability inside the mask, and the mask's share of the picture; or that there is nothing."""
    if is_absent(presence):
        return f'<td colspan="2">not in the picture ({presence:.2f})</td>'
    mask = probabilities > threshold
    if not mask.any():
        return '<td colspan="2">nothing found</td>'
    return f"<td>{probabilities[mask].mean():.2f}</td><td>{mask.mean():.1%}</td>"
