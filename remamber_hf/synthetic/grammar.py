# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Referring expressions, read: text → description. What a description is true of, `evaluator` says.

A grammar is a table of phrases, each with a role and a value: nouns, properties, words of place and degree, relations.
`shape_sentences` has that of drawn shapes, `thing_words` makes those of named things.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any


Words = dict[str, dict[Any, tuple[str, ...]]]  # role → value → its phrases
Token = tuple[str, Any]

SIDES = ("left", "right", "top", "bottom")
# What both grammars have alike.
QUARTERS: dict[Any, tuple[str, ...]] = {
    (vertical, horizontal): (
        f"{vertical} {horizontal}",
        f"{other} {horizontal}",
        f"at the {vertical} {horizontal}",
        f"in the {other} {horizontal}",
    )
    for vertical, other in (("top", "upper"), ("bottom", "lower"))
    for horizontal in ("left", "right")
}
PLACES: Words = {
    "side": {
        "left": ("left", "leftmost", "on the left", "on the left side"),
        "right": ("right", "rightmost", "on the right", "on the right side"),
        "top": ("top", "topmost", "upper", "at the top"),
        "bottom": ("bottom", "bottommost", "lower", "at the bottom"),
    },
    "quarter": QUARTERS,
    "middle": {"middle": ("in the middle", "in the center", "central")},
    "superlative": {"largest": ("largest", "biggest"), "smallest": ("smallest",)},
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
}

# Roles of nouns: the role that each says of an object, and whether it means every candidate.
NOUNS = {
    "shape": ("shape", False),
    "shapes": ("shape", True),
    "noun": ("noun", False),
    "nouns": ("noun", True),
    "any": ("any", False),
    "several": ("any", True),
    "everything": ("any", True),
}
# The kind of expression that a role makes: roles that describe an object by itself, roles that pick among candidates.
PROPERTY_KINDS = {
    **{"size": "size", "texture": "texture", "outline": "texture", "colour": "colour", "shape": "shape"},
    "noun": "name",
}
SELECTOR_KINDS = {
    "order": "order",
    "side": "position",
    "quarter": "position",
    "middle": "position",
    "superlative": "size",
}


@dataclass(frozen=True)
class Description:
    """
    A parsed expression. Properties and the selector are (role, value); anchors are what a relation refers to. It means
    one object, or every candidate (`is_plural`), maybe so many of them (`number`).
    """

    properties: tuple[Token, ...]
    excluded: tuple[Token, ...] = ()
    selector: Token | None = None
    relation: str | None = None
    anchors: tuple[Description, ...] = ()
    is_plural: bool = False
    number: int | None = None


class Grammar:
    """
    Reads expressions by a table of phrases.

    Args:
        words: role → value → its phrases, in small letters.
        kinds: the kinds of expression that it tells apart; of those that one is of, the first counts, else the last.
        name: what it is the grammar of, for error messages.
        is_open: take words that are in no phrase for a noun of one object, which is its own value.
    """

    def __init__(self, words: Words, kinds: tuple[str, ...], name: str, is_open: bool = False):
        self.words = words
        self.kinds = kinds
        self.name = name
        self.is_open = is_open
        self.phrases = {
            phrase: (role, value)
            for role, values in words.items()
            for value, phrases in values.items()
            for phrase in phrases
        }
        # First word of a phrase → number of words of the longest one that begins so.
        self.longest_phrases = {
            word: length
            for length, word in sorted((len(phrase.split()), phrase.split()[0]) for phrase in self.phrases)
        }
        self.parse = lru_cache(maxsize=4096)(self._parse)

    def tokenize(self, expression: str) -> list[Token]:
        """Split an expression into (role, value) pairs, the longest known phrase first, fillers left out."""
        words = expression.lower().split()
        tokens: list[Token] = []
        unknown: list[str] = []
        start = 0
        while start < len(words):
            for end in range(start + self.longest_phrases.get(words[start], 0), start, -1):
                token = self.phrases.get(" ".join(words[start:end]))
                if token is not None:
                    break
            else:
                if not self.is_open:
                    raise ValueError(f"{words[start]!r} in {expression!r} is not in the grammar of {self.name}.")
                unknown.append(words[start])
                start += 1
                continue
            if unknown:
                tokens.append(("noun", " ".join(unknown)))
                unknown = []
            if token[0] != "filler":
                tokens.append(token)
            start = end
        if unknown:
            tokens.append(("noun", " ".join(unknown)))
        return tokens

    def kind_of(self, expression: str) -> str:
        """
        Return the first of `kinds` that an expression uses, not looking into what a relation refers to; ValueError
        for a sentence outside the grammar.
        """
        description = self.parse(expression)
        kinds = {PROPERTY_KINDS[role] for role, _ in description.properties}
        if description.relation is not None:
            kinds.add("relation")
        if description.excluded:
            kinds.add("negation")
        if description.selector is not None:
            kinds.add(SELECTOR_KINDS[description.selector[0]])
        return next((kind for kind in self.kinds if kind in kinds), self.kinds[-1])

    def _parse(self, expression: str) -> Description:
        """Parse an expression; raise ValueError where the grammar has no such sentence. Cached, as `parse`."""
        tokens = self.tokenize(expression)
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
    numbers: list[int] = []
    num_nouns = 0
    is_negated = is_plural = False
    for role, value in tokens:
        is_noun = role in NOUNS
        if is_noun:
            role, means_every = NOUNS[role]
            is_plural |= means_every and not is_negated
        if is_negated and role not in PROPERTY_KINDS:
            raise ValueError(f"{expression!r} denies something other than a property.")
        if role in PROPERTY_KINDS:
            (excluded if is_negated else properties).append((role, value))
        elif role in SELECTOR_KINDS:
            selectors.append((role, value))
        elif role in ("ordinal", "from"):
            (ordinals if role == "ordinal" else starts).append(value)
        elif role == "number":
            numbers.append(value)
        elif role not in ("any", "not"):
            raise ValueError(f"{expression!r} has {role!r} words where none can be read.")
        num_nouns += is_noun and not is_negated
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
    if len(numbers) > is_plural:
        raise ValueError(f"{expression!r} has a number, or 'both', where no several things are named.")
    return Description(
        tuple(properties),
        tuple(excluded),
        selectors[0] if selectors else None,
        is_plural=is_plural,
        number=numbers[0] if numbers else None,
    )
