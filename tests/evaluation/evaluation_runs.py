# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of evaluation share: runs of the command on the bundled model, and data for them."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask
from refer_fixture import TinyRefer, rectangle

from remamber_hf.cli.evaluate import evaluate
from remamber_hf.data.published import SplitCount
from remamber_hf.data.refer import read_refs
from remamber_hf.evaluation import results
from remamber_hf.evaluation.evaluator import Sample
from remamber_hf.inference.loading import BUNDLED_MODEL


MODEL = str(BUNDLED_MODEL)
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def run(output_dir, **options) -> tuple[dict, list[dict], str]:
    """Evaluate the bundled model: results.json, rows of samples.parquet, results.md."""
    evaluate(MODEL, output_dir=output_dir, **{"num_workers": 0, "contact_sheet": 0, **options})
    results = json.loads((output_dir / "results.json").read_text())
    return results, pq.read_table(output_dir / "samples.parquet").to_pylist(), (output_dir / "results.md").read_text()


def make_sample(row: int, picture: str, sentence: str = "text", ann_id: int | list[int] | None = None) -> Sample:
    """A sentence of which tests need nothing else."""
    return Sample(row, row, ann_id, 0, 0, picture, None, sentence)


def true_masks(data_dir) -> dict[int, np.ndarray]:
    """Masks of the refs of the synthetic set by pycocotools alone, bool (height, width)."""
    instances = json.loads((data_dir / "shapes" / "instances.json").read_text())
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    masks = {}
    for ref in read_refs(data_dir / "shapes" / "refs(unc).p"):
        given = annotations[ref["ann_id"]]["segmentation"]
        rle = coco_mask.merge(coco_mask.frPyObjects(given, 128, 128) if isinstance(given[0], list) else given)
        masks[ref["ref_id"]] = coco_mask.decode(rle).astype(bool)
    return masks


def overlapping_refer(folder) -> Path:
    """A tiny RefCOCO whose val object is two polygons that overlap in 5 × 4 pixels."""
    refer = TinyRefer()
    refer.annotations[3]["segmentation"] = [rectangle(10, 10, 20, 20), rectangle(15, 16, 30, 20)]
    return refer.write(folder)


def count_as_published(monkeypatch):
    """Have a tiny RefCOCO as many refs, pictures and sentences as the published one."""
    counts = {split: SplitCount(1, 1, 2) for split in ("val", "testA", "testB")}
    monkeypatch.setattr(results, "PUBLISHED_COUNTS", {("refcoco", "unc"): counts})
