# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The bootstrap over pictures: against a loop, and by simulation against the truth."""

import numpy as np
import pytest

from remamber_hf.evaluation import bootstrap
from remamber_hf.evaluation.bootstrap import bound_difference, draw_scores, interval
from remamber_hf.evaluation.referring_iou.scores import Ratio, generalized_ratios, r_refcoco_ratios, referring_ratios
from remamber_hf.evaluation.scoring import Tally


def simulate(rng: np.random.Generator, num_pictures: int, gain: float) -> tuple[list[dict[str, Ratio]], np.ndarray]:
    """Two models on pictures that are hard or easy for both, the second better by `gain`: their scores, pictures."""
    pictures = np.repeat(np.arange(num_pictures), rng.integers(1, 9, num_pictures))
    difficulty = rng.normal(0, 1, num_pictures)[pictures]
    unions = np.exp(rng.normal(8, 1, num_pictures)[pictures]).astype(int) + 2
    models = []
    for shift in (0.0, gain):
        ious = 1 / (1 + np.exp(-(1 + shift + difficulty + rng.normal(0, 1, len(pictures)))))
        models.append(referring_ratios((ious * unions).astype(int), unions))
    return models, pictures


def test_scores_of_drawn_pictures_are_those_of_a_loop(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 100)  # three draws
    rng = np.random.default_rng(0)
    pictures = np.repeat(np.arange(30) * 7, rng.integers(1, 5, 30))
    unions = rng.integers(1, 50, len(pictures))
    intersections = rng.integers(0, unions + 1)
    areas = rng.integers(intersections, unions + 1)
    areas[:9] = intersections[:9] = 0
    ratios = generalized_ratios(intersections, unions, areas)
    drawn = draw_scores(list(ratios.values()), pictures, num_draws=50, seed=3)
    generator, names = np.random.default_rng(3), np.unique(pictures)
    for draw in range(50):
        chosen = np.concatenate(
            [np.flatnonzero(pictures == names[place]) for place in generator.integers(30, size=30)]
        )
        again = generalized_ratios(intersections[chosen], unions[chosen], areas[chosen])
        expected = [ratio.value for ratio in again.values()]
        expected[list(ratios).index("n_acc")] = np.nan  # fewer than 20 pictures have a part in it
        np.testing.assert_allclose(drawn[:, draw], expected, rtol=1e-12)


def test_a_ref_that_is_drawn_twice_counts_twice():
    """Scores that are means over refs: of a draw, the refs of a picture that comes twice are not put together."""
    rng = np.random.default_rng(1)
    refs = np.repeat(np.arange(60), 3)
    pictures = refs // 2
    is_meant = np.tile([True, True, False], 60)
    areas = np.where(is_meant, 10, 0)
    found = rng.integers(0, 15, 180)
    intersections = np.minimum(np.where(is_meant, rng.integers(0, 11, 180), 0), found)
    unions = areas + found - intersections
    ratios = r_refcoco_ratios(intersections, unions, areas, refs)
    drawn = draw_scores(list(ratios.values()), pictures, num_draws=20, seed=5)
    generator = np.random.default_rng(5)
    for draw in range(20):
        places = generator.integers(30, size=30)
        chosen = np.concatenate([np.flatnonzero(pictures == place) for place in places])
        renamed = np.concatenate([refs[pictures == place] + 1000 * count for count, place in enumerate(places)])
        again = r_refcoco_ratios(intersections[chosen], unions[chosen], areas[chosen], renamed)
        np.testing.assert_allclose(drawn[:, draw], [ratio.value for ratio in again.values()], rtol=1e-12)


def test_the_interval_of_a_score_and_of_a_difference_hold_the_truth_as_often_as_they_say():
    """500 worlds of 80 pictures: at 95 %, 475 of 500 are expected; 460 to 490 are within three deviations of it."""
    rng = np.random.default_rng(2)
    (first, second), _ = simulate(np.random.default_rng(9), 200_000, gain=0.3)
    truth = first["miou"].value, second["miou"].value
    holds, holds_difference, finds_no_gain = 0, 0, 0
    for world in range(500):
        (first, second), pictures = simulate(rng, 80, gain=0.3)
        drawn = draw_scores([first["miou"], second["miou"]], pictures, num_draws=400, seed=world)
        low, high = interval(drawn[0])
        holds += low <= truth[0] <= high
        found = bound_difference(*drawn)
        holds_difference += found.low <= truth[1] - truth[0] <= found.high
        finds_no_gain += found.p_value > 0.05
        assert (found.p_value < 0.04) <= (found.low > 0 or found.high < 0) <= (found.p_value < 0.06)
    assert 460 <= holds <= 490 and 460 <= holds_difference <= 490
    assert finds_no_gain < 50  # 0.03 of IoU is seen, since both are drawn alike


def test_pictures_are_drawn_and_not_sentences():
    """Eight sentences of a picture that are all right or all wrong say no more than one."""
    rng = np.random.default_rng(3)
    is_right = rng.random(100) < 0.5
    one = referring_ratios(is_right.astype(int), np.ones(100, dtype=int))
    eight = referring_ratios(np.repeat(is_right, 8).astype(int), np.ones(800, dtype=int))
    (alone,), (together,) = (
        draw_scores([ratios["miou"]], np.repeat(np.arange(100), times)) for ratios, times in ((one, 1), (eight, 8))
    )
    assert interval(alone) == pytest.approx(interval(together), abs=1e-12)
    low, high = interval(alone)
    assert 0.15 < high - low < 0.24  # 2 · 1.96 · 0.5 / √100


def test_two_models_that_are_one_do_not_differ():
    (first, _), pictures = simulate(np.random.default_rng(4), 50, gain=0.0)
    drawn = draw_scores([first["miou"], first["oiou"], first["miou"]], pictures, num_draws=500)
    assert bound_difference(drawn[0], drawn[2] + 1e-16) == (0, 0, 1)


def test_a_few_pictures_give_no_interval():
    for num_pictures, is_given in ((19, False), (20, True)):
        (first, _), pictures = simulate(np.random.default_rng(5), num_pictures, gain=0.0)
        (drawn,) = draw_scores([first["miou"]], pictures, num_draws=100)
        assert (interval(drawn) is not None) == is_given
    assert bound_difference(np.full(5, np.nan), np.ones(5)) is None


def test_a_part_of_a_split_is_drawn_with_the_whole():
    rng = np.random.default_rng(6)
    pictures = np.repeat(np.arange(40), 3)
    areas = rng.integers(1, 20, 120)
    intersections = rng.integers(0, areas + 1)
    pixels = np.stack([intersections, areas + 3, areas], axis=1)
    kinds = np.full(120, "one")
    tally = Tally("default", pixels, np.zeros(120, dtype=bool), None, kinds, np.arange(120))
    is_of = rng.random(120) < 0.6
    ratios = tally.ratios_of(is_of)
    assert ratios["oiou"].value == tally.part(is_of).scores()["oiou"]
    assert ratios["oiou"].samples.tolist() == np.flatnonzero(is_of).tolist()
    drawn = draw_scores([tally.ratios()["oiou"], ratios["oiou"]], pictures, num_draws=10, seed=1)
    places = np.random.default_rng(1).integers(40, size=(10, 40))
    for draw in range(10):
        chosen = np.concatenate([np.flatnonzero(pictures == place) for place in places[draw]])
        chosen = chosen[is_of[chosen]]
        assert drawn[1, draw] == pytest.approx(intersections[chosen].sum() / (areas[chosen] + 3).sum(), abs=1e-12)
