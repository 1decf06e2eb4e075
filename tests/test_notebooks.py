# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
The notebooks in examples/ run from top to bottom, and are stored with what they show.

`python tests/test_notebooks.py` runs them and stores their outputs anew.
"""

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pytest
from nbclient import NotebookClient


EXAMPLES = Path(__file__).parents[1] / "examples"
# What must hold at the end of each, besides that no cell fails.
CLAIMS = {
    "quickstart.ipynb": "assert all(1000 < int(mask.sum()) < 20000 for mask in masks)",
    "finetune_your_own.ipynb": "assert after['eval_miou'] > before['eval_miou'] + 0.08",
}
MAX_SIZE = 500_000  # bytes


def run_notebook(notebook: nbformat.NotebookNode, folder: str | os.PathLike) -> None:
    """Run all cells in a folder, with the `remamber` of this Python; CellExecutionError if one fails."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
    # Bars and warnings about them differ between machines.
    client.execute(env={**os.environ, "PATH": programs, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"})


@pytest.mark.parametrize("name", ["quickstart.ipynb", pytest.param("finetune_your_own.ipynb", marks=pytest.mark.slow)])
def test_the_notebook_runs_from_top_to_bottom(name, tmp_path):
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CLAIMS[name]))
    run_notebook(notebook, tmp_path)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_the_notebook_is_stored_whole_small_and_without_traces_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.name in CLAIMS
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [output.output_type for cell in code for output in cell.outputs if output.output_type == "error"] == []
    assert path.stat().st_size < MAX_SIZE
    text = path.read_text(encoding="utf-8")
    traces = [str(EXAMPLES.parent), str(Path.home()), "site-packages"]
    assert [trace for trace in traces if trace in text] == []
    assert re.findall(r"/(?:home|Users|root|tmp|opt)/", text) == []


def test_both_notebooks_are_there():
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == CLAIMS.keys()


def merge_streams(outputs: list) -> list:
    """Outputs with what was printed in one piece, and of a progress bar only the last state."""
    merged = []
    for output in outputs:
        if merged and output.output_type == "stream" == merged[-1].output_type and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text).replace("\r\n", "\n")
    return merged


def store_outputs() -> None:
    """Run each notebook in an empty folder and write it back with its outputs, without times and versions."""
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with TemporaryDirectory() as folder:
            run_notebook(notebook, folder)
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.metadata.pop("execution", None)
            cell.outputs = merge_streams(cell.outputs)
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("image/jpeg", None)  # the same picture once more
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)


if __name__ == "__main__":
    store_outputs()
