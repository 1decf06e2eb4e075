# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel counts of a split → scores, a row per sample, what stands beside them, and what is drawn."""

import json
from collections.abc import Container, Iterable
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
from ..synthetic.grammar import KINDS, expression_kind
from .evaluator import Evaluator, Sample, Split, choose_splits, list_samples, make_batches
from .protocols import OURS, Protocol
from .published import PUBLISHED_RESULTS, PublishedResult
from .report import write_report
from .scoring import Tally


SHEET_SEED = 0


def kinds_of(samples: list[Sample]) -> list[str] | None:
    """The kind of every expression if all are in the grammar of synthetic scenes, else None."""
    try:
        return [expression_kind(sample.sentence) for sample in samples]
    except ValueError:
        return None


def describe_split(
    split: Split,
    tally: Tally,
    kinds: list[str] | None,
    published: list[PublishedResult],
    protocol: Protocol = OURS,
) -> dict:
    """What the JSON file says of a split."""

    def describe_parts(known: Iterable[str], found: np.ndarray) -> dict[str, dict]:
        parts = {kind: tally.part(found == kind) for kind in known if (found == kind).any()}
        return {
            kind: {"num_sentences": len(part.pixels), "scores": part.scores(protocol)} for kind, part in parts.items()
        }

    return {
        "num_sentences": len(split.samples),
        "num_objects": count_objects(split),
        "num_pictures": len({sample.picture for sample in split.samples}),
        "scores": tally.scores(protocol),
        "kinds": describe_parts(KINDS, np.array(kinds)) if kinds else {},
        "target_kinds": describe_parts(TARGET_KINDS, tally.target_kinds) if split.is_generalized else {},
        "published": [
            {"model": result.model, "protocol": result.protocol, "scores": result.scores} for result in published
        ],
    }


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
    objects = split.rows.select_columns(["ann_id"]) if "ann_id" in split.rows.column_names else None
    chosen: dict[tuple, int] = {}
    for index in np.lexsort((draws, order)).tolist():
        sample = split.samples[index]
        ann_id = None if objects is None else objects[sample.row]["ann_id"]
        is_known = ann_id is not None and ann_id != []
        chosen.setdefault((sample.picture, str(ann_id)) if is_known else (sample.picture, sample.row), index)
        if len(chosen) == count:
            break
    return list(chosen.values())


def make_table(split: Split, tally: Tally, kinds: list[str] | None) -> pa.Table:
    """One row per sample."""
    samples = split.samples
    return pa.table(
        {
            "split": [split.name] * len(samples),
            "ref_id": pa.array([sample.ref_id for sample in samples], pa.int64()),
            "image_file": pa.array([sample.image_file for sample in samples], pa.string()),
            "sentence": pa.array([sample.sentence for sample in samples], pa.string()),
            "kind": pa.array([None] * len(samples) if kinds is None else kinds, pa.string()),
            "target_kind": pa.array(tally.target_kinds, pa.string()),
            "intersection": tally.pixels[:, 0],
            "union": tally.pixels[:, 1],
            "true_area": tally.pixels[:, 2],
            "presence": pa.array([None] * len(samples) if tally.presence is None else tally.presence, pa.float32()),
            "iou": tally.ious(),
        }
    )


@dataclass
class Evaluation:
    """What came out: what the JSON file says of each split, a table of the samples of each, sheets by name."""

    splits: dict[str, dict] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    sheets: dict[str, Image.Image] = field(default_factory=dict)


def read_splits(source: DataSource, names: str | None, max_samples: int | None, batch_size: int) -> list[Split]:
    """The splits that are named, see `choose_splits`, ready to be evaluated."""
    chosen = []
    for name, rows in choose_splits(source.splits, names).items():
        samples = list_samples(rows, name, max_samples)
        chosen.append(Split(name, rows, samples, make_batches(samples, batch_size)))
    return chosen


def evaluate_splits(evaluator: Evaluator, splits: list[Split], source: DataSource, num_drawn: int) -> Evaluation:
    """
    Evaluate one split after another.

    Every process takes part; only in the main one is the result filled.

    Args:
        num_drawn: of the worst and of the best samples of each split; 0 draws none.
    """
    evaluation = Evaluation()
    for split in splits:
        tally = evaluator.count(split, source.name)
        if not PartialState().is_main_process:
            continue
        kinds = kinds_of(split.samples)
        ious = tally.ious()
        published = published_beside(source.name, source.split_by, split, tally.scores())
        evaluation.splits[split.name] = describe_split(split, tally, kinds, published, evaluator.protocol)
        evaluation.tables.append(make_table(split, tally, kinds))
        for name, order in (("worst", ious), ("best", -ious)) if num_drawn else ():
            chosen = choose_for_sheet(split, order, num_drawn)
            evaluation.sheets[f"{split.name}_{name}"] = evaluator.draw(split, tally, chosen)
    return evaluation


def write_results(output_dir: Path, results: dict, tables: list[pa.Table], sheets: dict[str, Image.Image]) -> None:
    """Write the folder whole or not at all."""
    with make_whole_folder(output_dir) as unfinished:
        (unfinished / "results.md").write_text(write_report(results), encoding="utf-8")
        (unfinished / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        pq.write_table(pa.concat_tables(tables), unfinished / "samples.parquet")
        for name, sheet in sheets.items():
            sheet.save(unfinished / f"{name}.png")
