# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber evaluate`: bad input is one line, and the page's snippets run."""

import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import datasets
import pytest
from refer_fixture import TinyRefer

from remamber_hf.cli import main as cli
from remamber_hf.data.refer import load_refer
from remamber_hf.evaluation.evaluator import Evaluator
from remamber_hf.inference.loading import BUNDLED_MODEL


MODEL = str(BUNDLED_MODEL)
PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.fixture
def remamber(tmp_path, monkeypatch, capfd):
    """Calls `remamber evaluate` in `tmp_path`: exit status, standard output, the one line that says what is wrong."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["remamber", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        output, error = capfd.readouterr()
        assert "Traceback" not in error and error.count("remamber: error: ") == 1
        last = error.splitlines()[-1]  # after the progress of `datasets`
        assert last.startswith("remamber: error: ")
        return stop.value.code, output, last

    return call


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--data_dir", "data", "--dataset", "refcocoo"], "--dataset refcocoo is not in data, which holds refcoco."),
        (
            ["--data_dir", "data", "--dataset", "refcoco", "--split_by", "umd"],
            "refcoco in data is split by unc; choose",
        ),
        (["--data_dir", "data", "--splits", "val,testC"], "no split 'testC'; choose --splits from train, val, testA"),
        (["--data_dir", "nowhere"], "nowhere is no folder"),
        (["--data_dir", "empty"], "nor a REFER data set; `remamber data check --data_dir empty` says"),
        (["--dataset", "refcoco"], "--dataset refcoco is read from its files; give --data_dir"),
        ([], "no data is named; give --data_dir, --dataset"),
        (["--dataset", "nobody/nothing"], "nobody/nothing"),
        (["--dataset", "nobody/nothing", "--split_by", "unc"], "--split_by unc is for REFER sets"),
        (["--dataset", "nobody/nothing", "--generalized"], "--generalized is for REFER sets"),
        (["--dataset", "nobody/nothing", "--sentences", "raw"], "--sentences raw is for REFER sets"),
        (["--data_dir", "data", "--sentences", "tokens"], "sentences is 'tokens'; choose one of sent, raw"),
        (["--data_dir", "data", "--resize", "cubic"], "--resize is 'cubic'; choose one of bilinear, nearest"),
        (
            ["--data_dir", "data", "--protocol", "paper"],
            "--protocol is 'paper'; choose one of full, published, lavt, rela, cris",
        ),
        (["--data_dir", "data", "--protocol", "published", "--resize", "bilinear"], "leave out --resize bilinear"),
        (["--data_dir", "data", "--protocol", "published", "--dtype", "float16"], "leave out --dtype float16"),
        (["--data_dir", "data", "--dtype", "int8"], "--dtype is 'int8'; choose one of float32, bfloat16, float16"),
        (["--data_dir", "data", "--device", "tpu"], "'tpu' is unknown"),
        (["--data_dir", "data", "--batch_size", "0"], "--batch_size is 0; give at least 1"),
        (["--data_dir", "data", "--num_workers", "-1"], "--num_workers is -1; give at least 0"),
        (["--data_dir", "data", "--max_samples", "0"], "--max_samples is 0; give at least 1"),
        (["--data_dir", "data", "--output_dir", "data"], "data exists and is not an empty folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(remamber, tmp_path, arguments, message):
    TinyRefer().write(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    output_dir = [] if "--output_dir" in arguments else ["--output_dir", "out"]
    status, output, error = remamber(MODEL, *arguments, *output_dir)
    assert (status, output) == (2, "")
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty"]


@pytest.mark.parametrize("model", [".", "nowhere"])
def test_a_folder_without_a_model_is_one_line_and_status_2(remamber, tmp_path, model):
    status, _, error = remamber(model, "--data_dir", TinyRefer().write(tmp_path / "data"), "--output_dir", "out")
    assert status == 2 and f"{model} is no model" in error
    assert not (tmp_path / "out").exists()


def test_expressions_that_are_cut_are_counted_in_one_line_also_with_workers(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    tiny = TinyRefer()
    for ref in tiny.refs:
        ref["sentences"][0]["sent"] = "the left circle " * 10
    tiny.write("data")
    arguments = ["--data_dir", "data", "--num_workers", "2", "--batch_size", "1", "--splits", "val,testA"]
    monkeypatch.setattr(sys, "argv", ["remamber", "evaluate", MODEL, *arguments])
    with suppress(SystemExit):
        cli.main()
    said = [line for line in "".join(capfd.readouterr()).splitlines() if " cut" in line or " are read" in line]
    (line,) = said
    assert line.startswith("2 of 4 expressions are cut, of which the model reads 20 tokens; the longest has ")


def test_a_picture_that_went_missing_is_one_line_before_anything_is_computed(remamber, tmp_path, monkeypatch):
    data_dir = TinyRefer().write(tmp_path / "data")
    load_refer("refcoco", "unc", data_dir=data_dir)  # the cache remembers that all was well
    (picture,) = data_dir.glob("**/*05.jpg")
    picture.unlink()
    monkeypatch.setattr(Evaluator, "count", None)
    status, _, error = remamber(MODEL, "--data_dir", data_dir, "--output_dir", "out")
    assert status == 2 and f"the picture {picture} of split testA is missing; put it back." in error
    assert not (tmp_path / "out").exists()


def test_the_snippets_of_the_page_run(remamber, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "remamber_hf").mkdir()
    (tmp_path / "remamber_hf" / "checkpoints").symlink_to(BUNDLED_MODEL.parent)
    snippets = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 3
    for language, code in snippets:
        if language == "python":
            exec(compile(code, str(PAGE), "exec"), {})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            monkeypatch.setattr(sys, "argv", shlex.split(line))
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code, line
    assert (tmp_path / "results" / "val_worst.png").is_file()
