# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The scores are right, the same for any number of processes, and those of every kind of data."""

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evaluation_runs import MODEL, THRESHOLDS, make_sample, run, true_masks
from PIL import Image
from refer_fixture import TinyRefer
from tiny import SEGMENTATION_CASES, golden_inputs, golden_model, golden_tensors

from remamber_hf.cli.evaluate import evaluate
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.export import export_parquet
from remamber_hf.data.refer import load_refer, read_refs
from remamber_hf.evaluation.evaluator import Evaluator, Found, make_batches
from remamber_hf.evaluation.protocols import Protocol
from remamber_hf.inference.loading import load_model
from remamber_hf.synthetic.compose import compose
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.trainer import ReferringSegmentationTrainer


@pytest.fixture(scope="module", params=["bilinear", "nearest"])
def finished(request, tmp_path_factory, data_dir):
    """How logits were resized, and the output folder of a run over all splits but train."""
    output_dir = tmp_path_factory.mktemp("run") / request.param
    return request.param, output_dir, *run(output_dir, data_dir=data_dir, resize=request.param, batch_size=5)


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
    evaluator = Evaluator(golden_model(case), model_and_processor[1], protocol=Protocol(resize=resize))
    logits = golden_tensors(case)["logits"][:, 0].numpy()
    sizes = [(150, 130), (97, 201)]  # (height, width)
    for (mask, presence), published, size in zip(evaluator.predict(golden_inputs(case), sizes), logits, sizes):
        assert presence is None
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
        "remamber_hf",
        "evaluate",
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
    typed = json.loads((tmp_path / "several" / "results.json").read_text())["command"]
    assert typed == shlex.join(["remamber", "evaluate", *map(str, command[8:])])
    for name in names:
        written = (tmp_path / "several" / name).read_bytes()
        written = written.replace(json.dumps(typed).encode(), b"null")  # `run` types no command
        assert (tmp_path / "one" / name).read_bytes() == written, name


def test_batches_hold_every_sample_once_and_keep_pictures_together():
    pictures = [0, 1, 1, 0, 2, 2, 2, 2, 2, 2, 3, 1]
    samples = [make_sample(index, str(picture)) for index, picture in enumerate(pictures)]
    batches = make_batches(samples, 4)
    assert sorted(index for batch in batches for index in batch) == list(range(len(pictures)))
    assert max(map(len, batches)) == 4
    # Six sentences of one picture fill a batch and begin the next.
    assert [[pictures[index] for index in batch] for batch in batches] == [[0, 0], [1, 1, 1], [2] * 4, [2, 2, 3]]


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


def test_sentences_about_named_things_have_kinds_synonyms_apart(tmp_path):
    """Read by the split's own categories; a set in which one sentence in ten and more is other people's has none."""
    (tmp_path / "cutouts").mkdir()
    for noun, colour in {"dog": "red", "fork and knife": "blue", "four leaf clover": "green"}.items():
        picture = Image.new("RGBA", (60, 60))
        picture.paste(colour, (5, 10, 55, 50))
        picture.save(tmp_path / "cutouts" / f"{noun}.png")
    compose(tmp_path / "data", 60, 0, tmp_path / "cutouts", image_size=64, num_workers=1, progress=False)
    results, samples, report = run(tmp_path / "out", data_dir=tmp_path / "data", splits="train")
    kinds = {sample["sentence"]: sample["kind"] for sample in samples}
    patterns = {
        "order": "(1st|first|2nd|second) .* from the",
        "size": "largest|biggest|smallest",
        "name": "^(the )?(dog|fork and knife)$",
    }
    for kind, pattern in patterns.items():
        found = {each for sentence, each in kinds.items() if re.search(pattern, sentence)}
        assert found == {kind}, kind
    assert set(kinds.values()) == {"relation", "order", "position", "size", "name"} and "By kind" in report
    written = tmp_path / "data/things/refs(unc).p"
    refs = pickle.loads(written.read_bytes())
    for share, is_read in ((20, True), (5, False)):
        for ref in refs[::share]:
            for sentence in ref["sentences"]:
                sentence["sent"] = sentence["raw"] = "guy in a blue coat"
        written.write_bytes(pickle.dumps(refs, 2))
        results, samples, _ = run(tmp_path / f"out{share}", data_dir=tmp_path / "data", splits="train")
        assert {sample["kind"] for sample in samples if sample["sentence"] == "guy in a blue coat"} == {None}
        assert bool(results["splits"]["train"]["kinds"]) == is_read


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
        return [Found(np.zeros(size, dtype=bool)) for size in sizes]

    monkeypatch.setattr(Evaluator, "predict", predict)
    evaluate(str(tmp_path / "model"), data_dir=data_dir, splits="val", num_workers=0, max_samples=1)
    assert dtypes == {torch.float32}


# ------------------------------------------------------------------------------------------------------- other data
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


# -------------------------------------------------------------------------------------------------------- bad input
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
