# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which sentences are written about a scene."""

import re

import numpy as np
import pytest
from scene_fixture import STYLES

from remamber_hf.synthetic.dataset import sample_picture
from remamber_hf.synthetic.shape_sentences import GRAMMAR, KINDS, SHAPES
from remamber_hf.synthetic.writers import (
    sample_absent_expressions,
    sample_absent_many_expressions,
    sample_many_expressions,
)


def test_rich_sentences_come_in_every_kind_and_plain_ones_in_four():
    found = {style: set() for style in STYLES}
    for style in STYLES:
        for index in range(30):
            _, expressions = sample_picture(index, seed=0, style=style)
            found[style] |= {GRAMMAR.kind_of(text) for texts in expressions.values() for text in texts}
    assert found["rich"] == set(KINDS)
    assert found["plain"] == {"shape", "colour", "size", "position"}


def test_a_negation_denies_what_a_distractor_has():
    num_negations = 0
    for index in range(30):
        scene, expressions = sample_picture(index, seed=1, style="rich")
        for text in (text for texts in expressions.values() for text in texts):
            if GRAMMAR.kind_of(text) == "negation":
                affirmed = re.sub(" (that|which) is not .*", "", text)
                assert len(SHAPES.read(affirmed, scene.objects).possible) >= 2, text
                num_negations += 1
    assert num_negations > 10


def test_plain_seeds_keep_their_meaning():
    _, expressions = sample_picture(0, seed=0, style="plain")
    assert expressions == {0: ["small triangle", "the leftmost shape"], 1: ["large orange object"]}


def test_sentences_without_a_target_are_not_all_of_one_kind():
    kinds = set()
    for index in range(60):
        scene, _ = sample_picture(index, seed=0, style="rich")
        texts = sample_absent_expressions(scene, np.random.default_rng(index))
        assert all(SHAPES.is_true_of_none(text, scene.objects) for text in texts)
        kinds |= {GRAMMAR.kind_of(text) for text in texts}
    assert {"colour", "shape", "texture", "size", "position", "relation"} <= kinds


# What a sentence about several says of a scene, read once more: without the grammar, by words.
PLURAL_SHAPES = {
    **{"circles": "circle", "discs": "circle", "squares": "square", "boxes": "square", "triangles": "triangle"},
    **{"stars": "star", "crosses": "cross", "plus signs": "cross", "rings": "ring", "hoops": "ring"},
    **{"hearts": "heart", "diamonds": "diamond", "rhombuses": "diamond", "crescents": "crescent", "moons": "crescent"},
}
COLOUR_WORDS = {"violet": "purple", "turquoise": "cyan"}
TEXTURE_WORDS = {
    **{"solid": "solid", "striped": "stripes", "dotted": "dots", "spotted": "dots"},
    **{"checkered": "checks", "checked": "checks"},
}
SIZE_WORDS = {"little": "small", "tiny": "small", "small": "small", "large": "large", "big": "large"}
SIZE_WORDS |= {"medium-sized": "medium", "middle-sized": "medium"}


def objects_by_words(text: str, scene) -> set[int] | None:
    """The objects that a sentence without a relation and without a place is about; None for all other sentences."""
    shape = next((shape for word, shape in PLURAL_SHAPES.items() if re.search(rf"\b{word}$", text)), None)
    if shape is None and not re.search(r"\b(shapes|objects|ones)$", text):
        return None
    meant = {index for index, one in enumerate(scene.objects) if shape in (None, one.shape)}
    for word in text.split()[:-1]:
        word = COLOUR_WORDS.get(word, word)
        if word in ("the", "all", "both", "plus"):
            continue
        wanted = {"texture": TEXTURE_WORDS.get(word), "size": SIZE_WORDS.get(word)}
        role, value = next(((role, value) for role, value in wanted.items() if value), ("colour", word))
        if word in ("left", "right", "top", "bottom", "upper", "lower"):
            return None
        meant = {index for index in meant if getattr(scene.objects[index], role) == value}
    return meant


@pytest.mark.parametrize("style", STYLES)
def test_sentences_about_several_are_true_of_just_these(style):
    num_read = num_several = 0
    texts = set()
    for index in range(150):
        scene, _ = sample_picture(index, seed=7, style=style)
        for meant, written in sample_many_expressions(scene, np.random.default_rng(index)).items():
            assert len(meant) > 1 and len(written) == len(set(written))
            for text in written:
                reading = SHAPES.read(text, scene.objects)
                assert reading.certain == reading.possible == meant, text
                assert not text.startswith("both") or len(meant) == 2
                expected = objects_by_words(text, scene)
                assert expected in (None, set(meant)), text
                num_read += expected is not None
                num_several += 1
                texts.add(text)
    assert num_read > 50 and num_several > 150
    assert any(text.startswith("both ") for text in texts)
    assert any(text.startswith("everything ") for text in texts)
    assert style == "plain" or any(" of the " in text for text in texts)


@pytest.mark.parametrize("style", STYLES)
def test_sentences_about_several_that_are_not_there_are_true_of_none(style):
    num_written = num_read = 0
    for index in range(100):
        scene, _ = sample_picture(index, seed=7, style=style)
        for text in sample_absent_many_expressions(scene, np.random.default_rng(index)):
            assert SHAPES.is_true_of_none(text, scene.objects), text
            expected = objects_by_words(text, scene)
            assert expected is None or not expected, text
            num_read += expected is not None
            num_written += 1
    assert num_written > 50 and num_read > 20
