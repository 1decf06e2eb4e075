# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of sets in which a sentence may mean nothing: worked examples, and the released evaluations as loops."""

import itertools
import math
from pathlib import Path

import evaluate
import numpy as np
import pytest

import remamber_hf
from remamber_hf.evaluation.referring_iou.scores import (
    count_pixels,
    generalized_iou,
    r_refcoco_iou,
    ref_zom_iou,
    sample_ious,
)


MODULE = str(Path(remamber_hf.__file__).parent / "evaluation" / "referring_iou")
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture
def load(tmp_path):
    return lambda configuration, **options: evaluate.load(MODULE, configuration, cache_dir=str(tmp_path), **options)


# ---------------------------------------------------------------------------------------------------- worked examples

# Sentences: rightly said to mean nothing; meant nothing, and 7 pixels found; an object of 10 pixels that is said to be
# nothing, though its mask has 6, 4 of them right; an object of 10, found with 8 pixels in common.
INTERSECTIONS, UNIONS, AREAS = [0, 0, 4, 8], [0, 7, 12, 12], [0, 0, 10, 10]
SAID = [True, False, True, False]


def test_the_worked_example_of_grefcoco():
    scores = generalized_iou(INTERSECTIONS, UNIONS, AREAS, SAID)
    assert round(100 * scores["giou"], 3) == 41.667
    assert round(100 * scores["ciou"], 3) == 25.806
    assert (scores["n_acc"], scores["t_acc"], scores["target_precision@0.7"]) == (0.5, 0.5, 0.0)
    assert sample_ious(INTERSECTIONS, UNIONS, AREAS, SAID).tolist() == [1, 0, 0, 8 / 12]


def test_a_mask_that_is_blanked_before_it_is_counted_gives_another_ciou():
    blanked = generalized_iou([0, 0, 0, 8], [0, 7, 10, 12], AREAS, SAID)
    assert round(100 * blanked["ciou"], 3) == 27.586
    assert blanked["ciou"] != generalized_iou(INTERSECTIONS, UNIONS, AREAS, SAID)["ciou"]


def test_an_intersection_of_what_was_said_to_be_nothing_does_not_count():
    kept = (4 + 8) / (0 + 7 + 12 + 12)
    assert generalized_iou(INTERSECTIONS, UNIONS, AREAS, SAID)["ciou"] == 8 / 31 != kept


def test_pixels_of_what_is_rightly_said_to_be_nothing_do_not_count():
    scores = generalized_iou([0, 8], [5, 12], [0, 10], [True, False])
    assert scores["ciou"] == 8 / 12 and scores["giou"] == (1 + 8 / 12) / 2 and scores["n_acc"] == 1


def test_an_empty_mask_is_wrong_where_something_is_said_to_be_there():
    scores = generalized_iou([0, 8], [0, 12], [0, 10], [False, False])
    assert scores["giou"] == (0 + 8 / 12) / 2 and scores["n_acc"] == 0
    assert sample_ious([0], [0], [0], [False]).tolist() == [0]
    assert generalized_iou([0, 8], [0, 12], [0, 10])["n_acc"] == 1  # without the flag


def test_an_object_that_lost_its_pixels_is_still_meant():
    scores = generalized_iou([0, 0], [0, 3], [0, 0], nothing_found=[True, False], nothing_meant=[False, False])
    assert scores["giou"] == 0 and scores["t_acc"] == 0.5 and math.isnan(scores["n_acc"])
    assert scores["ciou"] == 0 and scores["target_precision@0.7"] == 0
    zom = ref_zom_iou([0, 0], [0, 3], [0, 0], nothing_meant=[False, True])
    assert (zom["miou"], zom["acc"]) == (0, 0)


def test_without_flags_a_prediction_finds_nothing_where_it_has_no_pixel():
    without = generalized_iou(INTERSECTIONS, UNIONS, AREAS)
    assert without == generalized_iou(INTERSECTIONS, UNIONS, AREAS, [True, False, False, False], [True, True, 0, 0])
    assert without["t_acc"] == 1


@pytest.mark.parametrize(("areas", "lacking"), [([10, 10], "n_acc"), ([0, 0], "t_acc")])
def test_scores_without_a_sample_of_their_kind_are_nan(areas, lacking):
    scores = generalized_iou([0, 0], [12, 12], areas)
    assert math.isnan(scores[lacking]) and not math.isnan(scores["giou"])
    assert math.isnan(scores["target_precision@0.9"]) == (lacking == "t_acc")
    zom = ref_zom_iou([0, 0], [12, 12], areas)
    assert math.isnan(zom["acc"]) == (lacking == "n_acc")
    assert (
        math.isnan(zom["miou"])
        == math.isnan(zom["oiou"])
        == math.isnan(zom["precision@0.5"])
        != math.isnan(zom["acc"])
    )


def test_the_worked_example_of_ref_zom():
    targets = {"intersections": [8, 0], "unions": [12, 10], "reference_areas": [10, 10]}
    both = {name: [*values, 0, 0] for name, values in targets.items()}
    both["unions"][-1] = 1  # of two that mean nothing, a pixel is found of one
    scores, alone = ref_zom_iou(**both), ref_zom_iou(**targets)
    assert scores["acc"] == 0.5 and math.isnan(alone["acc"])
    assert {**scores, "acc": 0} == {**alone, "acc": 0}
    assert (scores["miou"], scores["oiou"], scores["precision@0.6"]) == (8 / 24, 8 / 22, 0.5)


def test_what_is_said_to_be_nothing_counts_as_an_empty_mask_in_ref_zom():
    said = ref_zom_iou([4, 8, 0], [12, 12, 9], [10, 10, 0], nothing_found=[True, False, True])
    assert (said["oiou"], said["miou"], said["acc"]) == (8 / 22, 8 / 24, 1)
    assert ref_zom_iou([0], [0], [0], nothing_found=[False])["acc"] == 1  # the mask decides, and it is empty
    assert sample_ious(
        [4, 8, 0, 0], [12, 12, 9, 0], [10, 10, 0, 0], [True, False, True, False], blanks=True
    ).tolist() == [
        0,
        8 / 12,
        1,
        1,
    ]


# Two refs: of one two sentences are true and four false, and 5 pixels are found of one of these; of the other one true
# sentence is found exactly, and nothing of two false ones.
ROBUST = {
    "intersections": [8, 6, 0, 0, 0, 0, 10, 0, 0],
    "unions": [12, 10, 0, 0, 5, 0, 10, 0, 0],
    "reference_areas": [10, 10, 0, 0, 0, 0, 10, 0, 0],
    "ref_ids": [7, 7, 7, 7, 7, 7, 3, 3, 3],
}


def test_the_worked_example_of_r_refcoco():
    scores = r_refcoco_iou(**ROBUST)
    expected = {"miou": 0.81667, "mrr": 0.875, "riou": 0.75926, "oiou": 0.75, "precision@0.6": 1.0}
    assert {name: round(scores[name], 5) for name in expected} == expected
    assert scores["miou"] != pytest.approx((8 / 12 + 6 / 10 + 1) / 3)  # of sentences
    assert scores["riou"] != pytest.approx(0.875 * 0.81667, abs=1e-3)  # the older definition


def test_the_released_precision_compares_sums():
    scores = r_refcoco_iou(**ROBUST)
    # Sums of the first ref: 0.667, 1.267; so the second sentence counts at 0.9.
    assert scores["precision@0.7"] == scores["precision@0.9"] == 1 / 3
    assert scores["released_precision@0.7"] == scores["released_precision@0.9"] == 2 / 3


def test_refs_without_a_false_or_a_true_sentence():
    of_true = r_refcoco_iou([8], [12], [10], [1])
    assert math.isnan(of_true["mrr"]) and of_true["miou"] == of_true["riou"] == 8 / 12
    of_false = r_refcoco_iou([0, 0], [3, 0], [0, 0], [1, 1])
    assert of_false["mrr"] == 0.5 and all(math.isnan(value) for name, value in of_false.items() if name != "mrr")
    both = r_refcoco_iou([8, 0, 0], [12, 3, 0], [10, 0, 0], [1, 2, 2])
    assert (both["mrr"], both["riou"], both["miou"], both["oiou"]) == (0.5, 8 / 12, 8 / 12, 8 / 12)


def test_what_is_said_to_be_nothing_counts_as_an_empty_mask_in_r_refcoco():
    said = r_refcoco_iou([8, 0, 0], [12, 3, 2], [10, 0, 0], [1, 1, 1], nothing_found=[True, True, False])
    assert (said["miou"], said["mrr"], said["riou"], said["oiou"]) == (0, 0.5, 0, 0)
    said = r_refcoco_iou([8, 0, 0], [12, 3, 2], [10, 0, 0], [1, 1, 1], nothing_found=[False, True, False])
    assert said["riou"] == 8 / (12 + 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"nothing_found": [True]}, r"nothing_found is \(1,\), for 4 samples; give one bool per sample"),
        ({"nothing_found": [0.1, 0.9, 0.2, 0.3]}, "nothing_found holds float64 .*; give bool, or 0 and 1"),
        ({"nothing_meant": [2, 0, 0, 0]}, "nothing_meant holds int64 .*; give bool, or 0 and 1"),
        (
            {"nothing_meant": [1, 0, 0, 1]},
            "Sample 3 has nothing_meant, and its reference has 10 pixels; give an empty",
        ),
    ],
)
@pytest.mark.parametrize("scores", [generalized_iou, ref_zom_iou])
def test_flags_that_cannot_be_are_refused(scores, flags, message):
    with pytest.raises(ValueError, match=message):
        scores(INTERSECTIONS, UNIONS, AREAS, **flags)


@pytest.mark.parametrize("ref_ids", [[1, 2], [0.5, 1, 2, 3], ["a", "b", "c", "d"]])
def test_refs_that_are_no_integers_or_too_few_are_refused(ref_ids):
    with pytest.raises(ValueError, match=r"ref_ids are .*; give one integer for each of 4"):
        r_refcoco_iou(INTERSECTIONS, UNIONS, AREAS, ref_ids)


# ----------------------------------------------------------------------------------------------- released evaluations


def random_samples(seed: int, num_refs: int = 120):
    """Masks of many sizes with flags, refs and truth, such that every rule meets every other."""
    generator = np.random.default_rng(seed)
    samples = []
    for ref in range(num_refs):
        height, width = generator.integers(6, 30, size=2)
        target = np.zeros((height, width), dtype=bool)
        target[: max(1, height // 2), : max(1, width // 2)] = True
        for is_true in [True] * generator.integers(1, 4) + [False] * generator.integers(0, 5):
            truth = target & is_true
            prediction = truth ^ (generator.random((height, width)) < generator.choice([0, 0.05, 0.4]))
            if generator.random() < 0.3:
                prediction[:] = False
            samples.append((prediction, truth, not is_true, bool(generator.random() < 0.4), ref))
    generator.shuffle(samples)
    return [list(column) for column in zip(*samples)]


def released_grefcoco(predictions, references, nothing_meant, nothing_found):
    """ReLA's refer_evaluation.py: two flags decide, each mask counts as it came."""
    sum_intersection = sum_union = 0
    ious, target_ious = [], []
    counts = dict.fromkeys(("TP", "FN", "FP", "TN"), 0)  # of "nothing"
    for prediction, reference, is_none, says_none in zip(predictions, references, nothing_meant, nothing_found):
        intersection = np.sum(np.logical_and(prediction, reference))
        union = np.sum(np.logical_or(prediction, reference))
        if is_none:
            counts["TP" if says_none else "FN"] += 1
            ious.append(1.0 if says_none else 0.0)
            sum_union += 0 if says_none else union
            continue
        counts["FP" if says_none else "TN"] += 1
        if says_none:
            intersection = 0
        iou = 0.0 if union == 0 else float(intersection) / float(union)
        ious.append(iou)
        target_ious.append(iou)
        sum_intersection += intersection
        sum_union += union
    return {
        "giou": np.mean(ious),
        "ciou": sum_intersection / sum_union,
        "n_acc": counts["TP"] / (counts["TP"] + counts["FN"]),
        "t_acc": counts["TN"] / (counts["TN"] + counts["FP"]),
        **{f"target_precision@{x}": sum(iou >= x for iou in target_ious) / len(target_ious) for x in (0.7, 0.8, 0.9)},
    }


def released_ref_zom(predictions, references, nothing_meant):
    """DMMI's test.py: an empty mask is the answer "nothing"."""
    sum_intersection = sum_union = 0
    ious, right = [], []
    for prediction, reference, is_none in zip(predictions, references, nothing_meant):
        if is_none:
            right.append(1 if np.sum(prediction) == 0 else 0)
            continue
        intersection = np.sum(np.logical_and(prediction, reference))
        union = np.sum(np.logical_or(prediction, reference))
        ious.append(0.0 if union == 0 else intersection * 1.0 / union)
        sum_intersection += intersection
        sum_union += union
    return {
        "miou": np.mean(np.array(ious)),
        "oiou": sum_intersection / sum_union,
        **{f"precision@{x}": sum(iou >= x for iou in ious) / len(ious) for x in THRESHOLDS},
        "acc": np.mean(np.array(right)),
    }


def released_r_refcoco(predictions, references, nothing_meant, ref_ids):
    """RefSegformer's validation.py, ref by ref; the precision of single sentences besides."""
    ious_of_refs, right_of_refs, robust_of_refs, sums, ious = [], [], [], [], []
    sum_intersection = sum_union = 0
    for ref in sorted(set(ref_ids)):
        of_ref = [index for index, other in enumerate(ref_ids) if other == ref]
        positives = [index for index in of_ref if not nothing_meant[index]]
        negatives = [index for index in of_ref if nothing_meant[index]]
        intersection_of_ref = union_of_ref = iou = 0
        for index in positives:
            intersection = np.sum(predictions[index] * references[index])
            union = np.sum(predictions[index].astype(int) + references[index]) - intersection
            intersection_of_ref += intersection
            union_of_ref += union
            iou = iou + intersection * 1.0 / union
            sums.append(iou)
            ious.append(intersection / union)
        ious_of_refs.append(iou / len(positives))
        sum_intersection += intersection_of_ref
        sum_union += union_of_ref
        num_right = num_wrong = 0
        for index in negatives:
            if np.sum(predictions[index]) > 0:
                num_wrong += 1
                union_of_ref = union_of_ref + np.sum(predictions[index])
            else:
                num_right += 1
        if negatives:  # 0 / 0 there
            right_of_refs.append(num_right / (num_right + num_wrong))
        robust_of_refs.append(intersection_of_ref / union_of_ref)
    return {
        "miou": np.mean(ious_of_refs),
        "oiou": sum_intersection / sum_union,
        **{f"precision@{x}": sum(iou >= x for iou in ious) / len(ious) for x in THRESHOLDS},
        "mrr": np.mean(right_of_refs),
        "riou": np.mean(robust_of_refs),
        **{f"released_precision@{x}": sum(value >= x for value in sums) / len(sums) for x in THRESHOLDS},
    }


def gated(predictions, nothing_found):
    """Masks that a model empties by itself."""
    return [prediction & (not says_none) for prediction, says_none in zip(predictions, nothing_found)]


SEEDS = range(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_grefcoco_is_scored_as_by_the_released_code_to_the_last_digit(load, seed):
    predictions, references, meant, found, _ = random_samples(seed)
    expected = released_grefcoco(predictions, references, meant, found)
    masks = {"predictions": predictions, "references": references}
    assert load("generalized").compute(**masks, nothing_found=found, nothing_meant=meant) == expected
    counts = np.array([count_pixels(*pair) for pair in zip(predictions, references)])
    assert generalized_iou(*counts.T, found, meant) == expected
    # No other way of counting gives these.
    others = [
        generalized_iou(*counts.T),
        released_grefcoco(gated(predictions, found), references, meant, found),
    ]
    assert all(other["ciou"] != expected["ciou"] for other in others) and others[0]["giou"] != expected["giou"]


@pytest.mark.parametrize("seed", SEEDS)
def test_without_flags_grefcoco_is_scored_as_with_those_of_empty_masks(load, seed):
    predictions, references, meant, _, _ = random_samples(seed)
    empty = [not prediction.any() for prediction in predictions]
    found = load("generalized").compute(predictions=predictions, references=references)
    assert found == released_grefcoco(predictions, references, meant, empty)


@pytest.mark.parametrize("seed", SEEDS)
def test_ref_zom_is_scored_as_by_the_released_code_to_the_last_digit(load, seed):
    predictions, references, meant, found, _ = random_samples(seed)
    masks = {"predictions": predictions, "references": references}
    assert load("ref_zom").compute(**masks) == released_ref_zom(predictions, references, meant)
    expected = released_ref_zom(gated(predictions, found), references, meant)
    assert load("ref_zom").compute(**masks, nothing_found=found) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_r_refcoco_is_scored_as_by_the_released_code_to_the_last_digit(load, seed):
    predictions, references, meant, found, ref_ids = random_samples(seed)
    masks = {"predictions": predictions, "references": references, "ref_ids": ref_ids}
    assert load("r_refcoco").compute(**masks) == released_r_refcoco(predictions, references, meant, ref_ids)
    expected = released_r_refcoco(gated(predictions, found), references, meant, ref_ids)
    assert load("r_refcoco").compute(**masks, nothing_found=found) == expected
    assert expected["released_precision@0.9"] > expected["precision@0.9"]


# -------------------------------------------------------------------------------------------------------- the module


CONFIGURATIONS = {"generalized": generalized_iou, "ref_zom": ref_zom_iou, "r_refcoco": r_refcoco_iou}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_samples_that_come_in_every_way_give_the_scores_of_all(load, configuration):
    predictions, references, meant, found, ref_ids = random_samples(9, num_refs=12)
    counts = np.array([count_pixels(*pair) for pair in zip(predictions, references)])
    extras = {"nothing_found": found, "nothing_meant": meant}
    if configuration == "r_refcoco":
        extras["ref_ids"] = ref_ids
    expected = CONFIGURATIONS[configuration](*counts.T, **extras)
    names = ("intersections", "unions", "reference_areas")
    metric = load(configuration)
    for _ in range(2):
        for index in range(5):
            extra = {name: values[index] for name, values in extras.items()}
            if index % 2:
                metric.add(prediction=predictions[index], reference=references[index], **extra)
            else:
                metric.add(**dict(zip(names, counts[index])), **extra)
        for start, stop in itertools.pairwise([5, 9, 14]):
            extra = {name: values[start:stop] for name, values in extras.items()}
            metric.add_batch(predictions=predictions[start:stop], references=references[start:stop], **extra)
        rest = {name: values[14:] for name, values in extras.items()}
        assert metric.compute(**{name: column[14:] for name, column in zip(names, counts.T)}, **rest) == expected


def test_samples_with_and_without_flags_mix(load):
    metric = load("generalized")
    metric.add(intersections=0, unions=0, reference_areas=0)
    metric.add(intersections=4, unions=12, reference_areas=10, nothing_found=True)
    metric.add_batch(intersections=[0, 8], unions=[7, 12], reference_areas=[0, 10], nothing_found=None)
    assert metric.compute() == generalized_iou(
        *zip(*[(0, 0, 0), (4, 12, 10), (0, 7, 0), (8, 12, 10)]), SAID[:1] + [1, 0, 0]
    )


@pytest.mark.parametrize(
    ("configuration", "values", "message"),
    [
        ("default", {"nothing_found": [1]}, "nothing_found, intersections, unions came; give predictions and refer"),
        ("default", {"ref_ids": [1]}, "ref_ids, intersections, unions came; give"),
        ("ref_zom", {"ref_ids": [1]}, "give predictions and references, or intersections, unions, reference_areas"),
        ("r_refcoco", {}, "came; give predictions and references, or .*, reference_areas, and ref_ids"),
        ("r_refcoco", {"ref_ids": [0.5]}, r"ref_ids are float64 \(1,\); give integers, one for each sample"),
        ("generalized", {"nothing_found": [0.5]}, r"nothing_found are float64 \(1,\); give bools, one for each"),
        ("generalized", {"nothing_found": [3]}, r"nothing_found are \[3\]; give bools, or 0 and 1"),
        ("generalized", {"nothing_found": [1, 0]}, r"\[1, 2\] counts came of one kind and another"),
    ],
)
def test_what_a_configuration_does_not_know_or_lacks_is_refused(load, configuration, values, message):
    mask = [np.ones((2, 2), bool)]
    with pytest.raises(ValueError, match=message):
        load(configuration).add_batch(predictions=mask, references=mask, **values)


def test_combine_hands_the_refs_to_the_configuration_that_knows_them(load):
    predictions, references, _, _, ref_ids = random_samples(3, num_refs=10)
    combined = evaluate.combine({"robust": load("r_refcoco"), "general": load("generalized")}, force_prefix=True)
    combined.add_batch(predictions=predictions, references=references, ref_ids=ref_ids)
    expected = load("r_refcoco").compute(predictions=predictions, references=references, ref_ids=ref_ids)
    found = combined.compute()
    assert {name: found[f"robust_{name}"] for name in expected} == expected and "general_giou" in found
