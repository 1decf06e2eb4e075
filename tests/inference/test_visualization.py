# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Overlays and legends."""

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageFont

from remamber_hf.inference import visualization
from remamber_hf.inference.visualization import (
    MASK_OPACITY,
    PALETTE,
    LegendEntry,
    add_legend,
    blur_background,
    colour_of,
    cut_out,
    draw_overlay,
    find_font,
    outline_of,
)


def square_mask() -> np.ndarray:
    mask = np.zeros((300, 500), dtype=bool)
    mask[100:200, 150:350] = True
    return mask


def test_a_mask_is_tinted_and_outlined_and_the_rest_is_left():
    picture = Image.new("RGB", (500, 300), (100, 100, 100))
    overlay = np.asarray(draw_overlay(picture, [square_mask()], [("a thing", "")]))
    colour = np.array(colour_of(0))
    assert (overlay[150, 250] == np.round(100 + MASK_OPACITY * (colour - 100))).all()
    assert (overlay[100, 250] == colour).all()
    assert (overlay[99, 250] == 255).all()
    assert (overlay[50, 250] == 100).all()


def test_a_small_picture_is_enlarged_by_a_whole_factor():
    picture = Image.new("RGB", (100, 60))
    assert draw_overlay(picture, [np.zeros((60, 100), dtype=bool)], [("a thing", "")]).width == 500


def test_every_expression_has_a_line_and_a_colour_of_its_own():
    picture = Image.new("RGB", (500, 300))
    one, three = (draw_overlay(picture, [square_mask()] * count, [("a thing", ": found")] * count) for count in (1, 3))
    line = one.height - 300
    assert three.height > 300 + 2 * line
    legend = np.asarray(three)[300:]
    for index in range(3):
        assert (legend == colour_of(index)).all(-1).any()


@pytest.mark.parametrize("text", ["the right dog", "a very long expression that no line can hold " * 20, "犬", "a\nb"])
def test_a_legend_is_as_wide_as_the_picture_whatever_the_text(text):
    sheet = add_legend(Image.new("RGB", (500, 300)), [LegendEntry((255, 0, 0), text, ": 7 px")])
    assert sheet.width == 500
    assert (np.asarray(sheet)[300:, -5:] == 255).all()  # no text runs over the edge


def test_twenty_colours_are_told_apart():
    assert len(PALETTE) == 20
    colours = np.array([colour_of(index) for index in range(20)] + [(0, 0, 0), (255, 255, 255)])
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 50


def test_letters_that_pillows_font_lacks_are_drawn_in_a_font_of_the_system():
    own = find_font("the right dog", 20)
    assert find_font("\U0010ffff", 20).path == own.path  # no font has this one
    try:
        ImageFont.truetype("DejaVuSans.ttf", 20)
    except OSError:
        pytest.skip("DejaVu Sans is not on this system")
    found = find_font("правая собака", 20)
    assert found.path != own.path
    assert bytes(found.getmask("п")) != bytes(found.getmask("\U0010ffff"))


def test_a_cut_out_is_transparent_and_empty_outside_the_mask():
    cutout = np.asarray(cut_out(Image.new("RGB", (500, 300), (100, 110, 120)), square_mask()))
    assert (cutout[square_mask()] == (100, 110, 120, 255)).all()
    assert not cutout[~square_mask()].any()


def test_a_blurred_background_has_nothing_of_the_object_and_leaves_the_object_alone():
    pixels = np.full((300, 500, 3), 100, dtype=np.uint8)
    pixels[square_mask()] = (255, 0, 0)
    pixels[:, 400:] = (100, 100, 255)
    blurred = np.asarray(blur_background(Image.fromarray(pixels), square_mask()), dtype=int)
    assert (blurred[105:195, 155:345] == pixels[105:195, 155:345]).all()
    around = np.asarray(Image.fromarray(square_mask()).convert("L").filter(ImageFilter.MaxFilter(9))) == 0
    assert np.abs(blurred[around][:, :2] - 100).max() <= 2  # no red halo, and no dark one
    assert 100 < blurred[50, 399, 2] < 255  # but the blue border is soft


def test_an_empty_mask_blurs_everything_and_a_full_one_nothing():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    mask = np.ones((60, 80), dtype=bool)
    assert (np.asarray(blur_background(picture, mask)) == np.asarray(picture)).all()
    assert np.asarray(blur_background(picture, ~mask)).std() < np.asarray(picture).std()


def test_overlapping_masks_have_no_colour_that_the_legend_lacks():
    picture = Image.new("RGB", (500, 300), (100, 100, 100))
    other = np.roll(square_mask(), (30, 60), (0, 1))
    overlay = np.asarray(draw_overlay(picture, [square_mask(), other], [("a", ""), ("b", "")]))[:300].astype(int)
    tints = [np.round(100 + MASK_OPACITY * (np.array(colour_of(index)) - 100)).astype(int) for index in (0, 1)]
    own = [*tints, colour_of(0), colour_of(1), (100, 100, 100), (255, 255, 255)]
    assert {tuple(colour) for colour in overlay.reshape(-1, 3)} == {tuple(map(int, colour)) for colour in own}
    both = overlay[135:195, 215:345]  # inside of both
    shares = [(both == tint).all(-1).mean() for tint in tints]
    assert sum(shares) == 1 and min(shares) > 0.4
    for mask, index in ((square_mask(), 0), (other, 1)):  # no outline is hidden, nor those of equal masks
        assert (overlay[outline_of(mask, 1)] == colour_of(index)).all(-1).mean() > 0.95
    equal = np.asarray(draw_overlay(picture, [square_mask()] * 3, [("a", "")] * 3))[:300]
    for index in range(3):
        assert (equal[outline_of(square_mask(), 1)] == colour_of(index)).all(-1).mean() > 0.2


def test_an_overlay_that_is_drawn_in_bands_is_the_same(monkeypatch):
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (130, 90, 3), dtype=np.uint8))
    for size in ((90, 130), (900, 650)):
        resized = picture.resize(size)
        masks = [Image.fromarray(random.random((13, 9)) > 0.5).resize(size) for _ in range(4)]
        masks = [mask.convert("L") for mask in masks]
        labels = [(str(number), "") for number in range(4)]
        monkeypatch.setattr(visualization, "BAND_PIXELS", 2**40)
        whole = draw_overlay(resized, [np.asarray(mask) > 0 for mask in masks], labels)
        monkeypatch.setattr(visualization, "BAND_PIXELS", 20_000)
        assert draw_overlay(resized, masks, labels).tobytes() == whole.tobytes()
