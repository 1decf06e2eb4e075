# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""REFER sets of strangers: whatever is in them, one line says no, and nothing else happens.

Every case is a function that spoils a whole data set; the names say how. What is random comes from the case's name.
"""

import json
import os
import pickle
import random
import struct
from pathlib import Path

import pytest
from hostile_data import (
    ADDRESS,
    DIGITS,
    EPS,
    ESCAPES,
    HEIGHT,
    SQUARE,
    WIDTH,
    Runs,
    check_is_bad,
    huge,
    link_to,
    nested_lists,
    picture_bytes,
    png_bomb,
    zigzag,
)
from machinery import attempt, run_command

from remamber_hf.data.refer import load_refer, read_refs
from remamber_hf.inference.loading import BUNDLED_MODEL


INSTANCES, REFS = "shapes/instances.json", "shapes/refs(unc).p"
PICTURES = "images/mscoco/images/train2014"


class Refer:
    """A small data set to be spoilt: its lists, and what stands in the place of a file's content."""

    def __init__(self, root: Path):
        self.root, self.folder = root, root / "shapes"
        self.outside = root.parent / "outside"
        self.images = [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
        self.annotations = [
            {"id": 5, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 12], "segmentation": [SQUARE]}
        ]
        self.categories = [{"id": 1, "name": "thing"}]
        self.refs = [self.ref(7, "train"), self.ref(8, "val")]
        self.picture = picture_bytes()
        self.refs_content = self.instances_content = None

    def ref(self, ref_id: int, split: str) -> dict:
        sentences = [{"sent_id": ref_id, "sent": "the thing", "raw": "The thing."}]
        return {"ref_id": ref_id, "ann_id": 5, "image_id": 1, "split": split, "sentences": sentences}

    def write(self):
        self.write_as(REFS)

    def write_as(self, refs_name: str):
        """Write all files, the refs by this name."""
        for folder in (self.folder, self.root / PICTURES):
            folder.mkdir(parents=True, exist_ok=True)
        instances = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        whole = json.dumps(instances).encode() if self.instances_content is None else self.instances_content
        refs = pickle.dumps(self.refs) if self.refs_content is None else self.refs_content
        instances_name = f"{os.path.dirname(refs_name)}/instances.json"
        files = {instances_name: whole, refs_name: refs, f"{PICTURES}/a.png": self.picture}
        for name, content in files.items():
            if not os.path.lexists(self.root / name):
                (self.root / name).write_bytes(content)


def replace(old: str, new: str):
    """Spoil instances.json in its text."""

    def spoil(data):
        instances = {"images": data.images, "annotations": data.annotations, "categories": data.categories}
        text = json.dumps(instances)
        assert old in text
        data.instances_content = text.replace(old, new, 1).encode("utf-8", "surrogatepass")

    return spoil


def put(where: str, key: str, value):
    """Put a value into the first entry of a list."""

    def spoil(data):
        getattr(data, where)[0][key] = value

    return spoil


def refs_of(make):
    """Spoil the refs file whole: `make(data)` returns its bytes."""

    def spoil(data):
        data.refs_content = make(data)

    return spoil


def sentence(key: str, value):
    def spoil(data):
        data.refs[0]["sentences"][0][key] = value

    return spoil


def list_in_itself(data) -> bytes:
    refs = list(data.refs)
    refs[0]["sentences"].append(refs[0]["sentences"])
    return pickle.dumps(refs)


def shared_sentences(data) -> bytes:
    sentences = [{"sent": "a thing"}] * 3000
    return pickle.dumps([{**data.refs[0], "ref_id": number, "sentences": sentences} for number in range(3000)])


def deep_tuple_as_key(data) -> bytes:
    # EMPTY_LIST EMPTY_DICT () then 60 times (DUP TUPLE2), then 1, SETITEM, APPEND, STOP
    return b"\x80\x02]})" + b"2\x86" * 60 + b"K\x01sa."


def truncated(data) -> bytes:
    return pickle.dumps(data.refs)[:-40]


def damaged(seed: int):
    def make(data) -> bytes:
        generator = random.Random(seed)
        content = bytearray(pickle.dumps(data.refs, protocol=2))
        del content[-1]  # it does not end, so that none is whole by chance
        for _ in range(8):
            content[generator.randrange(len(content))] = generator.randrange(256)
        return bytes(content)

    return refs_of(make)


def reduces(protocol: int):
    return refs_of(lambda data: pickle.dumps([{**data.refs[0], "sentences": Runs(data.outside)}], protocol=protocol))


def long_split_names(data):
    data.refs = [data.ref(number, f"s{number}") for number in range(5000)]


def replace_file(name: str, make):
    """Put something that is no regular file into the place of a file: `make(path)`."""

    def spoil(data):
        path = data.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return spoil


def set_picture(content: bytes, height: int = HEIGHT, width: int = WIDTH):
    def spoil(data):
        data.picture = content
        data.images[0].update(height=height, width=width)

    return spoil


REFER_CASES = {
    # pickles that run, ask or unfold
    **{f"a pickle of protocol {protocol} runs": reduces(protocol) for protocol in range(6)},
    "GLOBAL os.system": refs_of(lambda data: b"cos\nsystem\n(S'mkdir outside'\ntR."),
    "INST": refs_of(lambda data: b"(S'mkdir outside'\nios\nsystem\n."),
    "OBJ": refs_of(lambda data: b"(cos\nsystem\nS'mkdir outside'\no."),
    "STACK_GLOBAL": refs_of(lambda data: b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R."),
    "NEWOBJ": refs_of(lambda data: b"\x80\x02cbuiltins\nobject\n)\x81."),
    "BUILD": refs_of(lambda data: b"\x80\x02]}(U\x08__dict__]ub."),
    "EXT1": refs_of(lambda data: b"\x80\x02\x82\x01."),
    "PERSID": refs_of(lambda data: b"Pfile:///etc/passwd\n."),
    "a name of a class with escapes": refs_of(lambda data: f"c{ESCAPES}\n{'x' * 10000}\n.".encode()),
    "a set": refs_of(lambda data: pickle.dumps([{**data.refs[0], "sentences": {1, 2}}], 4)),
    "a buffer of a terabyte": refs_of(lambda data: b"\x80\x05]\x96" + struct.pack("<Q", 2**40) + b"a."),
    "a text of a terabyte": refs_of(lambda data: b"\x80\x04]\x8d" + struct.pack("<Q", 2**40) + b"a."),
    "a frame of a terabyte": refs_of(lambda data: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"]."),
    "a memo index of two billion": refs_of(lambda data: b"\x80\x02]r\xff\xff\xff\x7f."),
    "a tuple as a key whose hash takes for ever": refs_of(deep_tuple_as_key),
    "shared lists that unfold": put("refs", "sentences", nested_lists(12)),
    "shared lists as an id": put("refs", "ref_id", nested_lists(12)),
    "shared lists as a split": put("refs", "split", nested_lists(12)),
    "shared lists as an annotation": put("refs", "ann_id", nested_lists(12)),
    "shared lists as a picture": put("refs", "image_id", nested_lists(12)),
    "shared sentences": refs_of(shared_sentences),
    "a list in itself": refs_of(list_in_itself),
    "lists of 100,000 levels": refs_of(lambda data: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "a pickle that is cut off": refs_of(truncated),
    "an empty refs file": refs_of(lambda data: b""),
    "no refs": refs_of(lambda data: pickle.dumps([])),
    "a dict of refs": refs_of(lambda data: pickle.dumps({"a": 1})),
    "an archive as refs": refs_of(lambda data: b"PK\x03\x04" + b"\0" * 100),
    **{f"a damaged pickle {seed}": damaged(seed) for seed in range(10)},
    # values of refs
    "a ref id of 5,000 digits": put("refs", "ref_id", 10**5000),
    "an annotation id of 5,000 digits": put("refs", "ann_id", -(10**5000)),
    "a picture id of 5,000 digits": put("refs", "image_id", 10**5000),
    "a ref id of NaN": put("refs", "ref_id", float("nan")),
    "a ref id that is true": put("refs", "ref_id", True),
    "a split of 5,000 letters": put("refs", "split", "s" * 5000),
    "a split with escapes": put("refs", "split", f"train{ESCAPES}"),
    "a split that leaves the cache": put("refs", "split", "../../outside"),
    "5,000 splits": long_split_names,
    "sentences that are text": put("refs", "sentences", "the thing"),
    "a sentence of a million letters": sentence("sent", "x" * 1_000_000),
    "half a surrogate in a sentence": sentence("sent", "half \ud83d"),
    "half a surrogate and escapes in a sentence": sentence("sent", f"{ESCAPES}\udc9f"),
    "a sentence that is a list": sentence("sent", nested_lists(3)),
    "a sentence id that unfolds": lambda data: (
        sentence("sent_id", nested_lists(12))(data),
        sentence("sent", " ")(data),
    ),
    "a sentence that is neither true nor untrue": sentence("exist", 2),
    "shared lists as the truth of a sentence": sentence("exist", nested_lists(12)),
    "escapes as the truth of a sentence": sentence("exist", ESCAPES),
    "shared lists as a source": lambda data: data.refs[0].update(ann_id=[], source=nested_lists(12)),
    "a source with escapes": lambda data: data.refs[0].update(ann_id=[5], source=[ESCAPES]),
    "a source that contradicts its objects": lambda data: data.refs[0].update(ann_id=[5], source="zero"),
    "100,000 objects in a ref": put("refs", "ann_id", list(range(100_000))),
    # instances.json
    "instances of 5,000 digits": replace('"id": 5', f'"id": {DIGITS}'),
    "instances of 100,000 levels": lambda data: setattr(data, "instances_content", b"[" * 100_000),
    "instances of deep objects": lambda data: setattr(data, "instances_content", b'{"images":' * 50_000),
    "instances that are no JSON": lambda data: setattr(data, "instances_content", b"\x80\x02]."),
    "instances that are empty": lambda data: setattr(data, "instances_content", b""),
    "instances in Latin-1": lambda data: setattr(data, "instances_content", '{"a":\n"é"}'.encode("latin-1")),
    "instances without lists": lambda data: setattr(data, "instances_content", b'{"images": {}}'),
    "an id that is a list": replace('"id": 5', '"id": [5]'),
    "an id that is a fraction": replace('"id": 5', '"id": 5.5'),
    "an id that is NaN": replace('"id": 5', '"id": NaN'),
    "an annotation id twice": lambda data: data.annotations.append({**data.annotations[0], "bbox": [1, 1, 2, 2]}),
    "an image id twice": lambda data: data.images.append({**data.images[0], "file_name": "b.png"}),
    "a category id twice": lambda data: data.categories.append({"id": 1, "name": "other"}),
    "a ref id twice": lambda data: data.refs.append(data.refs[0]),
    "a category with escapes and half a surrogate": put("categories", "name", f"{ESCAPES}\ud83d"),
    "a category that is a number": put("categories", "name", 3),
    "a box of NaN": put("annotations", "bbox", [float("nan"), 1, 2, 3]),
    "a box of 1e300": put("annotations", "bbox", [1e300, 1, 2, 3]),
    "a box of lists": put("annotations", "bbox", [nested_lists(3)] * 4),
    "a polygon at a billion": put("annotations", "segmentation", [[0, 0, 1e9, 0, 1e9, 1e9]]),
    "a polygon of infinity": put("annotations", "segmentation", [[0, 0, float("inf"), 0, 5, 5]]),
    "a polygon of NaN": put("annotations", "segmentation", [[float("nan"), 0, 9, 0, 5, 5]]),
    "an odd polygon": put("annotations", "segmentation", [[1, 2, 3, 4, 5, 6, 7]]),
    "a polygon of texts": put("annotations", "segmentation", [["1", "2", "3", "4", "5", "6"]]),
    "a polygon of long integers": put("annotations", "segmentation", [[10**400, 2, 3, 4, 5, 6]]),
    "a polygon to and fro": put("annotations", "segmentation", [zigzag(200_000)]),
    "polygons to and fro": put("annotations", "segmentation", [zigzag(2_000)] * 200),
    "polygons in polygons": put("annotations", "segmentation", [[[1, 2, 3, 4, 5, 6]] * 3]),
    "a segmentation that is text": put("annotations", "segmentation", "m" * 100_000),
    "an RLE of continuation letters": put(
        "annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": "o" * 2_000_000}
    ),
    "an RLE of escapes": put("annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": ESCAPES}),
    "an RLE of a billion pixels": put("annotations", "segmentation", {"size": [2**31, 2**31], "counts": [2**62]}),
    "an RLE of negative runs": put(
        "annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": [-10, HEIGHT * WIDTH + 10]}
    ),
    "an RLE of long runs": put("annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": [2**70, 5]}),
    "an RLE that overflows": put(
        "annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": "ooooooooooo0" * 100}
    ),
    "an RLE of nothing": put("annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": ""}),
    "an RLE whose counts are a dict": put("annotations", "segmentation", {"size": [HEIGHT, WIDTH], "counts": {}}),
    # pictures
    "a picture above the folder": put("images", "file_name", "../../../../../outside.png"),
    "a picture by an absolute path": put("images", "file_name", "/etc/hostname"),
    "a picture of the web": put("images", "file_name", ADDRESS),
    "a picture's name of 5,000 letters": put("images", "file_name", "n" * 5000),
    "a picture's name with escapes": put("images", "file_name", ESCAPES),
    "a picture's name with NUL": put("images", "file_name", "a\0.png"),
    "a picture's name with half a surrogate": put("images", "file_name", "a\ud83d.png"),
    "a picture's name that is a list": put("images", "file_name", nested_lists(4)),
    "a picture that is a folder": put("images", "file_name", "."),
    "a height of two billion": put("images", "height", 2**31 - 1),
    "a height of 5,000 digits": replace('"height": 40', f'"height": {DIGITS[:4000]}'),
    "a height of 0": put("images", "height", 0),
    "PostScript as a picture": set_picture(EPS),
    "a picture of 400 megapixels": set_picture(png_bomb(20_000, 20_000), 20_000, 20_000),
    "a picture that is cut off": set_picture(picture_bytes()[:60]),
    "a picture that is none": set_picture(b"\x89PNG\r\n\x1a\n" + b"\0" * 100),
    "a picture that is empty": set_picture(b""),
    "a pipe as a picture": replace_file(f"{PICTURES}/a.png", os.mkfifo),
    "a picture that links to itself": replace_file(f"{PICTURES}/a.png", link_to("itself")),
    "a picture that links to /dev/zero": replace_file(f"{PICTURES}/a.png", link_to("/dev/zero")),
    # no regular files
    "a pipe as instances": replace_file(INSTANCES, os.mkfifo),
    "instances that link to /dev/zero": replace_file(INSTANCES, link_to("/dev/zero")),
    "instances that link to themselves": replace_file(INSTANCES, link_to("itself")),
    "instances of 8 TiB": replace_file(INSTANCES, huge),
    "a pipe as refs": replace_file(REFS, os.mkfifo),
    "refs that link to /dev/zero": replace_file(REFS, link_to("/dev/zero")),
    "refs of 8 TiB": replace_file(REFS, huge),
}


@pytest.mark.parametrize("case", REFER_CASES)
def test_a_hostile_refer_set_is_refused_in_one_line(tmp_path, case):
    data = Refer(tmp_path / "data")
    REFER_CASES[case](data)
    data.write()
    arguments = {"data_dir": data.root, "cache_dir": tmp_path / "cache"}
    outcome = attempt(load_refer, "shapes", "unc", folder=data.root.parent, **arguments)
    outcome.after = {name: size for name, size in outcome.after.items() if not name.startswith("cache")}
    outcome.check_refused()
    assert not data.outside.exists()
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    checked = attempt(check_is_bad, data.root, folder=data.root.parent)
    checked.check_harmless()
    assert checked.status == 0 and checked.value == "True", checked


@pytest.mark.parametrize("name", ["refs(final).p", "Ref_ZOM.p", "Ref-ZOM(final).p"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_ref_zom_file_that_runs_is_refused_under_any_of_its_names(tmp_path, name, protocol):
    data = Refer(tmp_path / "data")
    data.folder = data.root / "ref-zom"
    reduces(protocol)(data)
    data.write_as(f"ref-zom/{name}")
    arguments = {"data_dir": data.root, "cache_dir": tmp_path / "cache"}
    outcome = attempt(load_refer, "ref-zom", "final", folder=data.root.parent, **arguments)
    outcome.after = {path: size for path, size in outcome.after.items() if not path.startswith("cache")}
    outcome.check_refused("only containers, strings and numbers are read")
    assert not data.outside.exists()


def test_the_data_set_that_is_spoilt_is_whole_before(tmp_path):
    data = Refer(tmp_path / "data")
    data.write()
    assert attempt(load_refer, "shapes", "unc", data_dir=data.root, cache_dir=tmp_path / "cache").status == 0
    assert attempt(check_is_bad, data.root).value == "False"


def test_a_pickle_that_runs_would_run_elsewhere(tmp_path):
    pickle.loads(pickle.dumps(Runs(tmp_path / "outside")))
    assert (tmp_path / "outside").exists()


def test_a_refs_file_alone_is_refused_too(tmp_path):
    os.mkfifo(tmp_path / "refs(unc).p")
    attempt(read_refs, tmp_path / "refs(unc).p").check_refused("no regular file")


# As commands


COMMANDS = {
    "preview of a pickle that runs": ("preview", reduces(2)),
    "export of a pickle that runs": ("export", reduces(4)),
    "preview of a polygon at a billion": (
        "preview", put("annotations", "segmentation", [[0, 0, 1e9, 0, 1e9, 1e9]])
    ),
    "export of a picture by an absolute path": ("export", put("images", "file_name", "/etc/hostname")),
    "export of a sentence with escapes and half a surrogate": ("export", sentence("sent", f"{ESCAPES}\ud83d")),
    "preview of PostScript": ("preview", set_picture(EPS)),
    "export of instances in Latin-1": (
        "export", lambda data: setattr(data, "instances_content", '{"a":\n"é"}'.encode("latin-1"))
    ),
    "train of a pickle that runs": ("train", reduces(2)),
    "train of ids that stand twice": ("train", lambda data: data.annotations.append(dict(data.annotations[0]))),
    "evaluate of a pickle that runs": ("evaluate", reduces(2)),
}  # fmt: skip


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_refuses_hostile_data_with_status_2_and_leaves_nothing(tmp_path, cache, monkeypatch, case):
    command, spoil = COMMANDS[case]
    data = Refer(tmp_path / "data")
    spoil(data)
    data.write()
    monkeypatch.chdir(data.root)
    arguments = {
        "preview": ["data", "preview", "--output", "out.png"],
        "export": ["data", "export", "--output_dir", "out"],
        "train": ["train", "--model", str(BUNDLED_MODEL), "--output_dir", "out", "--do_train", "--use_cpu"],
        "evaluate": ["evaluate", str(BUNDLED_MODEL), "--output_dir", "out", "--device", "cpu"],
    }[command]
    outcome = attempt(run_command, *arguments, "--data_dir", str(data.root), folder=data.root, seconds=60)
    outcome.check_refused("remamber: error: ")
    assert not data.outside.exists()
