# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber evaluate` where a sentence may mean nothing, one object or many: what decides, and what is told."""

import numpy as np
import pytest
import torch
from evaluation_runs import MODEL, run
from PIL import Image
from refer_fixture import TinyRefer

from remamber_hf.cli import evaluate as evaluate_command
from remamber_hf.data.export import export_parquet
from remamber_hf.data.published import SplitCount
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask, target_kind
from remamber_hf.evaluation import evaluator, results
from remamber_hf.evaluation.referring_iou.scores import generalized_iou, r_refcoco_iou, ref_zom_iou
from remamber_hf.evaluation.scoring import Tally, configuration_of
from remamber_hf.inference.loading import load_model
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


PLACES = ("intersection", "union", "true_area")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Scenes with sentences that mean nothing, one object and many."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(folder, 60, 4, num_workers=1, progress=False, no_target=True, many=True)
    return folder


@pytest.fixture(scope="module")
def headed(shapes):
    """The bundled model with a presence head that says of half of the sentences that they mean nothing."""
    torch.manual_seed(0)  # of weights that are new
    model, processor = load_model(MODEL, "cpu", "float32", predicts_presence=True)
    torch.nn.init.normal_(model.presence_head.out_proj.weight, std=0.05)
    model.eval()
    rows = load_refer("shapes", "unc", "val", data_dir=shapes, generalized=True, expand_sentences=True)
    with torch.no_grad():
        logits = [
            model(**processor(images=row["image"], text=row["sentences"], return_tensors="pt")).presence_logits
            for row in rows
        ]
        low, high = torch.cat(logits).sort().values[len(logits) // 2 - 1 :][:2]
        model.presence_head.out_proj.bias -= (low + high) / 2  # none is near the threshold
    return model, processor


@pytest.fixture
def use_headed(headed, monkeypatch):
    monkeypatch.setattr(evaluate_command, "load_model", lambda *_: headed)


def counts_of(samples) -> np.ndarray:
    return np.array([[sample[name] for name in PLACES] for sample in samples])


def test_presence_decides_and_masks_are_counted_as_they_came(shapes, headed, use_headed, tmp_path):
    found, samples, report = run(tmp_path / "out", data_dir=shapes, generalized=True, splits="val")
    model, processor = headed
    expected = []
    for row in load_refer("shapes", "unc", "val", data_dir=shapes, generalized=True, expand_sentences=True):
        with torch.no_grad():
            outputs = model(**processor(images=row["image"], text=row["sentences"], return_tensors="pt"))
        mask = torch.nn.functional.interpolate(outputs.logits, (128, 128), mode="bilinear")[0, 0].numpy() > 0
        truth = row_mask(row)
        counts = (int((mask & truth).sum()), int((mask | truth).sum()), int(truth.sum()))
        expected.append((*counts, target_kind(row), float(outputs.presence_logits.sigmoid())))
    assert [tuple(sample[name] for name in (*PLACES, "target_kind")) for sample in samples] == [
        line[:4] for line in expected
    ]
    presence = np.array([line[4] for line in expected])
    assert [sample["presence"] for sample in samples] == pytest.approx(presence, abs=1e-4)
    is_nothing, is_none = presence < 0.5, np.array([line[3] == "none" for line in expected])
    assert {*zip(is_nothing, is_none)} == {(True, True), (True, False), (False, True), (False, False)}
    counts = counts_of(samples)
    scores = found["splits"]["val"]["scores"]
    assert scores == generalized_iou(*counts.T, is_nothing, is_none)
    assert counts[is_nothing & ~is_none, 0].any()  # which do not count, and whose union does
    assert scores["ciou"] == counts[~is_nothing, 0].sum() / counts[~(is_nothing & is_none), 1].sum()
    assert scores["giou"] == pytest.approx(np.mean([sample["iou"] for sample in samples]))
    assert found["metric"] == "generalized" and found["protocol"]["nothing_found"] == {"presence_below": 0.5}
    assert "nothing found where the presence is below 0.5" in report


def test_scores_by_objects_that_are_meant_add_up(shapes, use_headed, tmp_path):
    found, samples, report = run(tmp_path / "out", data_dir=shapes, generalized=True, splits="val,testA")
    for name, split in found["splits"].items():
        parts = split["target_kinds"]
        assert list(parts) == ["none", "one", "many"]
        for kind, part in parts.items():
            ious = [s["iou"] for s in samples if (s["split"], s["target_kind"]) == (name, kind)]
            assert part["num_sentences"] == len(ious) > 0
            assert part["scores"]["giou"] == pytest.approx(np.mean(ious))
        assert sum(part["num_sentences"] for part in parts.values()) == split["num_sentences"]
        assert parts["none"]["scores"]["giou"] == split["scores"]["n_acc"]
        assert parts["none"]["scores"]["t_acc"] is None and parts["many"]["scores"]["n_acc"] is None
    table = report.split("## By objects that are meant")[1].split("##")[0]
    assert [line.split("|")[2].strip() for line in table.splitlines() if "val" in line] == ["none", "one", "many"]
    plain, samples, report = run(tmp_path / "plain", data_dir=shapes, splits="val")
    assert plain["splits"]["val"]["target_kinds"] == {} and plain["metric"] == "default"
    assert "objects that are meant" not in report
    assert {sample["target_kind"] for sample in samples} == {"one"}


def test_on_a_plain_set_masks_count_as_one_gets_them(shapes, headed, use_headed, tmp_path, monkeypatch):
    found, samples, report = run(tmp_path / "headed", data_dir=shapes, splits="val")
    model, processor = headed
    counts = []
    for row in load_refer("shapes", "unc", "val", data_dir=shapes, expand_sentences=True):
        with torch.no_grad():
            outputs = model(**processor(images=row["image"], text=row["sentences"], return_tensors="pt"))
        (mask,) = processor.post_process_referring_segmentation(outputs, target_sizes=[(128, 128)])
        truth = row_mask(row)
        counts.append(((mask.numpy() & truth).sum(), (mask.numpy() | truth).sum()))
    ious = [intersection / union for intersection, union in counts]
    assert [sample["iou"] for sample in samples] == ious
    assert found["splits"]["val"]["scores"]["miou"] == pytest.approx(np.mean(ious), abs=1e-14)
    assert found["splits"]["val"]["scores"]["oiou"] == np.sum(counts, axis=0)[0] / np.sum(counts, axis=0)[1]
    assert any(sample["intersection"] and not sample["iou"] for sample in samples)
    assert found["protocol"]["nothing_found"] == {"presence_below": 0.5} and "presence is below 0.5" in report
    monkeypatch.setattr(evaluate_command, "load_model", load_model)
    plain, others, _ = run(tmp_path / "plain", data_dir=shapes, splits="val")
    assert {sample["presence"] for sample in others} == {None} and "nothing_found" not in plain["protocol"]
    assert plain["splits"]["val"]["scores"]["miou"] > found["splits"]["val"]["scores"]["miou"]


def test_on_a_plain_set_a_threshold_of_0_takes_no_mask_away(shapes, use_headed, tmp_path, monkeypatch):
    found, _, _ = run(tmp_path / "headed", data_dir=shapes, splits="val", presence_threshold=0.0)
    monkeypatch.setattr(evaluate_command, "load_model", load_model)
    plain, _, _ = run(tmp_path / "plain", data_dir=shapes, splits="val")
    assert found["splits"] == plain["splits"]


def test_on_either_kind_of_set_the_trainer_gives_the_same_scores(shapes, headed, use_headed, tmp_path):
    model, processor = headed
    arguments = ReMamberTrainingArguments(
        output_dir=str(tmp_path / "run"), use_cpu=True, report_to="none", disable_tqdm=True
    )
    trainer = ReferringSegmentationTrainer(model=model, args=arguments, processing_class=processor)
    for generalized in (False, True):
        options = {"data_dir": shapes, "generalized": generalized, "splits": "testA"}
        found, _, _ = run(tmp_path / f"{generalized}", **options)
        rows = load_refer("shapes", "unc", "testA", data_dir=shapes, generalized=generalized)
        metrics = trainer.evaluate(rows)
        scores = found["splits"]["testA"]["scores"]
        assert {name: metrics[f"eval_{name}"] for name in scores} == pytest.approx(scores, abs=1e-3)
        for kind, part in found["splits"]["testA"]["target_kinds"].items():
            assert metrics[f"eval_giou_{kind}"] == pytest.approx(part["scores"]["giou"], abs=1e-3)


def test_the_threshold_of_the_presence_is_that_which_is_given(shapes, use_headed, tmp_path):
    options = {"data_dir": shapes, "generalized": True, "splits": "val"}
    nothing, samples, report = run(tmp_path / "a", **options, presence_threshold=1.0)
    everything, _, _ = run(tmp_path / "b", **options, presence_threshold=0.0)
    scores = nothing["splits"]["val"]["scores"]
    assert (scores["n_acc"], scores["t_acc"], scores["ciou"]) == (1, 0, 0)
    assert scores["giou"] == np.mean([sample["target_kind"] == "none" for sample in samples])
    assert nothing["protocol"]["nothing_found"] == {"presence_below": 1.0} and "presence is below 1.0" in report
    scores = everything["splits"]["val"]["scores"]
    assert (scores["n_acc"], scores["t_acc"]) == (0, 1)


def test_without_a_head_a_mask_of_fewer_pixels_finds_nothing(shapes, tmp_path):
    options = {"data_dir": shapes, "generalized": True, "splits": "val"}
    plain, samples, report = run(tmp_path / "plain", **options)
    counts = counts_of(samples)
    assert plain["splits"]["val"]["scores"] == generalized_iou(*counts.T)
    assert plain["protocol"]["nothing_found"] == {"pixels_below": 1}
    assert "nothing found where the number of pixels is below 1" in report
    areas = counts[:, 0] + counts[:, 1] - counts[:, 2]
    bound = int(sorted(areas)[len(areas) // 2])
    found, samples, _ = run(tmp_path / "bounded", **options, min_pixels=bound)
    assert found["protocol"]["nothing_found"] == {"pixels_below": bound}
    assert found["splits"]["val"]["scores"] == generalized_iou(*counts.T, areas < bound)
    assert found["splits"]["val"]["scores"] != plain["splits"]["val"]["scores"] and bound in areas


@pytest.mark.parametrize(
    ("options", "has_head", "message"),
    [
        ({"presence_threshold": 0.3}, False, "--presence_threshold is 0.3, and the model does not say whether"),
        ({"presence_threshold": 1.5}, True, "--presence_threshold is 1.5; give a probability in"),
        ({"min_pixels": 50}, True, "--min_pixels is 50, and the model says itself whether"),
        ({"min_pixels": 0}, False, "--min_pixels is 0; give at least 1"),
        (
            {"min_pixels": 50, "generalized": False},
            False,
            "--min_pixels is 50, and every sentence of this data set means",
        ),
    ],
)
def test_an_option_that_has_no_say_is_refused(shapes, headed, tmp_path, monkeypatch, options, has_head, message):
    if has_head:
        monkeypatch.setattr(evaluate_command, "load_model", lambda *_: headed)
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", **{"data_dir": shapes, "generalized": True, "splits": "val", **options})
    assert not (tmp_path / "out").exists()


def test_sheets_tell_the_presence(shapes, use_headed, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(evaluator, "draw_sheet", lambda tiles, _: drawn.append(tiles) or Image.new("RGB", (8, 8)))
    _, samples, _ = run(tmp_path / "out", data_dir=shapes, generalized=True, splits="val", contact_sheet=30)
    known = {(s["ref_id"], s["sentence"]): s for s in samples}
    seen = set()
    for tiles in drawn:
        for truth, prediction in zip(tiles[::2], tiles[1::2], strict=True):
            ref_id = int(truth.title.split("ref ")[1].split(":")[0])
            sample = known[ref_id, truth.texts[0]]
            is_nothing = sample["presence"] < 0.5
            words = f"IoU {sample['iou']:.3f}, presence {sample['presence']:.2f}"
            assert prediction.title == words + (": nothing found" if is_nothing else "")
            assert truth.title.endswith("means nothing here") == (sample["target_kind"] == "none")
            seen.add(is_nothing)
    assert seen == {True, False}


# -------------------------------------------------------------------------------------------- sets with other scores


def test_the_configuration_is_that_of_the_name():
    names = {"refcoco": "generalized", "grefcoco": "generalized", "ref-zom": "ref_zom", "refzom": "ref_zom"}
    names |= dict.fromkeys(
        ["rrefcoco", "rrefcoco+", "rrefcocog", "R-refcoco", "R-refcoco+", "R-refcocog"], "r_refcoco"
    )
    names |= {"someone/R-RefCOCO": "r_refcoco", "fprefcocog": "r_refcoco", "Ref-ZOM": "ref_zom"}
    for name, configuration in names.items():
        assert configuration_of(name, is_generalized=True) == configuration
        assert configuration_of(name, is_generalized=False) == "default"


@pytest.mark.parametrize(("configuration", "iou"), [("generalized", 0), ("ref_zom", 1), ("r_refcoco", 1)])
def test_an_empty_mask_of_what_is_said_to_be_there_is_right_only_where_masks_decide(configuration, iou):
    no, kinds = np.array([False]), np.array(["none"])
    tally = Tally(configuration, np.zeros((1, 3), np.int64), no, np.array([0.9]), kinds, np.array([1]))
    assert tally.ious().tolist() == [iou]
    assert tally.scores()[{"generalized": "n_acc", "ref_zom": "acc", "r_refcoco": "mrr"}[configuration]] == iou


def exported(shapes, folder, name: str) -> str:
    """The generalised scenes as Parquet under this name; each picture is one ref, as sets with false sentences are."""
    data = load_refer("shapes", "unc", data_dir=shapes, generalized=True)
    data = data.map(lambda row: {"ref_id": row["image_id"]})
    export_parquet(data, folder / name, title=name)
    return str(folder / name)


@pytest.mark.parametrize("has_head", [False, True])
@pytest.mark.parametrize(("name", "compute"), [("ref-zom", ref_zom_iou), ("rrefcoco+", r_refcoco_iou)])
def test_sets_with_scores_of_their_own_get_them(shapes, headed, tmp_path, monkeypatch, name, compute, has_head):
    if has_head:
        monkeypatch.setattr(evaluate_command, "load_model", lambda *_: headed)
    dataset = exported(shapes, tmp_path, name)
    found, samples, report = run(tmp_path / "out", dataset=dataset, splits="val")
    counts = counts_of(samples)
    is_nothing = [sample["presence"] < 0.5 for sample in samples] if has_head else counts[:, 1] == 0
    flags = {"nothing_found": is_nothing, "nothing_meant": [sample["target_kind"] == "none" for sample in samples]}
    if name != "ref-zom":
        flags["ref_ids"] = [sample["ref_id"] for sample in samples]
        assert len(set(flags["ref_ids"])) < len(samples) / 4
    assert found["splits"]["val"]["scores"] == compute(*counts.T, **flags)
    assert found["metric"] == ("ref_zom" if name == "ref-zom" else "r_refcoco")
    blanked = np.where(is_nothing, 0, counts[:, 0]) / np.maximum(np.where(is_nothing, counts[:, 2], counts[:, 1]), 1)
    for sample, iou in zip(samples, blanked):
        if sample["target_kind"] != "none":
            assert sample["iou"] == iou
    titles = "mRR" if name != "ref-zom" else "Acc"
    assert f"| {titles} " in report or f" {titles} |" in report


def test_published_figures_stand_beside_a_split_of_their_counts(tmp_path, monkeypatch):
    refer = TinyRefer()
    refer.add_generalized()
    data_dir = refer.write(tmp_path / "data", dataset="grefcoco")
    counts = {"val": SplitCount(None, 1, 1)}
    monkeypatch.setattr(results, "PUBLISHED_COUNTS", {("grefcoco", "unc"): counts})
    options = {"data_dir": data_dir, "dataset": "grefcoco", "splits": "val"}
    found, _, report = run(tmp_path / "beside", **options)
    published = {line["model"]: line for line in found["splits"]["val"]["published"]}
    assert published["ReLA (CVPR 2023)"]["scores"] == {"giou": 0.636, "ciou": 0.6242, "n_acc": 0.564, "t_acc": 0.963}
    assert published["ReLA (CVPR 2023)"]["protocol"] == "rela"
    assert "n_acc" not in published["InstanceVG (2025)"]["scores"]
    (line,) = [line for line in report.splitlines() if "DeRIS-L" in line and line.startswith("|")]
    assert [cell.strip() for cell in line.split("|")][3:8] == ["its own", "77.67", "72.00", "82.22", "–"]
    counts["val"].sentences = 2
    found, _, _ = run(tmp_path / "not", **options)
    assert found["splits"]["val"]["published"] == []


def test_figures_of_a_plain_set_do_not_stand_beside_a_generalised_one(tmp_path, monkeypatch):
    refer = TinyRefer()
    refer.add_generalized()
    data_dir = refer.write(tmp_path / "data")
    monkeypatch.setattr(results, "PUBLISHED_COUNTS", {("refcoco", "unc"): {"val": SplitCount(1, 1, 1)}})
    found, _, _ = run(tmp_path / "out", data_dir=data_dir, generalized=True, splits="val")
    assert found["splits"]["val"]["published"] == []
