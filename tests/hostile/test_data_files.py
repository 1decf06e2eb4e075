# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Data files of strangers: whatever is in them, one line says no, and nothing else happens.

Every case is a function that spoils a whole data set; the names say how. What is random comes from the case's name.
"""

import io
import json
import os
import pickle
import random
import struct
import zlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from machinery import attempt, run_command
from PIL import Image
from pycocotools import mask as coco_mask

from remamber_hf.data import mixture
from remamber_hf.data.check import check_data
from remamber_hf.data.folder import load_referring_folder, rows_from_columns
from remamber_hf.data.mixture import load_one
from remamber_hf.data.refer import load_refer, read_refs
from remamber_hf.data.rows import one_row_per_sentence, refer_features
from remamber_hf.inference.loading import BUNDLED_MODEL


HEIGHT, WIDTH = 40, 60
INSTANCES, REFS = "shapes/instances.json", "shapes/refs(unc).p"
PICTURES = "images/mscoco/images/train2014"
DIGITS = "9" * 5000
SQUARE = [2, 3, 12, 3, 12, 15, 2, 15]
ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202egnp.\u2066"
ADDRESS = "http://127.0.0.1:9/a.png"


def picture_bytes(height: int = HEIGHT, width: int = WIDTH, file_format: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "gray").save(content, file_format)
    return content.getvalue()


def png_bomb(height: int, width: int) -> bytes:
    """A PNG of a few kilobytes with any number of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 2)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n%%EndComments\n/Times findfont\nshowpage\n%%EOF\n"


class Runs:
    """Unpickled by Python's own reader, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


# REFER sets


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
        for folder in (self.folder, self.root / PICTURES):
            folder.mkdir(parents=True, exist_ok=True)
        instances = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        whole = json.dumps(instances).encode() if self.instances_content is None else self.instances_content
        refs = pickle.dumps(self.refs) if self.refs_content is None else self.refs_content
        files = {INSTANCES: whole, REFS: refs, f"{PICTURES}/a.png": self.picture}
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


def nested_lists(depth: int, width: int = 10):
    """A list that unfolds to width ** depth entries, and takes a few bytes in a pickle."""
    value = ["x"]
    for _ in range(depth):
        value = [value] * width
    return value


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


def zigzag(num_points: int) -> list[float]:
    return [number for index in range(num_points) for number in ((index % 2) * 3 * WIDTH - WIDTH, index % 37)]


def replace_file(name: str, make):
    """Put something that is no regular file into the place of a file: `make(path)`."""

    def spoil(data):
        path = data.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return spoil


def link_to(target: str):
    return lambda path: path.symlink_to(path.name if target == "itself" else target)


def huge(path):
    with open(path, "wb") as file:
        file.truncate(2**43)


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
    "a sentence that is absent": sentence("exist", False),
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


def check_is_bad(root) -> bool:
    results = check_data(root)
    return bool(results) and not any(result.is_good for result in results)


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


# Folders of one's own


class Own:
    """A folder with a metadata file to be spoilt: `lines` of JSON, or `content`."""

    def __init__(self, root: Path):
        self.root = root
        self.line = {"file_name": "a.png", "expression": "the thing", "polygon": SQUARE}
        self.name, self.content = "metadata.jsonl", None
        self.picture, self.mask = picture_bytes(), None

    def write(self):
        self.root.mkdir(exist_ok=True)
        metadata = json.dumps(self.line).encode() if self.content is None else self.content
        for name, content in {self.name: metadata, "a.png": self.picture, "mask.png": self.mask}.items():
            if content is not None and not os.path.lexists(self.root / name):
                (self.root / name).write_bytes(content)


def line(**values):
    return lambda own: own.line.update(values)


def json_lines(content: bytes):
    return lambda own: setattr(own, "content", content)


def csv_file(content: bytes):
    def spoil(own):
        own.name, own.content = "metadata.csv", content

    return spoil


def mask(content: bytes):
    def spoil(own):
        own.mask = content
        own.line = {"file_name": "a.png", "expression": "the thing", "mask_file_name": "mask.png"}

    return spoil


def mask_bytes(file_format: str, **options) -> bytes:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    pixels[10:30, 10:40] = 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, file_format, **options)
    return content.getvalue()


HEAD = b"file_name,expression,polygon\n"
WHOLE_LINE = b'a.png,the thing,"[2, 3, 12, 3, 12, 15]"\n'
OWN_CASES = {
    "half a surrogate in an expression": line(expression="half \ud83d"),
    "half a surrogate in a list of expressions": line(expression=["whole", "\udc9f"]),
    "half a surrogate in a category": line(category="\ud83d"),
    "half a surrogate in a file name": line(file_name="\ud83d.png"),
    "escapes in a split": line(split=ESCAPES),
    "a split of 5,000 letters, own": line(split="s" * 5000),
    "a split that is a list": line(split=["train"]),
    "an expression of a million letters": line(expression="x" * 1_000_000),
    "an expression that is a deep list": line(expression=nested_lists(3)),
    "an expression that is a number": line(expression=3),
    "a number of 5,000 digits": json_lines(f'{{"file_name": "a.png", "expression": {DIGITS}}}'.encode()),
    "a line of 100,000 levels": json_lines(b"[" * 100_000),
    "a line that is a list": json_lines(b"[1, 2]\n"),
    "a line of Latin-1": json_lines('{"file_name": "a.png"}\n{"expression": "café"}'.encode("latin-1")),
    "lines in UTF-16": json_lines('{"file_name": "a.png"}'.encode("utf-16")),
    "lines in UTF-16 without a mark": json_lines('{"file_name": "a.png"}'.encode("utf-16-le")),
    "lines in UTF-32": json_lines('{"file_name": "a.png"}'.encode("utf-32")),
    "lines that are a pickle": json_lines(pickle.dumps([Runs("outside")])),
    "a thousand columns of escapes": json_lines(json.dumps({f"{ESCAPES}{i}": 1 for i in range(1000)}).encode()),
    "only blank lines": json_lines(b"\n\n \n"),
    "a file above the folder": line(file_name="../outside.png"),
    "a file deep below and above": line(file_name="x/../../outside.png"),
    "a file by an absolute path": line(file_name="/etc/hostname"),
    "a file of the web": line(file_name=ADDRESS),
    "a file of Windows": line(file_name="..\\outside.png"),
    "a file name of 5,000 letters": line(file_name="n" * 5000),
    "a file name with escapes": line(file_name=ESCAPES),
    "a file name with NUL": line(file_name="a\0.png"),
    "a file name that is a dict": line(file_name={"path": "a.png"}),
    "a mask above the folder": line(polygon=None, mask_file_name="../outside.png"),
    "a mask that is the device of zeros": lambda own: (
        own.root.mkdir(),
        (own.root / "mask.png").symlink_to("/dev/zero"),
        mask(None)(own),
    ),
    "a mask that is a pipe": lambda own: (own.root.mkdir(), os.mkfifo(own.root / "mask.png"), mask(None)(own)),
    "a polygon of a billion": line(polygon=[0, 0, 1e9, 0, 1e9, 1e9]),
    "a polygon of no numbers": json_lines(
        b'{"file_name": "a.png", "expression": "it", "polygon": [NaN, Infinity, 1, 2, 3, 4]}'
    ),
    "a polygon of booleans": line(polygon=[True] * 6),
    "an endless polygon": line(polygon=zigzag(200_000)),
    "a deep polygon": line(polygon=[[[[[1, 2, 3, 4, 5, 6]]]]]),
    "an RLE of a long text": line(polygon=None, rle={"size": [HEIGHT, WIDTH], "counts": "o" * 1_000_000}),
    "an RLE of text with escapes": line(polygon=None, rle={"size": [HEIGHT, WIDTH], "counts": ESCAPES}),
    "an RLE that is nested": line(polygon=None, rle={"size": nested_lists(4), "counts": nested_lists(4)}),
    "PostScript in a picture": lambda own: setattr(own, "picture", EPS),
    "400 megapixels in a picture": lambda own: setattr(own, "picture", png_bomb(20_000, 20_000)),
    "PostScript in a mask": mask(EPS),
    "160 megapixels in a mask": mask(png_bomb(12_000, 13_000)),
    "a mask in JPEG": mask(mask_bytes("JPEG")),
    "a mask in lossy WebP": mask(mask_bytes("WEBP", quality=50)),
    "a mask in JPEG 2000": mask(mask_bytes("JPEG2000", irreversible=True)),
    "a mask in TIFF with JPEG": mask(mask_bytes("TIFF", compression="jpeg")),
    # CSV
    "a cell of a million letters": csv_file(HEAD + b"a.png," + b"x" * 1_000_000 + b",\n"),
    "a quote that is not closed": csv_file(HEAD + b'"a.png,' + b"x\n" * 100_000),
    "CSV in Latin-1": csv_file(HEAD + WHOLE_LINE + 'a.png,café,"[1]"\n'.encode("latin-1")),
    "CSV in UTF-16": csv_file((HEAD + WHOLE_LINE).decode().encode("utf-16")),
    "CSV with NUL": csv_file(HEAD + b"a\0.png,it,[1]\n"),
    "CSV with a deep polygon": csv_file(HEAD + b"a.png,it," + b"[" * 100_000 + b"\n"),
    "CSV with a number of 5,000 digits": csv_file(HEAD + f"a.png,it,[{DIGITS}]\n".encode()),
    "CSV with a column twice": csv_file(b"file_name,expression,expression,polygon\na.png,a,b,[]\n"),
    "CSV with columns of escapes": csv_file(f"{ESCAPES},b\n1,2\n".encode()),
    "CSV without lines": csv_file(HEAD),
    "an archive as CSV": csv_file(b"PK\x03\x04" + bytes(range(256)) * 10),
    "CSV of 8 TiB": lambda own: (own.root.mkdir(), huge(own.root / "metadata.csv"), csv_file(None)(own)),
}


@pytest.mark.parametrize("case", OWN_CASES)
def test_a_hostile_folder_is_refused_in_one_line(tmp_path, case):
    own = Own(tmp_path / "own")
    OWN_CASES[case](own)
    own.write()
    outcome = attempt(load_referring_folder, own.root, folder=tmp_path)
    outcome.check_refused(own.name)
    checked = attempt(check_is_bad, own.root, folder=tmp_path)
    checked.check_harmless()
    assert checked.status == 0 and checked.value == "True", checked


@pytest.mark.parametrize("make", [os.mkfifo, link_to("/dev/zero"), link_to("itself"), os.mkdir])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_that_is_no_regular_file_is_no_metadata(tmp_path, make, name):
    make(tmp_path / name)
    attempt(load_referring_folder, tmp_path, folder=tmp_path).check_refused("holds no metadata")


def test_the_folder_that_is_spoilt_is_whole_before(tmp_path):
    for spoil in (
        line(),
        csv_file(HEAD + WHOLE_LINE),
        mask(mask_bytes("PNG")),
        mask(mask_bytes("WEBP", lossless=True)),
    ):
        own = Own(tmp_path / f"own{len(os.listdir(tmp_path))}")
        spoil(own)
        own.write()
        outcome = attempt(load_referring_folder, own.root)
        assert outcome.status == 0, outcome


# Parquet, with all columns of `load_refer`


def parquet_row() -> dict:
    return {
        "image": {"bytes": picture_bytes(), "path": "a.png"},
        "sentences": ["the thing"],
        "ref_id": 1,
        "ann_id": 1,
        "image_id": 1,
        "category": "thing",
        "bbox": [2.0, 3.0, 10.0, 12.0],
        "height": HEIGHT,
        "width": WIDTH,
        "split": "train",
        "segmentation": [{"polygons": [[float(number) for number in SQUARE]], "rles": []}],
    }


def column(**values):
    return lambda row: row.update(values)


def object_of(polygons=(), rles=()):
    return column(segmentation=[{"polygons": list(polygons), "rles": list(rles)}])


RLE = coco_mask.encode(np.ones((HEIGHT, WIDTH), dtype=np.uint8, order="F"))["counts"].decode()
NAN = float("nan")
PARQUET_CASES = {
    "Parquet: a polygon at a billion": object_of([[0.0, 0.0, 1e9, 0.0, 1e9, 1e9]]),
    "Parquet: an endless polygon": object_of([[float(number) for number in zigzag(200_000)]]),
    "Parquet: a polygon of NaN": object_of([[NAN, 0.0, 9.0, 0.0, 5.0, 5.0]]),
    "Parquet: a polygon of infinity": object_of([[float("inf"), 0.0, 9.0, 0.0, 5.0, 5.0]]),
    "Parquet: an odd polygon": object_of([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]),
    "Parquet: a polygon of two points": object_of([[1.0, 2.0, 3.0, 4.0]]),
    "Parquet: a polygon of nothing": object_of([[None] * 6]),
    "Parquet: a polygon outside": object_of([[-9.0, -9.0, -2.0, -9.0, -2.0, -2.0]]),
    "Parquet: no polygon": object_of(),
    "Parquet: no object": column(segmentation=[]),
    "Parquet: two objects": column(segmentation=[{"polygons": [], "rles": [RLE]}] * 2),
    "Parquet: an RLE that is too short": object_of(rles=["56"]),
    "Parquet: an RLE of a long text": object_of(rles=["o" * 2_000_000]),
    "Parquet: an RLE of escapes": object_of(rles=[ESCAPES]),
    "Parquet: an RLE of other letters": object_of(rles=["é¹"]),
    "Parquet: an RLE that is none": object_of(rles=[None]),
    "Parquet: a height of two billion": column(height=2**31 - 1),
    "Parquet: a negative height": column(height=-1),
    "Parquet: sides exchanged": column(height=WIDTH, width=HEIGHT),
    "Parquet: no height": column(height=None),
    "Parquet: no sentence": column(sentences=[]),
    "Parquet: sentences that are none": column(sentences=None),
    "Parquet: an empty sentence": column(sentences=["the thing", " "]),
    "Parquet: a sentence that is none": column(sentences=[None]),
    "Parquet: a sentence of a million letters": column(sentences=["x" * 1_000_000]),
    "Parquet: a box of three numbers": column(bbox=[1.0, 2.0, 3.0]),
    "Parquet: a box of NaN": column(bbox=[NAN] * 4),
    "Parquet: no box": column(bbox=None),
    "Parquet: no id": column(ref_id=None),
    "Parquet: no category": column(category=None),
    "Parquet: a split of escapes": column(split=ESCAPES),
    "Parquet: a split of 5,000 letters": column(split="s" * 5000),
    "Parquet: no picture": column(image=None),
    "Parquet: a picture without content": column(image={"bytes": None, "path": None}),
    "Parquet: an empty picture": column(image={"bytes": b"", "path": None}),
    "Parquet: a picture cut off": column(image={"bytes": picture_bytes()[:60], "path": None}),
    "Parquet: PostScript": column(image={"bytes": EPS, "path": "a.png"}),
    "Parquet: 400 megapixels": column(image={"bytes": png_bomb(20_000, 20_000), "path": None}),
    "Parquet: a file of the machine": column(image={"bytes": None, "path": "OUTSIDE"}),
    "Parquet: a file above the folder": column(image={"bytes": None, "path": "../outside.png"}),
    "Parquet: a link out of the folder": column(image={"bytes": None, "path": "link.png"}),
    "Parquet: a pipe": column(image={"bytes": None, "path": "pipe.png"}),
    "Parquet: the web": column(image={"bytes": None, "path": ADDRESS}),
    "Parquet: an archive of the web": column(image={"bytes": None, "path": f"zip://a.png::{ADDRESS}"}),
    "Parquet: a path with NUL": column(image={"bytes": None, "path": "a\0.png"}),
    "Parquet: a path with escapes": column(image={"bytes": None, "path": ESCAPES}),
}


def write_parquet(folder: Path, spoil) -> Path:
    """A folder with one row in Parquet, and files that a path in it may try."""
    folder.mkdir()
    outside = folder.parent / "outside.png"
    outside.write_bytes(picture_bytes())
    (folder / "link.png").symlink_to(outside)
    os.mkfifo(folder / "pipe.png")
    row = parquet_row()
    spoil(row)
    if row["image"] and row["image"]["path"] == "OUTSIDE":
        row["image"]["path"] = str(outside)
    pq.write_table(pa.Table.from_pylist([row], refer_features().arrow_schema), folder / "train.parquet")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.mark.parametrize("case", PARQUET_CASES)
def test_a_hostile_row_of_parquet_is_refused_with_its_number(tmp_path, cache, case):
    folder = write_parquet(tmp_path / "hub", PARQUET_CASES[case])
    outcome = attempt(load_one, str(folder), None, None, folder=folder.parent)
    outcome.after = {name: size for name, size in outcome.after.items() if not name.startswith("cache")}
    outcome.check_refused("Row 0 of split train")
    assert str(tmp_path / "outside.png") not in outcome.opened


@pytest.mark.parametrize("path", ["OUTSIDE", "/etc/hostname", ADDRESS, "train.parquet"])
def test_a_data_set_that_was_read_from_files_names_no_file_outside_its_rows(tmp_path, cache, path):
    folder = write_parquet(tmp_path / "hub", column(image={"bytes": None, "path": path}))
    data = datasets.load_dataset("parquet", data_files=str(folder / "train.parquet"))
    for rows in (data, data["train"], datasets.Dataset.from_parquet(str(folder / "train.parquet"))):
        attempt(rows_from_columns, rows, folder=folder).check_refused("Row 0 of split train")


def test_the_parquet_that_is_spoilt_is_whole_before(tmp_path, cache):
    assert attempt(load_one, str(write_parquet(tmp_path / "hub", column())), None, None).status == 0
    (tmp_path / "hub" / "a.png").write_bytes(picture_bytes())
    data = datasets.Dataset.from_parquet(
        str(write_parquet(tmp_path / "other", column(image={"bytes": None, "path": "a.png"})) / "train.parquet")
    )
    rows = rows_from_columns(data, tmp_path / "hub")
    assert rows[0]["image"].size == (WIDTH, HEIGHT)


def test_bytes_in_a_row_go_before_a_path_that_leads_elsewhere(tmp_path, cache):
    image = {"bytes": picture_bytes(), "path": "OUTSIDE"}
    folder = write_parquet(tmp_path / "hub", column(image=image))
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / "outside.png")
    rows = load_one(str(folder), None, None).splits["train"]
    for each in (rows, one_row_per_sentence(rows)):
        assert each[0]["image"].getpixel((0, 0)) == (128, 128, 128)


def half_text(folder):
    """Text that is no UTF-8, which Parquet can hold."""
    path = folder / "train.parquet"
    table = pq.read_table(path)
    texts = pa.array([b"half \xff"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("category"), "category", texts), path)


FOLDER_CASES = {
    "text that is no UTF-8": half_text,
    "Parquet that is none": lambda folder: (folder / "train.parquet").write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1"),
    "Parquet cut off": lambda folder: (folder / "train.parquet").write_bytes(
        (folder / "train.parquet").read_bytes()[:-200]
    ),
    "Parquet that unfolds to many times its size": lambda folder: pq.write_table(
        pa.Table.from_pylist(
            [{**parquet_row(), "image": {"bytes": bytes(2**25), "path": None}}], refer_features().arrow_schema
        ),
        folder / "train.parquet",
        compression="zstd",
        use_dictionary=False,
    ),
    "a billion rows": lambda folder: pq.write_table(
        pa.table({"image": pa.nulls(2**27)}), folder / "train.parquet", compression="zstd"
    ),
    "a pipe as Parquet": lambda folder: ((folder / "train.parquet").unlink(), os.mkfifo(folder / "train.parquet")),
    "no rows at all": lambda folder: pq.write_table(
        pa.Table.from_pylist([], refer_features().arrow_schema), folder / "train.parquet"
    ),
    "no data": lambda folder: (folder / "train.parquet").unlink(),
    "a card that names the web": lambda folder: write_card(folder, f"configs: [{{data_files: '{ADDRESS}'}}]"),
    "a card that names a file of the machine": lambda folder: write_card(
        folder, "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: /etc/hostname"
    ),
    "a card that names a file above": lambda folder: write_card(folder, "configs: [{data_dir: ../..}]"),
    "a card of nested aliases": lambda folder: write_card(
        folder, "a0: &a0 [x, x]\n" + "\n".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}, *a{i}]" for i in range(40))
    ),
    "a card of deep lists": lambda folder: write_card(folder, "a: " + "[" * 5000),
    "a card that runs": lambda folder: write_card(folder, "a: !!python/object/apply:os.mkdir [outside]"),
    "a card in UTF-16": lambda folder: (folder / "README.md").write_bytes("---\na: 1\n---".encode("utf-16")),
    "a card that is a pipe": lambda folder: os.mkfifo(folder / "README.md"),
    "a script of its name": lambda folder: (
        (folder / "train.parquet").unlink(),
        (folder / "hub.py").write_text("import os; os.mkdir('outside')"),
    ),
}


def write_card(folder: Path, header: str):
    (folder / "README.md").write_text(f"---\n{header}\n---\n")


@pytest.mark.parametrize("case", FOLDER_CASES)
def test_a_hostile_folder_of_parquet_is_refused_in_one_line(tmp_path, cache, monkeypatch, case):
    monkeypatch.setattr(mixture, "LEAST_UNFOLDED", 2**24)
    folder = write_parquet(tmp_path / "hub", column())
    (folder / "link.png").unlink()
    (folder / "pipe.png").unlink()
    FOLDER_CASES[case](folder)
    outcome = attempt(load_one, str(folder), None, None, folder=folder)
    outcome.check_refused()


# What a recipe says of data


VALUES = {
    "unfolding lists": nested_lists(12),
    "5,000 digits": 10**5000,
    "a dict": {"a": [1]},
    "bytes": b"bytes",
    "true": True,
    "a list": ["refcoco", "refcoco+"],
    "NUL": "a\0b",
    "escapes": ESCAPES,
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("option", ["dataset", "split_by", "data_dir"])
def test_a_value_that_is_no_name_is_refused(tmp_path, option, value):
    Own(tmp_path / "own").write()
    arguments = {"dataset": "shapes", "split_by": None, "data_dir": str(tmp_path), option: VALUES[value]}
    attempt(load_one, **arguments, folder=tmp_path).check_refused()


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
