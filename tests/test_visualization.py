"""Overlays and legends."""

import numpy as np
import pytest
from PIL import Image

from remamber_hf.visualization import MASK_OPACITY, LegendEntry, add_legend, colour_of, draw_overlay


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
