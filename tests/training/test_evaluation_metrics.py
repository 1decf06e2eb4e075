# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Trainer's evaluation where a sentence may mean nothing, one object or many."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import runs
import torch

from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask, target_kind
from remamber_hf.inference.loading import BUNDLED_MODEL, load_model
from remamber_hf.losses_remamber import presence_loss, segmentation_loss
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training import callbacks
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.callbacks import choose_samples, draw_predictions
from remamber_hf.training.evaluation_metrics import GENERALIZED_METRICS, METRICS, metrics_of
from remamber_hf.training.trainer import ReferringSegmentationTrainer


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Sentences of one set, by whether they may mean nothing or many."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(folder, 120, 4, num_workers=1, progress=False, no_target=True, many=True)
    return {
        kind: load_refer("shapes", "unc", "val", data_dir=folder, generalized=kind == "grefs", expand_sentences=True)
        for kind in ("refs", "grefs")
    }


@pytest.fixture(scope="module")
def headed(shapes):
    """The bundled model with a presence head that says this and that, and its processor."""
    model, processor = load_model(BUNDLED_MODEL, "cpu", "float32", predicts_presence=True)
    torch.manual_seed(0)
    head = model.presence_head
    for weight in (head.out_proj.weight, head.map_proj.weight):
        torch.nn.init.normal_(weight, std=0.2)
    with torch.no_grad():
        rows = [*shapes["grefs"], *shapes["refs"]]
        said = torch.cat([model(**inputs).presence_logits for inputs in prepared(rows, processor)]).sort().values
        middle = said[len(said) // 4 : -len(said) // 4]
        gap = int(middle.diff().argmax())  # no logit is so near to 0 that the size of a batch moves it across
        head.out_proj.bias -= middle[gap : gap + 2].mean()
    return model, processor


def prepared(rows, processor):
    return [processor(images=row["image"], text=row["sentences"], return_tensors="pt") for row in rows]


def make_trainer(model, processor, tmp_path, eval_dataset, **arguments):
    return ReferringSegmentationTrainer(
        model=model,
        args=ReMamberTrainingArguments(output_dir=str(tmp_path), **{**runs.ARGUMENTS, **arguments}),
        eval_dataset=eval_dataset,
        processing_class=processor,
    )


def look(model, processor, rows) -> list[SimpleNamespace]:
    """What the model says of each row, one after the other, and the truth; masks as they came."""
    found = []
    for row in rows:
        truth = row_mask(row)
        inputs = processor(images=row["image"], text=row["sentences"], segmentation_maps=[truth], return_tensors="pt")
        labels = inputs.pop("labels")
        with torch.no_grad():
            outputs = model.eval()(**inputs)
        mask = torch.nn.functional.interpolate(outputs.logits, truth.shape, mode="bilinear")[0, 0].numpy() > 0
        loss = segmentation_loss(outputs.logits, labels).item()
        is_nothing = not mask.any()
        if outputs.presence_logits is not None:
            is_present = torch.tensor([target_kind(row) != "none"])
            weight = model.config.presence_loss_weight
            loss += weight * presence_loss(outputs.presence_logits, labels, is_present).item()
            is_nothing = bool(outputs.presence_logits < 0)
        pixels = (int((mask & truth).sum()), int((mask | truth).sum()))
        found.append(SimpleNamespace(kind=target_kind(row), nothing=is_nothing, pixels=pixels, truth=truth, loss=loss))
    return found


def expected_scores(samples) -> dict[str, float]:
    """The rules of gRefCOCO's evaluator, sample by sample."""
    intersections = unions = 0
    ious = {"none": [], "one": [], "many": []}
    right = {True: [], False: []}  # by whether the sentence means nothing
    for sample in samples:
        is_none = sample.kind == "none"
        right[is_none].append(sample.nothing == is_none)
        if is_none:
            ious["none"].append(float(sample.nothing))
            unions += 0 if sample.nothing else sample.pixels[1]
        elif sample.nothing:
            ious[sample.kind].append(0.0)
            unions += sample.pixels[1]
        else:
            ious[sample.kind].append(sample.pixels[0] / sample.pixels[1])
            intersections += sample.pixels[0]
            unions += sample.pixels[1]
    of_targets = np.array(ious["one"] + ious["many"])
    return {
        "giou": np.mean(sum(ious.values(), [])),
        "ciou": intersections / unions,
        "n_acc": np.mean(right[True]),
        "t_acc": np.mean(right[False]),
        **{f"target_precision@{x}": np.mean(of_targets >= x) for x in (0.7, 0.8, 0.9)},
        **{f"giou_{kind}": np.mean(values) for kind, values in ious.items()},
        "loss": np.mean([sample.loss for sample in samples]),
    }


def scores_of(metrics: dict, prefix: str = "eval_") -> dict[str, float]:
    others = ("runtime", "per_second", "_time", "epoch")
    return {name.removeprefix(prefix): value for name, value in metrics.items() if not name.endswith(others)}


def test_scores_are_those_of_the_presence_and_of_masks_as_they_came(shapes, headed, tmp_path):
    samples = look(*headed, shapes["grefs"])
    assert {(sample.kind, sample.nothing) for sample in samples} == {
        (kind, nothing) for kind in ("none", "one", "many") for nothing in (True, False)
    }
    assert any(sample.pixels[0] for sample in samples if sample.nothing)  # which blanking would take out of the union
    metrics = make_trainer(*headed, tmp_path, shapes["grefs"], per_device_eval_batch_size=5).evaluate()
    expected = expected_scores(samples)
    assert scores_of(metrics) == pytest.approx(expected, rel=1e-5)
    assert tuple(sorted(expected)) == tuple(sorted(GENERALIZED_METRICS))
    assert metrics["eval_giou_none"] == metrics["eval_n_acc"]


def test_sets_of_one_object_keep_their_metrics_and_count_masks_as_a_user_gets_them(shapes, headed, tmp_path):
    samples = look(*headed, shapes["refs"])
    assert 0 < sum(sample.nothing for sample in samples) < len(samples)
    pixels = np.array([(0, sample.truth.sum()) if sample.nothing else sample.pixels for sample in samples])
    metrics = scores_of(make_trainer(*headed, tmp_path, shapes["refs"]).evaluate())
    assert tuple(sorted(metrics)) == tuple(sorted(METRICS))
    assert metrics["miou"] == pytest.approx(np.mean(pixels[:, 0] / pixels[:, 1]))
    assert metrics["oiou"] == pytest.approx(pixels[:, 0].sum() / pixels[:, 1].sum())
    assert metrics["loss"] == pytest.approx(np.mean([sample.loss for sample in samples]), rel=1e-5)


def test_without_a_head_nothing_is_found_where_the_mask_has_no_pixel(shapes, tmp_path):
    model, processor = load_model(BUNDLED_MODEL, "cpu", "float32")
    rows = shapes["grefs"].select(range(24))
    metrics = make_trainer(model, processor, tmp_path, rows).evaluate()
    assert scores_of(metrics) == pytest.approx(expected_scores(look(model, processor, rows)), rel=1e-5)
    with torch.no_grad():
        model.mask_head.classifier.bias.fill_(-1e4)
    metrics = make_trainer(model, processor, tmp_path, rows).evaluate()
    assert (metrics["eval_n_acc"], metrics["eval_t_acc"], metrics["eval_ciou"]) == (1, 0, 0)
    assert metrics["eval_giou"] == np.mean([target_kind(row) == "none" for row in rows])


def test_a_presence_that_is_not_finite_finds_something_and_does_not_end_the_evaluation(shapes, tmp_path):
    model, processor = load_model(BUNDLED_MODEL, "cpu", "float32", predicts_presence=True)
    with torch.no_grad():
        model.presence_head.out_proj.bias.fill_(math.nan)
    metrics = make_trainer(model, processor, tmp_path, shapes["grefs"].select(range(24))).evaluate()
    assert metrics["eval_n_acc"] == 0 and metrics["eval_t_acc"] == 1 and math.isnan(metrics["eval_loss"])


def test_both_kinds_of_sets_are_evaluated_side_by_side_with_averages_and_name_the_best_model(shapes, headed, tmp_path):
    rows = {name: data.select(range(12)) for name, data in shapes.items()}
    arguments = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    trainer = ReferringSegmentationTrainer(
        model=load_model(BUNDLED_MODEL, "cpu", "float32", predicts_presence=True)[0],
        args=ReMamberTrainingArguments(
            output_dir=str(tmp_path),
            **{**runs.ARGUMENTS, **arguments},
            ema_decay=0.5,
            load_best_model_at_end=True,
            metric_for_best_model="grefs_ema_giou",
        ),
        train_dataset=rows["grefs"],
        eval_dataset=rows,
        processing_class=headed[1],
    )
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    for weights in ("", "ema_"):
        assert {f"eval_refs_{weights}{name}" for name in METRICS} <= logged.keys()
        assert {f"eval_grefs_{weights}{name}" for name in metrics_of(rows["grefs"])} <= logged.keys()
        assert f"eval_refs_{weights}giou" not in logged and f"eval_grefs_{weights}miou" not in logged
    assert trainer.state.best_metric == logged["eval_grefs_ema_giou"]


def test_a_score_without_a_sample_is_left_out_and_names_no_best_model(shapes, headed, tmp_path):
    kinds = [target_kind(row) for row in shapes["grefs"]]
    rows = shapes["grefs"].select([index for index, kind in enumerate(kinds) if kind != "one"][:8])
    expected = set(GENERALIZED_METRICS) - {"giou_one"}
    assert set(metrics_of(rows)) == set(metrics_of(list(rows))) == expected
    assert scores_of(make_trainer(*headed, tmp_path, rows).evaluate()).keys() == expected
    ones = shapes["grefs"].select([index for index, kind in enumerate(kinds) if kind == "one"][:2])
    without = set(GENERALIZED_METRICS) - {"n_acc", "giou_none", "giou_many"}
    assert scores_of(make_trainer(*headed, tmp_path, ones).evaluate()).keys() == set(metrics_of(ones)) == without
    both = [*(row for row in shapes["refs"].select(range(2))), *rows.select(range(2))]
    assert scores_of(make_trainer(*headed, tmp_path, both).evaluate()).keys() == set(metrics_of(both))
    arguments = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    make_trainer(*headed, tmp_path, rows, **arguments, metric_for_best_model="giou_many")
    for metric in ("giou_one", "miou"):
        with pytest.raises(ValueError, match=f"is '{metric}', which evaluation does not give; .* loss, giou, ciou"):
            make_trainer(*headed, tmp_path, rows, **arguments, metric_for_best_model=metric)


def test_samples_of_both_kinds_of_sets_are_drawn_with_what_the_head_says(shapes, headed, monkeypatch):
    tiles = []
    monkeypatch.setattr(callbacks, "draw_sheet", lambda samples, columns: tiles.extend(samples))
    kinds = [target_kind(row) for row in shapes["grefs"]]
    grefs = shapes["grefs"].select([index for index, kind in enumerate(kinds) if kind != "one"])
    chosen = choose_samples([shapes["refs"], grefs], 16)
    assert [len(np.atleast_1d(row["ann_id"])) == 1 for row in chosen] == [True] * 8 + [False] * 8
    draw_predictions(*headed, chosen)
    for row, sample, truth, found in zip(chosen, look(*headed, chosen), tiles[::2], tiles[1::2], strict=True):
        is_none = sample.kind == "none"
        assert truth.title == f"truth, val, ref {row['ref_id']}" + (": means nothing here" if is_none else "")
        iou = float(sample.nothing) if is_none else 0.0 if sample.nothing else sample.pixels[0] / sample.pixels[1]
        assert found.title.startswith(f"prediction, IoU {iou:.2f}, presence ")
        assert (float(found.title.rsplit(" ", 1)[1]) < 0.5) == sample.nothing
        assert not (sample.nothing and found.mask.any())
