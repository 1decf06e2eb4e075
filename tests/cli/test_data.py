# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber data …` as commands, and what stands behind `check` and `export`."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image
from refer_fixture import LAYOUTS, SIZES, TinyRefer, picture, rectangle
from tiny import run_without_package

from remamber_hf.data import check, export
from remamber_hf.data.folder import rows_from_columns
from remamber_hf.data.published import PUBLISHED_COUNTS, KindCount, SplitCount
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.synthetic.dataset import synthesize


TINY_COUNTS = {
    "train": SplitCount(3, 3, 6),
    "val": SplitCount(1, 1, 2),
    "testA": SplitCount(1, 1, 2),
    "testB": SplitCount(1, 1, None),
}
SPLITS = list(TINY_COUNTS)


@pytest.fixture
def tiny(monkeypatch):
    """A data set with the name and the counts of a published one."""
    monkeypatch.setitem(PUBLISHED_COUNTS, ("refcoco", "unc"), TINY_COUNTS)
    return TinyRefer()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def folder_of_one(root, name="own"):
    """A folder of one's own with one picture, whose left half is the object."""
    folder = root / name
    folder.mkdir(parents=True)
    picture(30, 40).save(folder / "a.png")
    line = {"file_name": "a.png", "polygon": rectangle(0, 0, 20, 30), "expression": ["the left half", "left"]}
    (folder / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    return folder


# synthesize


def test_synthesize_writes_what_the_options_say(data_command, root):
    code, _ = data_command("synthesize", root, "--images", 8, "--image_size", 64, "--style", "rich", "--no_target")
    assert code == 0
    pictures = list((root / "images/mscoco/images/train2014").iterdir())
    assert [Image.open(path).size for path in pictures] == [(64, 64)] * 8
    assert (root / "shapes/grefs(unc).json").is_file()
    assert json.loads((root / "shapes/instances.json").read_text())["info"]["style"] == "rich"


# check


def test_a_whole_data_set_is_all_right(data_command, tiny, root):
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 0
    assert "all right" in output and "wrong" not in output
    assert "3 / 3" in output and "6 / 6" in output and "2 / -" in output


@pytest.mark.parametrize("split", SPLITS)
def test_other_counts_than_published_are_wrong(data_command, tiny, root, split):
    tiny.refs.remove(next(ref for ref in tiny.refs if ref["split"] == split))
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 1
    assert f"wrong: {split} has other counts than published" in output
    assert output.count("wrong") == 1


@pytest.mark.parametrize("count", ["refs", "images", "sentences"])
def test_each_count_is_compared(tiny, root, monkeypatch, count):
    tiny.write(root)
    (result,) = check.check_data(root)
    assert result.is_good
    setattr(result.counts["val"], count, 7)
    assert [split for split in SPLITS if not result.agrees(split)] == ["val"]
    assert not result.is_good


def test_a_split_that_was_not_published_is_wrong(data_command, tiny, root):
    tiny.refs.append({**tiny.ref(1, ["the first"], "extra"), "ref_id": 9})
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 1 and "extra has other counts than published" in output


@pytest.mark.parametrize(
    "name, totals",
    [
        (("refcoco", "unc"), (50000, 19994, 142210)),
        (("refcoco+", "unc"), (49856, 19992, 141564)),
        (("refcocog", "umd"), (49822, 25799, 95010)),
    ],
)
def test_the_published_counts_add_up_to_the_published_totals(name, totals):
    counts = PUBLISHED_COUNTS[name].values()
    assert totals == tuple(sum(getattr(count, kind) for count in counts) for kind in ("refs", "images", "sentences"))


def test_an_unknown_data_set_is_counted_without_comparison(data_command, root):
    synthesize(root, 8, 0, image_size=64, num_workers=1, no_target=True, progress=False)
    code, output = data_command("check", "--data_dir", root)
    assert code == 0
    assert "published" not in output and output.count("all right") == 2
    lines = [line.split() for line in output.splitlines() if "train" in line]
    for line, generalized in zip(lines, [True, False], strict=True):
        rows = load_refer("shapes", "unc", "train", data_dir=root, generalized=generalized)
        assert int(line[3]) == len(rows)
        assert int(line[7]) == sum(map(len, rows["sentences"]))


def test_every_kind_of_defect_is_counted_with_its_first_ref(data_command, tiny, root):
    page = "https://cocodataset.org/#download"
    folder = tiny.write(root) / LAYOUTS["lavt"]
    tiny.refs.append({**tiny.ref(1, ["the first again"], "train"), "ref_id": 1010, "ann_id": 101})
    tiny.refs[1]["sentences"][0]["sent"] = " "
    tiny.refs[2]["ann_id"] = 999
    truncated = folder / tiny.images[3]["file_name"]
    truncated.write_bytes(truncated.read_bytes()[:300])
    tiny.write(root)
    (folder / tiny.images[0]["file_name"]).unlink()
    code, output = data_command("check", "--data_dir", root)
    assert code == 1
    assert "wrong: missing picture: 1 pictures, refs: 2; first: ref 1001, there is no" in output
    assert "wrong: empty sentence: 1; first: ref 1002" in output
    assert "wrong: unknown id in annotations: 1; first: ref 1003, instances.json has no 999" in output
    assert "wrong: unreadable picture: 1 pictures, refs: 1; first: ref 1004" in output
    line = f"missing: a part of train2014.zip, from {page}; unpack it again so that its pictures are in {folder}"
    assert line in output.splitlines()


def test_a_picture_that_is_damaged_inside_is_found(data_command, tiny, root):
    path = tiny.write(root) / LAYOUTS["lavt"] / tiny.images[0]["file_name"]
    content = bytearray(path.read_bytes())
    huffman_table = content.index(b"\xff\xc4")
    content[huffman_table + 5 : huffman_table + 9] = b"\xff" * 4
    path.write_bytes(content)
    load_refer("refcoco", "unc", data_dir=root)  # reads the header and the last bytes only
    code, output = data_command("check", "--data_dir", root)
    assert code == 1 and "unreadable picture: 1 pictures, refs: 1; first: ref 1001" in output


@pytest.mark.parametrize("is_needed", [True, False])
@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_an_id_that_stands_twice_is_wrong_whether_a_ref_needs_it_or_not(data_command, tiny, root, key, is_needed):
    entries = getattr(tiny, key)
    entries.append(dict(entries[0] if is_needed else {**entries[0], "id": 900}))
    if not is_needed:
        entries.append(dict(entries[-1]))
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 1
    needed_by = "first: ref 1001" if is_needed else "2 times; no ref needs it"
    (line,) = [line for line in output.splitlines() if f"wrong: repeated id in {key}: " in line]
    assert needed_by in line


def test_a_sentence_id_that_stands_twice_is_noted_and_not_wrong(data_command, tiny, root):
    tiny.refs[1]["sentences"][0]["sent_id"] = tiny.refs[0]["sentences"][0]["sent_id"]
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 0 and "noted: 1 × repeated sentence id, read all the same" in output


def test_pictures_of_a_further_set_are_asked_for_by_their_folders_and_no_archive(data_command, tiny, root):
    folder = tiny.write(root, "rrsisd") / LAYOUTS["lavt"]
    (folder / tiny.images[0]["file_name"]).unlink()
    code, output = data_command("check", "--data_dir", root)
    assert code == 1 and "train2014.zip" not in output
    assert f"first: ref 1001, there is no '{tiny.images[0]['file_name']}' in {folder}" in output
    for path in [*folder.iterdir(), folder, *folder.parents[:3]]:
        path.rmdir() if path.is_dir() else path.unlink()
    code, output = data_command("check", "--data_dir", root)
    assert code == 1 and "train2014.zip" not in output
    assert f"missing: the pictures of rrsisd; put them into {root}/images/rrsisd/JPEGImages or " in output
    assert f"in {root}/images/rrsisd/JPEGImages or {root}/images/rrsisd or " in output


def test_joint_test_splits_are_noted(data_command, tiny, root):
    tiny.refs[5]["split"] = "testAB"
    _, output = data_command("check", "--data_dir", tiny.write(root, "refclef", "unc", "refclef"))
    assert "noted: REFER's own reader joins testAB to testA, testB and so on; here it is apart" in output


def test_the_table_has_the_splits_in_the_order_of_the_papers(data_command, tiny, root):
    tiny.refs.reverse()
    _, output = data_command("check", "--data_dir", tiny.write(root))
    places = [output.index(f" {split} ") for split in SPLITS]
    assert places == sorted(places)


def test_letters_that_steer_a_terminal_are_shown_escaped(data_command, tiny, root):
    steering = "\x1b]0;owned\x07\u202egnp.\u2066[red]\ud83d"
    tiny.refs[0]["split"] = tiny.refs[1]["sentences"] = tiny.images[2]["file_name"] = steering
    tiny.refs[3]["ref_id"] = tiny.annotations[4]["segmentation"] = steering
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 1
    assert r"\x1b]0;owned\x07\u202egnp.\u2066[red]\ud83d" in output
    assert all(letter.isprintable() or letter == "\n" for letter in output)


def test_crowds_of_a_generalised_set_are_noted(data_command, tiny, root):
    tiny.add_generalized()
    tiny.annotations[-1]["iscrowd"] = 1
    tiny.write(root, "grefcoco")
    _, output = data_command("check", "--data_dir", root, "--dataset", "grefcoco")
    assert "noted: 1 × crowd in a generalised ref, left out" in output


def test_sentences_that_mean_nothing_one_and_many_are_printed_and_compared(data_command, tiny, root, monkeypatch):
    counts = {"train": SplitCount(None, None, None), "val": KindCount(None, 1, 1, none=1, one=0, many=0)}
    monkeypatch.setitem(PUBLISHED_COUNTS, ("grefcoco", "unc"), counts)
    tiny.add_generalized()
    tiny.write(root, "grefcoco")
    code, output = data_command("check", "--data_dir", root, "--dataset", "grefcoco")
    assert code == 0 and "all right" in output

    def cells(split):
        line = next(line for line in output.splitlines() if split in line)
        return line.replace("│", "┃").replace(" ", "").split("┃")[2:-1]

    assert cells("train") == ["1", "1/-", "1/-", "0/-", "0/-", "1/-"]
    assert cells("val") == ["1", "1/1", "1/1", "1/1", "0/0", "0/0"]
    counts["val"].many = 1
    code, output = data_command("check", "--data_dir", root, "--dataset", "grefcoco")
    assert code == 1 and "val has other counts than published" in output
    assert "train has other" not in output


def test_a_check_of_a_plain_set_has_no_columns_of_kinds(data_command, tiny, root):
    _, output = data_command("check", "--data_dir", tiny.write(root))
    assert "none" not in output and "many" not in output


def test_own_lines_of_no_target_are_previewed_exported_and_checked(data_command, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    Image.new("RGB", (40, 30), "gray").save(own / "a.png")
    lines = [
        {"file_name": "a.png", "expression": "it", "polygon": [4, 4, 30, 6, 10, 25]},
        {"file_name": "a.png", "expression": "a horse", "no_target": True},
    ]
    (own / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert data_command("preview", "--data_dir", own, "--output", tmp_path / "sheet.png")[0] == 0
    assert data_command("export", "--data_dir", own, "--output_dir", tmp_path / "exported")[0] == 0
    code, output = data_command("check", "--data_dir", own)
    assert code == 0 and "none" in output
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "expressions that each mean any number of objects, none included" in card


def test_a_refs_file_without_refs_is_wrong(data_command, tiny, root):
    tiny.refs = []
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 1 and "refs(unc).p holds no ref" in output and "all right" not in output


def test_a_mended_polygon_is_told_and_not_wrong(data_command, tiny, root):
    tiny.annotations[0]["segmentation"] += [[1, 2, 3, 4], [5, 6]]
    code, output = data_command("check", "--data_dir", tiny.write(root))
    assert code == 0
    assert "mended: 2 × polygon under 3 points" in output


def test_missing_pictures_name_their_archive_and_their_place(data_command, tiny, root):
    folder = tiny.write(root) / LAYOUTS["lavt"]
    for path in folder.iterdir():
        path.unlink()
    for parent in (folder, *folder.parents[:3]):
        parent.rmdir()
    code, output = data_command("check", "--data_dir", root)
    assert code == 1
    assert "wrong: missing picture: 6 pictures, refs: 6" in output
    assert "missing: train2014.zip, from https://cocodataset.org/#download" in output
    assert f"{root}/images/mscoco/images/train2014 or {root}/train2014 or {root}/images/train2014" in output


@pytest.mark.parametrize(
    "dataset, archive, names",
    [
        ("refcoco", "refcoco.zip", "instances.json, refs(unc).p and refs(google).p"),
        ("refcoco+", "refcoco+.zip", "instances.json and refs(unc).p"),
        ("refcocog", "refcocog.zip", "instances.json, refs(umd).p and refs(google).p"),
        ("refclef", "refclef.zip", "instances.json, refs(unc).p and refs(berkeley).p"),
        ("grefcoco", "the archive of gRefCOCO", "instances.json and grefs(unc).json"),
    ],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_missing_annotations_name_their_archive_and_their_place(data_command, root, dataset, archive, names, is_named):
    root.mkdir()
    code, output = data_command("check", "--data_dir", root, *(["--dataset", dataset] if is_named else []))
    assert code == 1
    assert f"missing: {archive}, from https://" in output
    assert f"unpack it so that {names} are in {root / dataset}\n" in output
    assert "missing: saiapr_tc-12.zip" in output or (is_named and dataset != "refclef")
    assert "missing: train2014.zip" in output or (is_named and dataset == "refclef")


@pytest.mark.parametrize("lacking", ["instances.json", "refs(unc).p"])
def test_half_an_archive_is_missing_beside_a_whole_one(data_command, tiny, root, lacking):
    tiny.write(root)
    (tiny.write(root, "refcoco+") / "refcoco+" / lacking).unlink()
    code, output = data_command("check", "--data_dir", root)
    assert code == 1
    assert output.count("missing: ") == 1 and "missing: refcoco+.zip" in output
    assert output.count("all right") == 1


def test_a_file_that_cannot_be_read_is_wrong(data_command, tiny, root):
    (tiny.write(root) / "refcoco" / "refs(unc).p").write_bytes(b"no pickle")
    code, output = data_command("check", "--data_dir", root)
    assert code == 1 and "wrong: unreadable file: 1; first: " in output and "refs(unc).p is not read" in output


def test_check_looks_at_the_data_set_that_is_named(data_command, tiny, root):
    tiny.write(root)
    tiny.refs[0]["split"] = "val"
    tiny.write(root, split_by="google")
    assert data_command("check", "--data_dir", root)[0] == 1
    assert data_command("check", "--data_dir", root, "--dataset", "refcoco", "--split_by", "unc")[0] == 0
    assert data_command("check", "--data-dir", root, "--split-by", "google")[0] == 1
    with pytest.raises(ValueError, match=r"holds no data set 'dogs'; .*: refcoco \(google\), refcoco \(unc\)"):
        data_command("check", "--data_dir", root, "--dataset", "dogs")
    with pytest.raises(ValueError, match="refcoco is not split by 'umd'; choose one of unc, google"):
        data_command("check", "--data_dir", root, "--dataset", "refcoco", "--split_by", "umd")
    with pytest.raises(
        ValueError, match="what is in .* is not split by 'unk'; choose one of google, unc with --split_by"
    ):
        data_command("check", "--data_dir", root, "--split_by", "unk")
    tiny.write(root, "mine", "me")
    with pytest.raises(ValueError, match="mine is not split by 'unk'; choose one of me with --split_by"):
        data_command("check", "--data_dir", root, "--dataset", "mine", "--split_by", "unk")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        data_command("check", "--data_dir", root / "nowhere")


def test_a_folder_of_ones_own_is_checked(data_command, root):
    folder = folder_of_one(root)
    assert data_command("check", "--data_dir", folder)[0] == 0
    with open(folder / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "b.png", "polygon": [1, 1, 9, 1, 9, 9], "expression": "it"}\n')
    code, output = data_command("check", "--data_dir", folder)
    assert code == 1 and "wrong: missing file: 1; first: line 2, there is no" in output
    assert [line.split()[3:8:2] for line in output.splitlines() if "train" in line] == [["1", "1", "2"]]
    (folder / "metadata.jsonl").write_text("no JSON")
    code, output = data_command("check", "--data_dir", folder)
    assert code == 1 and "line 1 is no JSON" in output


# preview


def test_a_preview_shows_the_object_and_fades_the_rest(data_command, root, tmp_path):
    code, output = data_command("preview", "--data_dir", folder_of_one(root), "--output", tmp_path / "sheet.png")
    assert code == 0 and "1 of 1 rows" in output
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet[0] == 255).all()
    # The tile begins at 16; the picture of 40×30 is enlarged to 320×240; its left half is the object.
    assert sheet[16 + 60, 16 + 40].tolist() == [220] * 3
    assert sheet[16 + 200, 16 + 40].tolist() == [40] * 3
    assert sheet[16 + 200, 16 + 300].tolist() == [40 + round(0.6 * 215)] * 3
    assert (sheet[16 + 240 :] < 128).any()  # the expressions


def test_a_preview_depends_on_the_seed_alone(data_command, root, tmp_path):
    synthesize(root, 12, 0, image_size=64, num_workers=1, progress=False)

    def preview(*arguments):
        path = tmp_path / "sheets" / "sheet.png"
        data_command("preview", "--data_dir", root, "--output", path, "--num_samples", 5, *arguments)
        return path.read_bytes()

    assert preview("--seed", 3) == preview("--seed", 3) != preview("--seed", 4)
    assert Image.open(tmp_path / "sheets" / "sheet.png").width == 16 + 4 * (320 + 16)
    assert preview("--split", "val") != preview("--split", "train")


def test_a_preview_marks_expressions_that_mean_nothing(data_command, root, tmp_path, monkeypatch):
    synthesize(root, 8, 0, image_size=64, num_workers=1, no_target=True, progress=False)
    titles = []
    monkeypatch.setattr(
        "remamber_hf.cli.data.draw_sheet",
        lambda samples, columns: (
            titles.extend((sample.title, sample.mask.any()) for sample in samples) or Image.new("RGB", (8, 8))
        ),
    )
    arguments = ["--data_dir", root, "--num_samples", 1000, "--generalized", "--output", tmp_path / "a.png"]
    data_command("preview", *arguments)
    assert {title.endswith(", means nothing here") for title, _ in titles} == {True, False}
    assert all(title.endswith(", means nothing here") != has_object for title, has_object in titles)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--output", "sheet.txt"], "sheet.txt names no picture format"),
        (["--num_samples", "0"], "--num_samples is 0; give at least 1"),
        (["--split", "dev"], "There is no split 'dev'; the splits are train, val, testA, testB"),
        (["--dataset", "dogs"], "--dataset dogs is not in .*, which holds refcoco"),
        (["--dataset", "refcoco,dogs"], "--dataset refcoco,dogs names several data sets; name one"),
        (["--generalized"], r"holds refcoco \(google\), refcoco \(unc\); leave --generalized out"),
    ],
)
def test_a_preview_of_nothing_is_refused(data_command, tiny, root, tmp_path, arguments, message):
    tiny.write(root)
    tiny.write(root, split_by="google")
    named = ["--split_by", "unc"] if arguments and "--dataset" not in arguments else []
    output = [] if "--output" in arguments else ["--output", tmp_path / "sheet.png"]
    with pytest.raises(ValueError, match=message):
        data_command("preview", "--data_dir", root, *arguments, *named, *output)
    assert not list(tmp_path.glob("*.png"))


def test_an_empty_folder_points_to_check(data_command, tmp_path):
    with pytest.raises(
        ValueError, match="nor a REFER data set; `remamber data check --data_dir .*` says what is missing"
    ):
        data_command("preview", "--data_dir", tmp_path)


def test_defects_stop_a_preview_unless_they_are_skipped(data_command, tiny, root, tmp_path):
    (tiny.write(root) / LAYOUTS["lavt"] / tiny.images[0]["file_name"]).unlink()
    arguments = ["preview", "--data_dir", root, "--output", tmp_path / "sheet.png"]
    with pytest.raises(ValueError, match="missing picture"):
        data_command(*arguments)
    assert "5 of 5 rows" in data_command(*arguments, "--on_error", "skip")[1]


# export


def test_an_export_loads_where_the_package_is_not_installed(data_command, tiny, root, tmp_path):
    data_command("export", "--data_dir", tiny.write(root), "--output_dir", tmp_path / "out")
    root.rename(tmp_path / "moved")  # the pictures are inside
    printed = run_without_package(
        "from datasets import load_dataset\n"
        f"data = load_dataset({str(tmp_path / 'out')!r}, cache_dir={str(tmp_path / 'cache')!r})\n"
        "for split, rows in data.items():\n"
        "    for row in rows:\n"
        "        print(split, row['image'].size, row['mask'].size, row['mask'].mode, *row['sentences'], sep=';')\n",
        tmp_path,
    )
    sizes = [str((width, height)) for height, width in SIZES]
    splits = ["train"] * 3 + ["val", "testA", "testB"]
    assert printed.splitlines() == [
        f"{split};{size};{size};1;the left one {number};person {number}"
        for number, (split, size) in enumerate(zip(splits, sizes), start=1)
    ]


@pytest.mark.parametrize("generalized", [False, True])
def test_an_export_gives_the_same_rows_and_masks_back(data_command, tiny, root, tmp_path, generalized):
    tiny.add_generalized()
    height, width = SIZES[0]
    tiny.annotations[0]["segmentation"] = [rectangle(2, 2, 20, 20), rectangle(10, 10, 30, 30)]
    rotated = picture(height, width)
    exif = rotated.getexif()
    exif[0x0112] = 6
    tiny.write(root)
    rotated.save(root / LAYOUTS["lavt"] / tiny.images[0]["file_name"], quality=95, exif=exif)
    name = ["--generalized"] if generalized else []
    data_command("export", "--data_dir", root, "--output_dir", tmp_path / "out", *name)
    data = load_refer("refcoco", "unc", data_dir=root, generalized=generalized)
    exported = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    back = rows_from_columns(exported)
    assert list(back) == list(data)
    for split in data:
        assert back[split].features == data[split].features
        for original, row, with_mask in zip(data[split], back[split], exported[split], strict=True):
            assert np.array_equal(np.asarray(row.pop("image")), np.asarray(original.pop("image")))
            assert row == original
            assert np.array_equal(np.asarray(with_mask["mask"]), row_mask(original))


def test_a_folder_of_ones_own_is_exported_whatever_its_name(data_command, root, tmp_path):
    folder = folder_of_one(root, 'my "data": [1]')
    data_command("export", "--data_dir", folder, "--output_dir", tmp_path / "out")
    row = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert row["sentences"] == ["the left half", "left"]
    assert np.asarray(row["mask"])[:, :20].all() and not np.asarray(row["mask"])[:, 20:].any()


def test_a_large_split_is_cut_into_files_that_keep_the_order(data_command, root, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_SHARD_BYTES", 1)
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 2)
    synthesize(root, 8, 0, image_size=64, num_workers=1, progress=False)
    data_command("export", "--data_dir", root, "--output_dir", tmp_path / "out")
    rows = load_refer("shapes", "unc", "train", data_dir=root)
    assert len(list((tmp_path / "out/data").glob("train-*.parquet"))) == -(-len(rows) // 2) > 1
    exported = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert exported["ref_id"] == rows["ref_id"]


def test_a_folder_that_is_not_empty_is_left_alone(data_command, tiny, root, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not an empty folder"):
        data_command("export", "--data_dir", tiny.write(root), "--output_dir", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_export_that_breaks_off_leaves_nothing(data_command, tiny, root, tmp_path, monkeypatch):
    def fail(row):
        raise OSError("disk full")

    monkeypatch.setattr(export, "_encode_mask", fail)
    with pytest.raises(OSError, match="disk full"):
        data_command("export", "--data_dir", tiny.write(root), "--output_dir", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "data"]


@pytest.mark.parametrize("command", ["preview", "export"])
def test_raw_sentences_are_read_where_they_are_asked_for(data_command, tiny, root, tmp_path, command):
    tiny.write(root)
    output = ["--output", tmp_path / "out.png"] if command == "preview" else ["--output_dir", tmp_path / "out"]
    assert data_command(command, "--data_dir", root, "--sentences", "raw", *output)[0] == 0
    if command == "export":
        rows = datasets.load_dataset(str(tmp_path / "out"), split="val", cache_dir=str(tmp_path / "cache"))
        assert rows[0]["sentences"] == ["THE LEFT ONE 4", "PERSON 4"]
    with pytest.raises(ValueError, match="sentences is 'tokens'; choose one of sent, raw"):
        data_command(command, "--data_dir", root, "--sentences", "tokens", *output)
    with pytest.raises(ValueError, match="--sentences raw is for REFER sets"):
        data_command(command, "--data_dir", folder_of_one(tmp_path), "--sentences", "raw", *output)


@pytest.mark.parametrize("num_polygons", [256, 300])
def test_an_object_of_many_polygons_goes_through_every_command(data_command, tiny, root, tmp_path, num_polygons):
    squares = [rectangle(x, y, x + 1, y + 1) for y in range(0, 40, 2) for x in range(0, 60, 2)]
    tiny.annotations[0]["segmentation"] = squares[:num_polygons]
    tiny.write(root)
    assert data_command("check", "--data_dir", root)[0] == 0
    assert data_command("preview", "--data_dir", root, "--output", tmp_path / "out.png")[0] == 0
    assert data_command("export", "--data_dir", root, "--output_dir", tmp_path / "out")[0] == 0
    exported = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    row = rows_from_columns(exported)["train"][0]
    assert row_mask(row).sum() == np.asarray(exported["train"][0]["mask"]).sum() > num_polygons / 2
