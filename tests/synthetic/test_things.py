# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is true of named things, in scenes made by hand on a grid of 100: just clear, just not clear, and unclear."""

import math

import pytest

from remamber_hf.synthetic.thing_words import make_thing_words
from remamber_hf.synthetic.things import Thing


WORDS = make_thing_words(("dog", "cat", "car"))


def thing(category, left, top, right, bottom, fill=1.0, frame=(1.0, 1.0), **facts) -> Thing:
    """A thing with its box in hundredths of the longer side, whose mask fills a part of it."""
    box = (left / 100, top / 100, right / 100, bottom / 100)
    return Thing(category, box, fill * (box[2] - box[0]) * (box[3] - box[1]), frame, **facts)


def read(text, *things) -> tuple[set[int], set[int]]:
    reading = WORDS.evaluator.read(text, things)
    return set(reading.certain), set(reading.possible)


def crowd(category, frame=(1.0, 1.0)) -> Thing:
    return Thing(category, (0, 0, *frame), math.nan, frame, is_target=False, is_crowd=True, is_anchor=False)


FIRST = thing("dog", 10, 40, 20, 50)  # its centre is (15, 45)


@pytest.mark.parametrize(
    ("second", "certain", "possible"),
    [
        ((16.1, 40, 26.1, 50), {0}, {0}),  # 6.1 to the right
        ((15.9, 40, 25.9, 50), set(), {0, 1}),  # 5.9
        ((12, 40, 40, 50), {0}, {0}),
        ((9, 40, 40, 50), set(), {0, 1}),  # its centre is 9.5 to the right, its left edge is not
        ((30, 40, 40, 50), {0}, {0}),
    ],
)
def test_the_left_one_is_ahead_by_centre_and_both_edges(second, certain, possible):
    assert read("the dog on the left", FIRST, thing("dog", *second)) == (certain, possible)
    assert read("the first dog from the left", FIRST, thing("dog", *second)) == (certain, possible)


def test_the_left_one_is_not_in_the_right_third_and_the_first_may_be():
    pair = (thing("dog", 62, 40, 70, 50), thing("dog", 80, 40, 90, 50))
    assert read("the left dog", *pair) == ({0}, {0})
    pair = (thing("dog", 64, 40, 72, 50), pair[1])
    assert read("the left dog", *pair) == (set(), {0})
    assert read("the first dog from the left", *pair) == ({0}, {0})


def test_a_single_thing_is_left_in_that_half_of_the_width():
    wide = {"frame": (1.0, 0.5)}
    assert read("the left dog", thing("dog", 38, 10, 48, 20, **wide)) == ({0}, {0})  # at 43 of 100, at most 44
    assert read("the left dog", thing("dog", 40, 10, 50, 20, **wide)) == (set(), {0})
    assert read("the left dog", thing("dog", 52, 10, 62, 20, **wide)) == (set(), set())  # at 57, 56 is possible
    assert read("the dog at the top", thing("dog", 40, 16, 50, 26, **wide)) == ({0}, {0})  # at 21 of 50, at most 22
    assert read("the dog at the top", thing("dog", 40, 18, 50, 28, **wide)) == (set(), {0})


@pytest.mark.parametrize(
    ("second", "certain", "possible"),
    [
        ((50, 50, 57.8, 57.8), {0}, {0}),  # 10 to 7.8: by 1.28
        ((50, 50, 58, 58), set(), {0, 1}),  # by 1.25
        ((50, 50, 59, 59, 0.5), {0}, {0}),  # a mask of half its box
        ((50, 50, 61, 61, 0.5), set(), {0, 1}),  # smaller by its mask, larger by its box
    ],
)
def test_the_largest_is_ahead_by_the_root_of_its_mask_and_by_its_box(second, certain, possible):
    assert read("the biggest dog", FIRST, thing("dog", *second)) == (certain, possible)
    assert read("the smallest dog", thing("dog", *second), FIRST)[0] == ({0} if certain else set())


def test_what_has_no_mask_may_be_the_largest_or_the_smallest():
    unmeasured = Thing("dog", (0.5, 0.5, 0.52, 0.52), math.nan, is_target=False)
    for word in ("largest", "smallest"):
        assert read(f"the {word} dog", FIRST, unmeasured) == (set(), {0, 1})
    assert read("the left dog", FIRST, unmeasured) == ({0}, {0})


@pytest.mark.parametrize(
    ("anchor", "is_certain", "is_possible"),
    [
        ((23, 40, 33, 50), True, True),  # 13 to the right
        ((17, 40, 27, 50), False, True),  # 7: at least 8, and more than a quarter of the width shared
        ((18.1, 40, 28.1, 50), True, True),  # 8.1, and 1.9 of 10 shared
        ((17.9, 40, 29, 50), True, True),  # 8.45, and 2.1 of 10 shared
        ((17, 40, 35, 50), False, True),  # 11, and 3 of 10 shared
        ((30, 33, 40, 37), True, True),  # 20 to the right and 10 up: 1.5 times as far
        ((30, 26, 40, 30), False, True),  # 17 up
        ((5, 40, 24, 50), False, False),  # 0.5 to the left
    ],
)
def test_left_of_is_far_enough_clear_of_it_and_more_than_sideways(anchor, is_certain, is_possible):
    assert read("the dog left of the car", FIRST, thing("car", *anchor)) == (
        {0} if is_certain else set(),
        {0} if is_possible else set(),
    )
    # The same scene turned by a quarter: above.
    turned, other = (thing(one, top, left, bottom, right) for one, (left, top, right, bottom) in _pair(anchor))
    assert read("the dog above the car", turned, other)[0] == ({0} if is_certain else set())


def _pair(anchor):
    return (("dog", (10, 40, 20, 50)), ("car", anchor))


@pytest.mark.parametrize(
    ("anchor", "is_certain", "is_possible"),
    [
        ((25, 40, 35, 50), True, True),  # 5 between them
        ((25.1, 40, 35, 50), False, True),
        ((34.9, 40, 45, 50), False, True),  # three times as far
        ((35.1, 40, 45, 50), False, False),
        ((22, 45, 32, 65), True, True),  # half of the smaller height is shared
        ((22, 46, 32, 66), False, True),
        ((17.6, 40, 27.6, 50), True, True),  # 2.4 of 10 of the width are shared
        ((17, 40, 27, 50), False, True),
        ((10, 52, 20, 62), False, True),  # under it
    ],
)
def test_next_to_is_side_by_side_and_near(anchor, is_certain, is_possible):
    expected = ({0} if is_certain else set(), {0} if is_possible else set())
    assert read("the dog next to the car", FIRST, thing("car", *anchor)) == expected


def test_second_and_third_count_from_each_side_and_need_clear_neighbours():
    row = [thing("dog", left, 40, left + 8, 50) for left in (10, 30, 50, 53)]
    assert read("the second dog from the left", *row) == ({1}, {1})
    assert read("the third dog from the left", *row) == (set(), {2, 3})
    assert read("the 4th dog from the right", *row) == ({0}, {0})
    assert read("the first dog from the top", *row) == (set(), {0, 1, 2, 3})


def test_in_the_middle_is_of_the_picture_and_the_middle_of_three_is_possible():
    assert read("the dog in the middle", thing("dog", 45, 54.9, 55, 64.9)) == ({0}, {0})  # 9.9 below the centre
    assert read("the dog in the middle", thing("dog", 45, 56, 55, 66)) == (set(), {0})
    row = [thing("dog", left, 80, left + 8, 90) for left in (5, 20, 46)]
    assert read("the dog in the middle", *row)[0] == set()
    assert 1 in read("the dog in the middle", *row)[1]


def test_nearest_between_and_quarters_are_as_written():
    dogs = (thing("dog", 10, 40, 20, 50), thing("dog", 70, 40, 80, 50))
    assert read("the dog closest to the car", *dogs, thing("car", 30, 40, 40, 50)) == ({0}, {0})
    assert read("the dog closest to the car", *dogs, thing("car", 41, 40, 51, 50))[0] == set()
    scene = (thing("dog", 40, 40, 50, 50), thing("car", 5, 40, 15, 50), thing("cat", 75, 42, 85, 52))
    assert read("the dog between the car and the cat", *scene) == ({0}, {0})
    assert read("the car between the dog and the cat", *scene) == (set(), set())
    assert read("the dog at the top left", thing("dog", 20, 20, 30, 30)) == ({0}, {0})
    assert read("the dog at the top left", thing("dog", 20, 41, 30, 51)) == (set(), {0})


def test_of_a_crowd_nothing_is_certain_and_nothing_is_absent():
    scene = (FIRST, crowd("dog"), thing("cat", 60, 40, 70, 50))
    for text in (
        "the dog",
        "the left dog",
        "the biggest dog",
        "the first dog from the left",
        "the dog left of the cat",
    ):
        assert read(text, *scene)[0] == set()
        assert not WORDS.evaluator.is_true_of_none(text, scene)
    for text in ("the dogs", "both dogs", "all dogs"):
        assert not WORDS.evaluator.is_true_of_many(text, (*scene, thing("dog", 60, 60, 70, 70)))
    # As what something else is related to: any of the crowd may stand anywhere.
    assert read("the cat left of the dog", *scene) == (set(), {2})
    assert read("the cat right of the dog", *scene) == (set(), {2})
    assert read("the cat", *scene) == ({2}, {2})
    # Without any dog nobody can mean one.
    assert WORDS.evaluator.is_true_of_none("the dog", scene[2:])


def test_a_rival_that_is_no_target_is_a_rival():
    tiny = thing("dog", 50, 50, 51, 51, is_target=False)
    assert not WORDS.evaluator.is_true_of_one("the dog", (FIRST, tiny), 0)
    assert read("the cat left of the dog", thing("cat", 1, 40, 5, 50), FIRST, tiny)[0] == set()
    assert read("the two dogs", FIRST, tiny) == ({0, 1}, {0, 1})
