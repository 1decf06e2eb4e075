# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Referring expressions about synthetic scenes, read: text → description (grammar) → objects (evaluator).

The evaluator never hears what a writer had in mind: the text is parsed, and the description is held against the scene
graph. People disagree about close calls ("left" of two objects nearly above each other), so a reading has two sets:
the objects it is certainly true of, and those that somebody could mean.

Definitions. Positions are centres, in fractions of the side; candidates are the objects that match the rest of the
description. What is almost so is possible and not certain.
- small, medium, large: the object's size class. The smallest or largest candidate is possible too.
- largest, smallest: of two or more candidates, the one whose radius is ahead of the next by the factor `SIZE_RATIO`.
- left, right, top, bottom: among two or more candidates, the outermost one, ahead of the next by `POSITION_MARGIN`
  and not in the opposite third of the picture. A single candidate must lie in that half, clear by `HALF_MARGIN`.
- top left and so on: every candidate that lies in that quarter, clear of both middle lines by `HALF_MARGIN`.
- in the middle: every candidate at most `MIDDLE_REACH` from the centre, both ways.
- the k-th from a side: the candidates next to it in that order are `POSITION_MARGIN` away.
- above, below, left of, right of: at least `RELATION_MARGIN` that way, and `RELATION_SLOPE` times as far as sideways.
- closest to: ahead of the next candidate by `NEAREST_MARGIN`. The object it is close to is no candidate.
- "the red circles", "everything left of the ring": every candidate. Of several, left, right, top and bottom are those
  that lie in that half, clear by `HALF_MARGIN`. "both" is certain where there are two candidates, and possible of any.
- between: opposite the middle half of the line between the two, at most `BETWEEN_REACH` off it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from .scenes import COLOURS, Scene, SceneObject


POSITION_MARGIN = 0.12
HALF_MARGIN = 0.06
SIZE_RATIO = 1.27
MIDDLE_REACH = 0.10
MIDDLE_POSSIBLE_REACH = 0.22
RELATION_MARGIN = 0.12
RELATION_SLOPE = 1.5
NEAREST_MARGIN = 0.10
BETWEEN_REACH = 0.10

SIDES = ("left", "right", "top", "bottom")
# role → value → its phrases. Writers of plain expressions draw from the first table, so that it never changes.
Words = dict[str, dict[Any, tuple[str, ...]]]  # role → value → its phrases
PLAIN_WORDS: Words = {
    "shape": {name: (name,) for name in ("circle", "square", "triangle", "star")},
    "any": {None: ("shape", "object", "one")},
    "size": {"small": ("small", "little"), "large": ("large", "big")},
    "superlative": {"largest": ("largest", "biggest"), "smallest": ("smallest",)},
    "side": {
        "left": ("left", "leftmost", "on the left", "on the left side"),
        "right": ("right", "rightmost", "on the right", "on the right side"),
        "top": ("top", "topmost", "upper", "at the top"),
        "bottom": ("bottom", "bottommost", "lower", "at the bottom"),
    },
    "quarter": {
        (vertical, horizontal): (
            f"{vertical} {horizontal}",
            f"{other} {horizontal}",
            f"at the {vertical} {horizontal}",
            f"in the {other} {horizontal}",
        )
        for vertical, other in (("top", "upper"), ("bottom", "lower"))
        for horizontal in ("left", "right")
    },
}
WORDS: Words = PLAIN_WORDS | {
    "shape": {
        "circle": ("circle", "disc"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "star": ("star",),
        "cross": ("cross", "plus sign"),
        "ring": ("ring", "hoop"),
        "heart": ("heart",),
        "diamond": ("diamond", "rhombus"),
        "crescent": ("crescent", "moon"),
    },
    "colour": {name: (name,) for name in COLOURS} | {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")},
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("medium-sized", "middle-sized"),
        "large": ("large", "big"),
    },
    "texture": {
        "solid": ("solid",),
        "stripes": ("striped", "with stripes"),
        "dots": ("dotted", "spotted", "with dots"),
        "checks": ("checkered", "checked", "with checks"),
    },
    "outline": {"drawn": ("outlined", "with an outline", "with a border")},
    "middle": {"middle": ("in the middle", "in the center", "central")},
    "ordinal": {2: ("second", "2nd"), 3: ("third", "3rd"), 4: ("fourth", "4th")},
    "from": {side: (f"from the {side}",) for side in SIDES},
    "relation": {
        "top": ("above", "higher than"),
        "bottom": ("below", "under", "beneath"),
        "left": ("left of", "to the left of"),
        "right": ("right of", "to the right of"),
        "nearest": ("closest to", "nearest to"),
        "between": ("between",),
    },
    "and": {None: ("and",)},
    "not": {None: ("not",)},
    "filler": {None: ("the", "a", "that is", "which is", "that are", "which are", "in", "all")},
    "shapes": {
        "circle": ("circles", "discs"),
        "square": ("squares", "boxes"),
        "triangle": ("triangles",),
        "star": ("stars",),
        "cross": ("crosses", "plus signs"),
        "ring": ("rings", "hoops"),
        "heart": ("hearts",),
        "diamond": ("diamonds", "rhombuses"),
        "crescent": ("crescents", "moons"),
    },
    "several": {None: ("shapes", "objects", "ones")},
    "everything": {None: ("everything",)},
    "both": {None: ("both",)},
}
PHRASES = {
    phrase: (role, value) for role, values in WORDS.items() for value, phrases in values.items() for phrase in phrases
}
# First word of a phrase → number of words of the longest one that begins so.
LONGEST_PHRASES = {
    word: length for length, word in sorted((len(phrase.split()), phrase.split()[0]) for phrase in PHRASES)
}

PLURALS = ("shapes", "several", "everything")  # roles of nouns that mean every candidate
# The kind of expression that a role makes: roles that describe an object by itself, roles that pick among candidates.
PROPERTY_KINDS = {"size": "size", "texture": "texture", "outline": "texture", "colour": "colour", "shape": "shape"}
SELECTOR_KINDS = {
    "order": "order",
    "side": "position",
    "quarter": "position",
    "middle": "position",
    "superlative": "size",
}
KINDS = ("relation", "negation", "order", "position", "size", "texture", "colour", "shape")

Token = tuple[str, Any]


@dataclass(frozen=True)
class Description:
    """
    A parsed expression. Properties and the selector are (role, value); anchors are what a relation refers to. It means
    one object, or every candidate (`is_plural`), maybe just two of them (`is_both`).
    """

    properties: tuple[Token, ...]
    excluded: tuple[Token, ...] = ()
    selector: Token | None = None
    relation: str | None = None
    anchors: tuple[Description, ...] = ()
    is_plural: bool = False
    is_both: bool = False


class Reading(NamedTuple):
    """Indices of the objects that an expression is certainly true of, and of those somebody could mean."""

    certain: frozenset[int]
    possible: frozenset[int]


NOTHING = Reading(frozenset(), frozenset())


def evaluate_expression(expression: str, scene: Scene) -> set[int]:
    """Return the indices of the objects in a scene that an expression is certainly true of.

    Raises ValueError for a sentence outside the grammar.
    """
    return set(read_expression(expression, scene).certain)


def read_expression(expression: str, scene: Scene) -> Reading:
    """Return the objects that an expression is certainly true of, and those somebody could mean; raise as above."""
    return _read(parse_expression(expression), scene.objects)


def is_true_of_one(expression: str, scene: Scene, index: int) -> bool:
    """Whether an expression is certainly true of one object, and nobody could mean another."""
    reading = read_expression(expression, scene)
    return reading.certain == reading.possible == {index}


def is_true_of_many(expression: str, scene: Scene) -> frozenset[int]:
    """The objects, two or more, that an expression is certainly true of, and nobody could mean others; else none."""
    if not parse_expression(expression).is_plural:
        return frozenset()
    reading = read_expression(expression, scene)
    return reading.certain if reading.certain == reading.possible and len(reading.certain) > 1 else frozenset()


def is_true_of_none(expression: str, scene: Scene) -> bool:
    """Whether nobody could mean any object of the scene by an expression."""
    return not read_expression(expression, scene).possible


def expression_kind(expression: str) -> str:
    """Return the first of `KINDS` that an expression uses, not looking into what a relation refers to."""
    description = parse_expression(expression)
    if description.relation is not None:
        return "relation"
    if description.excluded:
        return "negation"
    kinds = {PROPERTY_KINDS[role] for role, _ in description.properties}
    if description.selector is not None:
        kinds.add(SELECTOR_KINDS[description.selector[0]])
    return next((kind for kind in KINDS if kind in kinds), "shape")


# Grammar


def tokenize(expression: str) -> list[Token]:
    """Split an expression into (role, value) pairs, the longest known phrase first, fillers left out."""
    words = expression.lower().split()
    tokens = []
    start = 0
    while start < len(words):
        for end in range(start + LONGEST_PHRASES.get(words[start], 0), start, -1):
            token = PHRASES.get(" ".join(words[start:end]))
            if token is not None:
                break
        else:
            raise ValueError(f"{words[start]!r} in {expression!r} is not in the grammar of synthetic scenes.")
        if token[0] != "filler":
            tokens.append(token)
        start = end
    return tokens


@lru_cache(maxsize=4096)
def parse_expression(expression: str) -> Description:
    """Parse an expression; raise ValueError where the grammar has no such sentence."""
    tokens = tokenize(expression)
    at = next((at for at, (role, _) in enumerate(tokens) if role == "relation"), None)
    if at is None:
        return _parse_noun_phrase(tokens, expression)
    head = _parse_noun_phrase(tokens[:at], expression)
    relation, rest = tokens[at][1], tokens[at + 1 :]
    parts = [rest]
    if relation == "between":
        splits = [split for split, (role, _) in enumerate(rest) if role == "and"]
        if len(splits) != 1:
            raise ValueError(f"{expression!r} needs 'between' one thing 'and' another.")
        parts = [rest[: splits[0]], rest[splits[0] + 1 :]]
    anchors = tuple(_parse_noun_phrase(part, expression) for part in parts)
    if any(anchor.is_plural for anchor in anchors):
        raise ValueError(f"{expression!r} relates something to several things; one can be read.")
    if head.is_plural and relation == "nearest":
        raise ValueError(f"{expression!r} asks for the nearest of several things; one can be read.")
    return replace(head, relation=relation, anchors=anchors)


def _parse_noun_phrase(tokens: list[Token], expression: str) -> Description:
    properties: list[Token] = []
    excluded: list[Token] = []
    selectors: list[Token] = []
    ordinals: list[int] = []
    starts: list[str] = []
    num_nouns = 0
    is_negated = is_plural = False
    num_both = sum(role == "both" for role, _ in tokens)
    for role, value in tokens:
        is_plural |= role in PLURALS and not is_negated
        role = "shape" if role == "shapes" else "any" if role in PLURALS else role
        if is_negated and role not in PROPERTY_KINDS:
            raise ValueError(f"{expression!r} denies something other than a property.")
        if role in PROPERTY_KINDS:
            (excluded if is_negated else properties).append((role, value))
        elif role in SELECTOR_KINDS:
            selectors.append((role, value))
        elif role in ("ordinal", "from"):
            (ordinals if role == "ordinal" else starts).append(value)
        elif role not in ("any", "not", "both"):
            raise ValueError(f"{expression!r} has {role!r} words where none can be read.")
        num_nouns += role in ("any", "shape") and not is_negated
        is_negated = role == "not"
    if num_nouns != 1 or is_negated:
        raise ValueError(f"{expression!r} needs one noun for each thing, such as 'circle' or 'object'.")
    if len(ordinals) != len(starts):
        raise ValueError(f"{expression!r} needs both an ordinal and the side it counts from.")
    selectors += [("order", pair) for pair in zip(ordinals, starts)]
    if len(selectors) > 1:
        raise ValueError(
            f"{expression!r} has {len(selectors)} words of place or degree for one thing; one can be read."
        )
    if is_plural and selectors and selectors[0][0] in ("order", "superlative"):
        raise ValueError(f"{expression!r} picks one of several things by a plural.")
    if num_both > is_plural:
        raise ValueError(f"{expression!r} has 'both' where no two things are named.")
    selector = selectors[0] if selectors else None
    return Description(tuple(properties), tuple(excluded), selector, is_plural=is_plural, is_both=num_both > 0)


# Evaluator


def _read(description: Description, objects: tuple[SceneObject, ...]) -> Reading:
    """Narrow all objects down: properties, sizes, then the relation, then the word that picks among candidates."""
    exact = [(role, value) for role, value in description.properties if role != "size"]
    denied = [(role, value) for role, value in description.excluded if role != "size"]
    candidates = frozenset(
        index
        for index, scene_object in enumerate(objects)
        if all(getattr(scene_object, role) == value for role, value in exact)
        and not any(getattr(scene_object, role) == value for role, value in denied)
    )
    reading = Reading(candidates, candidates)
    for role, size in description.properties:
        if role == "size":
            reading = _narrow(reading, _read_size, objects, size)
    for role, size in description.excluded:
        if role == "size":
            reading = _narrow(reading, _read_other_size, objects, size)
    if description.relation is not None:
        reading = _read_relation(reading, description, objects)
    if description.selector is not None:
        role, value = description.selector
        select = _read_all_on_side if description.is_plural and role == "side" else SELECTORS[role]
        reading = _narrow(reading, select, objects, value)
    if description.is_both and not len(reading.certain) == len(reading.possible) == 2:
        reading = Reading(frozenset(), reading.possible)
    return reading


def _narrow(reading: Reading, select: Callable[..., Reading], objects: tuple[SceneObject, ...], value) -> Reading:
    """Apply a selection to both sets of candidates; certain is what it picks from either."""
    strict = select(reading.certain, objects, value)
    if reading.certain == reading.possible:
        return strict
    generous = select(reading.possible, objects, value)
    return Reading(strict.certain & generous.certain, strict.possible | generous.possible)


def _read_size(indices: frozenset[int], objects: tuple[SceneObject, ...], size: str) -> Reading:
    certain = frozenset(index for index in indices if objects[index].size == size)
    if size == "medium":
        return Reading(certain, certain)
    extreme = _read_superlative(indices, objects, "largest" if size == "large" else "smallest").possible
    return Reading(certain, certain | extreme)


def _read_other_size(indices: frozenset[int], objects: tuple[SceneObject, ...], size: str) -> Reading:
    named = _read_size(indices, objects, size)
    return Reading(indices - named.possible, indices - named.certain)


def _read_rank(keys: dict[int, float], rank: int, margin: float) -> Reading:
    """Read the object at a rank (1 = lowest key): certain if no tie within the margin can change it."""
    certain, possible = set(), set()
    for index, key in keys.items():
        lowest = 1 + sum(other + margin <= key for other in keys.values())
        highest = sum(other < key + margin for other in keys.values())
        if lowest <= rank <= highest:
            possible.add(index)
            if lowest == highest:
                certain.add(index)
    return Reading(frozenset(certain), frozenset(possible))


def _read_superlative(indices: frozenset[int], objects: tuple[SceneObject, ...], word: str) -> Reading:
    sign = -1 if word == "largest" else 1
    keys = {index: sign * math.log(objects[index].radius) for index in indices}
    ranked = _read_rank(keys, 1, math.log(SIZE_RATIO))
    return ranked if len(keys) > 1 else Reading(frozenset(), ranked.possible)


def distance_to_side(scene_object: SceneObject, side: str) -> float:
    if side in ("left", "right"):
        return scene_object.x if side == "left" else 1 - scene_object.x
    return scene_object.y if side == "top" else 1 - scene_object.y


def _read_side(indices: frozenset[int], objects: tuple[SceneObject, ...], side: str) -> Reading:
    keys = {index: distance_to_side(objects[index], side) for index in indices}
    if len(keys) == 1:
        return _read_half(keys)
    outermost = _read_rank(keys, 1, POSITION_MARGIN)
    return Reading(frozenset(index for index in outermost.certain if keys[index] <= 2 / 3), outermost.possible)


def _read_all_on_side(indices: frozenset[int], objects: tuple[SceneObject, ...], side: str) -> Reading:
    return _read_half({index: distance_to_side(objects[index], side) for index in indices})


def _read_half(keys: dict[int, float]) -> Reading:
    return Reading(
        frozenset(index for index, key in keys.items() if key <= 0.5 - HALF_MARGIN),
        frozenset(index for index, key in keys.items() if key <= 0.5 + HALF_MARGIN),
    )


def _read_quarter(indices: frozenset[int], objects: tuple[SceneObject, ...], sides: tuple[str, str]) -> Reading:
    """An object lies in a quarter as far as it lies in the less clear of the two halves."""
    return _read_half({index: max(distance_to_side(objects[index], side) for side in sides) for index in indices})


def _read_middle(indices: frozenset[int], objects: tuple[SceneObject, ...], _: str) -> Reading:
    """Of three or more candidates, one with as many on its left as on its right is possible too (or above, below)."""
    distances = {index: max(abs(objects[index].x - 0.5), abs(objects[index].y - 0.5)) for index in indices}
    possible = {index for index, distance in distances.items() if distance <= MIDDLE_POSSIBLE_REACH}
    if len(indices) >= 3:
        for key in (lambda index: objects[index].x, lambda index: objects[index].y):
            in_order = sorted(indices, key=key)
            possible |= {in_order[(len(in_order) - 1) // 2], in_order[len(in_order) // 2]}
    certain = frozenset(index for index, distance in distances.items() if distance <= MIDDLE_REACH)
    return Reading(certain, frozenset(possible))


def _read_order(indices: frozenset[int], objects: tuple[SceneObject, ...], rank_and_side: tuple[int, str]) -> Reading:
    rank, side = rank_and_side
    return _read_rank({index: distance_to_side(objects[index], side) for index in indices}, rank, POSITION_MARGIN)


SELECTORS: dict[str, Callable[..., Reading]] = {
    "side": _read_side,
    "quarter": _read_quarter,
    "middle": _read_middle,
    "order": _read_order,
    "superlative": _read_superlative,
}


def _read_relation(reading: Reading, description: Description, objects: tuple[SceneObject, ...]) -> Reading:
    """Relate candidates to anchors. An anchor that could be several objects leaves nothing certain."""
    anchors = [_read(anchor, objects) for anchor in description.anchors]
    if not all(anchor.possible for anchor in anchors):
        return NOTHING
    related = []
    for choice in _choices([sorted(anchor.possible) for anchor in anchors]):
        value = (description.relation, tuple(objects[index] for index in choice))
        others = Reading(reading.certain - set(choice), reading.possible - set(choice))
        related.append(_narrow(others, _read_place, objects, value))
    possible = frozenset().union(*(place.possible for place in related))
    is_clear = len(related) == 1 and all(anchor.certain == anchor.possible for anchor in anchors)
    return Reading(related[0].certain if is_clear else frozenset(), possible)


def _choices(options: list[list[int]]) -> list[tuple[int, ...]]:
    """Return one index of each list in all ways; two anchors are never the same object."""
    if len(options) == 1:
        return [(index,) for index in options[0]]
    return [(first, second) for first in options[0] for second in options[1] if first != second]


def _read_place(indices: frozenset[int], objects: tuple[SceneObject, ...], value) -> Reading:
    relation, anchors = value
    if relation == "nearest":
        keys = {
            index: math.dist((objects[index].x, objects[index].y), (anchors[0].x, anchors[0].y)) for index in indices
        }
        return _read_rank(keys, 1, NEAREST_MARGIN)
    return Reading(
        frozenset(index for index in indices if is_placed(objects[index], relation, anchors)),
        frozenset(index for index in indices if is_placed(objects[index], relation, anchors, strictly=False)),
    )


def is_placed(
    scene_object: SceneObject, relation: str, anchors: tuple[SceneObject, ...], strictly: bool = True
) -> bool:
    """Whether an object is on a side of its anchor, or between two; not strictly: whether somebody could say so."""
    return (_is_between if relation == "between" else _is_beside)(scene_object, relation, anchors, strictly)


def _is_beside(scene_object: SceneObject, side: str, anchors: tuple[SceneObject, ...], strictly: bool) -> bool:
    """Not strictly: in any way nearer to that side of the picture."""
    way = distance_to_side(anchors[0], side) - distance_to_side(scene_object, side)
    x, y = scene_object.x - anchors[0].x, scene_object.y - anchors[0].y
    sideways = abs(y) if side in ("left", "right") else abs(x)
    return way >= max(RELATION_MARGIN, RELATION_SLOPE * sideways) if strictly else way > 0


def _is_between(scene_object: SceneObject, _: str, anchors: tuple[SceneObject, ...], strictly: bool) -> bool:
    """Not strictly: opposite any part of the line."""
    first, second = anchors
    line = (second.x - first.x, second.y - first.y)
    offset = (scene_object.x - first.x, scene_object.y - first.y)
    length = math.hypot(*line)
    if length == 0:
        return False
    along = (offset[0] * line[0] + offset[1] * line[1]) / length**2
    away = abs(offset[0] * line[1] - offset[1] * line[0]) / length
    if strictly:
        return 0.25 <= along <= 0.75 and away <= BETWEEN_REACH
    return 0 < along < 1 and away <= max(2 * BETWEEN_REACH, 0.5 * length)
