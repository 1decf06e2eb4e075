# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Two models on the sentences where they differ most: truth and both masks side by side, from what was saved."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.mixture import DataSource, is_refer, load_one
from ..data.rows import row_mask
from ..inference.visualization import Sample, draw_sheet
from ..messages import shorten
from ..pictures import to_rgb
from .comparison import Entry, check_same_samples
from .evaluator import list_samples
from .masks import SavedMask, read_masks
from .saved import SavedResults


NUM_COLUMNS = 3
SHEET_SEED = 0


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
    source = load_source(first, data_dir)
    names_of_splits = [name for name in first.splits if name in second.splits]
    for name in names_of_splits:
        check_same_samples([first, second], name)
    chosen = choose(first, second, names_of_splits, num_samples)
    if not chosen:
        raise ValueError(f"{names[0]} and {names[1]} are equally right in every sentence; there is nothing to draw.")
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
        meant = ": means nothing here" if about_it["target_kind"] == "none" else ""
        title = f"truth, {split}, ref {about_it['ref_id']}{meant}"
        tiles.append(Sample(picture, row_mask(row), title, [here[0].sentence]))
        for name, saved in zip(names, pair):
            resized = picture.resize(saved.mask.shape[::-1])  # a protocol may squash
            found = ": nothing found" if saved.sample["nothing_found"] else ""
            tiles.append(Sample(resized, saved.mask, f"{name}, IoU {saved.sample['iou']:.3f}{found}", []))
    return draw_sheet(tiles, NUM_COLUMNS)


def load_source(results: SavedResults, data_dir: Path | None) -> DataSource:
    """The data that results are of; ValueError if it is not there."""
    about = results.about
    was_refer = about["split_by"] is not None
    if was_refer and data_dir is None:
        raise ValueError(f"--sheet needs the pictures of {results.data}; give --data_dir as it was evaluated.")
    options: dict[str, Any] = {}
    if was_refer:
        options = {"generalized": about["metric"] != "default", "sentences": about["sentences"]}
    try:
        if was_refer and not is_refer(None, data_dir):
            raise ValueError("it is a folder of one's own")
        dataset = about["dataset"] if was_refer or data_dir is None else None
        return load_one(dataset, about["split_by"], data_dir, **options)
    except (ValueError, FileNotFoundError) as error:
        where = "that name" if data_dir is None else shorten(str(data_dir))
        raise ValueError(
            f"{where} does not hold {results.data}, which {results.folder} was evaluated on ({shorten(str(error))}); "
            "give --data_dir as it was evaluated."
        ) from error


def choose(first: SavedResults, second: SavedResults, splits: list[str], count: int) -> list[tuple[str, int]]:
    """
    Split and row of the sentences that the second of two loses most on, then gains most on: at most `count` of each,
    one for each object; ties are drawn, always alike.
    """
    places, objects, gains = [], [], []
    for name in splits:
        table = first.splits[name].table
        places += [(name, row) for row in range(len(table))]
        columns = (table[column].to_pylist() for column in ("picture", "ann_id", "ref_id"))
        objects += [(name, picture, str(ann_id) if ann_id else ref_id) for picture, ann_id, ref_id in zip(*columns)]
        gains.append(second.splits[name].tally.ious() - first.splits[name].tally.ious())
    gain = np.concatenate(gains)
    draws = np.random.default_rng(SHEET_SEED).random(len(gain))
    chosen: dict[tuple, tuple[str, int]] = {}
    for most, order in ((count, gain), (2 * count, -gain)):
        for index in np.lexsort((draws, order)).tolist():
            if len(chosen) < most and order[index] < 0:
                chosen.setdefault(objects[index], places[index])
    return list(chosen.values())
