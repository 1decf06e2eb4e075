# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is pasted where, and the picture and masks of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from cutout_fixture import NOUNS, write_backgrounds, write_cutouts

from remamber_hf.synthetic.compositions import (
    Composition,
    Crop,
    Pasted,
    draw_cutout,
    mask_of,
    render,
    sample_composition,
    things_of,
)
from remamber_hf.synthetic.cutouts import find_backdrops, find_cutouts
from remamber_hf.synthetic.scenes import Background
from remamber_hf.synthetic.thing_words import make_thing_words


GREY = Background("flat", ((128, 128, 128),))
WORDS = make_thing_words(NOUNS)


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory):
    found = find_cutouts(write_cutouts(tmp_path_factory.mktemp("compositions") / "cutouts"))
    return {cutout.noun: cutout for cutout in found}


@pytest.fixture(scope="module")
def samples(cutouts):
    by_noun = {noun: [cutout] for noun, cutout in cutouts.items()}
    return [sample_composition(np.random.default_rng(seed), by_noun, WORDS, max_things=5) for seed in range(150)]


def test_a_mask_is_where_the_colour_of_its_thing_is(cutouts):
    """The wedges are of one colour, so the picture says where each is seen."""
    pasted = (
        Pasted(cutouts["dog"], 0.4, 0.5, 0.5, rotation=15),
        Pasted(cutouts["cat"], 0.55, 0.5, 0.3, is_flipped=True),
    )
    image, masks = render(Composition(GREY, pasted), 128)
    pixels = np.asarray(image).astype(int)
    for one, mask in zip(pasted, masks):
        is_pure = (np.abs(pixels - NOUNS[one.cutout.noun]) <= 2).all(axis=2)
        assert mask[is_pure].all() and is_pure.sum() > 0.8 * mask.sum()
    assert not (masks[0] & masks[1]).any()
    assert (masks[1] == mask_of(pasted[1], 128)).all() and masks[0].sum() < mask_of(pasted[0], 128).sum()


@pytest.mark.parametrize("image_size", [96, 128, 300])
@pytest.mark.parametrize(("rotation", "is_flipped"), [(0, False), (30, False), (-20, True)])
def test_a_cutout_stands_where_it_is_put_as_large_and_as_turned_as_it_is_said(
    rotation, is_flipped, image_size, cutouts
):
    pasted = Pasted(cutouts["dog"], 0.45, 0.6, 0.5, rotation, is_flipped)
    mask = mask_of(pasted, image_size)
    # The wedge by its corners, turned clockwise by hand: x to the right, y downwards.
    crop_width, crop_height = 71, 71  # what paint_wedge leaves that is not transparent, in pixels
    corners = np.array([(0, 0), (70, 35), (0, 70)]) - (crop_width / 2, crop_height / 2)
    corners *= (-1, 1) if is_flipped else (1, 1)
    angle = math.radians(rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = (corners @ turn.T) * (0.5 / 71) + (0.45, 0.6)
    rows, columns = np.nonzero(mask)
    found = [(columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)]
    bounds = np.array([expected.min(axis=0), expected.max(axis=0)]) * image_size
    np.testing.assert_allclose(found, bounds, atol=0.035 * image_size)
    tip = expected[1] * image_size
    inside = expected.mean(axis=0) * image_size
    towards = tip + 0.25 * (inside - tip)
    assert mask[int(towards[1]), int(towards[0])], "the tip is elsewhere"


def test_most_compositions_have_several_of_a_noun_and_none_that_could_be_called_as_another(samples):
    num_repeated = 0
    for composition in samples:
        nouns = [pasted.cutout.noun for pasted in composition.pasted]
        assert 2 <= len(nouns) <= 5
        assert not {"dog", "hot dog"} <= set(nouns)
        num_repeated += len(set(nouns)) < len(nouns)
    assert num_repeated > 0.6 * len(samples)


def test_a_name_with_a_hand_is_never_seen_in_a_mirror(samples):
    flips = {noun: set() for noun in NOUNS}
    for composition in samples:
        for pasted in composition.pasted:
            flips[pasted.cutout.noun].add(pasted.is_flipped)
    assert flips == {"dog": {True, False}, "cat": {True, False}, "left shoe": {False}, "hot dog": {True, False}}


@pytest.mark.parametrize("phrases", [("left-handed mug",), ("righthand glove",), ("pointer", "left arrow")])
def test_a_hand_anywhere_in_what_a_thing_is_called_keeps_it_from_the_mirror(phrases, tmp_path):
    (cutout,) = find_cutouts(write_cutouts(tmp_path / "cutouts", ("dog",)))
    cutout = replace(cutout, noun=phrases[0])
    words = make_thing_words(phrases[:1], {phrases[0]: phrases[1:]})
    for seed in range(20):
        composition = sample_composition(np.random.default_rng(seed), {phrases[0]: [cutout]}, words)
        assert not any(pasted.is_flipped for pasted in composition.pasted)


def test_all_of_a_thing_is_in_the_picture_and_half_of_it_at_least_is_seen(samples):
    num_covered = 0
    for composition in samples:
        _, masks = render(composition, 96)
        for pasted, mask in zip(composition.pasted, masks):
            whole = mask_of(pasted, 96)
            assert not whole[[0, -1]].any() and not whole[:, [0, -1]].any()
            assert mask.sum() >= 0.5 * whole.sum()
            num_covered += mask.sum() < 0.95 * whole.sum()
    assert num_covered > 10


def test_what_a_background_shows_is_not_pasted_and_counts_as_a_crowd(cutouts, tmp_path):
    shown_by_name = {"a.png": ("dog",), "b.png": ("cat", "sky")}
    backdrops = find_backdrops(write_backgrounds(tmp_path / "backgrounds", shown_by_name))
    words = make_thing_words((*NOUNS, "sky"))
    by_noun = {noun: [cutout] for noun, cutout in cutouts.items()}
    seen = set()
    for seed in range(60):
        composition = sample_composition(np.random.default_rng(seed), by_noun, words, backdrops)
        assert isinstance(composition.background, Crop)
        shown = composition.background.backdrop.nouns
        nouns = {pasted.cutout.noun for pasted in composition.pasted}
        seen |= nouns
        # "the dog" could be a hot dog.
        assert not nouns & ({"dog", "hot dog"} if "dog" in shown else {"cat"})
        things = things_of(composition, render(composition, 64)[1])
        assert [thing.category for thing in things if thing.is_crowd] == list(shown)
        for noun in shown:
            assert not words.evaluator.is_true_of_none(f"the {noun}", things)
    assert seen == set(NOUNS)


def test_things_are_described_by_what_is_seen_of_them(cutouts):
    pasted = (Pasted(cutouts["dog"], 0.3, 0.5, 0.4), Pasted(cutouts["cat"], 0.45, 0.5, 0.3))
    _, masks = render(Composition(GREY, pasted), 100)
    for thing, mask in zip(things_of(Composition(GREY, pasted), masks), masks):
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(thing.box, np.array(box) / 100)
        assert thing.area == mask.sum() / 100**2 and thing.is_target and not thing.is_crowd


def test_gains_brighten_a_cutout_and_leave_its_alpha(cutouts):
    plain, _ = draw_cutout(Pasted(cutouts["dog"], 0.5, 0.5, 0.5), 128)
    bright, _ = draw_cutout(Pasted(cutouts["dog"], 0.5, 0.5, 0.5, gains=(0.5, 1.0, 2.0)), 128)
    assert plain.getpixel((15, 32))[:3] == (220, 30, 30) and bright.getpixel((15, 32))[:3] == (110, 30, 60)
    assert np.array_equal(np.asarray(plain)[..., 3], np.asarray(bright)[..., 3])
