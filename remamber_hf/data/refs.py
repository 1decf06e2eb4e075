# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Refs as each set writes them → `Meaning`s, all alike: some sentences of a ref, and the objects that they mean.

| set | a sentence means nothing | several objects |
|---|---|---|
| REFER sets | | |
| gRefCOCO, `grefs(…).json` | `ann_id` is [-1], `no_target` is true | `ann_id` is a list |
| Ref-ZOM | `ann_id` is [], `source` is "zero" | `ann_id` is a list |
| R-RefCOCO | its `exist` is false, though `ann_id` is that of the others | |
| FP-RefCOCO | its `is_false_premise` is true, likewise | |

- Two of these that contradict each other are a defect ("contradiction"): what a sentence means is never guessed.
- A ref of R-RefCOCO gives up to two rows of one `ref_id`: of the sentences that are true, and of those that are not.
- A set is read so whatever its folder is called: one such ref makes the columns of all its rows lists.
- A ref of a grefs file without any sentence is left out and counted, also where a defect would stop.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..messages import describe, shorten
from .coco import read_instances
from .published import GENERALIZED_SETS
from .reading import (
    PICKLE_ERRORS,
    Defect,
    PlainUnpickler,
    check_tree,
    decode_text,
    integer_of,
    is_integer,
    read_json,
    read_regular_file,
)


if TYPE_CHECKING:
    from .refer_config import ReferConfig


NO_TARGET = [-1]
ZERO_SOURCE = "zero"
NO_SENTENCES = "ref without sentences"
REPEATED_OBJECT = "object twice in a ref"


@dataclass
class Meaning:
    """Some sentences of a ref, as they stand in its file, and what they mean.

    Args:
        sentences: entries with `sent`, `raw` and `sent_id`.
        ann_ids: of the objects; none if the sentences mean nothing.
        annotations: the objects themselves, where they are not looked up in instances.json.
    """

    sentences: list[dict]
    ann_ids: list[int] = field(default_factory=list)
    annotations: list[dict] | None = None


@dataclass
class Instances:
    """instances.json: `entries` by id, and how often an id is there that is so more than once."""

    name: str
    entries: dict[str, dict[int, dict]]
    repeated: dict[str, Counter]

    @classmethod
    def read(cls, path: Path, name: str = "instances.json") -> Instances:
        return cls(name, *read_instances(path))


class ReferFiles:
    """refs(…).p or grefs(…).json with its instances.json."""

    def __init__(self, config: ReferConfig):
        self.is_grefs = config.generalized
        self.refs_name = config.refs_path.name
        self.instances = Instances.read(config.instances_path)
        self.refs = read_refs(config.refs_path)
        self.left_out: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        is_known = config.generalized or config.dataset in GENERALIZED_SETS
        self.is_generalized = is_known or any(_says_more(ref) for ref in self.refs)

    @property
    def all_instances(self) -> list[Instances]:
        return [self.instances]

    def instances_of(self, ref: dict) -> Instances:
        return self.instances

    def place_of(self, ref: dict) -> tuple[str, str]:
        """What a ref is called, and the file that it is in."""
        return f"ref {describe(ref.get('ref_id'))}", self.refs_name

    def meanings_of(self, ref: dict) -> list[Meaning]:
        """What the sentences of a ref mean; Defect if it cannot be known."""
        ann_ids = self._annotation_ids(ref)
        entries = ref.get("sentences")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Defect("malformed entry", f"sentences is {describe(entries)}, a list of dicts is needed")
        if not entries and self.is_grefs:
            self.left_out[NO_SENTENCES] += 1
            return []
        if not ann_ids:
            for entry in entries:
                if is_true_of_something(entry):
                    where = f"sentence {describe(entry.get('sent_id'))}"
                    raise Defect("contradiction", f"the ref means nothing, and {where} is said to be true")
            return [Meaning(entries)]
        meant = [entry for entry in entries if is_true_of_something(entry) is not False]
        absent = [entry for entry in entries if is_true_of_something(entry) is False]
        meanings = [Meaning(meant, ann_ids)] if meant or not absent else []
        return [*meanings, Meaning(absent)] if absent else meanings

    def _annotation_ids(self, ref: dict) -> list[int]:
        if not self.is_generalized:
            return [integer_of(ref, "ann_id")]
        given = ref.get("ann_id")
        ann_ids = [given] if is_integer(given) else given
        if not isinstance(ann_ids, list) or not all(is_integer(ann_id) for ann_id in ann_ids):
            raise Defect("malformed entry", f"ann_id is {describe(given)}, an integer or a list of them is needed")
        if self.is_grefs:
            if not ann_ids:
                raise Defect("malformed entry", "ann_id is [], where [-1] means nothing")
            ann_ids = [] if ann_ids == NO_TARGET else ann_ids
        self._compare(ref, "no_target", bool, True, ann_ids, is_own=self.is_grefs)
        self._compare(ref, "source", str, ZERO_SOURCE, ann_ids, is_own=not self.is_grefs)
        if len(set(ann_ids)) < len(ann_ids):
            self.noticed[REPEATED_OBJECT] += 1
        return list(dict.fromkeys(ann_ids))

    @staticmethod
    def _compare(ref: dict, key: str, kind: type, nothing, ann_ids: list[int], is_own: bool) -> None:
        """
        Defect if a field that a ref may have says that it means nothing, and `ann_id` says that it does not; where it
        is one of this set's own, also for the reverse, and for a value of another kind.
        """
        if key not in ref or (not is_own and not _is_said(ref, key, nothing)):
            return
        value = ref[key]
        if not isinstance(value, kind):
            needed = {bool: "true or false", str: "text"}[kind]
            raise Defect("malformed entry", f"{key} is {describe(value)}, {needed} is needed")
        if (value == nothing) != (not ann_ids):
            raise Defect("contradiction", f"{key} is {describe(value)}, and ann_id is {describe(ref['ann_id'])}")


def is_true_of_something(entry: dict) -> bool | None:
    """Whether a sentence is said to be true of an object, None if nothing is said; Defect for anything else."""
    said = {}
    for key in ("exist", "is_false_premise"):
        if key in entry:
            value = entry[key]
            if not isinstance(value, (bool, int)) or value not in (0, 1):
                raise Defect("malformed entry", f"{key} is {describe(value)}, true or false is needed")
            said[key] = bool(value) == (key == "exist")
    if len(set(said.values())) == 2:
        where = f"sentence {describe(entry.get('sent_id'))}"
        raise Defect("contradiction", f"exist and is_false_premise of {where} do not agree")
    return next(iter(said.values()), None)


def _says_more(ref: dict) -> bool:
    """Whether a ref can only be of a set in which a sentence may mean nothing or several objects."""
    sentences = ref.get("sentences")
    is_denied = isinstance(sentences, list) and any(map(_is_denied, sentences))
    says_nothing = _is_said(ref, "no_target", True) or _is_said(ref, "source", ZERO_SOURCE)
    return isinstance(ref.get("ann_id"), list) or is_denied or says_nothing


def _is_said(ref: dict, key: str, value) -> bool:
    """Whether a ref has just this value, of this type."""
    return type(ref.get(key)) is type(value) and ref[key] == value


def _is_denied(entry) -> bool:
    try:
        return isinstance(entry, dict) and is_true_of_something(entry) is False
    except Defect:  # which is reported with its ref
        return False


def read_refs(path: str | os.PathLike) -> list[dict]:
    """Read a refs file, `.p` or `.json`: a list of dicts, whose text still has to go through `text_of`.

    Raises ValueError if the file holds something else, a class or function of Python for one.
    """
    path = Path(path)
    content = read_regular_file(path)
    try:
        if path.suffix == ".json":
            refs = read_json(content)
        else:
            refs = PlainUnpickler(io.BytesIO(content)).load()
            check_tree(refs, 10 * len(content))
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except PICKLE_ERRORS as error:
        raise ValueError(
            f"{shorten(str(path))} is not read: {type(error).__name__}: {shorten(str(error))}. Get the file from "
            "its publisher again."
        ) from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(
            f"{shorten(str(path))} holds {type(refs).__name__}, a list of dicts is needed. Get the file again."
        )
    return refs
