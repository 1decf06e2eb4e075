# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Two models on the sentences where they differ most: truth and both masks side by side, from what was saved."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..data.mixture import is_refer, load_one
from ..data.rows import row_mask
from ..inference.visualization import Sample, draw_sheet
from ..messages import shorten
from ..pictures import to_rgb
from .comparison import Entry, check_same_samples
from .evaluator import list_samples
from .masks import SavedMask, read_masks
from .saved import SavedResults


NUM_COLUMNS = 3


def find_pair(first: Entry, second: Entry) -> tuple[SavedResults, SavedResults]:
    """Results of two models on the first data set that both were evaluated on: of the first seed of each."""
    for data in first.data:
        if second.on(data):
            return first.on(data)[0], second.on(data)[0]
    raise ValueError(f"{first.name} and {second.name} have no data set in common, and --sheet draws these two.")


def draw_contrast(
    first: SavedResults, second: SavedResults, names: tuple[str, str], data_dir: Path | None, num_samples: int
) -> Image.Image:
    """
    A sheet of the `num_samples` sentences that the second model loses most on, and as many that it gains most on.

    Both need the masks of `--save_masks`, and the same sentences; one tile per object.

    Args:
        names: of the two, for what stands above their masks.
        data_dir: folder of the data, None if it is of the Hub or Parquet.

    Raises:
        FileNotFoundError, ValueError: if masks or data are missing, or the data is another.
    """
    about = first.about
    is_hub = data_dir is None
    dataset = about["dataset"] if is_hub or is_refer(None, data_dir) else None
    source = load_one(
        dataset,
        None if is_hub else about["split_by"],
        data_dir,
        generalized=not is_hub and dataset is not None and about["metric"] != "default",
        sentences=about["sentences"] or "sent",
    )
    names_of_splits = [name for name in first.splits if name in second.splits]
    for name in names_of_splits:
        check_same_samples([first, second], name)
    chosen = choose(first, second, names_of_splits, num_samples)
    pairs: dict[tuple[str, int], tuple[SavedMask, SavedMask]] = {}
    for name in {name for name, _ in chosen}:
        both = zip(read_masks(first.folder, name), read_masks(second.folder, name), strict=True)
        pairs |= {(name, row): pair for row, pair in enumerate(both) if (name, row) in chosen}
    samples = {name: list_samples(source.splits[name], name, None) for name, _ in chosen if name in source.splits}
    tiles = []
    for split, row_number in chosen:
        pair = pairs[split, row_number]
        about_it = pair[0].sample
        here = samples.get(split, [])[row_number : row_number + 1]
        if [(each.ref_id, each.sentence) for each in here] != [(about_it["ref_id"], about_it["sentence"])]:
            raise ValueError(
                f"{source} here does not hold {shorten(repr(about_it['sentence']))}, ref {about_it['ref_id']} of "
                f"{split}; give --data_dir as it was evaluated."
            )
        row = source.splits[split][here[0].row]
        picture = to_rgb(row["image"])
        tiles.append(Sample(picture, row_mask(row), f"truth, {split}, ref {about_it['ref_id']}", [here[0].sentence]))
        for name, saved in zip(names, pair):
            resized = picture.resize(saved.mask.shape[::-1])  # a protocol may squash
            tiles.append(Sample(resized, saved.mask, f"{name}, IoU {saved.sample['iou']:.3f}", []))
    return draw_sheet(tiles, NUM_COLUMNS)


def choose(first: SavedResults, second: SavedResults, splits: list[str], count: int) -> list[tuple[str, int]]:
    """
    Split and row of the sentences where the second of two is worst beside the first, then best; one for each object.
    """
    places, objects, gains = [], [], []
    for name in splits:
        table = first.splits[name].table
        rows = range(len(table))
        places += [(name, row) for row in rows]
        objects += list(zip([name] * len(table), *(table[column].to_pylist() for column in ("picture", "ref_id"))))
        gains.append(second.splits[name].tally.ious() - first.splits[name].tally.ious())
    chosen: dict[tuple, tuple[str, int]] = {}
    for most, order in ((count, np.concatenate(gains)), (2 * count, -np.concatenate(gains))):
        for index in np.argsort(order, kind="stable"):
            if len(chosen) < most:
                chosen.setdefault(objects[index], places[index])
    return list(chosen.values())
