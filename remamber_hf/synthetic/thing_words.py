# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The words for named things: the categories of a data set, with synonyms and plurals, as a grammar.

A noun of one category can mean one of another too, if it ends that one's name or is its plural: "the cat" a black cat
or a black-cat, "the glasses" two wine glasses. Such a thing is possible, not certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import inflect

from ..messages import describe
from .evaluator import Evaluator, Margins
from .grammar import PLACES, Grammar, Words
from .things import THING_MARGINS, Noun


KINDS = ("relation", "order", "position", "size", "name")
MAX_NUMBER = 6
MAX_NOUN_LETTERS = 60
HEAD_END = re.compile(" (?:and|at|for|from|in|of|on|with|without) ")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
WORDS: Words = PLACES | {
    "side": PLACES["side"] | {side: (*PLACES["side"][side], f"farthest to the {side}") for side in ("left", "right")},
    "middle": {"middle": ("in the middle", "in the center")},
    "ordinal": {1: ("first", "1st"), **PLACES["ordinal"]},
    "relation": PLACES["relation"] | {"beside": ("next to", "beside")},
    "number": {number: (word, "both") if number == 2 else (word,) for number, word in NUMBERS.items()},
    "filler": {None: ("the", "a", "an", "that is", "which is", "that are", "which are", "only", "all")},
}


@dataclass(frozen=True)
class ThingWords:
    """
    What things are called, and what reads it.

    Attributes:
        nouns: category → what one of it is called; the first is its own name.
        plurals: category → what several are called; none where the plural is no other word.
        evaluator: reads sentences about things of these categories.
        left_out: categories that no sentence can name → why.
        kin: category → those of which somebody could say the same noun, itself included.
        uncounted: categories that have no plural, as the sky.
    """

    nouns: dict[str, tuple[str, ...]]
    plurals: dict[str, tuple[str, ...]]
    evaluator: Evaluator
    left_out: dict[str, str]
    kin: dict[str, frozenset[str]]
    uncounted: frozenset[str] = frozenset()

    def is_confused(self, category: str, others: Iterable[str]) -> bool:
        """Whether somebody could call a thing of a category by a noun of another, or the other way round."""
        kin = self.kin.get(category, ())
        return any(other != category and other in kin for other in others)


def make_thing_words(
    categories: Iterable[str],
    synonyms: Mapping[str, Sequence[str]] | None = None,
    uncounted: Iterable[str] = (),
    margins: Margins = THING_MARGINS,
) -> ThingWords:
    """Make the words for the categories of a data set.

    Args:
        categories: their names; `_` is read as a space, capital letters as small ones, "bow (weapon)" as "bow".
        synonyms: category → other words for one of it.
        uncounted: categories that have no plural, as the sky.
        margins: how clear a case must be for a sentence to be true.

    Raises ValueError for synonyms of a category that is not there, or that are words of the grammar.
    """
    names = list(dict.fromkeys(categories))
    synonyms = {} if synonyms is None else synonyms
    for category in synonyms:
        if category not in names:
            raise ValueError(
                f"there are synonyms for {describe(category)}, which is no category; "
                f"the categories are {', '.join(map(describe, names[:10]))}{' …' if len(names) > 10 else ''}."
            )
    reserved = Grammar(WORDS, KINDS, "places")
    called = {
        category: tuple(dict.fromkeys(map(clean_noun, (category, *synonyms.get(category, ()))))) for category in names
    }
    taken = {phrase for phrases in called.values() for phrase in phrases}
    said = taken | {plural for phrases in called.values() for plural in _plurals_of(phrases)}
    nouns: dict[str, tuple[str, ...]] = {}
    left_out = {}
    for category, phrases in called.items():
        problems = {phrase: _find_problem(phrase, said, reserved) for phrase in phrases}
        for phrase in phrases[1:]:
            if problems[phrase] is not None:
                raise ValueError(
                    f"the synonym {describe(phrase)} of {describe(category)} {problems[phrase]}; give another."
                )
        usable = tuple(phrase for phrase in phrases if problems[phrase] is None)
        if usable:
            nouns[category] = usable
        else:
            left_out[category] = str(problems[phrases[0]])
    uncounted = frozenset(uncounted)
    endings = _find_endings(called, uncounted)
    words = WORDS | {"noun": _by_meaning(nouns, endings), "nouns": {}}
    plurals = {
        category: tuple(
            plural for plural in _plurals_of(phrases) if plural not in taken and not _is_read(plural, reserved)
        )
        for category, phrases in nouns.items()
        if category not in uncounted
    }
    words["nouns"] = _by_meaning(plurals, endings)
    evaluator = Evaluator(Grammar(words, KINDS, "these categories"), margins)
    kin: dict[str, set[str]] = {category: set() for category in names}
    for noun in words["noun"]:  # a plural means no more than its noun may
        for category in noun.certain:
            kin[category] |= noun.possible
            for other in noun.possible:
                kin[other].add(category)
    return ThingWords(
        nouns,
        {category: phrases for category, phrases in plurals.items() if phrases},
        evaluator,
        left_out,
        {category: frozenset(others) for category, others in kin.items()},
        uncounted,
    )


def _find_endings(called: dict[str, tuple[str, ...]], uncounted: frozenset[str]) -> dict[str, set[str]]:
    """Return the categories of which a name, or its plural, ends in some words, by these words.

    So does what stands before "with" and the like: "the umbrella" can be an umbrella with rain.

    Of those that no sentence names too: somebody could mean them all the same.
    """
    endings: dict[str, set[str]] = {}
    for category, phrases in called.items():
        for phrase in (*phrases, *(() if category in uncounted else _plurals_of(phrases))):
            for part in (phrase, HEAD_END.split(phrase)[0]):
                for gap in re.finditer(r"^|[ -]", part):
                    endings.setdefault(part[gap.end() :], set()).add(category)
    return endings


def _plurals_of(phrases: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(plural for plural in map(pluralize, phrases) if plural is not None)


def _by_meaning(phrases_of: dict[str, tuple[str, ...]], endings: dict[str, set[str]]) -> dict[Noun, tuple[str, ...]]:
    """Group phrases by what they mean: the categories they are for, and all that somebody could call so."""
    categories: dict[str, set[str]] = {}
    for category, phrases in phrases_of.items():
        for phrase in phrases:
            categories.setdefault(phrase, set()).add(category)
    # The plural of a noun may mean whatever the noun may.
    meant: dict[Noun, tuple[str, ...]] = {}
    for phrase, certain in categories.items():
        # "the egg" can be one of a nest with eggs.
        possible = certain | endings[phrase] | endings.get(pluralize(phrase) or phrase, set())
        noun = Noun(frozenset(certain), frozenset(possible))
        meant[noun] = (*meant.get(noun, ()), phrase)
    return meant


def clean_noun(name: str) -> str:
    """Write a category's name as words in small letters, without what stands in brackets behind it."""
    words = " ".join(name.replace("_", " ").lower().split())
    return re.sub(r"(?<=.) ?\([^()]*\)$", "", words)


def _is_read(phrase: str, reserved: Grammar) -> bool:
    try:
        reserved.tokenize(phrase)
    except ValueError:
        return False
    return True


def _is_placed_noun(phrase: str, nouns: set[str], reserved: Grammar) -> bool:
    """
    Whether a phrase is a noun with a word of place, degree or number: "left hand" where there are hands too, "man in
    the middle" where there are men, "two hearts" where there are hearts.
    """
    words = phrase.split()
    splits = [(" ".join(words[:at]), " ".join(words[at:])) for at in range(1, len(words))]
    return any(
        (after in nouns and _is_read(before, reserved)) or (before in nouns and _is_read(after, reserved))
        for before, after in splits
    )


def _find_problem(phrase: str, nouns: set[str], reserved: Grammar) -> str | None:
    """Say why a sentence cannot name a thing by a phrase, or None."""
    if not any(letter.isalpha() for letter in phrase):
        return "has no letter"
    if not phrase.isprintable() or len(phrase) > MAX_NOUN_LETTERS:
        return f"has more than {MAX_NOUN_LETTERS} letters, or some that cannot be shown"
    if _is_read(phrase, reserved):
        return "consists of words of place, degree or number"
    relations = [relation for relations in WORDS["relation"].values() for relation in relations]
    if any(f" {relation} " in f" {phrase} " for relation in relations):
        return "holds a word that relates two things"
    if _is_placed_noun(phrase, nouns, reserved):
        return "could be another category and its place"
    return None


@cache
def _engine() -> inflect.engine:
    return inflect.engine()


@cache
def pluralize(noun: str) -> str | None:
    """Return the plural of a noun; None where it has none of its own, as "scissors", "fork and knife" and "猫"."""
    if " and " in noun or not noun.isascii():
        return None
    plural = clean_noun(_engine().plural_noun(noun))
    # A noun that is a plural already gets another s: "grapess".
    return None if not plural or plural == noun or plural.endswith("ss") else plural


def make_open_grammar(categories: Iterable[str]) -> Grammar:
    """Make a grammar that reads sentences about things of other names too: for their kind, not for what they mean."""
    words = WORDS | {
        "number": {},
        "filler": {None: (*WORDS["filler"][None], *(word for words in WORDS["number"].values() for word in words))},
        "noun": {name: (clean_noun(name),) for name in categories if clean_noun(name)},
    }
    return Grammar(words, KINDS, "named things", is_open=True)
