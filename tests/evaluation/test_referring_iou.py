# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import math
import tracemalloc
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

import remamber_hf
from remamber_hf.evaluation.referring_iou.scores import count_pixels, generalized_iou, referring_iou, sample_ious


MODULE = str(Path(remamber_hf.__file__).parent / "evaluation" / "referring_iou")
NUM_SAMPLES = 500


@pytest.fixture
def metric(tmp_path):
    return evaluate.load(MODULE, cache_dir=str(tmp_path))


@pytest.fixture
def generalized_metric(tmp_path):
    return evaluate.load(MODULE, "generalized", cache_dir=str(tmp_path))


def ragged_masks(num_samples=NUM_SAMPLES, no_target=False, seed=0):
    """Predictions and references of many sizes and overlaps, empty ones and exact halves among them."""
    generator = np.random.default_rng(seed)
    predictions, references = [], []
    for index in range(num_samples):
        height, width = generator.integers(8, 40, size=2)
        reference = np.zeros((height, width), dtype=bool)
        reference[: height // 2, : width // 2] = True
        prediction = reference ^ (generator.random((height, width)) < generator.random() / 2)
        if index % 10 == 0:
            prediction[:] = False
        if index % 15 == 0 or no_target and index % 4 == 0:
            reference[:] = False
        if index % 7 == 1:  # an IoU of exactly 0.5, 0.6 … 0.9
            reference[:] = prediction[:] = False
            prediction.flat[: 5 + index % 5] = reference.flat[:10] = True
        predictions.append(prediction)
        references.append(reference)
    return predictions, references


def published_scores(predictions, references):
    """The published evaluation of RefCOCO, written out sample by sample (LAVT's test script)."""
    sum_intersection = sum_union = 0
    ious, num_right = [], [0] * 5
    for prediction, reference in zip(predictions, references):
        intersection = np.sum(np.logical_and(prediction, reference))
        union = np.sum(np.logical_or(prediction, reference))
        iou = 0.0 if union == 0 else intersection * 1.0 / union
        ious.append(iou)
        sum_intersection += intersection
        sum_union += union
        for place, threshold in enumerate([0.5, 0.6, 0.7, 0.8, 0.9]):
            num_right[place] += iou >= threshold
    precisions = {f"precision@0.{place + 5}": count / len(ious) for place, count in enumerate(num_right)}
    return {"miou": np.mean(np.array(ious)), "oiou": sum_intersection / sum_union, **precisions}


def published_generalized_scores(predictions, references):
    """The evaluation of gRefCOCO, written out, for a model whose no-target answer is an empty mask."""
    ious, target_ious, sum_intersection, sum_union = [], [], 0, 0
    outcomes = {(is_no_target, is_empty): 0 for is_no_target in (False, True) for is_empty in (False, True)}
    for prediction, reference in zip(predictions, references):
        is_no_target, is_empty = not reference.any(), not prediction.any()
        outcomes[is_no_target, is_empty] += 1
        intersection = np.sum(np.logical_and(prediction, reference))
        union = np.sum(np.logical_or(prediction, reference))
        if is_no_target:
            ious.append(1.0 if is_empty else 0.0)
        else:
            ious.append(intersection / union)
            target_ious.append(intersection / union)
        sum_intersection += intersection
        sum_union += union
    return {
        "giou": np.mean(ious),
        "ciou": sum_intersection / sum_union,
        "n_acc": outcomes[True, True] / (outcomes[True, True] + outcomes[True, False]),
        "t_acc": outcomes[False, False] / (outcomes[False, False] + outcomes[False, True]),
        **{
            f"target_precision@{threshold}": np.mean([iou >= threshold for iou in target_ious])
            for threshold in (0.7, 0.8, 0.9)
        },
    }


def batches(predictions, references, size=7):
    for start in range(0, len(predictions), size):
        yield predictions[start : start + size], references[start : start + size]


def test_streamed_masks_equal_the_published_evaluation_to_the_last_digit(metric):
    predictions, references = ragged_masks()
    for some_predictions, some_references in batches(predictions, references):
        metric.add_batch(predictions=some_predictions, references=some_references)
    assert metric.compute() == published_scores(predictions, references)


def test_generalized_scores_equal_the_published_evaluation_to_the_last_digit(generalized_metric):
    predictions, references = ragged_masks(no_target=True)
    for some_predictions, some_references in batches(predictions, references):
        generalized_metric.add_batch(predictions=some_predictions, references=some_references)
    assert generalized_metric.compute() == published_generalized_scores(predictions, references)


def test_scores_agree_with_the_released_remamber_in_the_digits_it_prints():
    """Its evaluation divides by U + 1e-6 and keeps running means."""
    predictions, references = ragged_masks()
    counts = np.array([count_pixels(*pair)[:2] for pair in zip(predictions, references)])
    released = {
        "miou": sum(intersection / (union + 1e-6) for intersection, union in counts) / len(counts),
        "oiou": counts[:, 0].mean() / (counts[:, 1].mean() + 1e-6),
    }
    scores = referring_iou(*counts.T)
    for name, score in released.items():
        assert 0 <= scores[name] - score < 1e-6
        assert f"{scores[name]:.3f}" == f"{score:.3f}"


def test_pixel_counts_give_the_scores_of_the_masks(metric, generalized_metric):
    predictions, references = ragged_masks(no_target=True)
    counts = [count_pixels(*pair) for pair in zip(predictions, references)]
    intersections, unions, areas = (list(column) for column in zip(*counts))
    scores = metric.compute(predictions=predictions, references=references)
    assert scores == metric.compute(intersections=intersections, unions=unions)
    assert scores == referring_iou(intersections, unions)
    scores = generalized_metric.compute(predictions=predictions, references=references)
    assert scores == generalized_metric.compute(intersections=intersections, unions=unions, reference_areas=areas)
    assert scores == generalized_iou(intersections, unions, areas)


def test_single_samples_and_batches_mix(metric):
    predictions, references = ragged_masks(6)
    counts = [count_pixels(*pair) for pair in zip(predictions, references)]
    metric.add(prediction=predictions[0], reference=references[0])
    metric.add(intersections=counts[1][0], unions=counts[1][1])
    metric.add_batch(predictions=predictions[2:4], references=references[2:4])
    scores = metric.compute(predictions=predictions[4:], references=references[4:])
    assert scores == published_scores(predictions, references)


def test_a_second_run_starts_from_nothing(metric):
    metric.compute(intersections=[1], unions=[4])
    assert metric.compute(intersections=[3], unions=[4])["miou"] == 0.75


def test_an_empty_union_counts_as_zero():
    assert referring_iou([0, 4], [0, 4]) == {
        "miou": 0.5,
        "oiou": 1.0,
        **{f"precision@{threshold}": 0.5 for threshold in (0.5, 0.6, 0.7, 0.8, 0.9)},
    }
    assert referring_iou([0], [0])["oiou"] == 0


def test_an_empty_prediction_is_right_only_where_nothing_is_meant():
    # Samples: no target and empty, no target and not empty, missed, found half.
    assert generalized_iou([0, 0, 0, 8], [0, 6, 4, 10], [0, 0, 4, 10]) == {
        "giou": (1 + 0 + 0 + 0.8) / 4,
        "ciou": 8 / 20,
        "n_acc": 0.5,
        "t_acc": 0.5,
        "target_precision@0.7": 0.5,
        "target_precision@0.8": 0.5,
        "target_precision@0.9": 0.0,
    }


def test_accuracies_without_a_sample_are_nan():
    assert math.isnan(generalized_iou([1], [2], [2])["n_acc"])
    assert math.isnan(generalized_iou([0], [0], [0])["t_acc"])


@pytest.mark.parametrize("make", [torch.tensor, np.array, list])
def test_masks_may_be_tensors_arrays_or_lists(metric, make):
    scores = metric.compute(predictions=[make([[1, 0], [1, 1]])], references=[make([[True, True], [True, False]])])
    assert scores["miou"] == 0.5


def test_masks_of_0_and_255_are_masks_of_0_and_1():
    assert count_pixels(np.array([[255, 0]], dtype=np.uint8), np.array([[1, 1]])) == (1, 2, 2)


def test_memory_does_not_grow_while_masks_stream_in(metric, tmp_path):
    mask = np.ones((480, 640), dtype=bool)

    def add(num_batches):
        for _ in range(num_batches):
            metric.add_batch(predictions=[mask] * 2, references=[mask] * 2)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = add(20)
        late = add(200)
    finally:
        tracemalloc.stop()
    assert late - early < mask.nbytes
    metric.compute()


@pytest.mark.parametrize(
    "prediction, reference, message",
    [
        (np.ones((2, 3), bool), np.ones((3, 2), bool), r"is \(2, 3\) and its reference \(3, 2\); resize"),
        (np.full((2, 2), 0.7), np.ones((2, 2), bool), "The prediction holds float64; give a mask of bool or integers"),
        (np.ones((2, 2), bool), np.ones((2, 2), np.float32), "The reference holds float32"),
        (np.ones((1, 2, 2), bool), np.ones((1, 2, 2), bool), r"has 3 dimensions; give one mask \(height, width\)"),
    ],
)
def test_other_masks_are_refused(metric, prediction, reference, message):
    with pytest.raises(ValueError, match=message):
        metric.add_batch(predictions=[prediction], references=[reference])


def test_predictions_without_references_are_refused(metric):
    masks = [np.ones((2, 2), bool)] * 2
    with pytest.raises(ValueError, match="2 predictions came with 1 references; give one reference per prediction"):
        metric.add_batch(predictions=masks, references=masks[:1])
    with pytest.raises(ValueError, match="2 predictions came with 0 references"):
        metric.compute(predictions=masks)


@pytest.mark.parametrize(
    "counts, message",
    [
        (([], []), "at least one sample"),
        (([1, 2], [3]), r"intersections \(2,\), unions \(1,\); give one number per sample"),
        (([1, 9], [3, 4]), "Sample 1 has intersections 9, unions 4; no masks give these counts"),
        (([-1], [4]), "Sample 0 has intersections -1"),
        (([0.5], [1.0]), "intersections holds float64; give pixel counts as integers"),
    ],
)
def test_counts_that_no_masks_give_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        referring_iou(*counts)


@pytest.mark.parametrize("area", [2, 5])
def test_reference_areas_that_no_masks_give_are_refused(area):
    with pytest.raises(ValueError, match=f"Sample 0 has intersections 3, unions 4, reference_areas {area}"):
        generalized_iou([3], [4], [area])


def test_an_unknown_configuration_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="config_name is 'gref'; choose one of default, generalized, ref_zom, r_refcoco"
    ):
        evaluate.load(MODULE, "gref", cache_dir=str(tmp_path))


def test_an_empty_union_counts_0_but_1_where_nothing_was_meant():
    assert sample_ious([0, 2], [0, 4]).tolist() == [0, 0.5]
    assert sample_ious([0, 0, 2], [0, 3, 4], [0, 0, 3]).tolist() == [1, 0, 0.5]
