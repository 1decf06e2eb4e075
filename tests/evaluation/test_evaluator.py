# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber evaluate`: the scores are right, the same for any number of processes, and bad input is one line."""

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from refer_fixture import TinyRefer, rectangle
from tiny import SEGMENTATION_CASES, golden_inputs, golden_model, golden_tensors

from remamber_hf.cli import evaluate as evaluate_command
from remamber_hf.cli import main as cli
from remamber_hf.cli.evaluate import evaluate
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.export import export_parquet
from remamber_hf.data.published import PUBLISHED_COUNTS, SplitCount
from remamber_hf.data.refer import load_refer, read_refs
from remamber_hf.evaluation import evaluator, protocols, results
from remamber_hf.evaluation.evaluator import Evaluator, Sample, make_batches
from remamber_hf.evaluation.published import PUBLISHED_RESULTS
from remamber_hf.evaluation.referring_iou.scores import generalized_iou, sample_ious
from remamber_hf.inference.loading import BUNDLED_MODEL, load_model
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


MODEL = str(BUNDLED_MODEL)
PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that torchrun starts: the number of threads can change the last digit of a logit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(folder, 40, 5, num_workers=1, progress=False, no_target=True)
    return folder


@pytest.fixture(scope="module", autouse=True)
def model_and_processor():
    """The bundled model, which the command then does not load again for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_command, "load_model", cache(load_model))
        yield evaluate_command.load_model(MODEL, "cpu", "float32")


def run(output_dir, **options) -> tuple[dict, list[dict], str]:
    """Evaluate the bundled model: results.json, rows of samples.parquet, results.md."""
    evaluate(MODEL, output_dir=output_dir, **{"num_workers": 0, "contact_sheet": 0, **options})
    results = json.loads((output_dir / "results.json").read_text())
    return results, pq.read_table(output_dir / "samples.parquet").to_pylist(), (output_dir / "results.md").read_text()


@pytest.fixture(scope="module", params=["bilinear", "nearest"])
def finished(request, tmp_path_factory, data_dir):
    """How logits were resized, and the output folder of a run over all splits but train."""
    output_dir = tmp_path_factory.mktemp("run") / request.param
    return request.param, output_dir, *run(output_dir, data_dir=data_dir, resize=request.param, batch_size=5)


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


def test_raw_sentences_are_scored_and_named_where_they_are_asked_for(data_dir, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("images", "shapes"):
        shutil.copytree(data_dir / name, tmp_path / "data" / name)
    path = tmp_path / "data" / "shapes" / "refs(unc).p"
    refs = read_refs(path)
    for ref in refs:
        for sentence in ref["sentences"]:
            sentence["raw"] = f"The {sentence['sent']}."
    path.write_bytes(pickle.dumps(refs))
    options = {"data_dir": tmp_path / "data", "splits": "val", "max_samples": 2}
    for sentences in ("sent", "raw"):
        results, samples, _ = run(tmp_path / sentences, **options, sentences=sentences)
        assert results["sentences"] == sentences
        assert all(sample["sentence"].endswith(".") == (sentences == "raw") for sample in samples)


def resize_independently(logits: np.ndarray, size: tuple[int, int], resize: str) -> np.ndarray:
    """Logits (height, width) at another `size` (height, width), not smaller, without PyTorch."""
    if resize == "bilinear":
        return np.asarray(Image.fromarray(logits).resize(size[::-1], Image.Resampling.BILINEAR))
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, logits.shape))
    return logits[rows][:, columns]


# ----------------------------------------------------------------------------------------------------------- scores
def test_samples_and_scores_equal_an_independent_computation_from_full_masks(finished, data_dir, model_and_processor):
    resize, _, results, samples, _ = finished
    model, processor = model_and_processor
    truths = true_masks(data_dir)
    refs = read_refs(data_dir / "shapes" / "refs(unc).p")
    expected = {}
    for ref in refs:
        if ref["split"] == "train":
            continue
        name = f"shapes_{ref['image_id']:012d}.jpg"
        picture = Image.open(data_dir / "images/mscoco/images/train2014" / name)
        for sentence in ref["sentences"]:
            with torch.no_grad():
                logits = model(**processor(images=picture, text=sentence["sent"], return_tensors="pt")).logits
            found = 1 / (1 + np.exp(-resize_independently(logits[0, 0].numpy(), (128, 128), resize))) > 0.5
            truth = truths[ref["ref_id"]]
            counts = [(found & truth).sum(), (found | truth).sum(), truth.sum()]
            expected.setdefault(ref["split"], []).append((ref["ref_id"], name, sentence["sent"], *map(int, counts)))
    assert list(results["splits"]) == list(expected) == ["val", "testA", "testB"]
    for split, rows in expected.items():
        columns = ("ref_id", "image_file", "sentence", "intersection", "union", "true_area")
        assert [tuple(sample[name] for name in columns) for sample in samples if sample["split"] == split] == rows
        intersections, unions = np.array([row[3:5] for row in rows]).T
        ious = intersections / unions
        assert results["splits"][split]["scores"] == pytest.approx(
            {
                "miou": ious.mean(),
                "oiou": intersections.sum() / unions.sum(),
                **{f"precision@{threshold}": (ious >= threshold).mean() for threshold in THRESHOLDS},
            },
            abs=1e-12,
        )
        assert results["splits"][split]["num_sentences"] == len(rows)
    assert 0.3 < np.mean([sample["iou"] for sample in samples]) < 0.99


def test_scores_are_those_of_the_trainer(finished, data_dir, model_and_processor, tmp_path):
    resize, _, results, _, _ = finished
    if resize != "bilinear":
        return
    model, processor = model_and_processor
    arguments = ReMamberTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, per_device_eval_batch_size=3
    )
    trainer = ReferringSegmentationTrainer(
        model=model, args=arguments, data_collator=ReMamberCollator(processor), processing_class=processor
    )
    for split in ("val", "testA"):
        rows = load_refer("shapes", "unc", split, data_dir=data_dir, expand_sentences=True)
        metrics = trainer.evaluate(rows)
        scores = {f"eval_{name}": value for name, value in results["splits"][split]["scores"].items()}
        assert {name: metrics[name] for name in scores} == scores


@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
@pytest.mark.parametrize("case", SEGMENTATION_CASES)
def test_masks_of_the_reference_cases_are_those_of_the_published_logits(case, resize, model_and_processor):
    evaluator = Evaluator(golden_model(case), model_and_processor[1], resize)
    logits = golden_tensors(case)["logits"][:, 0].numpy()
    sizes = [(150, 130), (97, 201)]  # (height, width)
    for mask, published, size in zip(evaluator.predict(golden_inputs(case), sizes), logits, sizes):
        resized = resize_independently(published, size, resize)
        sure = np.abs(resized) > 1e-4
        assert mask.shape == size and sure.mean() > 0.99 and len(np.unique(mask)) == 2
        assert np.array_equal(mask[sure], (resized > 0)[sure])


@pytest.mark.parametrize("num_processes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_several_processes_write_the_very_same_files(num_processes, data_dir, tmp_path):
    options = ["--data_dir", data_dir, "--splits", "val,testA", "--batch_size", 4, "--contact_sheet", 2]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", num_processes]
    command += [
        "-m",
        "remamber_hf.evaluation.evaluator",
        MODEL,
        *options,
        "--num_workers",
        0,
        "--output_dir",
        "several",
    ]
    process = subprocess.run([str(word) for word in command], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    results, _, report = run(tmp_path / "one", data_dir=data_dir, splits="val,testA", batch_size=4, contact_sheet=2)
    assert report in process.stdout and process.stdout.count("this model") == report.count("this model")
    assert results["splits"]["testA"]["num_sentences"] % num_processes != 0  # so the shares are not equal
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 7 and names == sorted(path.name for path in (tmp_path / "several").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "several" / name).read_bytes(), name


def test_batches_hold_every_sample_once_and_keep_pictures_together():
    pictures = [0, 1, 1, 0, 2, 2, 2, 2, 2, 2, 3, 1]
    samples = [Sample(index, index, str(picture), None, "text") for index, picture in enumerate(pictures)]
    batches = make_batches(samples, 4)
    assert sorted(index for batch in batches for index in batch) == list(range(len(pictures)))
    assert max(map(len, batches)) == 4
    # Six sentences of one picture fill a batch and begin the next.
    assert [[pictures[index] for index in batch] for batch in batches] == [[0, 0], [1, 1, 1], [2] * 4, [2, 2, 3]]


def test_an_empty_union_counts_0_but_1_where_nothing_was_meant():
    assert sample_ious([0, 2], [0, 4]).tolist() == [0, 0.5]
    assert sample_ious([0, 0, 2], [0, 3, 4], [0, 0, 3]).tolist() == [1, 0, 0.5]


def test_kinds_of_expressions_add_up_and_other_expressions_have_none(finished, tmp_path):
    _, _, results, samples, report = finished
    for split, result in results["splits"].items():
        assert sum(part["num_sentences"] for part in result["kinds"].values()) == result["num_sentences"]
        for kind, part in result["kinds"].items():
            ious = [sample["iou"] for sample in samples if (sample["split"], sample["kind"]) == (split, kind)]
            assert part["num_sentences"] == len(ious)
            assert part["scores"]["miou"] == pytest.approx(np.mean(ious))
    assert "## By kind of expression" in report
    results, samples, report = run(tmp_path / "out", data_dir=TinyRefer().write(tmp_path / "tiny"), splits="val")
    assert results["splits"]["val"]["kinds"] == {} and {sample["kind"] for sample in samples} == {None}
    assert "kind" not in report


def test_generalised_splits_get_their_own_scores(data_dir, tmp_path, monkeypatch):
    predict = Evaluator.predict

    def find_every_second(self, inputs, sizes):
        return [mask & bool(index % 2) for index, mask in enumerate(predict(self, inputs, sizes))]

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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_scores_nearly_the_same(dtype, data_dir, tmp_path):
    results, _, _ = run(tmp_path / "half", data_dir=data_dir, splits="val", dtype=dtype)
    exact, _, _ = run(tmp_path / "exact", data_dir=data_dir, splits="val")
    half, whole = (part["splits"]["val"]["scores"]["miou"] for part in (results, exact))
    assert half != whole and half == pytest.approx(whole, abs=0.05)


def test_a_model_that_was_saved_in_half_precision_is_scored_in_float32(data_dir, tmp_path, monkeypatch):
    model, processor = load_model(MODEL, "cpu", "bfloat16")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    dtypes = set()

    def predict(self, inputs, sizes):
        dtypes.update(parameter.dtype for parameter in self.model.parameters())
        return [np.zeros(size, dtype=bool) for size in sizes]

    monkeypatch.setattr(Evaluator, "predict", predict)
    evaluate(str(tmp_path / "model"), data_dir=data_dir, splits="val", num_workers=0, max_samples=1)
    assert dtypes == {torch.float32}


# ------------------------------------------------------------------------------------------------------- other data
def overlapping_refer(folder) -> Path:
    """A tiny RefCOCO whose val object is two polygons that overlap in 5 × 4 pixels."""
    refer = TinyRefer()
    refer.annotations[3]["segmentation"] = [rectangle(10, 10, 20, 20), rectangle(15, 16, 30, 20)]
    return refer.write(folder)


def count_as_published(monkeypatch):
    """Have a tiny RefCOCO as many refs, pictures and sentences as the published one."""
    counts = {split: SplitCount(1, 1, 2) for split in ("val", "testA", "testB")}
    monkeypatch.setattr(results, "PUBLISHED_COUNTS", {("refcoco", "unc"): counts})


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
        "dtype": "float32",
        "image_backend": "PIL",
    }
    assert [sample["true_area"] for sample in samples if sample["split"] == "val"] == [
        10 * 10 + 15 * 4 - 2 * 5 * 4
    ] * 2
    assert list(results["splits"]) == ["val", "testA", "testB"]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in report.splitlines() if "(" in line[:30]]
    assert [line[:5] for line in table if line[0] == "testA"] == [
        ["testA", "ReMamber (ECCV 2024)", "published", "76.74", "–"],
        ["testA", "LAVT (CVPR 2022)", "lavt", "75.82", "76.89"],
    ]


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
    ious = intersections / (unions + (1e-6 if protocol == "cris" else 0))
    scores = results["splits"]["val"]["scores"]
    assert scores["miou"] == pytest.approx(ious.mean(), abs=1e-14)
    assert scores["oiou"] == pytest.approx(intersections.sum() / unions.sum(), abs=1e-14)
    assert results["protocol"]["name"] == protocol and f"protocol: {protocol}" in report


def test_the_protocol_of_cris_counts_what_is_above_a_threshold_and_not_what_equals_it():
    counts = np.array([[1, 2, 1], [7, 10, 8], [9, 10, 9], [0, 0, 0], [3, 3, 3]])
    plain = results.score(counts, False)
    cris = results.score(counts, False, protocols.PROTOCOLS["cris"])
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


def test_published_figures_stand_only_beside_as_many_refs_pictures_and_sentences(tmp_path):
    _, _, report = run(tmp_path / "out", data_dir=TinyRefer().write(tmp_path / "data"), protocol="published")
    assert "ECCV" not in report and "CVPR" not in report


def test_nearest_and_the_published_protocol_give_the_same_scores(tmp_path):
    data_dir = overlapping_refer(tmp_path / "data")
    published, nearest = (
        run(tmp_path / name, data_dir=data_dir, **{name: value})[1]
        for name, value in (("protocol", "published"), ("resize", "nearest"))
    )
    assert published == nearest


def test_published_figures_are_left_out_beside_a_part_of_a_split(tmp_path, monkeypatch):
    count_as_published(monkeypatch)
    data_dir = overlapping_refer(tmp_path / "data")
    results, samples, report = run(tmp_path / "out", data_dir=data_dir, dataset="refcoco", max_samples=1)
    assert len(samples) == 3 and "LAVT" not in report
    assert "only the first 1 sentences of each split" in report


def test_published_figures_belong_to_published_splits():
    for name, splits in PUBLISHED_RESULTS.items():
        assert splits.keys() == PUBLISHED_COUNTS[name].keys() - {"train"}
        assert all(
            0 < score < 1 for results in splits.values() for result in results for score in result.scores.values()
        )


def test_parquet_and_an_own_folder_score_as_their_source(finished, data_dir, tmp_path):
    resize, _, results, _, _ = finished
    export_parquet(load_refer("shapes", "unc", data_dir=data_dir), tmp_path / "exported", title="shapes")
    exported, _, _ = run(
        tmp_path / "a", dataset=str(tmp_path / "exported"), splits="val,testA", resize=resize, batch_size=5
    )
    lines = []
    for row in load_refer("shapes", "unc", "val", data_dir=data_dir):
        name = f"{row['image_id']}.png"
        (tmp_path / "own").mkdir(exist_ok=True)
        row["image"].save(tmp_path / "own" / name)
        parts = row["segmentation"][0]
        mask = (
            {"rle": {"size": [128, 128], "counts": parts["rles"][0]}}
            if parts["rles"]
            else {"polygon": parts["polygons"]}
        )
        lines.append(json.dumps({"file_name": name, "expression": row["sentences"], "split": "test", **mask}))
    (tmp_path / "own" / "metadata.jsonl").write_text("\n".join(lines))
    own, _, _ = run(tmp_path / "b", data_dir=tmp_path / "own", resize=resize, batch_size=5)
    for part, split, source in ((exported, "val", "val"), (exported, "testA", "testA"), (own, "test", "val")):
        assert part["splits"][split] == results["splits"][source]


def test_pictures_with_the_same_id_in_data_sets_put_together_are_told_apart(data_dir, tmp_path):
    synthesize(tmp_path / "other", 20, seed=99, num_workers=1, progress=False)
    rows, samples = [], []
    for name, folder in (("one", data_dir), ("two", tmp_path / "other")):
        export_parquet(load_refer("shapes", "unc", data_dir=folder), tmp_path / name, title=name)
        (file,) = (tmp_path / name / "data").glob("val-*.parquet")
        rows.append(pq.read_table(file))
        samples += run(tmp_path / f"{name} alone", dataset=str(tmp_path / name), splits="val", batch_size=5)[1]
    both = tmp_path / "both" / "data" / "val-00000.parquet"
    both.parent.mkdir(parents=True)
    pq.write_table(pa.concat_tables(rows), both)
    both_set = str(tmp_path / "both")
    results, together, _ = run(tmp_path / "together", dataset=both_set, splits="validation", batch_size=5)
    pictures = sum(len(set(table["image_id"].to_pylist())) for table in rows)
    assert results["splits"]["validation"]["num_pictures"] == pictures
    assert [sample["intersection"] for sample in together] == [sample["intersection"] for sample in samples]


# ----------------------------------------------------------------------------------------------------------- output
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
    table = datasets.Dataset.from_dict({"ann_id": [row // 2 for row in range(40)]})  # two refs of each object
    samples = [Sample(row, row, f"{row // 4}.jpg", None, text) for row in range(40) for text in ("a", "b")]
    split = evaluator.Split("val", table, samples, [])
    chosen = results.choose_for_sheet(split, np.zeros(80), 8)
    assert len({samples[index].row // 2 for index in chosen}) == 8 and max(chosen) > 20
    assert chosen == results.choose_for_sheet(split, np.zeros(80), 8)
    assert len(results.choose_for_sheet(split, np.zeros(80), 100)) == 20


def test_a_failure_while_writing_leaves_nothing(data_dir, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="no space"):
        run(tmp_path / "out", data_dir=data_dir, splits="val", max_samples=1)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- bad input
@pytest.fixture
def remamber(tmp_path, monkeypatch, capfd):
    """Calls `remamber evaluate` in `tmp_path`: exit status, standard output, the one line that says what is wrong."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["remamber", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output, error = capfd.readouterr()
        assert "Traceback" not in error and error.count("remamber: error: ") == 1
        last = error.splitlines()[-1]  # after the progress of `datasets`
        assert last.startswith("remamber: error: ")
        return stop.value.code, output, last

    return call


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data_dir", "data", "--dataset", "refcocoo"], "--dataset refcocoo is not in data, which holds refcoco."),
        (
            ["--data_dir", "data", "--dataset", "refcoco", "--split_by", "umd"],
            "refcoco in data is split by unc; choose",
        ),
        (["--data_dir", "data", "--splits", "val,testC"], "no split 'testC'; choose --splits from train, val, testA"),
        (["--data_dir", "nowhere"], "nowhere is no folder"),
        (["--data_dir", "empty"], "nor a REFER data set; `remamber data check --data_dir empty` says"),
        (["--dataset", "refcoco"], "--dataset refcoco is read from its files; give --data_dir"),
        ([], "no data is named; give --data_dir, --dataset"),
        (["--dataset", "nobody/nothing"], "nobody/nothing"),
        (["--dataset", "nobody/nothing", "--split_by", "unc"], "--split_by unc is for REFER sets"),
        (["--dataset", "nobody/nothing", "--generalized"], "--generalized is for REFER sets"),
        (["--dataset", "nobody/nothing", "--sentences", "raw"], "--sentences raw is for REFER sets"),
        (["--data_dir", "data", "--sentences", "tokens"], "sentences is 'tokens'; choose one of sent, raw"),
        (["--data_dir", "data", "--resize", "cubic"], "--resize is 'cubic'; choose one of bilinear, nearest"),
        (
            ["--data_dir", "data", "--protocol", "paper"],
            "--protocol is 'paper'; choose one of published, lavt, rela, cris",
        ),
        (["--data_dir", "data", "--protocol", "published", "--resize", "bilinear"], "leave out --resize bilinear"),
        (["--data_dir", "data", "--protocol", "published", "--dtype", "float16"], "leave out --dtype float16"),
        (["--data_dir", "data", "--dtype", "int8"], "--dtype is 'int8'; choose one of float32, bfloat16, float16"),
        (["--data_dir", "data", "--device", "tpu"], "'tpu' is unknown"),
        (["--data_dir", "data", "--batch_size", "0"], "--batch_size is 0; give at least 1"),
        (["--data_dir", "data", "--num_workers", "-1"], "--num_workers is -1; give at least 0"),
        (["--data_dir", "data", "--max_samples", "0"], "--max_samples is 0; give at least 1"),
        (["--data_dir", "data", "--output_dir", "data"], "data exists and is not an empty folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(remamber, tmp_path, arguments, message):
    TinyRefer().write(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    output_dir = [] if "--output_dir" in arguments else ["--output_dir", "out"]
    status, output, error = remamber(MODEL, *arguments, *output_dir)
    assert (status, output) == (2, "")
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty"]


@pytest.mark.parametrize("model", [".", "nowhere"])
def test_a_folder_without_a_model_is_one_line_and_status_2(remamber, tmp_path, model):
    status, _, error = remamber(model, "--data_dir", TinyRefer().write(tmp_path / "data"), "--output_dir", "out")
    assert status == 2 and f"{model} is no model" in error
    assert not (tmp_path / "out").exists()


def test_a_picture_that_went_missing_is_one_line_before_anything_is_computed(remamber, tmp_path, monkeypatch):
    data_dir = TinyRefer().write(tmp_path / "data")
    load_refer("refcoco", "unc", data_dir=data_dir)  # the cache remembers that all was well
    (picture,) = data_dir.glob("**/*05.jpg")
    picture.unlink()
    monkeypatch.setattr(Evaluator, "count", None)
    status, _, error = remamber(MODEL, "--data_dir", data_dir, "--output_dir", "out")
    assert status == 2 and f"the picture {picture} of split testA is missing; put it back." in error
    assert not (tmp_path / "out").exists()


def test_a_row_without_sentences_is_refused(data_dir, tmp_path):
    rows = load_refer("shapes", "unc", data_dir=data_dir)
    empty = datasets.DatasetDict({"val": rows["val"].map(lambda row: {"sentences": []})})
    export_parquet(empty, tmp_path / "exported", title="empty")
    with pytest.raises(ValueError, match="Row 0 of split val: empty expression"):
        run(tmp_path / "out", dataset=str(tmp_path / "exported"))


def test_only_a_training_split_has_to_be_named(tmp_path):
    refer = TinyRefer()
    for ref in refer.refs:
        ref["split"] = "train"
    data_dir = refer.write(tmp_path / "data")
    with pytest.raises(ValueError, match="only the split train; evaluate it with --splits train"):
        run(tmp_path / "out", data_dir=data_dir)
    results, _, _ = run(tmp_path / "out", data_dir=data_dir, splits="train", max_samples=1)
    assert list(results["splits"]) == ["train"]


def test_the_published_protocol_refuses_generalised_sets(data_dir, tmp_path):
    with pytest.raises(ValueError, match="--protocol published knows no generalised data set"):
        run(tmp_path / "out", data_dir=data_dir, generalized=True, protocol="published")


# ------------------------------------------------------------------------------------------------------------- docs
def test_the_snippets_of_the_page_run(remamber, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "remamber_hf").mkdir()
    (tmp_path / "remamber_hf" / "checkpoints").symlink_to(BUNDLED_MODEL.parent)
    snippets = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 3
    for language, code in snippets:
        if language == "python":
            exec(compile(code, str(PAGE), "exec"), {})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            monkeypatch.setattr(sys, "argv", shlex.split(line))
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code, line
    assert (tmp_path / "results" / "val_worst.png").is_file()
