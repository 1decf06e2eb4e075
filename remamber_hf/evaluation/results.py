# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel counts of a split → scores, a row per sample, what stands beside them, and what is drawn."""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from PIL import Image

from ..data.mixture import DataSource
from ..data.published import PUBLISHED_COUNTS
from ..data.rows import TARGET_KINDS
from ..files import make_whole_folder
from .bootstrap import draw_scores, interval
from .evaluator import Evaluator, Split, choose_splits, list_samples, make_batches
from .masks import MASK_FORMATS
from .protocols import OURS, Protocol
from .published import PUBLISHED_RESULTS, PublishedResult
from .report import write_report
from .samples import make_table, split_by
from .saved import RESULTS, SAMPLES
from .scoring import Tally


SHEET_SEED = 0


# Column of samples.parquet → what results.json calls the parts that a split has by it.
PART_NAMES = {
    "target_kind": "target_kinds",
    "kind": "kinds",
    "length": "lengths",
    "size": "sizes",
    "category": "categories",
}


def describe_split(
    split: Split,
    tally: Tally,
    table: pa.Table,
    published: list[PublishedResult],
    protocol: Protocol = OURS,
    by: Sequence[str] = (),
    has_intervals: bool = False,
) -> dict:
    """
    What the JSON file says of a split.

    Args:
        table: what `make_table` made of it. by: columns of `PARTS`, by what else it comes in parts. has_intervals:
            whether scores get the interval of a bootstrap.
    """
    asked = ["kind", *by] + ["target_kind"] * split.is_generalized  # twice does no harm
    chosen = {("", ""): np.ones(len(table), dtype=bool)}
    for column in asked:
        for part, is_of in split_by(column, table[column].to_pylist()).items():
            chosen[column, part] = is_of
    described = {
        key: {"num_sentences": int(is_of.sum()), "scores": tally.part(is_of).scores(protocol)}
        for key, is_of in chosen.items()
    }
    if has_intervals:
        add_intervals(described, chosen, tally, table["picture"].to_numpy(), protocol)
    parts = {
        name: {part: each for (of, part), each in described.items() if of == column}
        for column, name in PART_NAMES.items()
    }
    return {
        **described["", ""],
        "num_objects": count_objects(split),
        "num_pictures": len({sample.picture for sample in split.samples}),
        **parts,
        "published": [
            {"model": result.model, "protocol": result.protocol, "source": result.source, "scores": result.scores}
            for result in published
        ],
    }


def add_intervals(
    described: dict[tuple[str, str], dict],
    chosen: dict[tuple[str, str], np.ndarray],
    tally: Tally,
    pictures: np.ndarray,
    protocol: Protocol,
) -> None:
    """Give the scores of a split and of its parts their intervals, fractions: from the same draws of its pictures."""
    ratios = {key: tally.ratios_of(is_of, protocol) for key, is_of in chosen.items()}
    drawn = iter(draw_scores([ratio for each in ratios.values() for ratio in each.values()], pictures))
    for key, each in ratios.items():
        described[key]["intervals"] = {name: interval(next(drawn)) for name in each}


def count_objects(split: Split) -> int:
    """How many objects the sentences of a split mean: rows, or where a row may mean several the ids in them."""
    rows = sorted({sample.row for sample in split.samples})
    if not split.is_generalized:
        return len(rows)
    ids = split.rows.select_columns(["image_id", "ann_id"]).select(rows)
    return len({(row["image_id"], ann_id) for row in ids for ann_id in row["ann_id"]})


def published_beside(dataset: str, split_by: str | None, split: Split, known: Container[str]) -> list[PublishedResult]:
    """
    The published results of a split that has as many refs, pictures and sentences, of each kind, as the published one.

    Args:
        known: names of the scores that the split gets; a result with others is one of another kind of set.
    """
    expected = PUBLISHED_COUNTS.get((dataset, split_by), {}).get(split.name)
    if expected is None:
        return []
    found = {
        "refs": len({sample.ref_id for sample in split.samples}),
        "images": len({sample.picture for sample in split.samples}),
        "sentences": len(split.samples),
        **{kind: int((split.target_kinds == kind).sum()) for kind in TARGET_KINDS},
    }
    if any(count not in (None, found[name]) for name, count in vars(expected).items()):
        return []
    results = PUBLISHED_RESULTS.get((dataset, split_by), {}).get(split.name, [])
    return [result for result in results if all(name in known for name in result.scores)]


def choose_for_sheet(split: Split, order: np.ndarray, count: int) -> list[int]:
    """Indices of the samples whose `order` is lowest, one for each object; ties are drawn, always alike."""
    draws = np.random.default_rng(SHEET_SEED).random(len(order))
    chosen: dict[tuple, int] = {}
    for index in np.lexsort((draws, order)).tolist():
        sample = split.samples[index]
        is_known = sample.ann_id not in (None, [])
        chosen.setdefault((sample.picture, str(sample.ann_id) if is_known else sample.row), index)
        if len(chosen) == count:
            break
    return list(chosen.values())


@dataclass
class Evaluation:
    """
    What came out: what the JSON file says of each split, a table of the samples of each, the masks found in each if
    they are kept, sheets by name.
    """

    splits: dict[str, dict] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    masks: list[list[dict]] = field(default_factory=list)
    sheets: dict[str, Image.Image] = field(default_factory=dict)


def read_splits(source: DataSource, names: str | None, max_samples: int | None, batch_size: int) -> list[Split]:
    """The splits that are named, see `choose_splits`, ready to be evaluated."""
    chosen = []
    for name, rows in choose_splits(source.splits, names).items():
        samples = list_samples(rows, name, max_samples)
        chosen.append(Split(name, rows, samples, make_batches(samples, batch_size)))
    return chosen


def evaluate_splits(
    evaluator: Evaluator,
    splits: list[Split],
    source: DataSource,
    num_drawn: int,
    by: Sequence[str] = (),
    has_intervals: bool = False,
    keeps_masks: bool = False,
) -> Evaluation:
    """
    Evaluate one split after another.

    Every process takes part; only in the main one is the result filled.

    Args:
        num_drawn: of the worst and of the best samples of each split; 0 draws none.
        by, has_intervals: see `describe_split`.
        keeps_masks: whether to keep the masks that are found.
    """
    evaluation = Evaluation()
    for split in splits:
        count = evaluator.count(split, source.name, keeps_masks)
        if not PartialState().is_main_process:
            continue
        tally = count.tally
        ious = tally.ious()
        published = published_beside(source.name, source.split_by, split, tally.scores())
        table = make_table(split, count, evaluator.processor.tokenizer)
        evaluation.splits[split.name] = describe_split(
            split, tally, table, published, evaluator.protocol, by, has_intervals
        )
        evaluation.tables.append(table)
        evaluation.masks.append(count.masks)
        for name, order in (("worst", ious), ("best", -ious)) if num_drawn else ():
            chosen = choose_for_sheet(split, order, num_drawn)
            evaluation.sheets[f"{split.name}_{name}"] = evaluator.draw(split, tally, chosen)
    return evaluation


def write_results(output_dir: Path, results: dict, evaluation: Evaluation, mask_format: str | None = None) -> None:
    """Write the folder whole or not at all; `mask_format`, of `MASK_FORMATS`, is that of masks that were kept."""
    with make_whole_folder(output_dir) as unfinished:
        (unfinished / "results.md").write_text(write_report(results), encoding="utf-8")
        (unfinished / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        samples = pa.concat_tables(evaluation.tables)
        pq.write_table(samples, unfinished / SAMPLES)
        if mask_format is not None:
            masks = [mask for masks in evaluation.masks for mask in masks]
            MASK_FORMATS[mask_format](unfinished, samples, masks)
        for name, sheet in evaluation.sheets.items():
            sheet.save(unfinished / f"{name}.png")
