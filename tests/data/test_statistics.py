# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is counted in sentences and masks, beside counts by hand and by other code."""

import statistics
from collections import Counter

import numpy as np
import pytest
from refer_fixture import TinyRefer, rectangle
from scipy import ndimage

from remamber_hf.data.rows import read_sentences, row_mask
from remamber_hf.data.statistics import (
    PLACES,
    find_places,
    find_words,
    measure_masks,
    measure_text,
    summarize,
    third_of,
)


def count_words(texts: list[str]) -> list[int]:
    """In place of a tokenizer: a token for each letter up to four, and 0 for what is refused."""
    return [0 if "<|" in text else 2 + len(text.split()) if len(text) > 4 else 3 for text in texts]


# ------------------------------------------------------------------------------------------------------------- words
WORDS = {
    "The LEFT dog.": ["the", "left", "dog"],
    "man's hat, women’s": ["man's", "hat", "women's"],
    "'quoted' \"words\" ‘too’": ["quoted", "words", "too"],
    "t-shirt/off - white": ["t", "shirt", "off", "white"],
    "2nd from left (#3)": ["2nd", "from", "left", "3"],
    "caf\u00e9 cafe\u0301 CAFE\u0301": ["café", "café", "café"],
    "left\u00a0dog\u200bright\u2028top\tx\0y": ["left", "dog", "right", "top", "x", "y"],
    "\ufeffdog \u202ecat": ["dog", "cat"],
    "🐶 on the left ☠": ["on", "the", "left"],
    "कुत्ता بائیں הכלב": ["कुत्ता", "بائیں", "הכלב"],
    "می\u200cخواهم": ["میخواهم"],
    "左边的人": ["左边的人"],
    "?! ... -- '' \\": [],
    " ": [],
    "": [],
}


@pytest.mark.parametrize(("sentence", "words"), WORDS.items(), ids=map(ascii, WORDS))
def test_words_are_letters_and_digits(sentence, words):
    assert find_words(sentence) == words


@pytest.mark.parametrize(
    ("sentence", "places"),
    [
        ("the dog", set()),
        ("Left-most dog", {"left"}),
        ("leftmost, upper right", {"left", "top", "right"}),
        ("2nd from the bottom", {"ordinal number", "bottom"}),
        ("the second one, the 21st", {"ordinal number"}),
        ("lower corner next to the center", {"bottom", "side or corner", "beside another", "middle"}),
        ("bright lefty 2nds", set()),
    ],
)
def test_places_are_said_by_whole_words(sentence, places):
    assert find_places(find_words(sentence)) == places


def test_no_word_says_two_places():
    words = [word for words in PLACES.values() for word in words.split()]
    assert len(words) == len(set(words)) and all(find_words(word) == [word] for word in words)


# -------------------------------------------------------------------------------------------------------------- text
def test_sentences_are_counted_as_by_hand():
    sentences = ["the left dog", "the dog", "a cat, the cat", "zebra", "x <|endoftext|>"]
    found = measure_text(sentences, count_words, text_length=4)
    assert found.num_sentences == 5 and found.text_length == 4
    # 5, 4, 6 and 3 tokens; the last sentence is refused
    assert (found.num_cut, found.num_refused, found.refused) == (2, 1, "x <|endoftext|>")
    assert (found.tokens.min, found.tokens.median, found.tokens.mean, found.tokens.max) == (3, 4.5, 4.5, 6)
    assert (found.words.min, found.words.median, found.words.mean, found.words.max) == (1, 2, 2.4, 4)
    assert found.frequent == {"the": 3, "cat": 2, "dog": 2, "a": 1, "endoftext": 1, "left": 1, "x": 1, "zebra": 1}
    assert list(found.frequent)[:3] == ["the", "cat", "dog"]
    assert (found.num_words, found.num_different, found.num_once) == (12, 8, 5)
    assert (found.num_whole_words, found.num_whole_different) == (12, 8)
    assert found.num_placed == 1 and Counter(found.places) == Counter(left=1)
    assert list(found.places) == list(PLACES)


def test_words_of_several_tokens_are_told_apart():
    found = measure_text(
        ["cat cat dog", "dog zebra"], lambda texts: [4 if text == "zebra" else 3 for text in texts], 20
    )
    assert (found.num_whole_words, found.num_words) == (4, 5)
    assert (found.num_whole_different, found.num_different) == (2, 3)


def test_only_the_most_frequent_words_are_named():
    sentences = [" ".join(f"w{number}" for number in range(rank + 1)) for rank in range(50)]
    found = measure_text(sentences, count_words, 20)
    assert list(found.frequent.items()) == [(f"w{number}", 50 - number) for number in range(20)]


def test_of_no_sentence_nothing_is_known():
    found = measure_text([], count_words, 20)
    assert found.num_sentences == found.num_words == 0 and found.words is None and found.tokens is None
    assert summarize([]) is None


def test_a_summary_is_that_of_the_standard_library():
    numbers = np.random.default_rng(0).integers(1, 40, 1001).tolist()
    found = summarize(numbers)
    assert (found.min, found.max, found.median) == (min(numbers), max(numbers), statistics.median(numbers))
    assert found.mean == pytest.approx(statistics.mean(numbers))
    assert found.percentile_95 == pytest.approx(statistics.quantiles(numbers, n=20, method="inclusive")[-1])


# ------------------------------------------------------------------------------------------------------------- masks
def row(*boxes: tuple[int, int, int, int], height: int = 30, width: int = 60, generalized: bool = False) -> dict:
    parts = [{"polygons": [rectangle(*box)], "rles": []} for box in boxes]
    return {"height": height, "width": width, "ann_id": [1] if generalized else 1, "segmentation": parts}


@pytest.mark.parametrize("down", range(3))
@pytest.mark.parametrize("across", range(3))
def test_a_centre_is_counted_in_its_third(down, across):
    left, top = 20 * across + 6, 10 * down + 2
    found = measure_masks([row((left, top, left + 8, top + 6))])
    expected = [[0] * 3 for _ in range(3)]
    expected[down][across] = 1
    assert found.centres == expected and found.kinds == {"none": 0, "one": 1, "many": 0}
    assert found.areas.min == found.areas.max == pytest.approx(8 * 6 / (30 * 60))


def test_centres_and_areas_are_those_of_another_count():
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        corner, size = generator.integers(0, (40, 20)), generator.integers(2, (20, 10))
        height, width = generator.integers(30, 90, 2).tolist()
        rows.append(row((*corner.tolist(), *(corner + size).tolist()), height=height, width=width))
    masks = list(map(row_mask, rows))
    expected = np.zeros((3, 3), dtype=int)
    masks = [mask for mask in masks if mask.any()]  # some boxes lie outside
    assert 100 < len(masks) < 200
    for mask in masks:
        centre = (np.array(ndimage.center_of_mass(mask)) + 0.5) / mask.shape
        expected[tuple((centre * 3).astype(int))] += 1
    found = measure_masks(iter(rows))
    assert found.centres == expected.tolist() and (expected > 0).sum() >= 6
    areas = [mask.mean() for mask in masks]
    assert (found.areas.min, found.areas.max) == (min(areas), max(areas))
    assert found.areas.mean == pytest.approx(np.mean(areas))


def test_several_objects_are_one_mask_and_nothing_has_no_centre():
    left_and_right = row((0, 12, 6, 18), (54, 12, 60, 18), generalized=True)
    found = measure_masks([left_and_right, row(generalized=True)])
    assert found.kinds == {"none": 1, "one": 0, "many": 1}
    assert found.centres == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert found.areas.max == pytest.approx(2 * 36 / 1800)
    assert measure_masks([row(generalized=True)]).areas is None


def test_the_last_pixel_is_in_the_last_third():
    for length in (1, 2, 3, 4, 480, 65_535):
        counts = np.zeros(length, dtype=np.int64)
        counts[-1] = 10**9
        assert third_of(counts, 10**9) == min(2, int((length - 0.5) / length * 3))


def test_sentences_come_by_row_without_a_picture(load, root):
    TinyRefer().write(root)
    rows = load(split="train").with_format("numpy")
    for path in root.rglob("*.jpg"):
        path.unlink()
    assert read_sentences(rows) == [[f"the left one {number}", f"person {number}"] for number in (1, 2, 3)]
