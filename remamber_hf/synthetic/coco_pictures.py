# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Annotations in COCO format → what is known of each picture: its things, and what nobody knows.

Of a category that is unclear in a picture, nothing is said there that rests on how many there are: it stands there as
a crowd does. Unclear are, besides crowds (`iscrowd`):
- a category of which an annotation there is broken, or lies almost within another of the same category;
- one that LVIS lists in `not_exhaustive_category_ids` of the picture;
- one that nobody looked for: where a picture has `neg_category_ids`, all others without an annotation there, and
  stuff in a picture without any.

What is reported, with the id: an annotation of no picture or no category, one that cannot be drawn or measured, an id
that stands twice, a picture that is missing, unreadable, outside the folder or of another size, and one that its EXIF
data turns where its size does not tell which way the annotations are. `on_error="raise"` stops there, "skip" counts.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from ..data.coco import read_entries
from ..data.reading import (
    Defect,
    check_text,
    integer_of,
    is_integer,
    text_of,
)
from ..data.rows import is_split_name
from ..messages import describe, shorten
from .coco_stuff import COCO_STUFF, SIMILAR_STUFF
from .coco_things import Category, Seen, find_doubles, is_crowd, measure, merge_stuff, read_picture
from .evaluator import Margins
from .thing_words import ThingWords, clean_noun, make_thing_words
from .things import THING_MARGINS, Thing


ERROR_MODES = ("raise", "skip")
VAL_SHARE = 0.1
SPLIT_FIELDS = ("split", "subset")
CROWD = "crowd"
NO_MASK = "no mask"
TINY = "too small"
CUT_OFF = "cut off by the picture's border"
TWICE = "the same thing twice"
PART = "almost within another of its category"
UNNAMED = "of a category that is not named"
SAME_PICTURE = "picture with the content of another"


@dataclass(frozen=True)
class Rules:
    """
    What a sentence may be about.

    Attributes:
        margins: how clear a case must be.
        min_area: least part of the picture that a thing covers.
        border: part of the picture's longer side; a thing that comes so near to an edge is taken for cut off by it.
        keep_truncated: whether what is cut off may be meant all the same.
    """

    margins: Margins = THING_MARGINS
    min_area: float = 0.005
    border: float = 0.005
    keep_truncated: bool = False


@dataclass
class CocoPicture:
    """
    A picture: `image` as `datasets.Image` stores it, and its things. `seen` are the annotations of the first of them;
    the others stand for what is unclear. `known` are the categories whose absence is known where they are absent.
    """

    image_id: int
    split: str
    image: dict
    height: int
    width: int
    things: list[Thing]
    seen: list[Seen]
    known: list[str]


@dataclass
class Problems:
    """How often something was wrong, by its kind, and the first of each kind."""

    counts: Counter = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)


class CocoPictures:
    """Reads a file in COCO format, and what is known of each picture.

    Args:
        instances: JSON with images, annotations and categories.
        images: folder of the pictures.
        rules: what a sentence may be about.
        synonyms: category → other words for one of it.
        stuff: names of categories that are not counted, as road; those with `isthing: 0` are anyway.
        stuff_file: JSON with annotations and categories of the same pictures, all stuff unless `isthing` is 1.
        val: share of the pictures that becomes the split val, by their ids; by default the pictures' own split or
            subset where all have one, else a tenth.
        on_error: "raise" or "skip", see the top of this file.

    `words` names the categories that are used, `left_out` counts what no sentence is about, `problems` what is wrong.
    """

    def __init__(
        self,
        instances: str | os.PathLike,
        images: str | os.PathLike,
        *,
        rules: Rules | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        stuff: Collection[str] = (),
        stuff_file: str | os.PathLike | None = None,
        val: float | None = None,
        on_error: str = "raise",
    ):
        if on_error not in ERROR_MODES:
            raise ValueError(f"on_error is {describe(on_error)}; choose one of {', '.join(ERROR_MODES)}.")
        if val is not None and not 0 <= val <= 1:
            raise ValueError(f"val is {val}; give a share of the pictures, from 0 to 1.")
        self.rules = Rules() if rules is None else rules
        _check_rules(self.rules)
        self.folder = Path(os.path.realpath(images))
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{shorten(str(images))} is no folder; give that of the pictures.")
        self.on_error = on_error
        self.problems = Problems()
        self.left_out: Counter = Counter()
        entries = read_entries(Path(instances))
        self.images = self._by_unique_id(entries["images"], "image")
        self._unclear: dict[int, set[str]] = defaultdict(set)
        self._annotations: dict[int, list[tuple[Category, dict]]] = defaultdict(list)
        self._names: set[str] = set()
        self._categories = self._read_categories(entries["categories"], stuff, False)
        sources = [(entries["annotations"], self._categories)]
        if stuff_file is not None:
            more = read_entries(Path(stuff_file), ("annotations", "categories"), {"annotations": "stuff"})
            sources.append((more["annotations"], self._read_categories(more["categories"], stuff, True)))
        unknown = next((name for name in stuff if clean_noun(name) not in self._names), None)
        if unknown is not None:
            raise ValueError(f"--stuff names {describe(unknown)}, which is no category; {self._list_names()}.")
        for listed, of_file in sources:
            self._take(listed, of_file)
        self._val = val
        self._split_field = None if val is not None else self._find_split_field()
        self._name_categories(synonyms or {}, [each for _, categories in sources for each in categories.values()])

    # The file.

    def _report(self, defect: Defect, where: str) -> None:
        if self.on_error == "raise":
            raise ValueError(f"{where}: {defect}. Mend it, or leave out what is wrong by --on_error skip.") from None
        self.problems.counts[defect.kind] += 1
        particulars = str(defect).removeprefix(f"{defect.kind}: ")
        self.problems.first.setdefault(defect.kind, f"{where}: {particulars}")

    def _by_unique_id(self, entries: list[dict], what: str) -> dict[int, dict]:
        """Entries by id, without those whose id stands twice; in the order of the ids."""
        counts = Counter(entry["id"] for entry in entries)
        for entry_id, count in counts.items():
            if count > 1:
                self._report(Defect("id that stands twice", f"{count} entries have it"), f"{what} {entry_id}")
        return {entry["id"]: entry for entry in sorted(entries, key=_id_of) if counts[entry["id"]] == 1}

    def _read_categories(self, entries: list[dict], stuff: Collection[str], are_stuff: bool) -> dict[int, Category]:
        """Read categories; those of COCO panoptic, which joins some ("sky-other-merged"), get words for them."""
        categories = {}
        named = {clean_noun(name) for name in stuff}
        is_joined = any(str(entry.get("name")).endswith("-merged") for entry in entries)
        for category_id, entry in self._by_unique_id(entries, "category").items():
            try:
                name = clean_noun(text_of(entry, "name"))
            except Defect as defect:
                self._report(defect, f"category {category_id}")
                continue
            is_thing = entry.get("isthing", 0 if are_stuff else 1)
            is_stuff = name in named or is_thing == 0
            if is_stuff and is_joined and name in COCO_STUFF:
                called = COCO_STUFF[name] or (name if name in named else "")
                categories[category_id] = Category(called, True, SIMILAR_STUFF.get(name, ()))
            else:
                categories[category_id] = Category(name, is_stuff)
            self._names.add(name)
        return categories

    def _take(self, annotations: list[dict], categories: dict[int, Category]) -> None:
        """Put annotations to their pictures, in the order of their ids."""
        counts = Counter(entry["id"] for entry in annotations)
        for entry in sorted(annotations, key=_id_of):
            where = f"annotation {entry['id']}"
            try:
                image_id = integer_of(entry, "image_id")
                if image_id not in self.images:
                    raise Defect("annotation of no picture", f"there is no image {image_id}, or there are two")
                category = categories.get(integer_of(entry, "category_id"))
                if category is None:
                    raise Defect("annotation of no category", f"there is no category {entry['category_id']}, or two")
            except Defect as defect:
                self._report(defect, where)
                continue
            if counts[entry["id"]] > 1:
                self._report(Defect("id that stands twice", f"{counts[entry['id']]} annotations have it"), where)
                self._unclear[image_id].add(category.name)
            else:
                self._annotations[image_id].append((category, entry))

    def _list_names(self) -> str:
        return f"the categories are {shorten(', '.join(map(describe, sorted(self._names))))}"

    def _find_split_field(self) -> str | None:
        for name in SPLIT_FIELDS:
            values = [image.get(name) for image in self.images.values()]
            if values and all(map(is_split_name, values)):
                return name
            if any(value is not None for value in values):
                bad = next(value for value in values if not is_split_name(value))
                raise ValueError(
                    f"{name} of some images says no split, such as {describe(bad)}; mend it, or give --val."
                )
        return None

    def _name_categories(self, synonyms: Mapping[str, Sequence[str]], categories: list[Category]) -> None:
        """Make the words for those that are used. Of one that nothing is annotated of, nobody knows whether it was."""
        annotated = {category for of_image in self._annotations.values() for category, _ in of_image if category.name}
        is_stuff: dict[str, bool] = {}
        for category in categories:
            if category in annotated and is_stuff.setdefault(category.name, category.is_stuff) != category.is_stuff:
                raise ValueError(
                    f"the category {describe(category.name)} is stuff by one entry and not by another; name it by "
                    "--stuff, or mend isthing."
                )
        cleaned = {clean_noun(name): tuple(words) for name, words in synonyms.items()}
        names = self._names | {category.name for category in categories}
        unknown = next((name for name in cleaned if name not in names), None)
        if unknown is not None:
            raise ValueError(
                f"there are synonyms for {describe(unknown)}, which is no category; {self._list_names()}."
            )
        self.words: ThingWords = make_thing_words(
            is_stuff,
            {name: words for name, words in cleaned.items() if name in is_stuff},
            [name for name in is_stuff if is_stuff[name]],
            self.rules.margins,
        )
        # Of those that no noun is of too: somebody could mean them by another's.
        self._things = {name for name in is_stuff if not is_stuff[name]}
        self._stuff = {name for name in is_stuff if is_stuff[name]}

    # The pictures.

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self) -> Iterator[CocoPicture]:
        """Yield what is known of each picture, in the order of the ids; a picture that comes twice comes once."""
        contents: set[str] = set()
        paths = {}
        for image_id, entry in self.images.items():
            try:
                paths[image_id] = self._find_picture(entry)
            except Defect as defect:
                self._report(defect, f"image {image_id}")
        for image_id, path in tqdm(paths.items(), desc="pictures", disable=None):
            entry = self.images[image_id]
            try:
                height, width = _size_of(entry)
                image, digest = read_picture(path, height, width)
                split = self._split_of(image_id)
            except Defect as defect:
                self._report(defect, f"image {image_id}")
                continue
            if digest in contents:
                self.left_out[SAME_PICTURE] += 1
                continue
            contents.add(digest)
            yield self._judge(image_id, split, image, height, width)

    def _find_picture(self, entry: dict) -> Path:
        """Return the path of a picture, which is in the folder; LVIS names it by `coco_url`."""
        if "file_name" not in entry and isinstance(entry.get("coco_url"), str):
            parts = check_text(entry["coco_url"], "coco_url").split("/")
            name = next((name for name in ("/".join(parts[-2:]), parts[-1]) if (self.folder / name).is_file()), "")
            name = name or parts[-1]
        else:
            name = text_of(entry, "file_name")
        if not name or name.startswith("/") or "\0" in name or "\\" in name or ".." in PurePosixPath(name).parts:
            raise Defect("picture outside the folder", f"file_name is {describe(name)}; give a path in it, with /")
        path = self.folder / name
        if not os.path.isfile(path):
            raise Defect("missing picture", f"there is no {shorten(str(path))}")
        if not os.path.realpath(path).startswith(os.path.join(self.folder, "")):
            raise Defect("picture outside the folder", f"{describe(name)} is a link that leads out of it")
        return path

    def _split_of(self, image_id: int) -> str:
        """That of the file, or by the id alone: the first 8 hexadecimal digits of its SHA-256, as a fraction."""
        if self._split_field is not None:
            return self.images[image_id][self._split_field]
        digits = hashlib.sha256(str(image_id).encode("ascii")).hexdigest()[:8]
        return "val" if int(digits, 16) / 16**8 < (VAL_SHARE if self._val is None else self._val) else "train"

    def _judge(self, image_id: int, split: str, image: dict, height: int, width: int) -> CocoPicture:
        annotations = self._annotations.get(image_id, [])
        unclear = self._unclear.get(image_id, set()) | self._names_of(image_id, "not_exhaustive_category_ids")
        seen: list[Seen] = []
        for category, entry in annotations:
            unclear.update(category.similar)
            if not category.name:
                self.left_out[UNNAMED] += 1
                continue
            try:
                if not category.is_stuff and is_crowd(entry):
                    self.left_out[CROWD] += 1
                    unclear.add(category.name)
                else:
                    seen.append(measure(category, entry, height, width))
            except Defect as defect:
                self._report(defect, f"annotation {entry['id']} of image {image_id}")
                unclear.add(category.name)
        doubles, parts = find_doubles(seen)
        self.left_out[TWICE] += len(doubles)
        self.left_out[PART] += len(parts)
        unclear |= {one.category.name for one, _ in parts}
        seen = merge_stuff([one for one in seen if one not in doubles])
        things = [self._make_thing(one, height, width) for one in seen]
        known = self._known(image_id, annotations)
        mentioned = {thing.category for thing in things} | known
        # What nobody looked for matters where it may be called as something that is spoken of.
        unknown = (self._things | self._stuff) - known
        unclear |= {name for name in unknown if not self.words.kin[name].isdisjoint(mentioned)}
        things += [_make_unclear(name, things_frame(height, width)) for name in sorted(unclear)]
        named = sorted(known & self.words.nouns.keys())
        return CocoPicture(image_id, split, image, height, width, things, seen, named)

    def _names_of(self, image_id: int, key: str) -> set[str]:
        """Names of the categories in a list of an image; Defects are reported, and the list is then empty."""
        ids = self.images[image_id].get(key)
        if ids is None:
            return set()
        if not isinstance(ids, list) or not all(is_integer(category_id) for category_id in ids):
            defect = Defect("malformed entry", f"{key} is {describe(ids)}, a list of ids is needed")
            self._report(defect, f"image {image_id}")
            return set(self.words.nouns) if key.startswith("not_exhaustive") else set()
        return {self._categories[category_id].name for category_id in ids if category_id in self._categories}

    def _known(self, image_id: int, annotations: list[tuple[Category, dict]]) -> set[str]:
        """Return the categories that were looked for in a picture."""
        there = {category.name for category, _ in annotations}
        has_stuff = any(category.is_stuff for category, _ in annotations)
        things = self._things
        if "neg_category_ids" in self.images[image_id]:
            things = things & (there | self._names_of(image_id, "neg_category_ids"))
        return things | (self._stuff if has_stuff else set())

    def _make_thing(self, seen: Seen, height: int, width: int) -> Thing:
        longer = max(height, width)
        left, top, right, bottom = seen.box
        near = self.rules.border * longer
        reason = None
        if seen.rle is None:
            reason = NO_MASK
        elif seen.area < self.rules.min_area * height * width:
            reason = TINY
        elif seen.category.name not in self.words.nouns:
            reason = UNNAMED
        is_anchor = reason is None and not seen.has_two_names
        is_cut = left <= near or top <= near or right >= width - near or bottom >= height - near
        if reason is None and is_cut and not (self.rules.keep_truncated or seen.category.is_stuff):
            reason = CUT_OFF
        if reason is not None:
            self.left_out[reason] += 1
        return Thing(
            seen.category.name,
            (left / longer, top / longer, right / longer, bottom / longer),
            seen.area / longer**2,
            things_frame(height, width),
            is_target=reason is None,
            is_stuff=seen.category.is_stuff,
            is_anchor=is_anchor,
        )


def things_frame(height: int, width: int) -> tuple[float, float]:
    """Width and height as fractions of the longer."""
    return width / max(height, width), height / max(height, width)


def _make_unclear(name: str, frame: tuple[float, float]) -> Thing:
    return Thing(name, (0.0, 0.0, *frame), math.nan, frame, is_target=False, is_crowd=True, is_anchor=False)


def _id_of(entry: dict) -> int:
    return entry["id"]


def _check_rules(rules: Rules) -> None:
    for name, value in {**vars(rules.margins), "min_area": rules.min_area, "border": rules.border}.items():
        least = 1 if name == "size_ratio" else 0
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}; give a number from {least} up.")
    if rules.min_area > 1 or rules.border > 0.5:
        raise ValueError(
            f"min_area is {rules.min_area} and border {rules.border}; give parts of the picture, at most 1 and 0.5."
        )


def _size_of(entry: dict) -> tuple[int, int]:
    height, width = integer_of(entry, "height"), integer_of(entry, "width")
    if height < 1 or width < 1:
        raise Defect("malformed entry", f"height and width are {height} and {width}")
    return height, width
