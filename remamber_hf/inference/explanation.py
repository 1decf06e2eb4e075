# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Explain a mask: text-image correlation per token and stage, and what each stage adds to the mask, as one figure."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from ..modeling_remamber import ReMamberForImageSegmentation
from ..modeling_vmamba import channels_first, resize
from ..processing_remamber import ReMamberProcessor, encode
from .visualization import BAND_PIXELS, colour_of, cut_text, fade, find_font, outline_of, wrap_text


FIGURE_WIDTH, LABEL_WIDTH, MAX_TILE_SIDE, GAP = 1200, 110, 220, 8  # pixels
TOKENS_PER_LINE = 8
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 26, 17, 14  # pixels
GREY = (95, 95, 95)
OUTLINE_WIDTH = 2  # pixels
WORD_END = "</w>"  # of CLIP's tokens
# RGB from low to high, even in lightness and told apart with every common kind of colour blindness (viridis).
HEAT = [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)]
CORRELATION_NOTE = (
    "Inner product of token and pixel, as the convolution after it reads them. Colours run from the lowest to the "
    "highest value of each map by itself; the two values stand below it. Orange: the mask. Padding is left out."
)
NO_CORRELATION_NOTE = "This model's fusion makes no correlation of tokens and pixels."
GROWTH_NOTE = (
    "Probability, dark 0 to light 1, that the mask head gives for the maps of the named stages as they are and the "
    "mean over the picture for those of later stages. Orange: above {threshold:g}. The last is the model's mask."
)


@dataclass(frozen=True)
class Explanation:
    """
    What led to the mask of one expression.

    expression: as it came.
    tokens: the part of the expression that each token stands for, with a hyphen where the word goes on; "[start]" and
        "[end]" for the marks around it; no padding.
    correlations: for each stage, and each level of the Mamba head, its name and the inner products of tokens and
        pixels, float32 (tokens, height, width), unbounded; what `TextImageCorrelation` convolves. None of a stage
        whose fusion has no such correlation, see `config.fusion` and `config.use_local_text`.
    growth: probabilities in [0, 1], float32 (height, width) of the picture, one per stage. In order, what the
        mask head makes of the fused maps of the first 1, 2, 3, … stages, if each later map is replaced by its mean
        over the picture; the last is what the model says.
    """

    expression: str
    tokens: list[str]
    correlations: dict[str, np.ndarray]
    growth: list[np.ndarray]


def explain_mask(
    model: ReMamberForImageSegmentation, processor: ReMamberProcessor, picture: Image.Image, expression: str
) -> Explanation:
    """
    Record the correlation maps of one expression, and read the mask from the layout of ever more stages.

    The model itself reads a mask from all stages only. A map that is the same everywhere is nothing that its head was
    trained on, and the mean still says what the picture and the expression hold, but not where. So the growth shows
    which stages bring the layout in, and is no prediction of a smaller model.

    Args:
        model: in eval mode, as `from_pretrained` returns it.
        processor: the model's.
        picture: RGB.
        expression: one, not empty.

    Raises:
        ValueError: if the expression is empty or not one, or the model is in training mode.
    """
    if not isinstance(expression, str):
        raise ValueError(f"expression is a {type(expression).__name__}; give one expression, as a str.")
    if model.training:
        raise ValueError("the model is in training mode, which changes its batch norms; call model.eval() first.")
    inputs = processor(images=picture, text=expression, return_tensors="pt").to(model.device)
    text_modules: dict[str, Any] = {
        f"stage {stage}": fusion for stage, fusion in enumerate(model.remamber.fusions, start=1)
    }
    if model.config.mask_head == "mamba":
        levels: Any = model.mask_head.levels
        text_modules |= {f"head level {level}": module for level, module in enumerate(levels, start=1)}
    correlated = {name: getattr(module, "local_text", None) for name, module in text_modules.items()}
    modules = {name: local_text.conv for name, local_text in correlated.items() if local_text is not None}
    with torch.inference_mode():
        with recorded_inputs({**modules, "mask head": model.mask_head}) as recorded:
            outputs = model(**inputs, return_dict=True)
        feature_maps, text_hidden_states = recorded.pop("mask head")
        logits = []
        for num_kept in range(1, len(feature_maps)):
            maps = (*feature_maps[:num_kept], *map(flatten_layout, feature_maps[num_kept:]))
            partial = resize(model.mask_head(maps, text_hidden_states), outputs.logits.shape[-2:], align_corners=True)
            logits.append(channels_first(partial))
    growth = processor.post_process_probabilities(
        SimpleNamespace(logits=torch.cat([*logits, outputs.logits])),
        target_sizes=[(picture.height, picture.width)] * len(feature_maps),
    )
    tokens = name_tokens(processor, expression)
    correlations = {name: maps[0, : len(tokens)] for name, (maps,) in recorded.items()}
    return Explanation(
        expression,
        tokens,
        {name: maps.float().cpu().numpy() for name, maps in correlations.items()},
        [probabilities.cpu().numpy() for probabilities in growth],
    )


@contextmanager
def recorded_inputs(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Any, ...]]]:
    """Fills a dict with the positional arguments of each module's last call by this thread, while it is open."""
    recorded: dict[str, tuple[Any, ...]] = {}
    caller = threading.get_ident()

    def record(name: str, arguments: tuple[Any, ...]) -> None:
        if threading.get_ident() == caller:  # others may be using the model
            recorded[name] = arguments

    handles = [
        module.register_forward_pre_hook(lambda _, arguments, name=name: record(name, arguments))
        for name, module in modules.items()
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def flatten_layout(feature_map: torch.Tensor) -> torch.Tensor:
    """A map (batch, height, width, channels) with each channel's mean at every pixel."""
    return feature_map.mean((1, 2), keepdim=True).expand_as(feature_map)


def name_tokens(processor: ReMamberProcessor, expression: str) -> list[str]:
    """What each token that the model reads of an expression stands for, without the padding."""
    tokenizer = processor.tokenizer
    ((ids, offsets),) = encode(tokenizer, [expression])
    cut = min(len(ids), processor.text_length) - 1  # as the processor does
    ids, offsets = [*ids[:cut], ids[-1]], [*offsets[:cut], offsets[-1]]
    names = []
    for token, (start, end) in zip(tokenizer.convert_ids_to_tokens(ids), offsets):
        if token in (tokenizer.bos_token, tokenizer.eos_token):
            names.append("[start]" if token == tokenizer.bos_token else "[end]")
        else:
            names.append(expression[start:end] + ("" if token.endswith(WORD_END) else "-"))
    return names


# -------------------------------------------------------------------------------------------------------- the figure


@dataclass(frozen=True)
class Cell:
    """A tile of a grid, RGB, and what stands below it."""

    tile: Image.Image
    caption: str


def draw_explanation(picture: Image.Image, explanation: Explanation, threshold: float = 0.5) -> Image.Image:
    """
    The figure of an explanation, 1200 px wide: the mask's growth, then the correlation maps, tokens side by side.

    Args:
        picture: RGB, the one that was explained.
        threshold: a pixel belongs to the mask if its probability is above it; in [0, 1].

    Raises:
        ValueError: if the picture has another size than the explained one.
    """
    height, width = explanation.growth[-1].shape
    if picture.size != (width, height):
        raise ValueError(f"the picture has (width, height) {picture.size}, the explained one {(width, height)}.")
    strips = [
        draw_paragraph(explanation.expression, TITLE_SIZE, "black"),
        draw_paragraph("The mask, stage by stage", TEXT_SIZE, "black"),
        draw_paragraph(GROWTH_NOTE.format(threshold=threshold), SMALL_SIZE, GREY),
        draw_growth(picture, explanation.growth, threshold),
        draw_paragraph("Text-image correlation", TEXT_SIZE, "black"),
        draw_paragraph(CORRELATION_NOTE if explanation.correlations else NO_CORRELATION_NOTE, SMALL_SIZE, GREY),
        *(draw_correlations(explanation, threshold) if explanation.correlations else []),
    ]
    figure = Image.new("RGB", (FIGURE_WIDTH, GAP + sum(strip.height + GAP for strip in strips)), "white")
    top = GAP
    for strip in strips:
        figure.paste(strip, (0, top))
        top += strip.height + GAP
    return figure


def draw_growth(picture: Image.Image, growth: list[np.ndarray], threshold: float) -> Image.Image:
    """The picture with its mask, then the probabilities from the first stage alone to all."""
    headers = ["picture and mask", "stage 1 alone", *(f"+ stage {stage}" for stage in range(2, len(growth) + 1))]
    side = tile_side(len(headers), label_width=0)
    size = fit(picture.size, side)
    mask = np.asarray(Image.fromarray(growth[-1] > threshold).resize(size, Image.Resampling.NEAREST))
    cells = [Cell(fade(picture.resize(size, Image.Resampling.BICUBIC), mask), "")]
    for probabilities in growth:
        share = (probabilities > threshold).mean()
        tile = draw_heat(probabilities, 0, 1, size, probabilities > threshold)
        cells.append(Cell(tile, f"{share:.1%} of the picture"))
    return draw_grid([cells], headers, [""], side, label_width=0)


def draw_correlations(explanation: Explanation, threshold: float) -> list[Image.Image]:
    """One grid per line of tokens, one row per stage; lines are of equal length, but for the last."""
    mask = explanation.growth[-1] > threshold
    num_tokens = len(explanation.tokens)
    num_lines = -(-num_tokens // TOKENS_PER_LINE)
    per_line = -(-num_tokens // num_lines)
    side = tile_side(per_line, LABEL_WIDTH)
    size = fit(mask.shape[::-1], side)
    labels = [f"{name}\n{maps.shape[1]} by {maps.shape[2]}" for name, maps in explanation.correlations.items()]
    grids = []
    for start in range(0, num_tokens, per_line):
        part = slice(start, start + per_line)
        rows = []
        for maps in explanation.correlations.values():
            bounds = [(values, values.min(), values.max()) for values in maps[part]]
            rows.append(
                [
                    Cell(draw_heat(values, low, high, size, mask), f"{shorten(low)} … {shorten(high)}")
                    for values, low, high in bounds
                ]
            )
        grids.append(draw_grid(rows, explanation.tokens[part], labels, side, LABEL_WIDTH))
    return grids


def shorten(value: float) -> str:
    """Three digits, without an exponent below a million."""
    return f"{float(f'{value:.3g}'):g}"


def draw_heat(values: np.ndarray, low: float, high: float, size: tuple[int, int], mask: np.ndarray) -> Image.Image:
    """Values (height, width) as colours, cells left square-edged, with the outline of a mask, bool of any size."""
    steps = np.linspace(0, 1, len(HEAT))
    heat = np.empty((*values.shape, 3), dtype=np.uint8)
    for rows in np.array_split(np.arange(len(values)), -(-values.size // BAND_PIXELS)):  # float64 takes much memory
        share = (values[rows] - low) / max(high - low, float(np.finfo(np.float32).tiny))
        for index, channel in enumerate(zip(*HEAT)):
            heat[rows, :, index] = np.interp(share, steps, channel).round()
    pixels = np.array(Image.fromarray(heat).resize(size, Image.Resampling.BOX))
    mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    pixels[outline_of(mask, OUTLINE_WIDTH)] = colour_of(0)
    return Image.fromarray(pixels)


def draw_grid(
    rows: list[list[Cell]], headers: list[str], labels: list[str], side: int, label_width: int
) -> Image.Image:
    """Tiles in rows and columns at the figure's width: a header over each column, a label left of each row."""
    header_height, caption_height = round(1.6 * TEXT_SIZE), round(1.6 * SMALL_SIZE)
    row_height = max(rows[0][0].tile.height, 2 * SMALL_SIZE) + caption_height  # a label has two lines
    grid = Image.new("RGB", (FIGURE_WIDTH, header_height + row_height * len(rows)), "white")
    draw = ImageDraw.Draw(grid)
    middles = [GAP + label_width + column * (side + GAP) + side // 2 for column in range(len(headers))]
    for middle, header in zip(middles, headers):
        font = find_font(header, TEXT_SIZE)
        text = cut_text(draw, header, font, side)
        draw.text((middle, header_height / 2), text, fill="black", font=font, anchor="mm")
    font = find_font("", SMALL_SIZE)
    for index, (row, label) in enumerate(zip(rows, labels)):
        top = header_height + index * row_height
        draw.text((GAP, top), label, fill=GREY, font=font, spacing=6)
        for middle, cell in zip(middles, row):
            grid.paste(cell.tile, (middle - cell.tile.width // 2, top))
            below = top + cell.tile.height + caption_height / 2
            draw.text((middle, below), cell.caption, fill=GREY, font=font, anchor="mm")
    return grid


def draw_paragraph(text: str, size: int, colour: str | tuple[int, int, int]) -> Image.Image:
    """Text at the figure's width."""
    font = find_font(text, size)
    lines = wrap_text(ImageDraw.Draw(Image.new("RGB", (1, 1))), text, font, FIGURE_WIDTH - 2 * GAP)
    line_height = round(1.3 * size)
    strip = Image.new("RGB", (FIGURE_WIDTH, line_height * len(lines)), "white")
    draw = ImageDraw.Draw(strip)
    for index, line in enumerate(lines):
        draw.text((GAP, (index + 0.5) * line_height), line, fill=colour, font=font, anchor="lm")
    return strip


def tile_side(num_columns: int, label_width: int) -> int:
    """The largest side of a tile, in pixels, with that many beside a label."""
    return min(MAX_TILE_SIDE, (FIGURE_WIDTH - GAP - label_width) // num_columns - GAP)


def fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) scaled to have `side` as the longer one."""
    width, height = (max(1, round(side * length / max(size))) for length in size)
    return width, height
