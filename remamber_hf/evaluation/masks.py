# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The masks that a model found, beside its results: run lengths in masks.parquet, or masks/000000.png and so on.

They are as they came, at the size that was counted at, one for each row of samples.parquet and in its order.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..data.rle import decode_mask, run_lengths
from ..messages import describe, shorten
from ..pictures import check_file, max_pixels
from .saved import read_samples


TABLE, FOLDER = "masks.parquet", "masks"
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
IDS = ("split", "ref_id", "sentence_id", "image_id", "image_file", "sentence")


class SavedMask(NamedTuple):
    """A mask that was found, bool (height, width), and its row of samples.parquet."""

    sample: dict[str, Any]
    mask: np.ndarray


def write_rles(folder: Path, samples: pa.Table, masks: list[dict]) -> None:
    """Write masks, RLEs as `encode_mask` makes them, as one table."""
    heights, widths = zip(*(mask["size"] for mask in masks))
    columns = {
        "height": pa.array(heights, pa.int32()),
        "width": pa.array(widths, pa.int32()),
        "counts": pa.array([mask["counts"] for mask in masks], pa.string()),
    }
    ids = {name: samples[name] for name in IDS}
    pq.write_table(pa.table({**ids, **columns}), folder / TABLE)


def write_pngs(folder: Path, samples: pa.Table, masks: list[dict]) -> None:
    """Write masks, RLEs as `encode_mask` makes them, as pictures of 1 bit per pixel."""
    (folder / FOLDER).mkdir()
    for row, mask in enumerate(masks):
        Image.fromarray(decode_mask(mask)).save(folder / FOLDER / name_of(row))


MASK_FORMATS: dict[str, Callable[[Path, pa.Table, list[dict]], None]] = {"rle": write_rles, "png": write_pngs}


def name_of(row: int) -> str:
    return f"{row:06d}.png"


def read_masks(folder: str | Path, split: str | None = None, *, as_found: bool = True) -> Iterator[SavedMask]:
    """
    Read the masks that `remamber evaluate --save_masks` wrote, one by one, in the order of samples.parquet.

    Args:
        folder: that of the results. split: of this split only.
        as_found: whether a mask is empty where the model says that nothing is meant, which is what one gets of it;
            otherwise as the mask came, which is what gRefCOCO's scores count.

    Raises:
        FileNotFoundError: if no masks are there.
        ValueError: if they do not belong to the samples, or are none.
    """
    folder = Path(folder)
    samples = read_samples(folder)
    is_table = (folder / TABLE).is_file()
    if not is_table and not (folder / FOLDER).is_dir():
        raise FileNotFoundError(f"{folder} holds no masks; evaluate with --save_masks rle or png.")
    rles = read_rles(folder / TABLE, samples) if is_table else None
    for row, sample in enumerate(samples.to_pylist()):
        if split in (None, sample["split"]):
            mask = read_png(folder / FOLDER / name_of(row)) if rles is None else decode_mask(rles[row])
            yield SavedMask(sample, mask & ~np.bool_(as_found and sample["nothing_found"]))


def read_rles(path: Path, samples: pa.Table) -> list[dict]:
    """The masks of a table as RLEs; ValueError if they are none, or not those of the samples."""
    try:
        table = pq.read_table(path)
        same = all(table[name].to_pylist() == samples[name].to_pylist() for name in IDS)
        rows = table.select(["height", "width", "counts"]).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"{path} is no table of masks: {shorten(str(error))}. Evaluate again.") from error
    if not same:
        raise ValueError(f"{path} has masks of other samples than samples.parquet; evaluate again.")
    for number, row in enumerate(rows):
        runs, height, width = run_lengths(row["counts"]) or [], row["height"], row["width"]
        is_mask = runs and min(runs) >= 0 and None not in (height, width) and sum(runs) == height * width
        if not is_mask or sum(runs) > max_pixels():
            raise ValueError(f"row {number} of {path} is no mask of {height}×{width} pixels; evaluate again.")
    return [{"size": [row["height"], row["width"]], "counts": row["counts"]} for row in rows]


def read_png(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"the mask {path} is missing; put it back, or evaluate again.")
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            check_file(picture)
            return np.asarray(picture.convert("1"))
    except (OSError, SyntaxError, ValueError, *BOMBS) as error:
        raise ValueError(f"{path} is no mask: {describe(str(error))}. Evaluate again.") from error
