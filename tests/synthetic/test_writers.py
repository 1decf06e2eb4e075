# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which sentences are written about a scene."""

import re

import numpy as np
from scene_fixture import STYLES

from remamber_hf.synthetic.dataset import sample_picture
from remamber_hf.synthetic.grammar import KINDS, expression_kind, is_true_of_none, read_expression
from remamber_hf.synthetic.writers import sample_absent_expressions


def test_rich_sentences_come_in_every_kind_and_plain_ones_in_four():
    found = {style: set() for style in STYLES}
    for style in STYLES:
        for index in range(30):
            _, expressions = sample_picture(index, seed=0, style=style)
            found[style] |= {expression_kind(text) for texts in expressions.values() for text in texts}
    assert found["rich"] == set(KINDS)
    assert found["plain"] == {"shape", "colour", "size", "position"}


def test_a_negation_denies_what_a_distractor_has():
    num_negations = 0
    for index in range(30):
        scene, expressions = sample_picture(index, seed=1, style="rich")
        for text in (text for texts in expressions.values() for text in texts):
            if expression_kind(text) == "negation":
                affirmed = re.sub(" (that|which) is not .*", "", text)
                assert len(read_expression(affirmed, scene).possible) >= 2, text
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
        assert all(is_true_of_none(text, scene) for text in texts)
        kinds |= {expression_kind(text) for text in texts}
    assert {"colour", "shape", "texture", "size", "position", "relation"} <= kinds
