# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The metric as evaluate's guide uses metrics: load, add, add_batch, compute, combine, several processes."""

import multiprocessing
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from PIL import Image
from rows import check_refused

import remamber_hf
from remamber_hf.evaluation.referring_iou.scores import (
    count_pixels,
    generalized_iou,
    r_refcoco_iou,
    ref_zom_iou,
    referring_iou,
)


MODULE = str(Path(remamber_hf.__file__).parent / "evaluation" / "referring_iou")
CONFIGURATIONS = {
    "default": referring_iou,
    "generalized": generalized_iou,
    "ref_zom": ref_zom_iou,
}
REF_IDS = [4, 4, 4, 2, 2, 9, 2]
SIZES = [(8, 12), (20, 7), (16, 16), (5, 30), (9, 9), (11, 4), (30, 5)]


def make_masks(sizes=SIZES):
    """Predictions and references, one pair of each size; of the third nothing is meant, and nothing found."""
    rng = np.random.default_rng(0)
    predictions, references = [], []
    for index, (height, width) in enumerate(sizes):
        reference = np.zeros((height, width), dtype=bool)
        reference[: height // 2, : width // 2] = True
        prediction = reference ^ (rng.random((height, width)) < index / 15)
        if index == 2:
            prediction[:] = reference[:] = False
        predictions.append(prediction)
        references.append(reference)
    return predictions, references


PREDICTIONS, REFERENCES = make_masks()
SAME_SIZE = make_masks([(9, 14)] * 5)


def scores_one_by_one(configuration="default", predictions=PREDICTIONS, references=REFERENCES):
    """The scores of pairs whose pixels are counted each by itself."""
    counts = np.array([count_pixels(*pair) for pair in zip(predictions, references)])
    if configuration == "r_refcoco":
        return r_refcoco_iou(*counts.T, REF_IDS)
    return CONFIGURATIONS[configuration](*counts.T[: 2 if configuration == "default" else 3])


@pytest.fixture
def load(tmp_path):
    return lambda *configuration, **options: evaluate.load(MODULE, *configuration, cache_dir=str(tmp_path), **options)


@pytest.fixture
def metric(load):
    return load()


def check(found, expected):
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-12)


# --------------------------------------------------------------------------------------------------------- ways to add
def add_one_by_one(metric, predictions, references):
    for prediction, reference in zip(predictions, references):
        metric.add(prediction=prediction, reference=reference)
    return metric.compute()


def add_one_by_one_in_the_plural(metric, predictions, references):
    for prediction, reference in zip(predictions, references):
        metric.add(predictions=prediction, references=reference)
    return metric.compute()


def add_in_batches(metric, predictions, references):
    for start in range(0, len(predictions), 3):
        metric.add_batch(predictions=predictions[start : start + 3], references=references[start : start + 3])
    return metric.compute()


def add_some_and_compute_with_the_rest(metric, predictions, references):
    metric.add(prediction=predictions[0], reference=references[0])
    metric.add_batch(predictions=predictions[1:4], references=references[1:4])
    return metric.compute(predictions=predictions[4:], references=references[4:])


def compute_at_once(metric, predictions, references):
    return metric.compute(predictions=predictions, references=references)


WAYS = [
    add_one_by_one,
    add_one_by_one_in_the_plural,
    add_in_batches,
    add_some_and_compute_with_the_rest,
    compute_at_once,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_ragged_masks_that_come_in_any_way_give_the_loops_scores(load, configuration, way):
    metric = load(configuration)
    for _ in range(2):  # a second epoch starts anew
        check(way(metric, PREDICTIONS, REFERENCES), scores_one_by_one(configuration))


@pytest.mark.parametrize(
    "options", [{"config_name": "generalized"}, {"experiment_id": "mine"}, {"keep_in_memory": True}], ids=str
)
def test_options_of_load_change_no_score(load, options):
    found = load(**options).compute(predictions=PREDICTIONS, references=REFERENCES)
    check(found, scores_one_by_one(options.get("config_name", "default")))


KINDS = {
    "bool": lambda masks: masks,
    "uint8": lambda masks: [mask.astype(np.uint8) for mask in masks],
    "0/255": lambda masks: [mask.astype(np.uint8) * 255 for mask in masks],
    "int64": lambda masks: [mask.astype(np.int64) for mask in masks],
    "lists": lambda masks: [mask.tolist() for mask in masks],
    "tensors": lambda masks: [torch.from_numpy(mask) for mask in masks],
    "tensors of integers": lambda masks: [torch.from_numpy(mask).long() for mask in masks],
    "PIL 1": lambda masks: [Image.fromarray(mask) for mask in masks],
    "PIL L": lambda masks: [Image.fromarray(mask.astype(np.uint8) * 255) for mask in masks],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_of_any_kind_give_the_loops_scores(load, kind, way):
    check(way(load(), KINDS[kind](PREDICTIONS), REFERENCES), scores_one_by_one())
    check(way(load(), PREDICTIONS, KINDS[kind](REFERENCES)), scores_one_by_one())


@pytest.mark.parametrize("stack", [np.stack, lambda masks: torch.from_numpy(np.stack(masks))], ids=["array", "tensor"])
@pytest.mark.parametrize("way", WAYS)
def test_masks_of_one_size_come_as_one_array(load, way, stack):
    predictions, references = SAME_SIZE
    check(
        way(load(), stack(predictions), stack(references)),
        scores_one_by_one(predictions=predictions, references=references),
    )


# ------------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize("codes", [(0, -100), (0, 1, -100), (0, 1, 255), (0, 7), (1, 2), (0, 1, 2), (0, -1)], ids=str)
@pytest.mark.parametrize("name", ["prediction", "reference"])
def test_masks_of_other_codes_are_refused(load, name, codes):
    mask = np.where(REFERENCES[0], codes[-1], codes[0])
    mask.flat[: len(codes)] = codes
    masks = {"prediction": PREDICTIONS[0], "reference": REFERENCES[0], name: mask}
    check_refused(lambda: load().add(**masks), f"The {name} has the values .*; give bool, 0 and 1, or 0 and 255")
    batch = {f"{key}s": [value] for key, value in masks.items()}
    check_refused(lambda: load().compute(**batch), f"The {name} has the values .*; give bool, 0 and 1, or 0 and 255")


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (
            PREDICTIONS[0] * 4.0 - 2,
            "The prediction holds float64; give a mask of bool or integers, logits > 0 for one",
        ),
        (torch.from_numpy(PREDICTIONS[0]).float().requires_grad_(), "The prediction holds float32"),
        (PREDICTIONS[0][None], "The prediction has 3 dimensions; give one mask"),
        (PREDICTIONS[0].T, "resize the prediction to the size of the reference"),
        (PREDICTIONS[0].ravel(), "The prediction has 1 dimensions"),
        (Image.fromarray(np.dstack([PREDICTIONS[0].astype(np.uint8)] * 3)), "The prediction has 3 dimensions"),
    ],
    ids=["logits", "probabilities", "(1, h, w)", "transposed", "flat", "PIL RGB"],
)
def test_what_is_no_mask_is_refused(load, prediction, message):
    check_refused(lambda: load().add(prediction=prediction, reference=REFERENCES[0]), message)
    check_refused(lambda: load().compute(predictions=[prediction], references=REFERENCES[:1]), message)


@pytest.mark.parametrize(
    ("predictions", "references"),
    [(PREDICTIONS, REFERENCES[:3]), (PREDICTIONS, None), (None, REFERENCES), (PREDICTIONS[:1], REFERENCES)],
    ids=["fewer references", "no references", "no predictions", "fewer predictions"],
)
def test_other_numbers_of_predictions_and_references_are_refused(load, predictions, references):
    for call in (load().add_batch, load().compute):
        check_refused(
            lambda: call(predictions=predictions, references=references),  # noqa: B023
            r"\d predictions came with \d references; give one reference per prediction",
        )


def test_a_mask_without_its_list_is_refused(load):
    check_refused(lambda: load().compute(predictions=PREDICTIONS[0], references=REFERENCES[0]), "dimensions; give one")
    check_refused(lambda: load().add_batch(predictions=PREDICTIONS[0], references=REFERENCES[0]), "dimensions")


def test_no_sample_is_refused(load):
    check_refused(lambda: load().compute(), "make sure that you call `add` or `add_batch` at least once")
    check_refused(lambda: load().compute(predictions=[], references=[]), "at least one sample")


def test_a_sample_that_was_refused_leaves_no_trace(load):
    metric = load()
    metric.add_batch(predictions=PREDICTIONS[:3], references=REFERENCES[:3])
    with pytest.raises(ValueError, match="The reference has the values"):
        metric.add_batch(predictions=PREDICTIONS[3:5], references=[REFERENCES[3], REFERENCES[4] * 7])
    check(metric.compute(predictions=PREDICTIONS[3:], references=REFERENCES[3:]), scores_one_by_one())


# ------------------------------------------------------------------------------------------------------------- combine
@pytest.mark.parametrize("way", WAYS)
def test_a_combination_of_its_configurations_gives_the_scores_of_both(load, way):
    combined = evaluate.combine([load(), load("generalized")])
    expected = {**scores_one_by_one(), **scores_one_by_one("generalized")}
    check(way(combined, PREDICTIONS, REFERENCES), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_combination_under_names_gives_prefixed_scores(load, way):
    combined = evaluate.combine({"val": load(), "grefcoco": load("generalized")}, force_prefix=True)
    expected = {f"val_{name}": score for name, score in scores_one_by_one().items()}
    expected |= {f"grefcoco_{name}": score for name, score in scores_one_by_one("generalized").items()}
    check(way(combined, PREDICTIONS, REFERENCES), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_combination_of_itself_gives_every_score_twice(load, way):
    combined = evaluate.combine({"first": load(experiment_id="1"), "second": load(experiment_id="2")})
    scores = scores_one_by_one()
    expected = {f"{place}_{name}": score for place in ("first", "second") for name, score in scores.items()}
    check(way(combined, PREDICTIONS, REFERENCES), expected)


def test_a_combination_by_path_gives_the_scores(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    combined = evaluate.combine([MODULE])
    check(combined.compute(predictions=PREDICTIONS, references=REFERENCES), scores_one_by_one())


@pytest.mark.parametrize("way", WAYS)
def test_a_combination_refuses_other_codes(load, way):
    combined = evaluate.combine([load(), load("generalized")])
    references = [np.where(reference, 1, -100) for reference in REFERENCES]
    check_refused(lambda: way(combined, PREDICTIONS, references), "The reference has the values -100, 1; give bool")


# ----------------------------------------------------------------------------------------------------------- processes
def score_a_share(process_id, num_process, configuration, folder, queue):
    metric = evaluate.load(
        MODULE,
        configuration,
        num_process=num_process,
        process_id=process_id,
        experiment_id="shares",
        cache_dir=folder,
    )
    shares = np.arange(len(PREDICTIONS))
    if configuration == "r_refcoco":  # a ref is one process's, or `released_precision` meets its sentences in disorder
        shares = np.unique(REF_IDS, return_inverse=True)[1]
    for index in np.flatnonzero(shares % num_process == process_id):
        ids = {"ref_ids": REF_IDS[index]} if configuration == "r_refcoco" else {}
        metric.add(prediction=PREDICTIONS[index], reference=REFERENCES[index], **ids)
    queue.put((process_id, metric.compute()))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("configuration", [*CONFIGURATIONS, "r_refcoco"])
@pytest.mark.parametrize("num_process", [2, 3])
def test_processes_that_share_the_samples_give_the_scores_of_all(tmp_path, configuration, num_process):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [
        context.Process(target=score_a_share, args=(rank, num_process, configuration, str(tmp_path), queue))
        for rank in range(num_process)
    ]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    check(found.pop(0), scores_one_by_one(configuration))
    assert set(found.values()) == {None}


def test_counts_that_are_no_integers_are_refused(metric):
    check_refused(lambda: metric.compute(intersections=[0.7, 0.8], unions=[0.9, 0.9]), "intersections are float64")
    check_refused(lambda: metric.compute(intersections=1, unions=2), "give integers, one for each sample")


def test_masks_together_with_counts_are_refused(metric):
    masks = {"predictions": PREDICTIONS[:1], "references": REFERENCES[:1]}
    check_refused(lambda: metric.compute(**masks, intersections=[1], unions=[2]), "masks came together with")


def test_masks_may_come_from_generators(metric):
    expected = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    found = metric.compute(predictions=iter(PREDICTIONS), references=iter(REFERENCES))
    assert found == expected


def test_a_palette_whose_first_colour_is_white_is_read_by_its_colours(metric):
    mask = np.zeros((20, 30), dtype=bool)
    mask[:8, :10] = True
    picture = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB").quantize(2)
    assert picture.mode == "P"
    assert metric.compute(predictions=[picture], references=[mask])["miou"] == 1.0
