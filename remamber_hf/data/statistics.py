# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is in a data set: how long its sentences are, of which words, which say a place, and where its masks lie."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .rows import TARGET_KINDS, row_mask, target_kind


MASK_COLUMNS = ["ann_id", "height", "width", "segmentation"]
THIRDS = 3
NUM_FREQUENT = 20
# A word that the tokenizer knows as one token is three: start and end are counted too.
ONE_TOKEN = 3
# English, in small letters. The word alone counts, so "the right answer" says a place too.
PLACES = {
    "left": "left leftmost lefthand",
    "right": "right rightmost righthand",
    "top": "top topmost upper uppermost above highest",
    "bottom": "bottom bottommost lower lowest below under underneath beneath",
    "middle": "middle mid center centre central",
    "front": "front foreground closest nearest",
    "back": "back background behind furthest farthest",
    "side or corner": "side edge corner",
    "ordinal number": "first second third fourth fifth sixth seventh eighth ninth tenth last",
    "beside another": "beside next near between opposite",
}
PLACE_OF = {word: place for place, words in PLACES.items() for word in words.split()}
ORDINAL = re.compile(r"\d+(st|nd|rd|th)")
WORD = re.compile(r"[^\s']+(?:'[^\s']+)*")
APOSTROPHES = "'\u2019"
JOINERS = "\u200c\u200d"  # within a word of Persian, Hindi and others


@dataclass(frozen=True)
class Summary:
    """Least, middle, mean, the one that 95 % are not above, and most of some numbers."""

    min: float
    median: float
    mean: float
    percentile_95: float
    max: float


def summarize(numbers: Sequence[float]) -> Summary | None:
    """Summarize numbers; None if there are none."""
    if not len(numbers):
        return None
    least, middle, high, most = np.percentile(numbers, [0, 50, 95, 100]).tolist()
    return Summary(least, middle, float(np.mean(numbers)), high, most)


@dataclass(frozen=True)
class TextStatistics:
    """
    What sentences are made of.

    num_cut: sentences of more than `text_length` tokens. num_refused: those that no processor takes; they have no
    tokens, and `refused` is the first. frequent: the most frequent words and how often they come. num_once: words that
    come once. num_words: all of them, each as often as it comes; num_whole_words: of these, those that are one token,
    as are `num_whole_different` of the `num_different` words. places: how many sentences have a word of each of
    `PLACES`, num_placed of any.
    """

    num_sentences: int
    text_length: int
    num_cut: int
    num_refused: int
    refused: str | None
    words: Summary | None
    tokens: Summary | None
    num_words: int
    num_whole_words: int
    num_different: int
    num_whole_different: int
    num_once: int
    frequent: dict[str, int]
    num_placed: int
    places: dict[str, int]


@dataclass(frozen=True)
class MaskStatistics:
    """
    Where masks lie, each the union of the objects that a row means.

    kinds: rows by `TARGET_KINDS`. areas: shares of the picture, in [0, 1], of masks that are not empty. centres: how
    many of these have the mean of their pixels in each third of the picture, 3 rows from the top, of 3 from the left.
    """

    kinds: dict[str, int]
    areas: Summary | None
    centres: list[list[int]]


def find_words(sentence: str) -> list[str]:
    """
    The words of a sentence, in small letters: letters, digits and their marks, with apostrophes inside.

    Hyphens divide, so "t-shirt" is two words. So do blanks alone: a sentence in a script without is one word.
    """
    text = unicodedata.normalize("NFC", sentence).lower()
    return WORD.findall("".join(map(_part_of_word, text)))


def _part_of_word(letter: str) -> str:
    """A letter as it stands in a word; a blank for what divides words, nothing for what joins letters."""
    if letter in APOSTROPHES:
        return "'"
    if letter in JOINERS:
        return ""
    return letter if unicodedata.category(letter)[0] in "LNM" else " "


def find_places(words: Iterable[str]) -> set[str]:
    """Which of `PLACES` these words say."""
    places = {PLACE_OF.get(word) or ("ordinal number" if ORDINAL.fullmatch(word) else None) for word in words}
    return {place for place in places if place is not None}


def measure_text(
    sentences: Sequence[str], count_tokens: Callable[[list[str]], list[int]], text_length: int
) -> TextStatistics:
    """
    Measure sentences.

    Args:
        count_tokens: how many tokens each of some texts is, start and end included; 0 for one that is refused.
        text_length: how many tokens of a sentence are read.
    """
    lengths, vocabulary, places = [], Counter[str](), Counter[str]()
    num_placed = 0
    for sentence in sentences:
        words = find_words(sentence)
        found = find_places(words)
        lengths.append(len(words))
        vocabulary.update(words)
        places.update(found)
        num_placed += bool(found)
    tokens = count_tokens(list(sentences))
    refused = [sentence for sentence, count in zip(sentences, tokens, strict=True) if not count]
    whole = {
        word for word, count in zip(vocabulary, count_tokens(list(vocabulary)), strict=True) if count == ONE_TOKEN
    }
    return TextStatistics(
        num_sentences=len(sentences),
        text_length=text_length,
        num_cut=sum(count > text_length for count in tokens),
        num_refused=len(refused),
        refused=refused[0] if refused else None,
        words=summarize(lengths),
        tokens=summarize([count for count in tokens if count]),
        num_words=vocabulary.total(),
        num_whole_words=sum(vocabulary[word] for word in whole),
        num_different=len(vocabulary),
        num_whole_different=len(whole),
        num_once=sum(count == 1 for count in vocabulary.values()),
        frequent=dict(sorted(vocabulary.items(), key=lambda item: (-item[1], item[0]))[:NUM_FREQUENT]),
        num_placed=num_placed,
        places={place: places[place] for place in PLACES},
    )


def measure_masks(rows: Iterable[dict]) -> MaskStatistics:
    """Measure the masks of rows that have `MASK_COLUMNS`; ValueError as `row_mask`."""
    kinds = dict.fromkeys(TARGET_KINDS, 0)
    centres = np.zeros((THIRDS, THIRDS), dtype=np.int64)
    areas = []
    for row in rows:
        kinds[target_kind(row)] += 1
        mask = row_mask(row)
        area = int(mask.sum())
        if area:
            areas.append(area / mask.size)
            centres[tuple(third_of(mask.sum(axis=axis), area) for axis in (1, 0))] += 1
    return MaskStatistics(kinds, summarize(areas), centres.tolist())


def third_of(counts: np.ndarray, area: int) -> int:
    """In which third of a side, 0 to 2, the mean of `area` pixels lies; `counts` has how many are at each place."""
    centre = (counts @ (np.arange(len(counts)) + 0.5)) / area
    return min(int(centre * THIRDS / len(counts)), THIRDS - 1)
