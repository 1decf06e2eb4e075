# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The words for categories of any name: plurals, what one name says of another, and what is left out."""

import pytest

from remamber_hf.synthetic.thing_words import KINDS, clean_noun, make_open_grammar, make_thing_words, pluralize
from remamber_hf.synthetic.things import Thing


def place(category, left=0.1) -> Thing:
    return Thing(category, (left, 0.4, left + 0.1, 0.5), 0.01)


@pytest.mark.parametrize(
    ("noun", "plural"),
    [
        ("dog", "dogs"),
        ("person", "people"),
        ("knife", "knives"),
        ("bus", "buses"),
        ("wine glass", "wine glasses"),
        ("sheep", None),
        ("scissors", None),
        ("fork and knife", None),
        ("猫", None),
    ],
)
def test_plurals_are_those_of_english_and_none_where_they_would_be_the_same(noun, plural):
    assert pluralize(noun) == plural


def test_names_are_read_as_words():
    assert clean_noun("Traffic_Light ") == "traffic light"
    assert clean_noun("bow_(weapon)") == "bow"
    assert clean_noun("(x)") == "(x)"


def test_the_end_of_a_name_may_mean_it():
    words = make_thing_words(("dog", "hot dog", "cat", "black-cat", "glasses", "wine glass"))
    for noun, other in (("dog", "hot dog"), ("cat", "black-cat"), ("glasses", "wine glass")):
        both = (place(noun), place(other, 0.6))
        assert words.evaluator.read(f"the {noun}", both) == ({0}, {0, 1}), noun
        assert words.is_confused(noun, [other]) and words.is_confused(other, [noun])
        assert not words.evaluator.is_true_of_none(f"the {noun}", both[1:])
    assert words.evaluator.is_true_of_one("the hot dog", (place("dog"), place("hot dog")), 1)
    assert not words.is_confused("dog", ["cat", "glasses"])


@pytest.mark.parametrize(
    ("noun", "other"),
    [("egg", "nest with eggs"), ("shoe", "ballet shoes"), ("nest", "nest with eggs"), ("fork", "fork and knife")],
)
def test_one_of_what_a_name_has_several_of_and_what_stands_before_with_may_be_meant(noun, other):
    words = make_thing_words((noun, other, "cat"))
    assert words.evaluator.read(f"the {noun}", (place(noun), place(other, 0.6))) == ({0}, {0, 1})
    assert words.evaluator.is_true_of_one(f"the {other}", (place(noun), place(other, 0.6)), 1)
    assert words.is_confused(noun, [other]) and words.is_confused(other, [noun])
    assert not words.is_confused("cat", [noun, other])


@pytest.mark.parametrize(
    ("noun", "other", "sentence"),
    [("heart", "two hearts", "the two hearts"), ("man", "man in the middle", "the man in the middle")],
)
def test_a_name_that_is_another_noun_with_its_number_or_place_is_no_noun(noun, other, sentence):
    words = make_thing_words((noun, other))
    assert words.left_out == {other: "could be another category and its place"}
    assert not words.evaluator.is_true_of_none(sentence, (place(noun, 0.4), place(noun, 0.5)))
    assert not make_thing_words((other,)).left_out, "where there is no other noun, it is one"


def test_a_name_that_no_sentence_uses_is_meant_all_the_same():
    words = make_thing_words(("hand", "left hand"))
    assert words.left_out == {"left hand": "could be another category and its place"}
    assert words.nouns == {"hand": ("hand",)}
    assert words.evaluator.read("the hand", (place("hand"), place("left hand", 0.6))) == ({0}, {0, 1})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("left", "consists of words of place"),
        ("top", "consists of words of place"),
        ("the two", "consists of words of place"),
        ("007", "has no letter"),
        ("nail under a hammer", "relates two things"),
        ("a\x1b[2J", "cannot be shown"),
        ("x" * 61, "more than 60 letters"),
    ],
)
def test_names_that_are_words_of_the_grammar_are_left_out_unless_they_get_another(name, reason):
    words = make_thing_words((name, "dog"))
    assert list(words.nouns) == ["dog"] and reason in words.left_out[name]
    words = make_thing_words((name, "dog"), {name: ["thing"]})
    assert words.nouns[name] == ("thing",) and not words.left_out
    assert words.evaluator.is_true_of_one("the thing", (place(name),), 0)


def test_synonyms_are_words_of_all_that_have_them():
    words = make_thing_words(("rider", "pedestrian"), {"rider": ["person"], "pedestrian": ["person"]})
    both = (place("rider"), place("pedestrian", 0.6))
    assert words.evaluator.read("the person", both) == ({0, 1}, {0, 1})
    assert words.evaluator.is_true_of_one("the person on the left", both, 0)
    assert words.evaluator.is_true_of_many("both people", both) == {0, 1}
    assert words.evaluator.is_true_of_one("the rider", both, 0)


def test_synonyms_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match="synonyms for 'cow', which is no category; the categories are 'dog'"):
        make_thing_words(("dog",), {"cow": ["ox"]})
    with pytest.raises(ValueError, match="the synonym 'left' of 'dog' consists of words of place"):
        make_thing_words(("dog",), {"dog": ["left"]})


def test_what_is_not_counted_has_no_plural():
    words = make_thing_words(("sky", "dog"), uncounted=("sky",))
    assert set(words.plurals) == {"dog"}
    with pytest.raises(ValueError, match="not in the grammar"):
        words.evaluator.grammar.parse("the skies")


def test_the_open_grammar_tells_the_kinds_of_sentences_about_any_name():
    grammar = make_open_grammar(())
    texts = ("the ox next to the car", "the 2nd ox from the left", "the left ox", "the biggest ox", "the ox")
    assert tuple(map(grammar.kind_of, texts)) == KINDS
