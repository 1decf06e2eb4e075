# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""When a sentence about a picture with masks is true: a second reading of "The rules" in docs/from_coco.md.

It was written from that page alone, before its writer had seen `remamber_hf.synthetic`, so that text and code can
disagree. It has the page's names, and it is slow. Of what can be wrong in a file it knows nothing.
"""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import inflect
import numpy as np
from pycocotools import mask as coco_mask

from remamber_hf.synthetic.coco_stuff import COCO_STUFF, SIMILAR_STUFF


MARGINS = {"position": 0.06, "half": 0.06, "size_ratio": 1.27, "middle": 0.10, "middle_possible": 0.22}
MARGINS |= {"relation": 0.08, "slope": 1.5, "nearest": 0.10, "between": 0.10, "next_to": 0.05}


def make_phrases() -> dict[str, tuple]:
    """The table under "Sentences": phrase → (part, what it says)."""
    fillers = ("the", "a", "an", "that is", "which is", "that are", "which are", "only", "all")
    phrases: dict[str, tuple] = dict.fromkeys(fillers, ("nothing", None))
    for phrase, number in (("two", 2), ("both", 2), ("three", 3), ("four", 4), ("five", 5), ("six", 6)):
        phrases[phrase] = ("number", number)
    for side in ("left", "right"):
        for phrase in ("{}", "{}most", "on the {}", "on the {} side", "farthest to the {}"):
            phrases[phrase.format(side)] = ("side", side)
    for side, other in (("top", "upper"), ("bottom", "lower")):
        for phrase in (side, f"{side}most", other, f"at the {side}"):
            phrases[phrase] = ("side", side)
        for across in ("left", "right"):
            for phrase in (side, other, f"at the {side}", f"in the {other}"):
                phrases[f"{phrase} {across}"] = ("quarter", (side, across))
    phrases |= dict.fromkeys(("in the middle", "in the center"), ("middle", None))
    phrases |= dict.fromkeys(("largest", "biggest"), ("superlative", "largest"))
    phrases["smallest"] = ("superlative", "smallest")
    for k, words in enumerate((("first", "1st"), ("second", "2nd"), ("third", "3rd"), ("fourth", "4th")), start=1):
        phrases |= dict.fromkeys(words, ("k-th", k))
    for side in ("left", "right", "top", "bottom"):
        phrases[f"from the {side}"] = ("from", side)
    relations = {
        "above": ("above", "higher than"),
        "below": ("below", "under", "beneath"),
        "left of": ("left of", "to the left of"),
        "right of": ("right of", "to the right of"),
        "closest to": ("closest to", "nearest to"),
        "between": ("between",),
        "next to": ("next to", "beside"),
    }
    for relation, words in relations.items():
        phrases |= dict.fromkeys(words, ("relation", relation))
    phrases["and"] = ("and", None)
    return phrases


PHRASES = make_phrases()


def is_of_the_table(text: str) -> bool:
    """Whether it consists of phrases of the table."""
    words = text.split()
    starts = [at for at in range(1, len(words) + 1) if " ".join(words[:at]) in PHRASES]
    return not words or any(is_of_the_table(" ".join(words[at:])) for at in starts)


RELATIONS = [phrase for phrase, (part, _) in PHRASES.items() if part == "relation"]
SIDE_OF_RELATION = {"above": "top", "below": "bottom", "left of": "left", "right of": "right"}


class Nouns:
    """What words mean. `words`: category (its name) → its words; `stuff`: the categories that are not counted."""

    def __init__(self, words: dict[str, list[str]], stuff: set[str]):
        self.words = words
        plural_of = {word: find_plural(word) for name in words if name not in stuff for word in words[name]}
        self.plural_of = {word: plural for word, plural in plural_of.items() if plural}
        everything = {word for name in words for word in words[name]}
        called = everything | set(self.plural_of.values())
        self.singular = {word for word in everything if is_noun(word, called)}
        used = {plural for word, plural in self.plural_of.items() if word in self.singular}
        self.plural = {plural for plural in used - everything if not is_of_the_table(plural)}
        # Noun → the categories that it certainly means, and those that it may mean.
        self.meanings = {noun: self.find_meanings(noun) for noun in self.singular | self.plural}

    def plurals(self, category: str) -> list[str]:
        return [self.plural_of[word] for word in self.words[category] if word in self.plural_of]

    def find_meanings(self, noun: str) -> tuple[set[str], set[str]]:
        certain = {
            name for name in self.words if noun in (self.words[name] if noun in self.singular else self.plurals(name))
        }
        ends = "|".join(map(re.escape, {noun, self.plural_of.get(noun, noun)}))
        behind = "and|at|for|from|in|of|on|with|without"
        called = re.compile(rf"(.*[ -])?({ends})( ({behind}) .*)?")
        return certain, certain | {
            name for name in self.words if any(map(called.fullmatch, self.words[name] + self.plurals(name)))
        }

    def has_noun(self, category: str) -> bool:
        return any(word in self.singular for word in self.words[category])


def find_plural(word: str) -> str | None:
    if " and " in word or not word.isascii() or not word:
        return None
    plural = inflect.engine().plural_noun(word)
    return plural if plural != word and not plural.endswith("ss") else None


def is_noun(word: str, called: set[str]) -> bool:
    """`called`: all words and plurals."""
    if not any(letter.isalpha() for letter in word) or len(word) > 60 or not word.isprintable():
        return False
    if is_of_the_table(word) or any(f" {relation} " in f" {word} " for relation in RELATIONS):
        return False
    parts = word.split()
    splits = [(" ".join(parts[:at]), " ".join(parts[at:])) for at in range(1, len(parts))]
    return not any(
        (is_of_the_table(one) and other in called) or (is_of_the_table(other) and one in called)
        for one, other in splits
    )


@dataclass
class Phrase:
    noun: str
    plural: bool
    number: int | None = None
    place: tuple | None = None


@dataclass
class Sentence:
    phrase: Phrase
    relation: str | None
    anchors: list[Phrase]


def read_sentence(text: str, nouns: Nouns) -> Sentence | None:
    """The parts of a sentence; None if it is none."""
    phrases = dict(PHRASES)
    phrases |= {noun: ("noun", noun) for noun in nouns.singular} | {noun: ("plural", noun) for noun in nouns.plural}
    words, parts = text.split(), []
    while words:
        for count in range(len(words), 0, -1):
            if (phrase := " ".join(words[:count])) in phrases:
                break
        else:
            return None
        parts.append(phrases[phrase])
        words = words[count:]
    chunks: list[list[tuple]] = [[]]
    relation = None
    for part, value in parts:
        if part == "relation":
            if relation:
                return None
            relation = value
            chunks.append([])
        elif part == "and":
            if relation != "between" or len(chunks) == 3:
                return None
            chunks.append([])
        else:
            chunks[-1].append((part, value))
    if len(chunks) != {None: 1, "between": 3}.get(relation, 2):
        return None
    read = [read_phrase(chunk) for chunk in chunks]
    if None in read or any(anchor.plural for anchor in read[1:]) or (relation == "closest to" and read[0].plural):
        return None
    return Sentence(read[0], relation, read[1:])


def read_phrase(parts: list[tuple]) -> Phrase | None:
    named = [(part, value) for part, value in parts if part in ("noun", "plural")]
    numbers = [value for part, value in parts if part == "number"]
    places = [(part, value) for part, value in parts if part in ("side", "quarter", "middle", "superlative")]
    kth = [value for part, value in parts if part == "k-th"]
    sides = [value for part, value in parts if part == "from"]
    if len(kth) != len(sides) or len(named) != 1 or len(numbers) > 1:
        return None
    places += [("order", order) for order in zip(kth, sides, strict=True)]
    plural = named[0][0] == "plural"
    if len(places) > 1 or (numbers and not plural):
        return None
    place = places[0] if places else None
    if plural and place and place[0] in ("superlative", "order"):
        return None
    return Phrase(named[0][1], plural, numbers[0] if numbers else None, place)


@dataclass(eq=False)
class Thing:
    """`extent`: its box as left, top, right, bottom, in lengths of the page; `area`: None where it is unknown."""

    id: int
    category: str
    extent: tuple[float, float, float, float]
    area: float | None
    is_target: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.extent
        return (left + right) / 2, (top + bottom) / 2

    @property
    def box_area(self) -> float:
        return (self.extent[2] - self.extent[0]) * (self.extent[3] - self.extent[1])


@dataclass(frozen=True)
class Crowd:
    category: str


@dataclass
class Picture:
    """`size`: W and H; `known`: categories that were looked for."""

    size: tuple[float, float]
    things: list[Thing]
    crowds: list[Crowd]
    known: set[str]


def shared(first: Thing, second: Thing, axis: int) -> float:
    """What the extents share on an axis; negative is a gap."""
    return min(first.extent[axis + 2], second.extent[axis + 2]) - max(first.extent[axis], second.extent[axis])


def rank(things: list[Thing], k: int, is_ahead: Callable[[Thing, Thing], bool]) -> tuple[set, set]:
    """The certain and the possible k-th."""
    certain, possible = set(), set()
    for thing in things:
        least = 1 + sum(is_ahead(other, thing) for other in things if other is not thing)
        greatest = 1 + sum(not is_ahead(thing, other) for other in things if other is not thing)
        if least <= k <= greatest:
            possible.add(thing)
        if least == greatest == k:
            certain.add(thing)
    return certain, possible


class Truth:
    """What is true in one picture. `is_on_limit`: something was exactly on one, where rounding decides."""

    def __init__(self, picture: Picture, nouns: Nouns, margins: dict[str, float]):
        self.picture, self.nouns, self.margin, self.is_on_limit = picture, nouns, MARGINS | margins, False

    def at_most(self, value: float, limit: float) -> bool:
        self.is_on_limit |= bool(abs(value - limit) < 1e-9)
        return value <= limit

    def find(self, text: str) -> tuple[set, set]:
        """The things, and crowds, that are certain and possible for a sentence."""
        sentence = read_sentence(text, self.nouns)
        if sentence is None:
            raise ValueError(f"no sentence: {text}")
        self.is_on_limit = False
        return self.mean(sentence.phrase, sentence.relation, sentence.anchors)

    def tell(self, text: str) -> tuple[str, list[int]]:
        """What a sentence is true of ("one", "several", "nothing", or "" where it is not true), and the ids."""
        certain, possible = self.find(text)
        phrase = read_sentence(text, self.nouns).phrase
        ids = sorted(thing.id for thing in certain) if certain == possible else []
        named = [each.noun for each in (phrase, *read_sentence(text, self.nouns).anchors)]
        if not possible and all(self.nouns.meanings[noun][0] & self.picture.known for noun in named):
            return "nothing", []
        if len(ids) == 1 and not phrase.plural:
            return "one", ids
        if len(ids) >= 2 and phrase.plural and all(thing.is_target for thing in certain):
            return "several", ids
        return "", []

    def mean(self, phrase: Phrase, relation: str | None = None, anchors: tuple | list = ()) -> tuple[set, set]:
        sure, may = self.nouns.meanings[phrase.noun]
        certain = {thing for thing in self.picture.things if thing.category in sure}
        possible = {thing for thing in self.picture.things if thing.category in may}
        crowds = {crowd for crowd in self.picture.crowds if crowd.category in may}
        if relation:
            certain, possible = self.relate(certain, possible, relation, [self.mean(anchor) for anchor in anchors])
        if phrase.place:
            certain, possible = self.pick(certain, possible, lambda things: self.put(things, phrase))
        if phrase.number and not len(certain) == len(possible) == phrase.number:
            certain = set()
        if crowds:
            certain, possible = set(), possible | crowds
        return certain, possible

    @staticmethod
    def pick(certain: set, possible: set, rule: Callable[[list[Thing]], tuple[set, set]]) -> tuple[set, set]:
        if certain == possible:
            return rule(list(certain))
        of_certain, of_possible = rule(list(certain)), rule(list(possible))
        return of_certain[0] & of_possible[0], of_certain[1] | of_possible[1]

    def relate(self, certain: set, possible: set, relation: str, anchors: list[tuple[set, set]]) -> tuple[set, set]:
        if any(not maybe for _, maybe in anchors):
            return set(), set()
        if any(isinstance(thing, Crowd) for _, maybe in anchors for thing in maybe):
            return set(), possible
        ways = [way for way in itertools.product(*(maybe for _, maybe in anchors)) if len(set(way)) == len(way)]
        found = [
            self.pick(
                certain - set(way), possible - set(way), lambda things, way=way: self.stand(things, relation, way)
            )
            for way in ways
        ]
        is_sure = len(ways) == 1 and all(sure == maybe for sure, maybe in anchors)
        return found[0][0] if is_sure else set(), set().union(*(maybe for _, maybe in found))

    def distance(self, thing: Thing, side: str) -> float:
        return self.edges(thing, side)[1]

    def edges(self, thing: Thing, side: str) -> tuple[float, float, float]:
        """Near edge, centre and far edge, from that side."""
        axis = 0 if side in ("left", "right") else 1
        near, centre, far = thing.extent[axis], thing.centre[axis], thing.extent[axis + 2]
        if side in ("left", "top"):
            return near, centre, far
        whole = self.picture.size[axis]
        return whole - far, whole - centre, whole - near

    def fraction(self, thing: Thing, side: str) -> float:
        return self.distance(thing, side) / self.picture.size[0 if side in ("left", "right") else 1]

    def by_distance(self, side: str) -> Callable[[Thing, Thing], bool]:
        def is_ahead(thing: Thing, other: Thing) -> bool:
            (near, centre, far), (other_near, other_centre, other_far) = (
                self.edges(thing, side),
                self.edges(other, side),
            )
            edges = self.at_most(near, other_near) and self.at_most(far, other_far)
            return edges and self.at_most(centre + self.margin["position"], other_centre)

        return is_ahead

    def is_larger(self, thing: Thing, other: Thing) -> bool:
        if thing.area is None or other.area is None or not self.at_most(other.box_area, thing.box_area):
            return False
        return self.at_most(self.margin["size_ratio"] * other.area**0.5, thing.area**0.5)

    def put(self, things: list[Thing], phrase: Phrase) -> tuple[set, set]:
        """Side, quarter, middle, superlative and order: the certain and the possible part of the things."""
        part, value = phrase.place
        half = self.margin["half"]
        if part == "side" and len(things) >= 2 and not phrase.plural:
            first, maybe = rank(things, 1, self.by_distance(value))
            return {thing for thing in first if self.at_most(self.fraction(thing, value), 2 / 3)}, maybe
        if part in ("side", "quarter"):
            sides = [value] if part == "side" else value
            return tuple(
                {thing for thing in things if all(self.at_most(self.fraction(thing, side), limit) for side in sides)}
                for limit in (0.5 - half, 0.5 + half)
            )
        if part == "middle":
            off = {thing: max(abs(self.fraction(thing, side) - 0.5) for side in ("left", "top")) for thing in things}
            maybe = {thing for thing in things if self.at_most(off[thing], self.margin["middle_possible"])}
            if len(things) >= 3:
                for side in ("left", "top"):
                    order = sorted(self.distance(thing, side) for thing in things)
                    middles = order[(len(order) - 1) // 2], order[len(order) // 2]
                    maybe |= {thing for thing in things if self.distance(thing, side) in middles}
            return {thing for thing in things if self.at_most(off[thing], self.margin["middle"])}, maybe
        if part == "order":
            return rank(things, value[0], self.by_distance(value[1]))
        if len(things) == 1:
            return set(), set(things)
        if value == "largest":
            return rank(things, 1, self.is_larger)
        return rank(things, 1, lambda thing, other: self.is_larger(other, thing))

    def stand(self, things: list[Thing], relation: str, anchors: tuple[Thing, ...]) -> tuple[set, set]:
        """The things that certainly, and those that possibly stand in a relation to the anchors."""
        if relation == "closest to":
            centre = np.array(anchors[0].centre)
            away = {thing: np.hypot(*(np.array(thing.centre) - centre)) for thing in things}
            return rank(
                things, 1, lambda thing, other: self.at_most(away[thing] + self.margin["nearest"], away[other])
            )
        answers = [(thing, *self.stands(thing, relation, anchors)) for thing in things]
        return {thing for thing, sure, _ in answers if sure}, {thing for thing, _, maybe in answers if maybe}

    def stands(self, thing: Thing, relation: str, anchors: tuple[Thing, ...]) -> tuple[bool, bool]:
        margin, anchor = self.margin, anchors[0]
        if relation == "between":
            a, b, p = (np.array(each.centre) for each in (*anchors, thing))
            length = np.hypot(*(b - a))
            if length == 0:
                return False, False
            along = np.dot(p - a, b - a) / length**2
            beside = abs((b - a)[0] * (p - a)[1] - (b - a)[1] * (p - a)[0]) / length
            return (
                self.at_most(abs(along - 0.5), 0.25) and self.at_most(beside, margin["between"]),
                not self.at_most(0.5, abs(along - 0.5))
                and self.at_most(beside, max(2 * margin["between"], length / 2)),
            )
        if relation == "next to":
            gaps = [-shared(thing, anchor, axis) for axis in (0, 1)]
            height = min(each.extent[3] - each.extent[1] for each in (thing, anchor))
            return (
                self.at_most(gaps[0], margin["next_to"])
                and self.is_clear(thing, anchor, 0)
                and self.at_most(height / 2, -gaps[1]),
                self.at_most(max(gaps), 3 * margin["next_to"]),
            )
        side = SIDE_OF_RELATION[relation]
        axis = 0 if side in ("left", "right") else 1
        way = self.distance(anchor, side) - self.distance(thing, side)
        sideways = abs(thing.centre[1 - axis] - anchor.centre[1 - axis])
        is_far = self.at_most(margin["relation"], way) and self.at_most(margin["slope"] * sideways, way)
        return is_far and self.is_clear(thing, anchor, axis), not self.at_most(way, 0)

    def is_clear(self, first: Thing, second: Thing, axis: int) -> bool:
        smaller = min(thing.extent[axis + 2] - thing.extent[axis] for thing in (first, second))
        return self.at_most(shared(first, second, axis), smaller / 4)


class File:
    """A COCO file. `synonyms`: a category's name → further words; `stuff_file`: path; `stuff`: names."""

    def __init__(self, path: Path, stuff_file: Path | None = None, synonyms=None, stuff=(), margins=None, **options):
        self.margins, self.options = margins or {}, {"min_area": 0.005, "border": 0.005, "keep_truncated": False}
        self.options |= options
        data = json.loads(Path(path).read_text())
        files = [(data["categories"], data["annotations"])]
        if stuff_file is not None:
            more = json.loads(Path(stuff_file).read_text())
            files.append((more["categories"], more.get("annotations", more.get("stuff"))))
        is_panoptic = any(entry["name"].endswith("-merged") for categories, _ in files for entry in categories)
        words: dict[str, list[str]] = {}
        self.stuff, self.similar, names = set(), {}, {}
        for number, (categories, _) in enumerate(files):
            for entry in categories:
                name = re.sub(r"\s*\([^()]*\)\s*$", "", entry["name"].lower().replace("_", " "))
                name = " ".join(name.split())
                own = [name]
                is_stuff = entry.get("isthing") == 0 or number == 1 or name in stuff
                if is_panoptic and is_stuff and entry["name"] in COCO_STUFF:
                    self.similar[number, entry["id"]] = SIMILAR_STUFF.get(entry["name"], ())
                    own = [COCO_STUFF[entry["name"]]] if COCO_STUFF[entry["name"]] else []
                    name = own[0] if own else f"({entry['name']})"
                names[number, entry["id"]] = name
                if is_stuff:
                    self.stuff.add(name)
                words[name] = own + [word for word in (synonyms or {}).get(name, []) if word not in own]
        self.names = names
        self.images = {image["id"]: image for image in data["images"]}
        self.annotations: dict[int, list] = {image: [] for image in self.images}
        self.annotated = set()
        for number, (_, annotations) in enumerate(files):
            for annotation in sorted(annotations, key=lambda entry: entry["id"]):
                if annotation["image_id"] in self.annotations:
                    key = number, annotation["category_id"]
                    self.annotated.add(names[key])
                    self.annotations[annotation["image_id"]].append((annotation["id"], key, annotation))
        self.nouns = Nouns({name: own for name, own in words.items() if name in self.annotated}, self.stuff)

    def read(self, image_id: int) -> Truth:
        image = self.images[image_id]
        height, width = image["height"], image["width"]
        longer = max(height, width)
        unclear, masks, things = set(), [], []
        stuff: dict[str, list] = {}
        for ident, key, annotation in self.annotations[image_id]:
            category = self.names[key]
            unclear |= set(self.similar.get(key, ())) & set(self.nouns.words)
            if annotation.get("iscrowd") and category not in self.stuff:
                unclear.add(category)
                continue
            mask = draw_mask(annotation.get("segmentation"), height, width)
            if category in self.stuff:
                stuff.setdefault(category, []).append((ident, mask))
                continue
            if mask is None:
                x, y, across, down = annotation["bbox"]
                box = max(x, 0), max(y, 0), min(x + across, width), min(y + down, height)
                things.append(Thing(ident, category, tuple(edge / longer for edge in box), None))
                continue
            masks.append((ident, category, mask))
        twice = set()
        for (_, category, mask), (later, other_category, other) in itertools.combinations(masks, 2):
            if category == other_category and (common := (mask & other).sum()):
                if common / (mask | other).sum() > 0.9:
                    twice.add(later)
                elif common > 0.9 * min(mask.sum(), other.sum()):
                    unclear.add(category)
        things += [self.make_thing(*drawn) for drawn in masks if drawn[0] not in twice]
        for category, parts in stuff.items():
            things.append(self.make_thing(parts[0][0], category, np.any([mask for _, mask in parts], axis=0)))
        annotated = {self.names[key] for _, key, _ in self.annotations[image_id]}
        known = self.annotated - self.stuff
        if "neg_category_ids" in image:
            known = {self.names[0, ident] for ident in image["neg_category_ids"]} & known | (annotated - self.stuff)
        if annotated & self.stuff:
            known |= self.annotated & self.stuff
        unclear |= {self.names[0, ident] for ident in image.get("not_exhaustive_category_ids", ())}
        unclear |= {category for category in set(self.nouns.words) - known if self.is_mixed(category, known)}
        crowds = [Crowd(category) for category in sorted(unclear)]
        picture = Picture((width / longer, height / longer), things, crowds, known)
        return Truth(picture, self.nouns, self.margins)

    def is_mixed(self, category: str, known: set[str]) -> bool:
        """Whether a noun for it may mean a known category, or a noun for a known one may mean it."""
        return any(
            (category in certain and may & known) or (certain & known and category in may)
            for certain, may in self.nouns.meanings.values()
        )

    def make_thing(self, ident: int, category: str, mask: np.ndarray) -> Thing:
        height, width = mask.shape
        longer = max(height, width)
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        near = self.options["border"] * longer
        is_cut = min(box[0], box[1], width - box[2], height - box[3]) <= near
        is_target = mask.sum() >= self.options["min_area"] * mask.size and self.nouns.has_noun(category)
        if is_cut and category not in self.stuff and not self.options["keep_truncated"]:
            is_target = False
        return Thing(ident, category, tuple(edge / longer for edge in box), mask.sum() / longer**2, bool(is_target))


def draw_mask(segmentation, height: int, width: int) -> np.ndarray | None:
    """The union of all polygons and run lengths, (height, width), bool; None without any."""
    if not segmentation:
        return None
    parts = [segmentation] if isinstance(segmentation, dict) else segmentation
    mask = np.zeros((height, width), bool)
    for part in parts:
        if isinstance(part, dict) and isinstance(part["counts"], str):
            mask |= coco_mask.decode({"size": part["size"], "counts": part["counts"].encode()}).astype(bool)
        elif isinstance(part, dict):
            mask |= coco_mask.decode(coco_mask.frPyObjects(part, height, width)).astype(bool)
        else:
            mask |= coco_mask.decode(coco_mask.frPyObjects([part], height, width))[..., 0].astype(bool)
    return mask
