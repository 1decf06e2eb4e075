# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Lines that an interrupted run left, taken by the next."""

import json
from pathlib import Path

import pytest

from remamber_hf.cli.tasks import Task
from remamber_hf.cli.unfinished_lines import UnfinishedLines, stamp_of
from remamber_hf.inference.loading import BUNDLED_PICTURES


@pytest.mark.parametrize(
    "line", ['[["a"], 1, []]', "[" * 100_000, "[{picture}, {stamp}, 5]", "[{picture}, {stamp}, [5]]"]
)
def test_lines_of_others_in_an_unfinished_file_are_not_taken(tmp_path, line):
    task = Task(str(BUNDLED_PICTURES / "shapes_1.png"), Path("shapes_1"), ["the star"])
    lines = UnfinishedLines(tmp_path / "o.jsonl", [])
    lines.add(task, ["1"])
    lines.file.close()
    line = line.replace("{picture}", json.dumps(task.source)).replace("{stamp}", json.dumps(stamp_of(task)))
    with (tmp_path / "o.jsonl.unfinished").open("a") as file:
        file.write(f"{line}\n")
    again = UnfinishedLines(tmp_path / "o.jsonl", [])
    assert again.read([task]) == {task.source}
    again.finish([task])
    assert (tmp_path / "o.jsonl").read_text() == "1\n"
