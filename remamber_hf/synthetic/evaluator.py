# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a description is true of: description → objects of a scene.

The evaluator never hears what a writer had in mind: the text is parsed, and the description is held against the scene
graph. People disagree about close calls ("left" of two objects nearly above each other), so a reading has two sets:
the objects it is certainly true of, and those that somebody could mean.

Definitions. Positions are centres; distances are fractions of the picture's longer side, thirds, halves and quarters
are those of its width and height. Candidates are the objects that match the rest of the description. What is almost so
is possible and not certain. Margins are those of `Margins`.
- small, medium, large: the object's size class. The smallest or largest candidate is possible too.
- largest, smallest: of two or more candidates, the one that is ahead of the next by the factor `size_ratio`.
- left, right, top, bottom: among two or more candidates, the outermost one, ahead of the next by `position` and not in
  the opposite third of the picture. A single candidate must lie in that half, clear of the middle line by `half`.
- top left and so on: every candidate that lies in that quarter, clear of both middle lines by `half`.
- in the middle: every candidate at most `middle` from the centre, both ways.
- the k-th from a side: the candidates next to it in that order are `position` away.
- above, below, left of, right of: at least `relation` that way, `slope` times as far as sideways, and clear of it.
- closest to: ahead of the next candidate by `nearest`. The object it is close to is no candidate.
- "the red circles", "everything left of the ring": every candidate. Of several, left, right, top and bottom are those
  that lie in that half, clear by `half`. A number, or "both", is certain where there are as many candidates, and
  possible of any.
- between: opposite the middle half of the line between the two, at most `between` off it.
- next to: as the objects' class says.
An object that stands for an unknown number of its sort, as a crowd does, is possible whatever else is said of it, and
leaves nothing certain; what is related to one may be related so to any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .grammar import Description, Grammar


@dataclass(frozen=True)
class Margins:
    """
    How clear a case must be to be certain: distances as fractions of the picture's longer side, `half`, `middle` and
    `middle_possible` of its width and height; `size_ratio` is of two lengths, `slope` of a way and the way sideways.
    """

    position: float = 0.12
    half: float = 0.06
    size_ratio: float = 1.27
    middle: float = 0.10
    middle_possible: float = 0.22
    relation: float = 0.12
    slope: float = 1.5
    nearest: float = 0.10
    between: float = 0.10
    next_to: float = 0.05


class Located(Protocol):
    """An object that the evaluator can read of."""

    @property
    def x(self) -> float: ...

    @property
    def y(self) -> float: ...

    @property
    def is_crowd(self) -> bool:
        """Whether it stands for an unknown number of its sort."""

    def has(self, role: str, value: Any) -> bool:
        """Whether a word is certainly true of it."""

    def may_have(self, role: str, value: Any) -> bool:
        """Whether somebody could say so."""

    def distance_to(self, side: str) -> float:
        """Distance of its centre from a side, as a fraction of the picture's longer side."""

    def fraction_to(self, side: str) -> float:
        """The same as a fraction of the picture's width or height."""

    def precedes(self, other: Any, side: str, margin: float) -> bool:
        """Whether it certainly lies nearer to a side than another."""

    def outsizes(self, other: Any, ratio: float) -> bool:
        """Whether it is certainly larger than another."""

    def is_clear_of(self, anchor: Any, side: str) -> bool:
        """Whether it lies on that side of another with all but a small part of it."""

    def is_next_to(self, anchor: Any, reach: float, strictly: bool) -> bool:
        """Whether it is next to another; not strictly: whether somebody could say so."""


class Reading(NamedTuple):
    """Indices of the objects that an expression is certainly true of, and of those somebody could mean."""

    certain: frozenset[int]
    possible: frozenset[int]


NOTHING = Reading(frozenset(), frozenset())
Objects = Sequence[Located]


def is_placed(
    located: Located, relation: str, anchors: Sequence[Located], margins: Margins, strictly: bool = True
) -> bool:
    """
    Whether an object is on a side of its anchor, next to it, or between two; not strictly: whether somebody could say
    so.
    """
    if relation == "between":
        return _is_between(located, anchors, margins, strictly)
    if relation == "beside":
        return located.is_next_to(anchors[0], margins.next_to, strictly)
    return _is_on_side(located, relation, anchors[0], margins, strictly)


def _is_on_side(located: Located, side: str, anchor: Located, margins: Margins, strictly: bool) -> bool:
    """Not strictly: in any way nearer to that side of the picture."""
    way = anchor.distance_to(side) - located.distance_to(side)
    x, y = located.x - anchor.x, located.y - anchor.y
    sideways = abs(y) if side in ("left", "right") else abs(x)
    if not strictly:
        return way > 0
    return way >= max(margins.relation, margins.slope * sideways) and located.is_clear_of(anchor, side)


def _is_between(located: Located, anchors: Sequence[Located], margins: Margins, strictly: bool) -> bool:
    """Not strictly: opposite any part of the line."""
    first, second = anchors
    line = (second.x - first.x, second.y - first.y)
    offset = (located.x - first.x, located.y - first.y)
    length = math.hypot(*line)
    if length == 0:
        return False
    along = (offset[0] * line[0] + offset[1] * line[1]) / length**2
    away = abs(offset[0] * line[1] - offset[1] * line[0]) / length
    if strictly:
        return 0.25 <= along <= 0.75 and away <= margins.between
    return 0 < along < 1 and away <= max(2 * margins.between, 0.5 * length)


class Evaluator:
    """Says what the expressions of a grammar are true of, objects given as a sequence."""

    def __init__(self, grammar: Grammar, margins: Margins):
        self.grammar = grammar
        self.margins = margins
        self._selectors: dict[str, Callable[[frozenset[int], Objects, Any], Reading]] = {
            "side": self._read_side,
            "quarter": self._read_quarter,
            "middle": self._read_middle,
            "order": self._read_order,
            "superlative": self._read_superlative,
        }

    def read(self, expression: str, objects: Objects) -> Reading:
        """
        Return the objects that an expression is certainly true of, and those somebody could mean; raise ValueError
        for a sentence outside the grammar.
        """
        return self._read(self.grammar.parse(expression), objects)

    def is_true_of_one(self, expression: str, objects: Objects, index: int) -> bool:
        """Whether an expression is certainly true of one object, and nobody could mean another."""
        if self.grammar.parse(expression).is_plural:
            return False
        reading = self.read(expression, objects)
        return reading.certain == reading.possible == {index}

    def is_true_of_many(self, expression: str, objects: Objects) -> frozenset[int]:
        """
        The objects, two or more, that an expression is certainly true of, and nobody could mean others; else none.
        """
        if not self.grammar.parse(expression).is_plural:
            return frozenset()
        reading = self.read(expression, objects)
        return reading.certain if reading.certain == reading.possible and len(reading.certain) > 1 else frozenset()

    def is_true_of_none(self, expression: str, objects: Objects) -> bool:
        """Whether nobody could mean any object by an expression."""
        return not self.read(expression, objects).possible

    def is_placed(self, located: Located, relation: str, anchors: Sequence[Located]) -> bool:
        """Whether an object certainly stands in a relation to others."""
        return is_placed(located, relation, anchors, self.margins)

    def _read(self, description: Description, objects: Objects) -> Reading:
        """Narrow all objects down: properties, sizes, then the relation, then the word that picks among candidates."""
        exact = [(role, value) for role, value in description.properties if role != "size"]
        denied = [(role, value) for role, value in description.excluded if role != "size"]
        reading = Reading(
            frozenset(
                index
                for index, located in enumerate(objects)
                if all(located.has(*word) for word in exact) and not any(located.may_have(*word) for word in denied)
            ),
            frozenset(
                index
                for index, located in enumerate(objects)
                if all(located.may_have(*word) for word in exact) and not any(located.has(*word) for word in denied)
            ),
        )
        crowds = frozenset(index for index in reading.possible if objects[index].is_crowd)
        for role, size in description.properties:
            if role == "size":
                reading = _narrow(reading, self._read_size, objects, size)
        for role, size in description.excluded:
            if role == "size":
                reading = _narrow(reading, self._read_other_size, objects, size)
        if description.relation is not None:
            reading = self._read_relation(reading, description, objects)
        if description.selector is not None:
            role, value = description.selector
            select = self._read_all_on_side if description.is_plural and role == "side" else self._selectors[role]
            reading = _narrow(reading, select, objects, value)
        number = description.number
        if number is not None and not len(reading.certain) == len(reading.possible) == number:
            reading = Reading(frozenset(), reading.possible)
        return Reading(frozenset(), reading.possible | crowds) if crowds else reading

    def _read_size(self, indices: frozenset[int], objects: Objects, size: str) -> Reading:
        certain = frozenset(index for index in indices if objects[index].has("size", size))
        if size == "medium":
            return Reading(certain, certain)
        extreme = self._read_superlative(indices, objects, "largest" if size == "large" else "smallest").possible
        return Reading(certain, certain | extreme)

    def _read_other_size(self, indices: frozenset[int], objects: Objects, size: str) -> Reading:
        named = self._read_size(indices, objects, size)
        return Reading(indices - named.possible, indices - named.certain)

    def _read_superlative(self, indices: frozenset[int], objects: Objects, word: str) -> Reading:
        def is_ahead(first: int, second: int) -> bool:
            larger, smaller = (first, second) if word == "largest" else (second, first)
            return objects[larger].outsizes(objects[smaller], self.margins.size_ratio)

        ranked = _read_rank(indices, 1, is_ahead)
        return ranked if len(indices) > 1 else Reading(frozenset(), ranked.possible)

    def _read_order(self, indices: frozenset[int], objects: Objects, rank_and_side: tuple[int, str]) -> Reading:
        rank, side = rank_and_side

        def is_ahead(first: int, second: int) -> bool:
            return objects[first].precedes(objects[second], side, self.margins.position)

        return _read_rank(indices, rank, is_ahead)

    def _read_side(self, indices: frozenset[int], objects: Objects, side: str) -> Reading:
        if len(indices) == 1:
            return self._read_all_on_side(indices, objects, side)
        outermost = self._read_order(indices, objects, (1, side))
        near = frozenset(index for index in outermost.certain if objects[index].fraction_to(side) <= 2 / 3)
        return Reading(near, outermost.possible)

    def _read_all_on_side(self, indices: frozenset[int], objects: Objects, side: str) -> Reading:
        return self._read_half({index: objects[index].fraction_to(side) for index in indices})

    def _read_half(self, fractions: dict[int, float]) -> Reading:
        return Reading(
            frozenset(index for index, fraction in fractions.items() if fraction <= 0.5 - self.margins.half),
            frozenset(index for index, fraction in fractions.items() if fraction <= 0.5 + self.margins.half),
        )

    def _read_quarter(self, indices: frozenset[int], objects: Objects, sides: tuple[str, str]) -> Reading:
        """An object lies in a quarter as far as it lies in the less clear of the two halves."""
        return self._read_half({index: max(objects[index].fraction_to(side) for side in sides) for index in indices})

    def _read_middle(self, indices: frozenset[int], objects: Objects, _: str) -> Reading:
        """
        Of three or more candidates, one with as many on its left as on its right (or above) is possible too, and what
        is level with it.
        """
        distances = {
            index: max(abs(objects[index].fraction_to(side) - 0.5) for side in ("left", "top")) for index in indices
        }
        possible = {index for index, distance in distances.items() if distance <= self.margins.middle_possible}
        if len(indices) >= 3:
            for side in ("left", "top"):
                away = {index: objects[index].distance_to(side) for index in indices}
                in_order = sorted(away.values())
                middles = in_order[(len(in_order) - 1) // 2], in_order[len(in_order) // 2]
                possible |= {index for index in indices if away[index] in middles}
        certain = frozenset(index for index, distance in distances.items() if distance <= self.margins.middle)
        return Reading(certain, frozenset(possible))

    def _read_relation(self, reading: Reading, description: Description, objects: Objects) -> Reading:
        """Relate candidates to anchors. An anchor that could be several objects leaves nothing certain."""
        anchors = [self._read(anchor, objects) for anchor in description.anchors]
        if not all(anchor.possible for anchor in anchors):
            return NOTHING
        if any(objects[index].is_crowd for anchor in anchors for index in anchor.possible):
            return Reading(frozenset(), reading.possible)
        related = []
        for choice in _choices([sorted(anchor.possible) for anchor in anchors]):
            value = (description.relation, tuple(objects[index] for index in choice))
            others = Reading(reading.certain - set(choice), reading.possible - set(choice))
            related.append(_narrow(others, self._read_place, objects, value))
        possible = frozenset().union(*(place.possible for place in related))
        is_clear = len(related) == 1 and all(anchor.certain == anchor.possible for anchor in anchors)
        return Reading(related[0].certain if is_clear else frozenset(), possible)

    def _read_place(self, indices: frozenset[int], objects: Objects, value) -> Reading:
        relation, anchors = value
        if relation == "nearest":
            distances = {
                index: math.dist((objects[index].x, objects[index].y), (anchors[0].x, anchors[0].y))
                for index in indices
            }
            margin = self.margins.nearest
            return _read_rank(indices, 1, lambda first, second: distances[first] + margin <= distances[second])
        return Reading(
            *(
                frozenset(
                    index for index in indices if is_placed(objects[index], relation, anchors, self.margins, strictly)
                )
                for strictly in (True, False)
            )
        )


def _narrow(reading: Reading, select: Callable[..., Reading], objects: Objects, value) -> Reading:
    """Apply a selection to both sets of candidates; certain is what it picks from either."""
    strict = select(reading.certain, objects, value)
    if reading.certain == reading.possible:
        return strict
    generous = select(reading.possible, objects, value)
    return Reading(strict.certain & generous.certain, strict.possible | generous.possible)


def _read_rank(indices: frozenset[int], rank: int, is_ahead: Callable[[int, int], bool]) -> Reading:
    """Read the object at a rank (1 = first): certain if no two that are not clearly apart can change it."""
    certain, possible = set(), set()
    for index in indices:
        lowest = 1 + sum(is_ahead(other, index) for other in indices)
        highest = sum(not is_ahead(index, other) for other in indices)
        if lowest <= rank <= highest:
            possible.add(index)
            if lowest == highest:
                certain.add(index)
    return Reading(frozenset(certain), frozenset(possible))


def _choices(options: list[list[int]]) -> list[tuple[int, ...]]:
    """Return one index of each list in all ways; two anchors are never the same object."""
    if len(options) == 1:
        return [(index,) for index in options[0]]
    return [(first, second) for first in options[0] for second in options[1] if first != second]
