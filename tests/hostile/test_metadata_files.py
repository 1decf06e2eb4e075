# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of strangers, and what a recipe says of data: one line says no, and nothing else happens.

Every case is a function that spoils a whole data set; the names say how. What is random comes from the case's name.
"""

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
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
from machinery import attempt
from PIL import Image

from remamber_hf.data.folder import load_referring_folder
from remamber_hf.data.mixture import load_one


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
    "no target and a mask": line(no_target=True),
    "no target of escapes": line(polygon=None, no_target=ESCAPES),
    "no target of many lists": line(polygon=None, no_target=[[[]] * 1000] * 100),
    "no target that is a number": line(polygon=None, no_target=1),
    "no target that is false, and no mask": line(polygon=None, no_target=False),
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
