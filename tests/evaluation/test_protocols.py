# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Named protocols count as the code that they are named after."""

import numpy as np
import pytest
import torch
from evaluation_runs import THRESHOLDS, count_as_published, overlapping_refer, run
from pycocotools import mask as coco_mask
from refer_fixture import rectangle

from remamber_hf.data.refer import load_refer
from remamber_hf.evaluation import protocols
from remamber_hf.evaluation.scoring import Tally


def test_the_published_protocol_is_nearest_and_leaves_out_overlaps_with_published_figures_beside(
    tmp_path, monkeypatch
):
    count_as_published(monkeypatch)
    results, samples, report = run(
        tmp_path / "out", data_dir=overlapping_refer(tmp_path / "data"), protocol="published"
    )
    assert results["protocol"] == {
        "name": "published",
        "resize": "nearest",
        "size": "the picture's",
        "threshold": 0.5,
        "mask_overlap": "published",
        "precision": "IoU ≥ X",
        "epsilon": 1e-6,
        "dtype": "float32",
        "image_backend": "PIL",
    }
    assert [sample["true_area"] for sample in samples if sample["split"] == "val"] == [
        10 * 10 + 15 * 4 - 2 * 5 * 4
    ] * 2
    assert list(results["splits"]) == ["val", "testA", "testB"]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if "(" in line[:30]]
    rows = [line[:5] for line in table if line[0] == "testA"]
    assert rows[:2] == [
        ["testA", "ReMamber (ECCV 2024)", "published", "76.74", "–"],
        ["testA", "LAVT (CVPR 2022)", "lavt", "75.82", "76.89"],
    ]
    assert ["testA", "DeRIS-L (ICCV 2025), mixed", "its own", "86.49", "86.64"] in rows
    assert "- ReMamber (ECCV 2024): a paper's full text" in report


def squashed(mask: np.ndarray, side: int) -> np.ndarray:
    """Nearest, by the middles of pixels."""
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for length in mask.shape)
    return mask[rows][:, columns]


def drawn(polygons: list, height: int, width: int) -> list[np.ndarray]:
    return [coco_mask.decode(rle).astype(bool) for rle in coco_mask.frPyObjects(polygons, height, width)]


# What the evaluation of each code does with a sample: size counted at, probability above which an object is, truth.
POLYGONS = [rectangle(10, 10, 20, 20), rectangle(15, 16, 30, 20)]


def expected_truth(protocol: str, height: int, width: int) -> np.ndarray:
    if protocol == "rela":
        scaled = [(np.reshape(p, (-1, 2)) * [480 / width, 480 / height]).ravel().tolist() for p in POLYGONS]
        return np.logical_or.reduce(drawn(scaled, 480, 480))
    parts = drawn(POLYGONS, height, width)
    if protocol == "cris":
        return np.logical_or.reduce(parts)
    once = np.sum(parts, axis=0) == 1
    return squashed(once, 480) if protocol == "lavt" else once


@pytest.mark.parametrize("protocol", ["published", "lavt", "rela", "cris"])
def test_a_named_protocol_counts_as_that_code_does(tmp_path, model_and_processor, protocol):
    model, processor = model_and_processor
    data_dir = overlapping_refer(tmp_path / "data")
    results, samples, report = run(tmp_path / "out", data_dir=data_dir, splits="val", protocol=protocol)
    rows = load_refer("refcoco", "unc", "val", data_dir=data_dir, expand_sentences=True)
    counts = []
    for row in rows:
        with torch.no_grad():
            logits = model(**processor(images=row["image"], text=row["sentences"], return_tensors="pt")).logits
        truth = expected_truth(protocol, row["height"], row["width"])
        mode = {"mode": "nearest"} if protocol == "published" else {"mode": "bilinear", "align_corners": False}
        resized = torch.nn.functional.interpolate(logits, truth.shape, **mode)[0, 0]
        found = resized.sigmoid().numpy() > (0.35 if protocol == "cris" else 0.5)
        counts.append(((found & truth).sum(), (found | truth).sum(), truth.sum()))
    assert [(s["intersection"], s["union"], s["true_area"]) for s in samples] == counts
    intersections, unions, _ = np.array(counts).T
    ious = intersections / (unions + (1e-6 if protocol in ("published", "cris") else 0))
    scores = results["splits"]["val"]["scores"]
    assert scores["miou"] == pytest.approx(ious.mean(), abs=1e-14)
    assert scores["oiou"] == pytest.approx(intersections.sum() / unions.sum(), abs=1e-14)
    assert results["protocol"]["name"] == protocol and f"protocol: {protocol}" in report


def test_the_protocol_of_cris_counts_what_is_above_a_threshold_and_not_what_equals_it():
    counts = np.array([[1, 2, 1], [7, 10, 8], [9, 10, 9], [0, 0, 0], [3, 3, 3]])
    is_empty, kinds = np.zeros(5, dtype=bool), np.full(5, "one")
    tally = Tally("default", counts, is_empty, None, kinds, np.arange(5))
    plain, cris = tally.scores(), tally.scores(protocols.PROTOCOLS["cris"])
    thresholds = torch.arange(0.5, 1.0, 0.1)
    ious = torch.tensor([i / (u + 1e-6) for i, u, _ in counts])
    assert [cris[f"precision@{x}"] for x in THRESHOLDS] == [(ious > t).double().mean().item() for t in thresholds]
    assert plain["precision@0.5"] == 0.8 and cris["precision@0.5"] == 0.6


def test_the_protocol_of_rela_scores_generalised_sets_at_480(data_dir, tmp_path):
    results, samples, _ = run(tmp_path / "out", data_dir=data_dir, generalized=True, splits="val", protocol="rela")
    giou = [1.0 if s["true_area"] == 0 == s["union"] else s["intersection"] / max(s["union"], 1) for s in samples]
    assert results["splits"]["val"]["scores"]["giou"] == pytest.approx(np.mean(giou), abs=1e-14)
    _, plain, _ = run(tmp_path / "plain", data_dir=data_dir, generalized=True, splits="val")
    at_480, at_128 = (sum(sample["true_area"] for sample in each) for each in (samples, plain))
    assert at_480 / at_128 == pytest.approx((480 / 128) ** 2, rel=0.02)


def test_nearest_and_the_published_protocol_give_the_same_scores(tmp_path):
    data_dir = overlapping_refer(tmp_path / "data")
    published, nearest = (
        run(tmp_path / name, data_dir=data_dir, **{name: value})[1]
        for name, value in (("protocol", "published"), ("resize", "nearest"))
    )
    assert published == nearest


def test_the_published_protocol_refuses_generalised_sets(data_dir, tmp_path):
    with pytest.raises(ValueError, match="--protocol published knows no generalised data set"):
        run(tmp_path / "out", data_dir=data_dir, generalized=True, protocol="published")
