# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Sentences about named things: each is read as true of just these, whatever the scene, and none where none can be."""

import math

import numpy as np
import pytest

from remamber_hf.synthetic import thing_writers
from remamber_hf.synthetic.thing_words import make_thing_words
from remamber_hf.synthetic.thing_writers import (
    sample_absent_thing_expressions,
    sample_many_thing_expressions,
    sample_thing_expressions,
)
from remamber_hf.synthetic.things import Thing


CATEGORIES = ("dog", "hot dog", "cat", "car", "sky")
WORDS = make_thing_words(CATEGORIES, {"dog": ["puppy"]}, ("sky",))


def random_scene(rng) -> list[Thing]:
    frame = (1.0, 0.7)
    things = []
    for _ in range(int(rng.integers(1, 7))):
        width, height = rng.uniform(0.05, 0.3, size=2).tolist()
        left, top = float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 0.7 - height))
        category = str(rng.choice(CATEGORIES[:4], p=(0.5, 0.1, 0.2, 0.2)))
        things.append(
            Thing(
                category,
                (left, top, left + width, top + height),
                math.nan if rng.random() < 0.1 else width * height * float(rng.uniform(0.3, 1)),
                frame,
                is_target=bool(rng.random() < 0.8),
                is_crowd=bool(rng.random() < 0.1),
                is_anchor=bool(rng.random() < 0.8),
            )
        )
    if rng.random() < 0.5:
        things.append(Thing("sky", (0.0, 0.0, 1.0, 0.3), 0.3, frame, is_stuff=True))
    return things


def test_every_sentence_is_true_of_what_it_was_written_for():
    rng = np.random.default_rng(5)
    counts = {"one": 0, "many": 0, "none": 0}
    evaluator = WORDS.evaluator
    for _ in range(400):
        things = random_scene(rng)
        crowds = {thing.category for thing in things if thing.is_crowd}
        for index, texts in sample_thing_expressions(WORDS, things, rng).items():
            assert things[index].is_target and things[index].category not in crowds
            assert 1 <= len(texts) <= 3 and len(set(texts)) == len(texts)
            assert all(evaluator.read(text, things) == ({index}, {index}) for text in texts)
            counts["one"] += len(texts)
            if things[index].is_stuff:
                assert set(texts) <= {"the sky", "sky"}
        for meant, texts in sample_many_thing_expressions(WORDS, things, rng).items():
            assert len(meant) > 1 and all(things[index].is_target for index in meant)
            assert all(evaluator.read(text, things) == (meant, meant) for text in texts)
            counts["many"] += len(texts)
        for text in sample_absent_thing_expressions(WORDS, things, rng):
            assert not evaluator.read(text, things).possible
            assert "sky " not in text and "the only sky" not in text
            counts["none"] += 1
    assert min(counts.values()) > 60, counts


def test_nothing_is_said_where_all_rests_on_a_crowd():
    crowd = Thing("dog", (0.0, 0.0, 1.0, 1.0), math.nan, is_target=False, is_crowd=True, is_anchor=False)
    scene = [Thing("dog", (0.1, 0.4, 0.2, 0.5), 0.01), Thing("dog", (0.6, 0.4, 0.7, 0.5), 0.01), crowd]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        assert sample_thing_expressions(WORDS, scene, rng) == {}
        assert sample_many_thing_expressions(WORDS, scene, rng) == {}
        absent = " ".join(sample_absent_thing_expressions(WORDS, scene, rng)).replace("hot dog", "")
        assert "dog" not in absent and "puppy" not in absent


def test_only_known_categories_are_said_to_be_absent():
    scene = [Thing("car", (0.1, 0.4, 0.2, 0.5), 0.01)]
    said = set()
    for seed in range(60):
        said |= set(sample_absent_thing_expressions(WORDS, scene, np.random.default_rng(seed), ["cat"]))
    assert said and all("cat" in text or "car" in text for text in said)
    assert {"cat", "the cat"} & said
    assert sample_absent_thing_expressions(WORDS, scene, np.random.default_rng(0), []) == []


@pytest.mark.parametrize(
    "other",
    [
        Thing("car", (0.32, 0.4, 0.42, 0.5), 0.01, is_anchor=False),
        Thing("car", (0.32, 0.4, 0.42, 0.5), 0.01, is_crowd=True),
        Thing("sky", (0.32, 0.4, 0.42, 0.5), 0.01, is_stuff=True),
    ],
)
def test_no_sentence_says_where_a_thing_is_by_what_is_no_landmark(other):
    dogs = [Thing("dog", (0.2, 0.4, 0.3, 0.5), 0.01), Thing("dog", (0.6, 0.4, 0.7, 0.5), 0.01)]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        one = sample_thing_expressions(WORDS, [*dogs, other], rng)
        many = sample_many_thing_expressions(WORDS, [*dogs, other], rng)
        texts = [text for index in (0, 1) for text in one.get(index, [])] + sum(many.values(), [])
        assert not any("car" in text or "sky" in text for text in texts)
    landmark = [*dogs, Thing("car", (0.32, 0.4, 0.42, 0.5), 0.01)]
    texts = str([sample_thing_expressions(WORDS, landmark, np.random.default_rng(seed)) for seed in range(60)])
    assert "next to the car" in texts or "beside the car" in texts


def test_a_scene_without_things_has_only_absent_ones():
    rng = np.random.default_rng(0)
    assert sample_thing_expressions(WORDS, [], rng) == {} and sample_many_thing_expressions(WORDS, [], rng) == {}
    assert sample_absent_thing_expressions(WORDS, [], rng)


def test_each_kind_of_sentence_is_written():
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(200):
        for texts in sample_thing_expressions(WORDS, random_scene(rng), rng).values():
            kinds |= set(map(WORDS.evaluator.grammar.kind_of, texts))
    assert kinds == set(thing_writers.WRITERS)
