# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A mask → polygons of which pycocotools makes the mask again, pixel for pixel.

edges between pixels → closed outlines → polygons. What lies within a polygon is what a line from outside crosses its
outline to an odd number of times, so where a mask has holes, all outlines are one polygon: lines that join them are
walked there and back, and count for nothing.
"""

from __future__ import annotations

import numpy as np


Point = tuple[int, int]


def polygons_of(mask: np.ndarray) -> list[list[float]]:
    """Return the polygons of a mask, bool (height, width), along the edges of its pixels.

    No pixel is in two of them. They have whole numbers in [0, width] and [0, height]; none if the mask is empty.
    """
    outlines = trace_outlines(mask)
    if any(_signed_area(outline) < 0 for outline in outlines):
        outlines = [join_outlines(outlines)]
    return [[float(number) for point in outline for number in point] for outline in outlines]


def trace_outlines(mask: np.ndarray) -> list[list[Point]]:
    """Return closed outlines along the edges of pixels, as corners (x, y): with the object to the right of the way.

    Those around an object have an area above 0, those around a hole one below 0.
    """
    pixels = np.pad(mask, 1).astype(np.int8)
    right_of, below = np.diff(pixels, axis=1)[1:-1], np.diff(pixels, axis=0)[:, 1:-1]
    ways: dict[Point, list[Point]] = {}
    for differences, sign, start, end in (
        (below, 1, (0, 0), (1, 0)),  # an object under the edge: to the right
        (below, -1, (1, 0), (0, 0)),
        (right_of, 1, (0, 1), (0, 0)),  # an object to the right of the edge: up
        (right_of, -1, (0, 0), (0, 1)),
    ):
        for y, x in np.argwhere(differences == sign).tolist():
            ways.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    outlines = []
    while ways:
        first = next(iter(ways))
        outline, point = [first], _next(ways, first)
        while point != first:
            outline.append(point)
            point = _next(ways, point)
        outlines.append(_corners(outline))
    return outlines


def join_outlines(outlines: list[list[Point]]) -> list[Point]:
    """Walk all outlines in one: each is closed before the next begins, and the way back is the same."""
    starts = [outline[0] for outline in outlines]
    return [point for outline in outlines for point in [*outline, outline[0]]] + starts[-2::-1]


def _next(ways: dict[Point, list[Point]], point: Point) -> Point:
    ends = ways[point]
    end = ends.pop()
    if not ends:
        del ways[point]
    return end


def _corners(outline: list[Point]) -> list[Point]:
    """Leave out what lies on a straight way."""
    before, after = [outline[-1], *outline[:-1]], [*outline[1:], outline[0]]
    return [
        point
        for last, point, following in zip(before, outline, after)
        if not (last[0] == point[0] == following[0] or last[1] == point[1] == following[1])
    ]


def _signed_area(outline: list[Point]) -> int:
    following = [*outline[1:], outline[0]]
    return sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in zip(outline, following))
