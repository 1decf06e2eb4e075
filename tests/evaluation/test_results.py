# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is computed from the counts of samples, and what is written of it: scores, figures beside, sheets."""

import itertools
import re

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_runs import count_as_published, make_sample, overlapping_refer, run, true_masks
from PIL import Image
from refer_fixture import TinyRefer

from remamber_hf.data.published import PUBLISHED_COUNTS, KindCount
from remamber_hf.evaluation import evaluator, results
from remamber_hf.evaluation.evaluator import Evaluator, Found, Split
from remamber_hf.evaluation.protocols import PROTOCOLS
from remamber_hf.evaluation.published import LAVT, LAVT_SOURCE, OWN, PAPER, PUBLISHED_RESULTS
from remamber_hf.evaluation.referring_iou.scores import generalized_iou
from remamber_hf.evaluation.report import SCORE_TITLES, _cells
from remamber_hf.evaluation.results import published_beside


def test_generalised_splits_get_their_own_scores(data_dir, tmp_path, monkeypatch):
    predict = Evaluator.predict

    def find_every_second(self, inputs, sizes):
        return [Found(found.mask & bool(index % 2)) for index, found in enumerate(predict(self, inputs, sizes))]

    monkeypatch.setattr(Evaluator, "predict", find_every_second)
    results, samples, report = run(tmp_path / "out", data_dir=data_dir, generalized=True, splits="val")
    counts = np.array([[sample[name] for name in ("intersection", "union", "true_area")] for sample in samples])
    is_no_target = counts[:, 2] == 0
    assert 0 < (counts[is_no_target, 1] == 0).sum() < is_no_target.sum()  # some of them are rightly found empty
    scores = results["splits"]["val"]["scores"]
    assert scores == generalized_iou(*counts.T)
    assert scores["giou"] == pytest.approx(np.mean([sample["iou"] for sample in samples]))
    assert "| gIoU |" in re.sub(" +", " ", report) and "oIoU" not in report


def test_a_score_of_no_sample_is_null_and_a_dash(data_dir, tmp_path):
    results, _, report = run(tmp_path / "out", data_dir=data_dir, generalized=True, splits="val", max_samples=1)
    assert results["splits"]["val"]["scores"]["n_acc"] is None
    assert "–" in report


def test_published_figures_stand_only_beside_as_many_refs_pictures_and_sentences(tmp_path):
    _, _, report = run(tmp_path / "out", data_dir=TinyRefer().write(tmp_path / "data"), protocol="published")
    assert "ECCV" not in report and "CVPR" not in report


def test_published_figures_are_left_out_beside_a_part_of_a_split(tmp_path, monkeypatch):
    count_as_published(monkeypatch)
    data_dir = overlapping_refer(tmp_path / "data")
    results, samples, report = run(tmp_path / "out", data_dir=data_dir, dataset="refcoco", max_samples=1)
    assert len(samples) == 3 and "LAVT" not in report
    assert "only the first 1 sentences of each split" in report


@pytest.mark.parametrize(("change", "stands"), [({}, True), ({"none": 2}, False), ({"sentences": 8}, False)])
def test_figures_of_grefcoco_stand_beside_as_many_sentences_of_each_kind(monkeypatch, change, stands):
    kinds = ["none"] * 3 + ["many"] * 4
    rows = datasets.Dataset.from_dict(
        {"ann_id": [[] if kind == "none" else [1, 2] for kind in kinds]}
        | {"segmentation": [[] if kind == "none" else [{"polygons": [], "rles": []}] * 2 for kind in kinds]}
    )
    samples = [make_sample(index, str(index % 2)) for index in range(len(kinds))]
    split = Split("val", rows, samples, [])
    counts = {"refs": None, "images": 2, "sentences": 7, "none": 3, "one": 0, "many": 4}
    monkeypatch.setitem(PUBLISHED_COUNTS[("grefcoco", "unc")], "val", KindCount(**{**counts, **change}))
    found = published_beside("grefcoco", "unc", split, generalized_iou([0], [1], [1]))
    assert bool(found) == stands


def test_published_figures_belong_to_published_splits():
    for name, splits in PUBLISHED_RESULTS.items():
        if name in PUBLISHED_COUNTS:
            assert splits.keys() == PUBLISHED_COUNTS[name].keys() - {"train"}
        for result in itertools.chain.from_iterable(splits.values()):
            assert all(0 < score < 1 for score in result.scores.values())
            assert result.protocol in (*PROTOCOLS, OWN) and result.scores.keys() <= SCORE_TITLES.keys()


def test_a_figure_names_where_it_was_read():
    sources = {
        (name, result.model): result.source
        for name, splits in PUBLISHED_RESULTS.items()
        for result in itertools.chain.from_iterable(splits.values())
    }
    on_grefcoco = {model: source for ((name, _), model), source in sources.items() if name == "grefcoco"}
    # The repository of ReLA has gIoU and cIoU alone; LAVT was run on these sets by others.
    assert on_grefcoco["ReLA (CVPR 2023)"] == "the project's repository; N-acc and T-acc in a paper's full text"
    quoted = [source for (name, model), source in sources.items() if model == LAVT and "refcocog" not in name[0]]
    assert quoted.count(LAVT_SOURCE) == 2 and set(quoted) == {LAVT_SOURCE, PAPER, "SaFiRe's paper, table 3"}


def test_sheets_hold_the_worst_and_the_best_with_the_predictions_that_were_counted(data_dir, tmp_path, monkeypatch):
    drawn = []

    def draw_sheet(tiles, num_columns):
        drawn.append(tiles)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(evaluator, "draw_sheet", draw_sheet)
    _, samples, _ = run(tmp_path / "out", data_dir=data_dir, splits="testA", contact_sheet=3, batch_size=4)
    of_object = {}
    for sample in samples:
        of_object.setdefault(sample["ref_id"], []).append(sample["iou"])
    worst, best = sorted(map(min, of_object.values()))[:3], sorted(map(max, of_object.values()), reverse=True)[:3]
    truths = true_masks(data_dir)
    for tiles, ious in zip(drawn, (worst, best)):
        assert len(tiles) == 6
        for truth, prediction, iou in zip(tiles[::2], tiles[1::2], ious):
            assert np.array_equal(truth.mask, truths[int(re.match(r"truth, ref (\d+)", truth.title)[1])])
            recounted = (truth.mask & prediction.mask).sum() / (truth.mask | prediction.mask).sum()
            assert recounted == pytest.approx(iou)
            assert prediction.title.startswith(f"prediction, IoU {iou:.3f}")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["testA_best.png", "testA_worst.png"]


def test_a_sheet_has_a_tile_for_each_object_and_draws_ties():
    # Two refs of each object, with two sentences each.
    samples = [make_sample(row, f"{row // 4}.jpg", text, row // 2) for row in range(40) for text in ("a", "b")]
    split = evaluator.Split("val", datasets.Dataset.from_dict({}), samples, [])
    chosen = results.choose_for_sheet(split, np.zeros(80), 8)
    assert len({samples[index].row // 2 for index in chosen}) == 8
    assert sorted(chosen) != list(range(0, 32, 4))  # the first of each
    assert chosen == results.choose_for_sheet(split, np.zeros(80), 8)
    assert len(results.choose_for_sheet(split, np.zeros(80), 100)) == 20


def test_an_interval_stands_behind_its_score_and_a_score_without_one_alone():
    described = {"scores": {"miou": 0.5, "oiou": 0.25, "acc": None}, "intervals": {"miou": (0.4, 0.612), "oiou": None}}
    assert _cells(described, dict.fromkeys(described["scores"])) == ["50.00 [40.00, 61.20]", "25.00", "–"]


def test_a_failure_while_writing_leaves_nothing(data_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path / "out", data_dir=data_dir, splits="val", max_samples=1)
    assert list(tmp_path.iterdir()) == []
