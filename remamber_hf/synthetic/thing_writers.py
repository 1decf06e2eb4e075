# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Referring expressions about named things, written: draft a sentence, keep it if the evaluator agrees.

As `writers`, for things whose names are a data set's own. A draft may be wrong or ambiguous; what is kept was read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from .evaluator import is_placed
from .grammar import SIDES
from .scenes import choose
from .thing_words import MAX_NUMBER, NUMBERS, WORDS, ThingWords
from .things import Thing


NUM_DRAFTS = 4
MAX_EXPRESSIONS = 3
MANY_DRAFTS = 8
PLACE_PREPOSITIONS = ("on ", "at ", "in ", "farthest ")

Things = Sequence[Thing]


def sample_thing_expressions(
    words: ThingWords, things: Things, rng: np.random.Generator, most: int = MAX_EXPRESSIONS
) -> dict[int, list[str]]:
    """Write expressions that are certainly true of one thing and of no other: its index → 1 to `most` of them.

    The expressions of a thing are of different kinds: what tells it from others of its category where there are such,
    else its name, and sometimes its place. A thing that none was found for is left out.
    """
    expressions = {}
    for index, thing in enumerate(things):
        if not thing.is_target or thing.is_crowd or thing.category not in words.nouns:
            continue
        wanted = int(rng.integers(1, most + 1))
        written: list[str] = []
        for kind in _choose_kinds(rng, things, index):
            drafts = (WRITERS[kind](rng, words, things, index) for _ in range(NUM_DRAFTS))
            text = next((draft for draft in drafts if draft and _is_true_of_one(words, draft, things, index)), None)
            if text is not None and text not in written:
                written.append(text)
            if len(written) == wanted:
                break
        if written:
            expressions[index] = written
    return expressions


def sample_absent_thing_expressions(
    words: ThingWords, things: Things, rng: np.random.Generator, categories: Sequence[str] | None = None
) -> list[str]:
    """Write up to 2 expressions that nobody could mean anything in the picture by.

    Each would be true of one thing if that were of another category, one of `categories` (by default of all that have
    words), or elsewhere.
    """
    targets = [index for index, thing in enumerate(things) if thing.category in words.nouns and not thing.is_crowd]
    categories = tuple(words.nouns) if categories is None else categories
    if not categories:
        return []
    written: list[str] = []
    wanted = int(rng.integers(1, 3))
    for _ in range(8 * wanted):
        category = choose(rng, categories)
        if not targets or category in words.uncounted or rng.random() < 0.5:
            draft: str | None = _with_article(rng, choose(rng, words.nouns[category]))
            is_meant = True
        else:
            index = choose(rng, targets)
            imagined = list(things)
            imagined[index] = _alter(rng, things[index], category)
            kinds = _choose_kinds(rng, imagined, index)
            draft = WRITERS[choose(rng, kinds)](rng, words, imagined, index)
            is_meant = draft is not None and _is_true_of_one(words, draft, imagined, index)
        if draft and is_meant and draft not in written and words.evaluator.is_true_of_none(draft, things):
            written.append(draft)
        if len(written) == wanted:
            break
    return written


def sample_many_thing_expressions(
    words: ThingWords, things: Things, rng: np.random.Generator
) -> dict[frozenset[int], list[str]]:
    """Write up to `MAX_EXPRESSIONS` expressions that are certainly true of several things: these → their texts."""
    written: dict[frozenset[int], list[str]] = {}
    counted = [index for index, thing in enumerate(things) if thing.category in words.plurals and not thing.is_stuff]
    several = [index for index in counted if len(_rivals(things, index)) > 1]
    if not several:
        return written
    for _ in range(MANY_DRAFTS):
        text = _write_many(rng, words, things, choose(rng, several))
        meant = _true_of_many(words, text, things)
        if meant and all(things[index].is_target for index in meant) and text not in written.get(meant, ()):
            written.setdefault(meant, []).append(text)
        if sum(map(len, written.values())) == MAX_EXPRESSIONS:
            break
    return written


def _is_true_of_one(words: ThingWords, draft: str, things: Things, index: int) -> bool:
    """A name may make a draft something else, which the grammar does not read: such a draft is no sentence."""
    try:
        return words.evaluator.is_true_of_one(draft, things, index)
    except ValueError:
        return False


def _true_of_many(words: ThingWords, draft: str, things: Things) -> frozenset[int]:
    try:
        return words.evaluator.is_true_of_many(draft, things)
    except ValueError:
        return frozenset()


def _choose_kinds(rng: np.random.Generator, things: Things, index: int) -> list[str]:
    """Return the kinds of sentences to try for a thing, in the order to try them in."""
    if things[index].is_stuff:
        return ["name"]
    num_rivals = len(_rivals(things, index))
    if num_rivals > 1:
        kinds = rng.permutation(["position", "order", "size", "relation"]).tolist()
        # Few people count two things.
        return kinds if num_rivals > 2 else sorted(kinds, key="order".__eq__)
    others = [kind for kind in ("position", "relation") if rng.random() < 0.35]
    return rng.permutation(["name", *others]).tolist()


def _rivals(things: Things, index: int) -> list[int]:
    """Return the indices of all things of a thing's category, itself included."""
    return [at for at, other in enumerate(things) if other.category == things[index].category]


def _alter(rng: np.random.Generator, thing: Thing, category: str) -> Thing:
    """Make another thing of one, or move it to the other side of the picture."""
    if rng.random() < 0.8:
        return replace(thing, category=category)
    left, top, right, bottom = thing.box
    width, height = thing.frame
    return replace(thing, box=(width - right, height - bottom, width - left, height - top))


def _with_article(rng: np.random.Generator, text: str) -> str:
    return f"the {text}" if rng.random() < 0.75 else text


def _with_place(rng: np.random.Generator, noun: str, place: str) -> str:
    return f"{noun} {place}" if place.startswith(PLACE_PREPOSITIONS) else f"{place} {noun}"


def _write_name(rng: np.random.Generator, words: ThingWords, things: Things, index: int) -> str:
    noun = choose(rng, words.nouns[things[index].category])
    if not things[index].is_stuff and rng.random() < 0.1:
        return f"the only {noun}"
    return _with_article(rng, noun)


def _write_position(rng: np.random.Generator, words: ThingWords, things: Things, index: int) -> str:
    thing = things[index]
    noun = choose(rng, words.nouns[thing.category])
    rivals = [things[at] for at in _rivals(things, index)]
    sides = [side for side in SIDES if thing == min(rivals, key=lambda rival: rival.distance_to(side))]
    draw = rng.random()
    if draw < 0.2 and max(abs(thing.fraction_to(side) - 0.5) for side in ("left", "top")) < 0.15:
        place = choose(rng, WORDS["middle"]["middle"])
    elif sides and draw < 0.75:
        place = choose(rng, WORDS["side"][choose(rng, sides)])
    else:
        quarter = tuple(sides[thing.fraction_to(sides[0]) > 0.5] for sides in (("top", "bottom"), ("left", "right")))
        place = choose(rng, WORDS["quarter"][quarter])
    return _with_article(rng, _with_place(rng, noun, place))


def _write_order(rng: np.random.Generator, words: ThingWords, things: Things, index: int) -> str | None:
    side = choose(rng, SIDES)
    in_order = sorted(_rivals(things, index), key=lambda at: things[at].distance_to(side))
    rank = 1 + in_order.index(index)
    if rank not in WORDS["ordinal"]:
        return None
    ordinal = choose(rng, WORDS["ordinal"][rank])
    return f"the {ordinal} {choose(rng, words.nouns[things[index].category])} from the {side}"


def _write_size(rng: np.random.Generator, words: ThingWords, things: Things, index: int) -> str:
    thing = things[index]
    is_largest = all(things[at].area <= thing.area for at in _rivals(things, index))
    degree = choose(rng, WORDS["superlative"]["largest" if is_largest else "smallest"])
    return f"the {degree} {choose(rng, words.nouns[thing.category])}"


def _write_relation(rng: np.random.Generator, words: ThingWords, things: Things, index: int) -> str | None:
    options = _find_relations(rng, words, things, index)
    if not options:
        return None
    relation, anchors = choose(rng, options)
    names = " and ".join(f"the {choose(rng, words.nouns[things[anchor].category])}" for anchor in anchors)
    noun = choose(rng, words.nouns[things[index].category])
    return _with_article(rng, f"{noun} {choose(rng, WORDS['relation'][relation])} {names}")


def _find_relations(
    rng: np.random.Generator, words: ThingWords, things: Things, index: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Return true relations of one sort, drawn at random, to things that a noun names; 'nearest' may be wrong."""
    anchors = [at for at in _find_anchors(words, things) if at != index]
    sort = choose(rng, ("side", "side", "side", "beside", "beside", "nearest", "between"))
    options: list[tuple[str, tuple[int, ...]]]
    if sort == "nearest":
        return [("nearest", (at,)) for at in anchors]
    if sort == "between":
        options = [("between", pair) for pair in combinations(anchors, 2)]
    elif sort == "beside":
        options = [("beside", (at,)) for at in anchors]
    else:
        options = [(side, (at,)) for at in anchors for side in SIDES]
    margins = words.evaluator.margins
    return [
        (relation, chosen)
        for relation, chosen in options
        if is_placed(things[index], relation, [things[at] for at in chosen], margins)
    ]


def _find_anchors(words: ThingWords, things: Things) -> list[int]:
    """Return the indices of the things that others may be related to: each the only one of its category."""
    return [
        at
        for at, other in enumerate(things)
        if other.category in words.nouns and other.is_anchor and not other.is_crowd and not other.is_stuff
        if len(_rivals(things, at)) == 1
    ]


def _write_many(rng: np.random.Generator, words: ThingWords, things: Things, index: int) -> str:
    """Name all things of a category, or all of them that lie on a side of the picture or of another thing."""
    category = things[index].category
    noun = choose(rng, words.plurals[category])
    number = len(_rivals(things, index))
    draw = rng.random()
    if draw < 0.25:
        # Of "the leftmost dogs" nobody knows how many they are.
        places = WORDS["side"][choose(rng, SIDES)]
        noun = _with_place(rng, noun, choose(rng, [place for place in places if place.startswith(("on ", "at "))]))
    elif draw < 0.4:
        anchors = _find_anchors(words, things)
        if anchors:
            anchor = choose(rng, words.nouns[things[choose(rng, anchors)].category])
            noun = f"{noun} {choose(rng, WORDS['relation'][choose(rng, SIDES)])} the {anchor}"
    elif draw < 0.7 and number <= MAX_NUMBER:
        return choose(rng, (f"the {NUMBERS[number]} {noun}", f"both {noun}" if number == 2 else f"all {noun}"))
    return f"{choose(rng, ('the ', 'the ', 'all ', 'all the ', ''))}{noun}"


WRITERS: dict[str, Callable[[np.random.Generator, ThingWords, Things, int], str | None]] = {
    "name": _write_name,
    "position": _write_position,
    "order": _write_order,
    "size": _write_size,
    "relation": _write_relation,
}
