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
from .evaluator import list_samples
from .masks import SavedMask, read_masks
from .saved import SavedResults


NUM_COLUMNS = 3


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
    found = {key_of(saved): saved for saved in read_masks(second.folder)}
    pairs = [(saved, found[key_of(saved)]) for saved in read_masks(first.folder) if key_of(saved) in found]
    if not pairs:
        raise ValueError(f"{first.folder} and {second.folder} have no sentence in common; evaluate both on the same.")
    chosen = choose(pairs, num_samples)
    places = {
        (split, sample.ref_id, sample.sentence_id): sample
        for split in {saved.sample["split"] for saved, _ in chosen} & source.splits.keys()
        for sample in list_samples(source.splits[split], split, None)
    }
    tiles = []
    for pair in chosen:
        split, ref_id, _ = key = key_of(pair[0])
        sentence = pair[0].sample["sentence"]
        if key not in places or places[key].sentence != sentence:
            raise ValueError(
                f"{source} here does not hold {shorten(repr(sentence))}, ref {ref_id} of {split}; give --data_dir as "
                "it was evaluated."
            )
        row = source.splits[split][places[key].row]
        picture = to_rgb(row["image"])
        tiles.append(Sample(picture, row_mask(row), f"truth, {split}, ref {ref_id}", [sentence]))
        for name, saved in zip(names, pair):
            resized = picture.resize(saved.mask.shape[::-1])  # a protocol may squash
            tiles.append(Sample(resized, saved.mask, f"{name}, IoU {saved.sample['iou']:.3f}", []))
    return draw_sheet(tiles, NUM_COLUMNS)


def key_of(saved: SavedMask) -> tuple[str, int, int]:
    """What tells a sentence from all others of a data set."""
    return saved.sample["split"], saved.sample["ref_id"], saved.sample["sentence_id"]


def choose(pairs: list[tuple[SavedMask, SavedMask]], count: int) -> list[tuple[SavedMask, SavedMask]]:
    """Of pairs of one sentence those where the second is worst beside the first, then best; one for each object."""
    gains = np.array([after.sample["iou"] - before.sample["iou"] for before, after in pairs])
    chosen: dict[tuple[str, int], tuple[SavedMask, SavedMask]] = {}
    for most, order in ((count, gains), (2 * count, -gains)):
        for place in np.argsort(order, kind="stable"):
            if len(chosen) < most:
                chosen.setdefault(key_of(pairs[place][0])[:2], pairs[place])
    return list(chosen.values())
