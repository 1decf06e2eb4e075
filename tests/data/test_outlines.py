# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Polygons of a mask: pycocotools makes the very mask of them, whatever holes and islands it has."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from remamber_hf.data.outlines import join_outlines, polygons_of, trace_outlines


def layers_of(polygons, mask: np.ndarray) -> np.ndarray:
    """How many polygons cover each pixel."""
    return coco_mask.decode(coco_mask.frPyObjects(polygons, *mask.shape)).sum(axis=2)


def draw(*lines: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in lines])


RING = draw("#####", "#...#", "#.#.#", "#...#", "#####")
SHAPES = {
    "one pixel": draw("#"),
    "the whole picture": np.ones((7, 5), dtype=bool),
    "a column": np.ones((9, 1), dtype=bool),
    "pixels that touch at a corner": draw("#.#", ".#.", "#.#"),
    "a ring around an island": RING,
    "a hole that touches the outside at a corner": draw("####", "#.##", "##.#", "###."),
    "an island in a hole that touches it at a corner": draw("#####", "#.#.#", "##..#", "#...#", "#####"),
    "two rings": np.hstack([RING, np.zeros((5, 1), dtype=bool), RING]),
    "rings in rings": np.pad(np.pad(np.pad(RING, 1), 1, constant_values=True), 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_comes_back(name):
    mask = SHAPES[name]
    polygons = polygons_of(mask)
    assert np.array_equal(layers_of(polygons, mask), mask)
    assert all(isinstance(number, float) for polygon in polygons for number in polygon)


def test_without_holes_each_part_is_a_polygon_of_its_corners():
    mask = draw("##...", "##..#", "....#")
    assert sorted(map(sorted, polygons_of(mask))) == sorted(
        map(sorted, [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0], [4.0, 1.0, 5.0, 1.0, 5.0, 3.0, 4.0, 3.0]])
    )
    assert polygons_of(np.zeros((4, 4), dtype=bool)) == []


@pytest.mark.parametrize("kind", ["noise", "blobs", "nets"])
def test_masks_of_every_kind_come_back(kind):
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width = generator.integers(1, 40, 2)
        values = generator.random((height, width))
        if kind != "noise":
            values = ndimage.gaussian_filter(values, generator.uniform(0.5, 3))
        mask = values > np.quantile(values, generator.random())
        if kind == "nets":
            mask &= ~ndimage.binary_erosion(mask)
        if mask.any():
            assert np.array_equal(layers_of(polygons_of(mask), mask), mask)


def test_lines_that_join_outlines_are_walked_there_and_back():
    outlines = trace_outlines(RING)
    assert len(outlines) == 3
    walk = join_outlines(outlines)
    steps = [(start, end) for start, end in zip(walk, [*walk[1:], walk[0]]) if start != end]
    own = {frozenset(pair) for outline in outlines for pair in zip(outline, [*outline[1:], outline[0]])}
    joining = [step for step in steps if frozenset(step) not in own]
    assert sorted(joining) == sorted((end, start) for start, end in joining) and len(joining) == 4
