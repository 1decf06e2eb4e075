# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""aRefCOCO: descriptions in arefcoco.json, about objects of RefCOCO and G-Ref in the same folder of data sets.

    <data_dir>/arefcoco/arefcoco.json                            {"annotations": [entry, …]}
    <data_dir>/refcoco/instances.json and refs(unc).p            where `original_dataset` is "refcoco"
    <data_dir>/refcocog/instances.json and refs(umd).p           where it is "refcocog", or begins so

Of an entry, `split`, `original_dataset`, `ref_id` and `descriptions` are read. Picture and mask are those of the ref
of that id in the original set. Both sets count their refs from 0, so the `ref_id` of a row counts the entries from 1.
The published reader takes whatever is not "refcoco" for G-Ref; here another set is a defect: its refs have the same
ids, and are about other objects.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..messages import describe, shorten
from .reading import Defect, decode_text, integer_of, is_integer, read_json, read_regular_file
from .refs import Instances, Meaning, read_refs


if TYPE_CHECKING:
    from .refer_config import ReferConfig


NO_INSTANCES = Instances("no set", {"images": {}, "annotations": {}, "categories": {}}, {})
ORIGINAL_SPLITS = {"refcoco": "unc", "refcocog": "umd"}


class ARefCocoFiles:
    """arefcoco.json, with the refs and objects of the sets that it speaks of."""

    is_generalized = False

    def __init__(self, config: ReferConfig):
        self.refs_name = config.refs_path.name
        entries = read_entries(config)
        self.left_out: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        named = {original_name(entry.get("original_dataset")) for entry in entries}
        self.originals = {name: _Original(config, name) for name in ORIGINAL_SPLITS if name in named}
        self.refs = [self._as_ref(number, entry) for number, entry in enumerate(entries, start=1)]

    @property
    def all_instances(self) -> list[Instances]:
        return [original.instances for original in self.originals.values()]

    def instances_of(self, ref: dict) -> Instances:
        original = self._original(ref)
        return NO_INSTANCES if original is None else original.instances

    def place_of(self, ref: dict) -> tuple[str, str]:
        """What an entry is called, and the file that it is in."""
        return f"entry {ref['ref_id']}", self.refs_name

    def meanings_of(self, ref: dict) -> list[Meaning]:
        """What the descriptions of an entry mean; Defect if there is no such object."""
        name, original_id = ref["original_dataset"], integer_of({"ref_id": ref["original_ref_id"]}, "ref_id")
        original = self._original(ref)
        if original is None:
            names = " or ".join(ORIGINAL_SPLITS)
            raise Defect("malformed entry", f"original_dataset is {describe(name)}, {names} is needed")
        if original_id in original.repeated or original_id not in original.refs:
            times = original.repeated.get(original_id, "no")
            raise Defect("unknown id in refs", f"{original.name} has {times} ref of id {original_id}, one is needed")
        if not isinstance(ref["sentences"], list):
            raise Defect("malformed entry", f"descriptions is {describe(ref['sentences'])}, a list is needed")
        for entry in ref["sentences"]:
            if not isinstance(entry["sent"], str):
                raise Defect("malformed entry", f"descriptions holds {describe(entry['sent'])}, texts are needed")
        return [Meaning(ref["sentences"], [integer_of(ref, "ann_id")])]

    def _original(self, ref: dict) -> _Original | None:
        return self.originals.get(original_name(ref["original_dataset"]) or "")

    def _as_ref(self, number: int, entry: dict) -> dict:
        """The entry as a ref of a REFER set."""
        original = self._original({"original_dataset": entry.get("original_dataset")})
        original_id = entry.get("ref_id")
        found = original.refs.get(original_id, {}) if original is not None and is_integer(original_id) else {}
        texts = entry.get("descriptions")
        sentences = [{"sent": text, "raw": text} for text in texts] if isinstance(texts, list) else texts
        return {
            "ref_id": number,
            "split": entry.get("split"),
            "sentences": sentences,
            "image_id": found.get("image_id"),
            "ann_id": found.get("ann_id"),
            "original_dataset": entry.get("original_dataset"),
            "original_ref_id": original_id,
        }


class _Original:
    """A set whose objects are described: its refs by id, and its instances."""

    def __init__(self, config: ReferConfig, name: str):
        instances_path, refs_path = original_paths(config, name)
        for path in (instances_path, refs_path):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing; {config.refs_path.name} describes objects of {name}, so data_dir must hold "
                    f"{name}/{instances_path.name} and {name}/{refs_path.name} too."
                )
        self.name = f"{name}/{refs_path.name}"
        self.instances = Instances.read(instances_path, f"{name}/instances.json")
        refs = [ref for ref in read_refs(refs_path) if is_integer(ref.get("ref_id"))]
        self.refs = {ref["ref_id"]: ref for ref in refs}
        counts = Counter(ref["ref_id"] for ref in refs)
        self.repeated = {ref_id: count for ref_id, count in counts.items() if count > 1}


def original_name(value) -> str | None:
    """Return which of `ORIGINAL_SPLITS` an entry speaks of, None if of no known one."""
    if isinstance(value, str) and value.startswith("refcocog"):
        return "refcocog"
    return "refcoco" if value == "refcoco" else None


def original_paths(config: ReferConfig, name: str):
    """Return where instances.json and the refs file of an original set are."""
    folder = config.root / name
    return folder / "instances.json", folder / f"refs({ORIGINAL_SPLITS[name]}).p"


def read_entries(config: ReferConfig) -> list[dict]:
    """Read arefcoco.json; ValueError if it holds no list of entries."""
    path = config.refs_path
    content = read_regular_file(path)
    try:
        whole = read_json(content)
        entries = whole["annotations"]
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{shorten(str(path))} is not read: {type(error).__name__}: {shorten(str(error))}. It needs a list "
            "annotations; get the file again."
        ) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{shorten(str(path))} has annotations {describe(entries)}, a list of dicts is needed.")
    return entries
