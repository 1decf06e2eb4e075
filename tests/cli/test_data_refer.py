# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber data export --format refer` as a command; what it writes is tested in tests/data/test_refer_writer.py."""

import json

import numpy as np
import pytest
from PIL import Image
from refer_fixture import TinyRefer, picture, rectangle
from refer_readers import GRefer, Refer, rela_mask

from remamber_hf.cli import data as data_commands
from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask
from remamber_hf.synthetic.dataset import synthesize


@pytest.fixture
def own(tmp_path):
    """A folder of one's own, whose mask is a picture with a hole."""
    folder = tmp_path / "my data"
    folder.mkdir()
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[3:25, 5:30] = 255
    mask[8:12, 9:20] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    picture(30, 40).save(folder / "a.png")
    lines = [
        {"file_name": "a.png", "mask_file_name": "mask.png", "expression": ["The frame.", "it"]},
        {"file_name": "a.png", "polygon": rectangle(0, 0, 20, 30), "expression": "left half", "split": "val"},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def export(data_command, tmp_path, *arguments):
    out = tmp_path / "out"
    code, output = data_command("export", *arguments, "--output_dir", out, "--format", "refer")
    assert code == 0, output
    return out, output


def test_a_folder_of_ones_own_becomes_one_that_refer_reads(data_command, own, tmp_path):
    out, output = export(data_command, tmp_path, "--data_dir", own, "--dataset_name", "refcoco")
    assert "train: 1 rows" in output and "val: 1 rows" in output and f"written: {out}" in output
    refer = Refer(out, "refcoco", "unc")
    assert [ref["sentences"][0]["raw"] for ref in refer.refs.values()] == ["The frame.", "left half"]
    masks = [refer.mask(ref) for ref in refer.refs.values()]
    with Image.open(own / "mask.png") as drawn:
        assert np.array_equal(masks[0], np.asarray(drawn) > 0)
    assert masks[1][:, :20].all() and not masks[1][:, 20:].any()


def test_without_a_name_the_set_is_called_as_its_source_and_is_all_right(data_command, own, tmp_path):
    out, _ = export(data_command, tmp_path, "--data_dir", own)
    assert sorted(path.name for path in out.iterdir()) == ["images", "my_data"]
    code, output = data_command("check", "--data_dir", out)
    assert code == 0 and "all right" in output
    assert load_refer("my_data", "unc", "train", data_dir=out)["sentences"][:] == [["The frame.", "it"]]


def test_polygons_are_written_where_they_are_asked_for(data_command, own, tmp_path):
    out, _ = export(data_command, tmp_path, "--data_dir", own, "--dataset_name", "refcoco", "--polygons")
    refer = Refer(out, "refcoco", "unc")
    for ref in refer.refs.values():
        assert np.array_equal(rela_mask(refer, ref), refer.mask(ref))


def test_a_generalised_set_becomes_one_that_grefer_reads(data_command, tmp_path):
    synthesize(tmp_path / "drawn", 8, 0, image_size=64, num_workers=1, many=True, no_target=True, progress=False)
    arguments = ("--data_dir", tmp_path / "drawn", "--generalized", "--dataset_name", "grefcoco")
    out, _ = export(data_command, tmp_path, *arguments)
    data = load_refer("shapes", "unc", data_dir=tmp_path / "drawn", generalized=True)
    grefer = GRefer(out, "grefcoco", "unc")
    rows = {row["ref_id"]: row for split in data.values() for row in split}
    assert rows.keys() == grefer.refs.keys()
    for ref_id, ref in grefer.refs.items():
        assert np.array_equal(grefer.mask(ref), row_mask(rows[ref_id]))


def test_parquet_is_exported_without_a_data_dir(data_command, own, tmp_path):
    assert data_command("export", "--data_dir", own, "--output_dir", tmp_path / "parquet")[0] == 0
    out, _ = export(data_command, tmp_path, "--dataset", tmp_path / "parquet", "--dataset_name", "refcoco")
    assert len(Refer(out, "refcoco", "unc").refs) == 2


def test_raw_sentences_are_written_where_they_are_asked_for(data_command, tmp_path):
    root = TinyRefer().write(tmp_path / "data")
    out, _ = export(data_command, tmp_path, "--data_dir", root, "--sentences", "raw")
    assert Refer(out, "refcoco", "unc").refs[1004]["sentences"][0]["sent"] == "THE LEFT ONE 4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "coco"], "--format is 'coco'; choose one of parquet, refer"),
        (
            ["--dataset_name", "refcoco"],
            "--dataset_name is for --format refer; give that, or leave --dataset_name out",
        ),
        (["--polygons"], "--polygons is for --format refer"),
        (["--format", "refer", "--dataset_name", "../x"], "the data set's name is '../x'"),
        (["--format", "refer", "--dataset_name", "ref-zom"], "a folder called ref-zom holds other files"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    data_command, own, tmp_path, arguments, message
):
    with pytest.raises(ValueError, match=message):
        data_command("export", "--data_dir", own, "--output_dir", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_nothing_that_is_named_is_asked_for(data_command, tmp_path):
    with pytest.raises(ValueError, match="no data is named; give --data_dir, --dataset"):
        data_command("export", "--output_dir", tmp_path / "out")


def test_the_help_names_each_format():
    assert all(f"{name}:" in data_commands.export.__doc__ for name in data_commands.EXPORT_FORMATS)
