# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What COCO's instances.json holds: entries by id, and the polygons and run lengths of objects, checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ..messages import describe, shorten
from .reading import Defect, are_within, decode_text, is_integer, read_json, read_regular_file
from .rle import run_lengths


INSTANCE_LISTS = ("images", "annotations", "categories")
# Pixels along the outlines of one object; pycocotools takes up to 100 bytes for each.
MAX_OUTLINE = 4_000_000


def encode_parts(segmentation: dict, height: int, width: int) -> list[dict]:
    """Return an object's polygons and RLEs as the RLE dicts of pycocotools; Defect for what cannot be drawn.

    Rows may come from anywhere, and pycocotools takes memory for every pixel of an outline, and trusts all numbers.
    """
    low, high = (-width, -height), (2 * width, 2 * height)
    polygons, outline = [], 0.0
    for polygon in segmentation["polygons"]:
        points = np.asarray(polygon, dtype=np.float64)
        is_whole = points.ndim == 1 and len(points) >= 6 and len(points) % 2 == 0
        points = points.reshape(-1, 2) if is_whole else np.empty((0, 2))
        if not (len(points) and (points >= low).all() and (points <= high).all()):  # a NaN fails both comparisons
            raise Defect(
                "polygon that cannot be drawn", f"it is {describe(polygon)}, in a picture of {width}×{height}"
            )
        outline += float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())
        polygons.append(points.flatten().tolist())
    if outline > MAX_OUTLINE:
        raise Defect("endless polygon", f"outlines of {outline:.0f} pixels, at most {MAX_OUTLINE} are read")
    parts = coco_mask.frPyObjects(polygons, height, width) if polygons else []
    for rle in segmentation["rles"]:
        runs = run_lengths(rle)
        if runs is None or min(runs, default=0) < 0 or sum(runs) != height * width:
            raise Defect("RLE that does not fill the picture", f"it is {describe(rle)}, the picture {height}×{width}")
        parts.append({"size": [height, width], "counts": rle.encode("ascii")})
    return parts


def read_instances(path: Path) -> tuple[dict[str, dict[int, dict]], dict[str, Counter]]:
    """Read instances.json: {"images": {id: image}, "annotations": {id: annotation}, "categories": {id: category}}.

    Returns these, and for each of the three how often an id stands there that does so more than once.
    """
    entries = read_entries(path)
    by_id = {key: {entry["id"]: entry for entry in entries[key]} for key in INSTANCE_LISTS}
    repeated: dict[str, Counter] = {key: Counter() for key in INSTANCE_LISTS}
    for key in INSTANCE_LISTS:
        if len(by_id[key]) < len(entries[key]):
            counts = Counter(entry["id"] for entry in entries[key])
            repeated[key] = Counter({entry_id: count for entry_id, count in counts.items() if count > 1})
    return by_id, repeated


def read_entries(
    path: Path, lists: Sequence[str] = INSTANCE_LISTS, renamed: Mapping[str, str] | None = None
) -> dict[str, list[dict]]:
    """Read lists of a JSON file, each entry of which has an id, an integer; ValueError where they are not there.

    Args:
        path: of the file.
        lists: their names.
        renamed: list → the name that it may have instead.
    """
    content = read_regular_file(path)
    try:
        found = read_json(content)
        for key, other in (renamed or {}).items():
            if key not in found and other in found:
                found[key] = found[other]
        return {key: [_with_id(entry) for entry in found[key]] for key in lists}
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{shorten(str(path))} is not read: {type(error).__name__}: {shorten(str(error))}. It needs the lists "
            f"{', '.join(lists[:-1])} and {lists[-1]}, with an id in every entry; get the file again."
        ) from error


def _with_id(entry: dict) -> dict:
    if not is_integer(entry["id"]):
        raise ValueError(f"an id is {describe(entry['id'])}, an integer is needed")
    return entry


def check_segmentation(parts, height: int, width: int, where: str) -> tuple[dict, int]:
    """Check polygons and RLEs as COCO writes them; raise Defect about `where` if they make no mask.

    Returns the `segmentation` of one object in a row, and the number of polygons under 3 points that are left out.
    """
    parts = [parts] if isinstance(parts, dict) else parts
    if not isinstance(parts, list) or not all(isinstance(part, (list, dict)) for part in parts):
        raise Defect("malformed entry", f"the segmentation of {where} is {describe(parts)}")
    rles = [_check_rle(part, height, width, where) for part in parts if isinstance(part, dict)]
    lists = [part for part in parts if isinstance(part, list)]
    polygons = [_check_polygon(part, height, width, where) for part in lists if len(part) >= 6]
    if not rles and not polygons:
        lengths = ", ".join(str(len(part)) for part in lists[:10]) or "no"
        raise Defect("no polygon of 3 points", f"the polygons of {where} have {lengths} numbers, 3 points are 6")
    segmentation = {"polygons": polygons, "rles": rles}
    if coco_mask.area(coco_mask.merge(encode_parts(segmentation, height, width))) == 0:
        raise Defect("annotation off the picture", f"{where} covers no pixel of {width}×{height}")
    return segmentation, len(lists) - len(polygons)


def _check_polygon(polygon: list, height: int, width: int, where: str) -> list[float]:
    if len(polygon) % 2:
        raise Defect("malformed entry", f"a polygon of {where} has {len(polygon)} numbers, pairs are needed")
    # pycocotools walks along every edge, so an endless one would take all memory.
    if not are_within(polygon[0::2], -width, 2 * width) or not are_within(polygon[1::2], -height, 2 * height):
        raise Defect("annotation off the picture", f"a polygon of {where} leaves {width}×{height} by its size or more")
    return [float(number) for number in polygon]


def _check_rle(rle: dict, height: int, width: int, where: str) -> str:
    """Return the compressed counts of an RLE dict; pycocotools itself reads beyond runs that do not fill the mask."""
    counts = rle.get("counts")
    counts = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    runs = counts if isinstance(counts, list) else run_lengths(counts)
    if rle.get("size") != [height, width]:
        reason = f"the size is {describe(rle.get('size'))}, the picture is [{height}, {width}], height first"
    elif runs is None or not all(is_integer(run) and run >= 0 for run in runs):
        reason = f"the counts are {describe(counts)}, which are no run lengths as COCO writes them"
    elif sum(runs) != height * width:
        reason = f"the runs add up to {sum(runs)}, the picture has {height * width} pixels"
    else:
        reason = None
    if reason is not None:
        raise Defect("RLE that does not fill the picture", f"{where}: {reason}")
    if isinstance(counts, str):
        return counts
    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"].decode("ascii")
