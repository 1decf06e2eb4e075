# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Saved results beside each other, against pandas and loops; and what cannot be compared."""

import csv
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluation_runs import MODEL, count_as_published, overlapping_refer, run, worsen
from PIL import Image
from typer.testing import CliRunner

from remamber_hf.cli.compare import compare as compare_command
from remamber_hf.cli.main import app
from remamber_hf.cli.table import table as table_command
from remamber_hf.evaluation import contrast
from remamber_hf.evaluation.comparison import compare, make_paper_table, read_entries, signed
from remamber_hf.evaluation.saved import read_results
from remamber_hf.evaluation.tables import write_csv, write_latex, write_markdown
from remamber_hf.synthetic.dataset import synthesize


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "shapes"
    synthesize(folder, 480, 11, num_workers=1, progress=False, style="plain", no_target=True)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, data_dir):
    """The bundled model: as it is, and twice with masks of fewer pixels, which stand for seeds of a worse one."""
    folder = tmp_path_factory.mktemp("evaluated")
    run(folder / "a", data_dir=data_dir, splits="val,testA", save_masks="rle", by="length")
    for name, share in (("b", 0.8), ("c", 0.7)):
        shutil.copytree(folder / "a", folder / name)
        worsen(folder / name, share)
    return folder


def rows_of(table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write_csv(table))))


def test_a_difference_is_that_of_the_scores_and_its_interval_that_of_a_loop(evaluated):
    entries = read_entries([f"good={evaluated / 'a'}", f"bad={evaluated / 'b'}"])
    (row,) = [
        row
        for row in rows_of(compare(entries, ["oiou", "miou"], by=(), num_draws=200, seed=3))
        if (row["split"], row["score"]) == ("val", "oIoU")
    ]
    good, bad = (pq.read_table(evaluated / name / "samples.parquet").to_pandas() for name in "ab")
    good, bad = good[good.split == "val"], bad[bad.split == "val"]

    def oiou(rows: pd.DataFrame) -> float:
        return 100 * rows.intersection.sum() / rows.union.sum()

    assert row["good"] == f"{oiou(good):.2f}" and row["its score"] == f"{oiou(bad):.2f}" and row["model"] == "bad"
    assert row["difference"] == f"{oiou(bad) - oiou(good):+.2f}"
    generator, differences = np.random.default_rng(3), []
    num_pictures = good.picture.nunique()
    by_picture = [[rows[rows.picture == place] for place in range(num_pictures)] for rows in (good, bad)]
    for _ in range(200):
        places = generator.integers(num_pictures, size=num_pictures)
        first, second = (oiou(pd.concat([rows[place] for place in places])) for rows in by_picture)
        differences.append(second - first)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert row["95% interval"] == f"[{low:+.2f}, {high:+.2f}]" and high < 0
    assert float(row["p"]) == pytest.approx(2 / 201, abs=1e-4)


def test_seeds_count_by_their_mean_and_show_their_deviation(evaluated):
    folders = [str(evaluated / name) for name in "abc"]
    table = compare(read_entries([folders[0], f"worse={folders[1]},{folders[2]}"]), ["miou"], by=(), num_draws=100)
    row = rows_of(table)[0]
    scores = [json.loads((evaluated / name / "results.json").read_text())["splits"]["val"]["scores"] for name in "abc"]
    first, *others = (100 * each["miou"] for each in scores)
    assert row["its score"] == f"{np.mean(others):.2f} ± {np.std(others, ddof=1):.2f}"
    assert row["difference"] == f"{np.mean(others) - first:+.2f}"


@pytest.mark.parametrize("value, text", [(-1e-17, "+0.00"), (-0.00004, "+0.00"), (-0.0001, "-0.01"), (0.25, "+25.00")])
def test_no_difference_has_one_sign(value, text):
    assert signed(value) == text


def test_parts_are_compared_with_their_own_samples(evaluated):
    table = compare(
        read_entries([f"good={evaluated / 'a'}", f"bad={evaluated / 'b'}"]), ["miou"], by=("kind", "length")
    )
    good, bad = (pq.read_table(evaluated / name / "samples.parquet").to_pandas() for name in "ab")
    parts = {(row["split"], row["part"]): row for row in rows_of(table)}
    for split in ("val", "testA"):
        for column in ("kind", "length"):
            for part, rows in good[good.split == split].groupby(column):
                row = parts[split, f"{column} {part}"]
                expected = 100 * (bad.loc[rows.index].iou.mean() - rows.iou.mean())
                assert float(row["difference"]) == pytest.approx(expected, abs=0.006)
                is_sure = rows.picture.nunique() >= 20
                assert (row["95% interval"] != "–") == (row["p"] != "–") == is_sure


def test_the_papers_table_has_a_row_per_model_and_a_column_per_split(evaluated):
    folders = [str(evaluated / name) for name in "abc"]
    table = make_paper_table(
        read_entries([f"good={folders[0]}", f"worse={folders[1]},{folders[2]}"]), ["miou", "oiou"]
    )
    assert table.header == ["model", "protocol", "source", "score", "shapes (unc) val", "shapes (unc) testA"]
    scores = [json.loads((evaluated / name / "results.json").read_text())["splits"] for name in "abc"]
    first, second = table.groups[0]
    expected = [f"{100 * scores[0][split]['scores']['miou']:.2f}" for split in ("val", "testA")]
    assert first == ["good", "full", "measured", "mIoU", *expected]
    assert second[0] == "worse" and second[4].count("±") == 1 and table.groups[1][0][3] == "oIoU"


def test_published_rows_stand_first_with_source_and_protocol(tmp_path, monkeypatch):
    count_as_published(monkeypatch)
    run(tmp_path / "out", data_dir=overlapping_refer(tmp_path / "data"), protocol="published")
    table = make_paper_table(read_entries([f"ours={tmp_path / 'out'}"]), ["oiou"])
    (rows,) = table.groups
    assert rows[0] == ["ReMamber (ECCV 2024)", "published", "a paper's full text", "oIoU", "74.54", "76.74", "70.89"]
    assert rows[-1][:4] == ["ours", "published", "measured", "oIoU"] and len(rows) > 10
    assert (
        make_paper_table(read_entries([str(tmp_path / "out")]), ["oiou"], has_published=False).rows[0][0] == "shapes"
    )


def test_models_on_other_data_sets_have_empty_cells(evaluated, data_dir, tmp_path):
    run(tmp_path / "grefs", data_dir=data_dir, splits="val", generalized=True)
    table = make_paper_table(read_entries([f"plain={evaluated / 'a'}", f"general={tmp_path / 'grefs'}"]))
    assert [row[0] for row in table.rows].count("general") == 4
    assert len({tuple(row[4:]) for row in table.rows}) > 2
    assert table.header[4:] == ["shapes (unc) val", "shapes (unc) testA"]


def test_names_are_those_of_models_or_folders_and_may_be_given(evaluated):
    a, b = evaluated / "a", evaluated / "b"
    assert [entry.name for entry in read_entries([str(a)])] == ["shapes"]
    assert [entry.name for entry in read_entries([str(a), str(b)])] == [str(a), str(b)]
    assert [entry.name for entry in read_entries([f"one={a}", str(b)])] == ["one", str(b)]
    (entry,) = read_entries([f"all={evaluated}/[bc]"])
    assert [results.folder.name for results in entry.results] == ["b", "c"]


def test_a_folder_may_have_any_name(evaluated, tmp_path):
    strange = shutil.copytree(evaluated / "a", tmp_path / "x=1,y=2 [ü]*")
    (entry,) = read_entries([str(strange)])
    assert entry.results[0].folder == strange


def test_a_tilde_is_the_home_folder_and_a_space_behind_a_comma_none(evaluated, monkeypatch):
    monkeypatch.setenv("HOME", str(evaluated))
    (entry,) = read_entries(["seeds=~/a, ~/b"])
    assert [results.folder for results in entry.results] == [evaluated / "a", evaluated / "b"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{a}"], "there is one model; give two or more"),
        (["{a}", "{a}"], "comes twice; give names"),
        (["x={a}", "x={b}"], "'x' comes twice"),
        (["x={a},{a}", "y={b}"], "comes twice in"),
        (["x={a},{a}/../a/", "y={b}"], "comes twice in"),
        (["x={a},", "y={b}"], "has a comma too many"),
        (["={a}", "{b}"], "has no name or no folder"),
        (["x=", "{b}"], "has no name or no folder"),
        (["{a}", "nowhere"], "nowhere/results.json is missing; give a folder that"),
        (["{a}", "{a}*nothing"], "stands for no folder"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(evaluated, arguments, message):
    folders = {name: evaluated / name for name in "ab"}
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        compare(read_entries([argument.format(**folders) for argument in arguments]))


def test_results_that_were_counted_in_two_ways_are_not_compared(evaluated, data_dir, tmp_path):
    for name, options in {
        "nearest": {"resize": "nearest"},
        "lavt": {"protocol": "lavt"},
        "few": {"max_samples": 10},
        "other": {"splits": "testB"},
    }.items():
        run(tmp_path / name, data_dir=data_dir, **{"splits": "val", **options})
    a = f"a={evaluated / 'a'}"
    for name, value in (("threshold", 0.4), ("epsilon", 1e-12)):
        folder = shutil.copytree(evaluated / "a", tmp_path / name)
        about = json.loads((folder / "results.json").read_text())
        about["protocol"][name] = value
        (folder / "results.json").write_text(json.dumps(about))
    for name, message in {
        "threshold": "counted in two ways: threshold 0.5 and 0.4",
        "epsilon": "counted in two ways: epsilon 0.0 and 1e-12",
        "nearest": "counted in two ways: resize of logits bilinear and nearest; evaluate both under one protocol",
        "lavt": "counted in two ways: size that is counted at",
        "few": "are not the same; evaluate both on the same data with the same options",
        "other": "have no split of shapes (unc) in common",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            compare(read_entries([a, f"b={tmp_path / name}"]))


def change_samples(folder, **columns):
    """Put other columns into samples.parquet, made of the rows as pandas has them."""
    path = folder / "samples.parquet"
    table = pq.read_table(path)
    for name, change in columns.items():
        values = pa.array(change(table.to_pandas()), table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path)
    return folder


def test_another_data_set_of_the_same_name_is_neither_compared_nor_beside(evaluated, tmp_path):
    a = evaluated / "a"
    others = {
        "areas": {"object_area": lambda rows: rows.object_area + 1},
        "texts": {"sentence": lambda rows: rows.sentence + "!"},
        "ids": {"sentence_id": lambda rows: rows.sentence_id + 1},
    }
    for name, columns in others.items():
        other = change_samples(shutil.copytree(a, tmp_path / name), **columns)
        for arguments in ([f"x={a}", f"y={other}"], [f"x={a},{other}", f"y={evaluated / 'b'}"]):
            entries = read_entries(arguments)
            for make in (compare, make_paper_table):
                with pytest.raises(ValueError, match="are not the same; evaluate both on the same data"):
                    make(entries)


def test_seeds_of_a_table_are_counted_alike_and_its_rows_on_the_same_samples(evaluated, data_dir, tmp_path):
    run(tmp_path / "lavt", data_dir=data_dir, protocol="lavt", splits="val")
    run(tmp_path / "few", data_dir=data_dir, max_samples=10, splits="val")
    a = evaluated / "a"
    with pytest.raises(ValueError, match="counted in two ways"):
        make_paper_table(read_entries([f"x={a},{tmp_path / 'lavt'}"]))
    with pytest.raises(ValueError, match="has 10 sentences of val"):
        make_paper_table(read_entries([f"x={tmp_path / 'few'}", f"y={a}"]))
    rows = make_paper_table(read_entries([f"x={a}", f"y={tmp_path / 'lavt'}"]), ["miou"]).rows
    assert [row[1] for row in rows] == ["full", "lavt"]


def test_a_category_may_be_called_as_a_split_or_as_another_part_is(evaluated, tmp_path):
    def rename(rows):
        return rows.category.replace({"star": "all", "square": "1", "circle": "size"})

    entries = read_entries(
        [
            f"{name}={change_samples(shutil.copytree(evaluated / name, tmp_path / name), category=rename)}"
            for name in "ab"
        ]
    )
    samples = pq.read_table(evaluated / "a" / "samples.parquet").to_pandas()
    rows = rows_of(compare(entries, ["miou"], by=("kind", "length", "category"), num_draws=100))
    found = {row["part"]: float(row["a"]) for row in rows if row["split"] == "val"}
    val = samples[samples.split == "val"]
    expected = {
        **{"all": val, "category all": val[val.category == "star"], "category 1": val[val.category == "square"]},
        **{"length 1": val[val.length == "1"], "kind size": val[val.kind == "size"]},
    }
    for part, rows in expected.items():
        assert found[part] == pytest.approx(100 * rows.iou.mean(), abs=0.006), part


def test_splits_that_one_of_two_models_lacks_are_named(evaluated, data_dir, tmp_path):
    run(tmp_path / "more", data_dir=data_dir, splits="val,testB")
    models = (f"x={evaluated / 'a'}", f"y={tmp_path / 'more'}")
    result = CliRunner().invoke(app, ["compare", *map(str, models), "--num_draws", "100", "--by", "none"])
    assert result.exit_code == 0 and "testA" not in result.stdout
    assert result.stderr.splitlines() == [
        "left out: shapes (unc) testA, which y lacks",
        "left out: shapes (unc) testB, which x lacks",
    ]
    with pytest.raises(ValueError, match="x has 1 results of testA and 2 of another split"):
        compare(read_entries([f"x={evaluated / 'a'},{tmp_path / 'more'}", f"y={evaluated / 'b'}"]))


def test_models_on_other_data_are_said_to_be_so(evaluated, tmp_path):
    other = shutil.copytree(evaluated / "b", tmp_path / "other")
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps({**results, "dataset": "forms"}))
    message = r"no other model was evaluated on the data of the first \(x on shapes \(unc\); y on forms \(unc\)\)"
    with pytest.raises(ValueError, match=message):
        compare(read_entries([f"x={evaluated / 'a'}", f"y={other}"]))


def test_a_table_of_differences_says_how_they_were_found(evaluated):
    table = compare(read_entries([f"x={evaluated / 'a'}", f"y={evaluated / 'b'}"]), by=(), num_draws=100, seed=7)
    note = (
        "Intervals at 95% and two-sided p of a paired bootstrap over pictures, 100 draws, seed 7; – for fewer than 20"
    )
    assert write_markdown(table).splitlines()[-1].startswith(note)
    assert write_latex(table).startswith(f"% {note}") and note not in write_csv(table)


def test_a_score_may_be_named_as_it_is_printed(evaluated):
    entries = read_entries([f"x={evaluated / 'a'}", f"y={evaluated / 'b'}"])
    titles = [row["score"] for row in rows_of(compare(entries, ["oIoU", "P@0.5", "precision@0.9"], by=()))]
    assert titles[:3] == ["oIoU", "P@0.5", "P@0.9"]


def test_a_score_that_is_not_there_is_named(evaluated):
    entries = read_entries([f"x={evaluated / 'a'}", f"y={evaluated / 'b'}"])
    with pytest.raises(ValueError, match="no score 'giou'; choose --scores from oiou, miou"):
        compare(entries, ["giou"])
    assert {row["score"] for row in rows_of(compare(entries, ["all"], by=()))} == {
        *("oIoU", "mIoU", "P@0.5", "P@0.6", "P@0.7", "P@0.8", "P@0.9")
    }


def test_a_split_that_only_some_seeds_have_is_named_and_one_of_another_folder_is_a_column(
    evaluated, data_dir, tmp_path
):
    run(tmp_path / "val", data_dir=data_dir, splits="val")
    run(tmp_path / "testB", data_dir=data_dir, splits="testB")
    with pytest.raises(ValueError, match=r"ours has 1 results of testA and 2 of another split of shapes \(unc\)"):
        make_paper_table(read_entries([f"ours={evaluated / 'a'},{tmp_path / 'val'}"]))
    table = make_paper_table(read_entries([f"ours={tmp_path / 'testB'},{tmp_path / 'val'}"]), ["miou"])
    assert table.header[4:] == ["shapes (unc) testB", "shapes (unc) val"] and "±" not in "".join(table.rows[0])


def test_a_score_that_no_sentence_of_a_part_counts_in_has_no_row(data_dir, tmp_path):
    for name in "ab":
        run(tmp_path / name, data_dir=data_dir, splits="val", generalized=True)
    rows = rows_of(compare(read_entries([f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}"]), by=("target_kind",)))
    scores = {
        part: [row["score"] for row in rows if row["part"] == part] for part in ("all", "objects none", "objects one")
    }
    assert scores == {
        "all": ["gIoU", "cIoU", "N-acc", "T-acc"],
        "objects none": ["gIoU", "cIoU", "N-acc"],
        "objects one": ["gIoU", "cIoU", "T-acc"],
    }
    assert {row["difference"] for row in rows} == {"+0.00"}


# ---------------------------------------------------------------------------------------------------------- commands


def invoke(*arguments) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_commands_print_what_they_write(evaluated, tmp_path):
    models = (f"x={evaluated / 'a'}", f"y={evaluated / 'b'}")
    for command, options in (("compare", ["--num_draws", 100]), ("table", [])):
        for format in ("markdown", "latex", "csv"):
            printed = invoke(command, *models, *options, "--format", format)
            path = tmp_path / "made" / f"{command}.{format}"
            assert invoke(command, *models, *options, "--format", format, "--output", path) == f"written: {path}\n"
            assert path.read_text() == printed and printed
            assert invoke(command, *models, *options, "--format", format, "--output", "-") == printed


def test_the_sheet_shows_where_two_models_differ_most(evaluated, data_dir, tmp_path):
    sheet = tmp_path / "sheet.png"
    output = invoke(
        *("compare", f"x={evaluated / 'a'}", f"y={evaluated / 'b'}", "--by", "none", "--num_draws", 100),
        *("--sheet", sheet, "--data_dir", data_dir, "--num_samples", 2),
    )
    assert "difference" in output
    picture = Image.open(sheet)
    assert picture.width > 3 * 320 and 2 * 320 < picture.height < 3 * 400  # the second gains nowhere


def test_a_sheet_shows_each_pair_of_masks_on_its_own_picture_though_ids_repeat(
    evaluated, data_dir, tmp_path, monkeypatch
):
    """As in data of several sources, where ref and sentence ids begin anew."""
    folders = [shutil.copytree(evaluated / name, tmp_path / name) for name in "ab"]
    for folder in folders:
        change_samples(folder, ref_id=lambda rows: rows.ref_id % 3, sentence_id=lambda rows: 0 * rows.sentence_id)
        masks = pq.read_table(folder / "masks.parquet")
        samples = pq.read_table(folder / "samples.parquet")
        for name in ("ref_id", "sentence_id"):
            masks = masks.set_column(masks.column_names.index(name), name, samples[name])
        pq.write_table(masks, folder / "masks.parquet")
    list_as_before = contrast.list_samples

    def list_samples(*arguments):
        return [replace(each, ref_id=each.ref_id % 3, sentence_id=0) for each in list_as_before(*arguments)]

    drawn = []
    monkeypatch.setattr(contrast, "list_samples", list_samples)
    monkeypatch.setattr(contrast, "draw_sheet", lambda tiles, columns: drawn.extend(tiles))
    first, second = (read_results(folder) for folder in folders)
    contrast.draw_contrast(first, second, ("a", "b"), data_dir, 3)
    truths, befores, afters = drawn[::3], drawn[1::3], drawn[2::3]
    assert len(truths) == 3  # the second model gains nowhere
    tables = [pq.read_table(folder / "samples.parquet").to_pandas() for folder in folders]
    worst = (tables[1].iou - tables[0].iou).nsmallest(1).index[0]
    assert truths[0].texts == [tables[0].sentence[worst]]
    ious = [[float(tile.title.split("IoU ")[1]) for tile in tiles] for tiles in (befores, afters)]
    gains = np.subtract(ious[1], ious[0])
    assert (gains < -0.1).all()
    for truth, before, after in zip(truths, befores, afters):
        iou = (truth.mask & before.mask).sum() / (truth.mask | before.mask).sum()
        assert before.title == f"a, IoU {iou:.3f}"
        assert (before.mask == after.mask).all()  # masks were copied, counts are what was made worse


def test_a_sheet_says_where_nothing_is_meant_and_where_nothing_is_found(data_dir, tmp_path, monkeypatch):
    options = {"data_dir": data_dir, "splits": "val", "generalized": True, "save_masks": "rle"}
    for name, min_pixels in (("a", 1), ("b", 10**6)):
        run(tmp_path / name, min_pixels=min_pixels, **options)
    drawn = []
    monkeypatch.setattr(contrast, "draw_sheet", lambda tiles, columns: drawn.extend(tiles))
    contrast.draw_contrast(*(read_results(tmp_path / name) for name in "ab"), ("a", "b"), data_dir, 2)
    lost, gained = drawn[:6], drawn[6:]
    assert ["means nothing here" in tile.title for tile in lost[::3] + gained[::3]] == [False, False, True, True]
    assert all(tile.title == "b, IoU 0.000: nothing found" for tile in lost[2::3])
    assert all(tile.title == "b, IoU 1.000: nothing found" and not tile.mask.any() for tile in gained[2::3])


def test_a_sheet_needs_the_masks_and_the_data_that_was_evaluated(evaluated, data_dir, tmp_path):
    models = [f"x={evaluated / 'a'}", f"y={evaluated / 'b'}"]
    other = tmp_path / "other"
    synthesize(other, 12, 1, num_workers=1, progress=False, style="plain")
    with pytest.raises(ValueError, match="does not hold .*; give --data_dir as it was evaluated"):
        compare_command(models, num_draws=100, sheet=tmp_path / "sheet.png", data_dir=other)
    with pytest.raises(ValueError, match=r"--sheet needs the pictures of shapes \(unc\); give --data_dir as it was"):
        compare_command(models, num_draws=100, sheet=tmp_path / "sheet.png")
    own = tmp_path / "own"
    own.mkdir()
    (own / "metadata.csv").write_text("file_name,mask_file_name,expression\na.png,b.png,thing\n")
    for folder in (own, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=rf"{folder.name} does not hold shapes \(unc\), which .* evaluated on"):
            compare_command(models, num_draws=100, sheet=tmp_path / "sheet.png", data_dir=folder)
    run(tmp_path / "bare", data_dir=data_dir, splits="val")
    with pytest.raises(FileNotFoundError, match="holds no masks"):
        compare_command(
            [models[1], f"z={tmp_path / 'bare'}"], num_draws=100, sheet=tmp_path / "s.png", data_dir=data_dir
        )
    with pytest.raises(ValueError, match="x and z are equally right in every sentence; there is nothing to draw"):
        compare_command(
            [models[0], f"z={tmp_path / 'bare'}"], num_draws=100, sheet=tmp_path / "s.png", data_dir=data_dir
        )
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"format": "html"}, "--format is 'html'; choose one of markdown, latex, csv"),
        ({"by": "colour"}, "--by is 'colour'; choose from target_kind, kind, length, size, category, or none"),
        ({"num_draws": 10}, "--num_draws is 10; give at least 100"),
        ({"num_draws": 10**9}, "--num_draws is 1000000000; give at most 1000000"),
        ({"output": Path(os.devnull)}, "is no regular file; give the name of one, or leave the option out"),
        ({"seed": -1}, "--seed is -1; give at least 0"),
        ({"sheet": "."}, "is a folder; give the name of a file"),
    ],
)
def test_options_that_cannot_be_are_named(evaluated, options, message, tmp_path):
    if "sheet" in options:
        options = {"sheet": tmp_path}
    with pytest.raises(ValueError, match=re.escape(message)):
        compare_command([f"x={evaluated / 'a'}", f"y={evaluated / 'b'}"], **options)


def test_the_table_command_refuses_a_folder_for_its_file(evaluated, tmp_path):
    with pytest.raises(ValueError, match="is a folder; give the name of a file"):
        table_command([str(evaluated / "a")], output=tmp_path)


def test_the_command_that_was_typed_stands_in_the_results(data_dir, tmp_path):
    output = tmp_path / "a b"
    words = ["evaluate", MODEL, "--data_dir", data_dir, "--splits", "val", "--max_samples", 2, "--num_workers", 0]
    invoke(*words, "--output_dir", output)
    typed = json.loads((output / "results.json").read_text())["command"]
    assert typed.startswith("remamber evaluate ") and typed.endswith(f"--output_dir '{output}'")
