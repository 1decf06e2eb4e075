# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a sentence means in a scene, and which sentences are none."""

import re
from dataclasses import replace

import pytest
from scene_fixture import place, scene_of

from remamber_hf.synthetic.shape_sentences import GRAMMAR, KINDS, SHAPES


# Object 0 is a large red circle at the top left, and so on; the picture is easy to draw on paper.
ROOM = scene_of(
    place("circle", "red", 0.20, 0.20, "large"),  # 0
    place("circle", "blue", 0.80, 0.20, "small", texture="stripes"),  # 1
    place("square", "red", 0.20, 0.80, "small", outline="drawn"),  # 2
    place("star", "green", 0.80, 0.80, texture="dots"),  # 3
    place("ring", "purple", 0.52, 0.20, "small"),  # 4
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("the circle", {0, 1}),
        ("the blue circle", {1}),
        ("the circle that is red", {0}),
        ("red object", {0, 2}),
        ("the yellow circle", set()),
        ("the violet hoop", {4}),
        ("the large circle", {0}),
        ("the small red shape", {2}),
        ("the largest object", {0}),
        ("the smallest object", set()),  # three are equally small
        ("the striped circle", {1}),
        ("the green star with dots", {3}),
        ("the solid red circle", {0}),
        ("the one with a border", {2}),
        ("the left circle", {0}),
        ("circle on the right side", {1}),
        ("the red one at the bottom", {2}),
        ("the red one on the left", set()),  # both are
        ("the object at the top left", {0}),
        ("star in the lower right", {3}),
        ("the star at the top left", set()),
        ("the second object from the left", set()),  # a tie of the first two
        ("the 3rd object from the left", {4}),
        ("the second circle from the left", {1}),
        ("the second circle from the right", {0}),
        ("the third circle from the left", set()),
        ("the square below the red circle", {2}),
        ("the square above the red circle", set()),
        ("the object to the right of the square", {3}),
        ("the circle left of the ring", {0}),
        ("the object closest to the blue circle", {4}),
        ("the ring between the red circle and the blue circle", {4}),
        ("the star between the red circle and the blue circle", set()),
        ("the circle under the yellow square", set()),
        ("the circle that is not red", {1}),
        ("the red shape that is not a circle", {2}),
        ("the circle which is not striped", {0}),
        ("the circle that is not small", {0}),
        ("the ring that is not purple", set()),
        ("the circles", {0, 1}),
        ("both discs", {0, 1}),
        ("both objects", set()),  # there are five
        ("both rings", set()),  # there is one
        ("the red ones", {0, 2}),
        ("all the small objects", {1, 2, 4}),
        ("red boxes", {2}),
        ("the hearts", set()),
        ("everything on the left", {0, 2}),
        ("the objects at the top", {0, 1, 4}),
        ("the upper circles", {0, 1}),
        ("everything left of the ring", {0}),  # the square is further below than to the left
        ("everything below the circle that is red", {2}),
        ("the objects that are not red", {1, 3, 4}),
        ("the objects right of the square", {3}),
        ("everything in the lower right", {3}),
        ("the objects between the red circle and the blue circle", {4}),
    ],
)
def test_evaluator_finds_what_a_reader_finds(expression, expected):
    assert SHAPES.read(expression, ROOM.objects).certain == expected


def test_middle_is_the_middle_of_the_picture():
    scene = scene_of(place("star", "red", 0.46, 0.55), place("star", "blue", 0.1, 0.1), place("ring", "red", 0.9, 0.5))
    assert SHAPES.read("the star in the middle", scene.objects).certain == {0}
    assert SHAPES.read("the ring in the center", scene.objects).certain == set()


@pytest.mark.parametrize(
    ("expression", "objects"),
    [
        ("the left star", (place("star", "red", 0.40, 0.2), place("star", "blue", 0.47, 0.8))),
        ("the star on the left", (place("star", "red", 0.48, 0.2),)),
        ("the star on the left", (place("star", "red", 0.72, 0.2), place("star", "red", 0.9, 0.2))),
        ("the small star", (place("star", "red", 0.2, 0.2), place("star", "blue", 0.8, 0.8, "large"))),
        ("the largest star", (place("star", "red", 0.2, 0.2, "large"),)),
        ("the star above the ring", (place("star", "red", 0.2, 0.4), place("ring", "red", 0.8, 0.6))),
        (
            "the star above the ring",
            (place("star", "red", 0.5, 0.1), place("ring", "red", 0.2, 0.6), place("ring", "blue", 0.8, 0.6)),
        ),
        (
            "the second star from the top",
            (place("star", "red", 0.2, 0.2), place("star", "red", 0.5, 0.5), place("star", "red", 0.8, 0.55)),
        ),
    ],
)
def test_close_calls_are_possible_but_never_certain(expression, objects):
    reading = SHAPES.read(expression, scene_of(*objects).objects)
    assert reading.certain == frozenset()
    assert reading.possible


def test_doubt_about_one_word_carries_over_to_the_next():
    small, nearly_small = place("star", "red", 0.3, 0.2, "small"), place("star", "red", 0.1, 0.2)
    assert SHAPES.read("the left small star", scene_of(small).objects).certain == {0}
    scene = scene_of(small, replace(nearly_small, radius=0.08))
    assert SHAPES.read("the left small star", scene.objects) == (set(), {0, 1})


def test_a_tie_of_what_a_relation_refers_to_leaves_both_answers_possible():
    scene = scene_of(
        place("star", "red", 0.2, 0.2),
        place("ring", "red", 0.2, 0.6),
        place("star", "blue", 0.8, 0.2),
        place("ring", "blue", 0.8, 0.6),
    )
    assert SHAPES.read("the star above the ring", scene.objects).possible == {0, 2}
    # The blue star is higher than the red ring too, but nobody would call it the one above.
    assert SHAPES.read("the star above the red ring", scene.objects) == ({0}, {0, 2})
    assert not SHAPES.is_true_of_one("the star above the red ring", scene.objects, 0)
    assert SHAPES.is_true_of_one("the star closest to the red ring", scene.objects, 0)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("the red elephant", "'elephant' in 'the red elephant' is not in the grammar"),
        ("the red", "needs one noun"),
        ("the circle square", "needs one noun"),
        ("the left circle at the top", "2 words of place or degree"),
        ("the second circle", "needs both an ordinal and the side"),
        ("the circle between the star", "needs 'between' one thing 'and' another"),
        ("the circle that is not left", "denies something other than a property"),
        ("the circle and the star", "'and' words where none can be read"),
        ("the circle above the star below the ring", "'relation' words where none can be read"),
        ("", "needs one noun"),
        ("everything left of the circles", "relates something to several things"),
        ("the objects closest to the star", "asks for the nearest of several things"),
        ("the second circles from the left", "picks one of several things by a plural"),
        ("the largest circles", "picks one of several things by a plural"),
        ("both circle", "or 'both', where no several things are named"),
        ("both", "needs one noun"),
        ("the circles stars", "needs one noun"),
    ],
)
def test_sentences_outside_the_grammar_are_refused(expression, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SHAPES.read(expression, ROOM.objects)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("the circle", "shape"),
        ("the object", "shape"),
        ("the red one", "colour"),
        ("the striped red circle", "texture"),
        ("the circle with a border", "texture"),
        ("the small striped circle", "size"),
        ("the biggest red circle", "size"),
        ("the small circle on the left", "position"),
        ("the circle in the upper right", "position"),
        ("the star in the middle", "position"),
        ("the second small circle from the left", "order"),
        ("the small circle that is not red", "negation"),
        ("the small circle above the star on the left", "relation"),
        ("the circle between the star and the ring", "relation"),
    ],
)
def test_kind_is_the_hardest_part_of_a_sentence(expression, kind):
    assert GRAMMAR.kind_of(expression) == kind
    assert kind in KINDS


def test_parsing_keeps_what_a_relation_refers_to_apart():
    description = GRAMMAR.parse("the small red ring above the blue star")
    assert set(description.properties) == {("size", "small"), ("colour", "red"), ("shape", "ring")}
    assert description.relation == "top"
    assert set(description.anchors[0].properties) == {("colour", "blue"), ("shape", "star")}
