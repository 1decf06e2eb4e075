# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""PhraseCut and aRefCOCO of strangers: whatever is in their files, one line says no, and nothing else happens."""

import json
import os

import pytest
from generalized_fixture import TinyPhraseCut, ambiguous_entries, write_arefcoco
from hostile_data import ADDRESS, DIGITS, EPS, ESCAPES, check_is_bad, huge, link_to, nested_lists, png_bomb
from machinery import attempt

from remamber_hf.data.mixture import load_sources
from remamber_hf.data.refer import load_refer


PICTURES, PHRASES = "image_data_split.json", "refer_train.json"
WIDTH = 60  # of the picture of the first phrase
FAR = [[[[-9, 2], [69, 2]] * 200_000]]
MANY_FAR = [[[[-9, 2], [69, 2]] * 1_000] * 200]


def task(**changes):
    """Change the first phrase."""
    return lambda data, folder: data.tasks["train"][0].update(changes)


def polygons(instances):
    """Give the first phrase other polygons, and as many boxes."""
    return task(Polygons=instances, instance_boxes=[[1, 2, 3, 4]] * len(instances))


def listed(**changes):
    """Change the first picture of the list."""
    return lambda data, folder: data.pictures[0].update(changes)


def content(name: str, text: str | bytes):
    """Put other content into a file: what is there is left by `write_phrasecut`."""

    def spoil(data, folder):
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return spoil


def instead(name: str, make):
    """Put something that is no regular file into the place of a file: `make(path)`."""
    return lambda data, folder: make(folder / name)


def replace(name: str, old: str, new: str):
    """Spoil a file of phrases or pictures in its text."""

    def spoil(data, folder):
        text = json.dumps(data.pictures if name == PICTURES else data.tasks["train"])
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return spoil


def picture(bytes_of_file: bytes, height: int, width: int):
    def spoil(data, folder):
        (folder / "images" / "2300001.jpg").write_bytes(bytes_of_file)
        data.pictures[0].update(height=height, width=width)

    return spoil


PHRASECUT_CASES = {
    **{
        f"{name} of {what}": content(name, text)
        for name in (PICTURES, PHRASES)
        for what, text in {
            "100,000 levels": "[" * 100_000,
            "deep objects": '[{"Polygons":' * 50_000,
            "a pickle": b"\x80\x02]q\x00.",
            "nothing": "",
            "Latin-1": '[{"a":\n"é"}]'.encode("latin-1"),
            "a dict": '{"a": 1}',
            "a list of escapes": json.dumps([ESCAPES]),
            "5,000 digits": f'[{{"image_id": {DIGITS}}}]',
        }.items()
    },
    **{
        f"{name} that is {what}": instead(name, make)
        for name in (PICTURES, PHRASES)
        for what, make in {"8 TiB": huge, "a link to /dev/zero": link_to("/dev/zero")}.items()
    },
    "a picture id that leaves the folder": listed(image_id="../../outside"),
    "a picture id of NaN": replace(PICTURES, '"image_id": 2300001', '"image_id": NaN'),
    "a picture id twice": lambda data, folder: data.pictures.append(dict(data.pictures[0])),
    "a height that is a list": listed(height=nested_lists(3)),
    "a height of two billion": listed(height=2**31 - 1),
    "a width of -1": listed(width=-1),
    "a picture of 400 megapixels": picture(png_bomb(20_000, 20_000), 20_000, 20_000),
    "PostScript as a picture": picture(EPS, 40, 60),
    "a phrase of a million letters": task(phrase="x" * 1_000_000),
    "half a surrogate in a phrase": task(phrase=f"{ESCAPES}\ud83d"),
    "a phrase that is a list": task(phrase=["walking people"]),
    "a task id with escapes": task(task_id=ESCAPES),
    "a task id of a million letters": task(task_id="2" * 1_000_000),
    "a category with escapes and half a surrogate": task(phrase_structure={"name": f"{ESCAPES}\ud83d"}),
    "an image id that leaves the folder": task(image_id="../../outside"),
    "an image id of an address": task(image_id=ADDRESS),
    "no polygons": task(Polygons=[], instance_boxes=[]),
    "100,000 instances": polygons([[[[1, 2], [9, 9], [3, 4]]]] * 100_000),
    "more boxes than instances": task(instance_boxes=[[1, 2, 3, 4]] * 100_000),
    "a box of 1e300": task(instance_boxes=[[1e300, 1, 2, 3]] * 2),
    "polygons of the depth of COCO's": polygons([[1, 2, 9, 9, 3, 4]]),
    "polygons in polygons": polygons([[[[[1, 2], [9, 9]]]]]),
    "polygons of texts": polygons([[[["1", "2"], ["3", "4"]]]]),
    "points of three numbers": polygons([[[[1, 2, 3], [4, 5, 6]]]]),
    "points that are true": polygons([[[[True, 2], [9, 9], [3, 4]]]]),
    "a point at a billion": polygons([[[[1, 2], [1e9, 9], [3, 4]]]]),
    "a point at infinity": polygons([[[[1, 2], [float("inf"), 9], [3, 4]]]]),
    "a point of NaN": polygons([[[[1, 2], [float("nan"), 9], [3, 4]]]]),
    "a point of 4,000 digits": polygons([[[[1, 2], [10**4000, 9], [3, 4]]]]),
    "a polygon to and fro": polygons(FAR),
    "polygons to and fro": polygons(MANY_FAR),
    "a million points in one place": polygons([[[[5, 5]] * 1_000_000]]),
    "polygons off the picture": polygons([[[[WIDTH + 5, 2], [WIDTH + 9, 9], [WIDTH + 5, 20]]]]),
}


def write_phrasecut(root, spoil):
    """Write the files; what `spoil` has put there stays."""
    data, folder = TinyPhraseCut(), root / "VGPhraseCut_v0"
    (folder / "images").mkdir(parents=True)
    spoil(data, folder)
    spoilt = {path: path.lstat().st_size for path in [*folder.glob("*.json"), *folder.glob("images/*")]}
    for path in spoilt:
        path.rename(path.with_suffix(".kept"))
    data.write(root)
    for path in spoilt:
        path.unlink()
        path.with_suffix(".kept").rename(path)


def check_refused(root, dataset, split_by, cache):
    outcome = attempt(load_refer, dataset, split_by, folder=root.parent, data_dir=root, cache_dir=cache)
    outcome.after = {name: size for name, size in outcome.after.items() if not name.startswith(cache.name)}
    outcome.check_refused()
    assert not (root.parent / "outside").exists()
    assert not list(cache.rglob("*.arrow"))
    checked = attempt(check_is_bad, root, folder=root.parent)
    checked.check_harmless()
    assert checked.status == 0 and checked.value == "True", checked


@pytest.mark.parametrize("case", PHRASECUT_CASES)
def test_hostile_phrases_are_refused_in_one_line(tmp_path, case):
    write_phrasecut(tmp_path / "data", PHRASECUT_CASES[case])
    check_refused(tmp_path / "data", "phrasecut", "authors", tmp_path / "cache")


def first(**changes):
    """Change the first entry."""

    def spoil(root):
        entries = ambiguous_entries()
        entries[0].update(changes)
        write_arefcoco(root, entries)

    return spoil


def whole(text: str | bytes):
    def spoil(root):
        write_arefcoco(root, [])
        path = root / "arefcoco" / "arefcoco.json"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return spoil


def file_instead(name: str, make):
    def spoil(root):
        write_arefcoco(root, ambiguous_entries())
        (root / name).unlink()
        make(root / name)

    return spoil


AREFCOCO_CASES = {
    "100,000 levels": whole("[" * 100_000),
    "deep objects": whole('{"annotations":' * 50_000),
    "a pickle": whole(b"\x80\x02]q\x00."),
    "nothing": whole(""),
    "Latin-1": whole('{"annotations":\n"é"}'.encode("latin-1")),
    "a list": whole("[3]"),
    "no entry": whole('{"annotations": []}'),
    "entries of escapes": whole(json.dumps({"annotations": [ESCAPES]})),
    "entries of 5,000 digits": whole(f'{{"annotations": {DIGITS}}}'),
    "a ref id of 5,000 digits": whole(f'{{"annotations": [{{"split": "test", "ref_id": {DIGITS}}}]}}'),
    "a ref id of NaN": first(ref_id=float("nan")),
    "a ref id that is a list": first(ref_id=nested_lists(3)),
    "a set that leaves the folder": first(original_dataset="../../outside"),
    "a set of escapes": first(original_dataset=ESCAPES),
    "a set that is a dict": first(original_dataset={"refcoco": 1}),
    "a split that leaves the cache": first(split="../../outside"),
    "a split of 5,000 letters": first(split="s" * 5000),
    "descriptions of a million letters": first(descriptions=["x" * 1_000_000]),
    "descriptions of escapes and half a surrogate": first(descriptions=[f"{ESCAPES}\ud83d"]),
    "descriptions that are dicts": first(descriptions=[{"sent": "a"}]),
    "100,000 descriptions that are empty": first(descriptions=[" "] * 100_000),
    "8 TiB": file_instead("arefcoco/arefcoco.json", huge),
    "a link to /dev/zero": file_instead("arefcoco/arefcoco.json", link_to("/dev/zero")),
    "refs of RefCOCO that link to /dev/zero": file_instead("refcoco/refs(unc).p", link_to("/dev/zero")),
    "refs of G-Ref that run": file_instead(
        "refcocog/refs(umd).p", lambda path: path.write_bytes(b"cos\nsystem\n(S'mkdir outside'\ntR.")
    ),
    "a pipe as instances of G-Ref": file_instead("refcocog/instances.json", os.mkfifo),
}


@pytest.mark.parametrize("case", AREFCOCO_CASES)
def test_hostile_descriptions_are_refused_in_one_line(tmp_path, case):
    AREFCOCO_CASES[case](tmp_path / "data")
    check_refused(tmp_path / "data", "arefcoco", "authors", tmp_path / "cache")


def test_what_is_spoilt_is_whole_before(tmp_path):
    write_phrasecut(tmp_path / "data", lambda data, folder: None)
    write_arefcoco(tmp_path / "data", ambiguous_entries())
    for dataset in ("phrasecut", "arefcoco"):
        arguments = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache"}
        assert attempt(load_refer, dataset, "authors", **arguments).status == 0


@pytest.mark.parametrize("coco_id", [[1], "1", True, 1.5, 10**4000, -1])
def test_what_a_picture_list_says_of_coco_is_a_number_or_nothing(tmp_path, cache, coco_id):
    write_phrasecut(tmp_path / "data", listed(coco_id=coco_id))
    (source,) = load_sources("phrasecut", None, tmp_path / "data")
    assert set(source.coco_ids) <= {2_300_001, 2_300_002, 2_300_003}
    assert all(type(number) is int for number in source.coco_ids.values())
