# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""COCO's run lengths: the one place where masks are encoded and decoded."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from ..messages import describe


# No number in COCO's compressed counts is longer: 12 characters hold 60 bits.
MAX_COUNT_LETTERS = 12


def _runs_of(rle: dict) -> list[int]:
    """The lengths of the runs of an RLE dict of pycocotools; ValueError if its counts are no such text."""
    runs = run_lengths(rle["counts"])
    if runs is None:
        raise ValueError(
            f"the counts of an RLE are {describe(rle['counts'])}; give the text that pycocotools encodes."
        )
    return runs


def decode_rle(rle: dict) -> np.ndarray:
    """Decode an RLE dict of pycocotools: bool (height, width), in memory column by column.

    As `pycocotools.mask.decode`, which warns at every call under numpy 2.
    """
    height, width = rle["size"]
    runs = _runs_of(rle)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape((height, width), order="F")


def count_covering(parts: list[dict], height: int, width: int) -> np.ndarray:
    """Return how many of these RLEs cover each pixel: int (height, width), in memory column by column."""
    changes = np.zeros(height * width + 1, dtype=np.int32)
    for part in parts:
        ends = np.cumsum(_runs_of(part))
        np.add.at(changes, ends[0::2], 1)
        np.add.at(changes, ends[1::2], -1)
    return changes.cumsum()[:-1].reshape((height, width), order="F")


def run_lengths(counts: object) -> list[int] | None:
    """Read COCO's compressed counts; None if they are not such text.

    A number is a row of characters from "0" on with 5 bits each, the lowest first, and bit 6 set if more follow; from
    the fourth number on it is the difference to the one two places before.
    """
    try:
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        return None
    if not isinstance(counts, bytes):
        return None
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - ord("0")
    ends = np.flatnonzero(codes & 0x20 == 0)
    if codes.min(initial=0) < 0 or codes.max(initial=0) > 0x3F or (len(codes) and codes[-1] & 0x20):
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    lengths = ends + 1 - starts
    if lengths.max(initial=0) > MAX_COUNT_LETTERS:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    numbers = np.add.reduceat((codes & 0x1F) << shifts, starts) if len(starts) else codes
    numbers -= np.where(codes[ends] & 0x10, 1 << 5 * lengths, 0)
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers.tolist()


def encode_mask(mask: np.ndarray) -> dict:
    """Encode a mask, bool (height, width), as a compressed RLE: {"size": [height, width], "counts": text}."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def decode_mask(rle: dict) -> np.ndarray:
    """Decode what `encode_mask` made: bool (height, width)."""
    return np.ascontiguousarray(decode_rle(rle))
