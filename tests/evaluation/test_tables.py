# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Tables as Markdown, LaTeX and CSV say the same, whatever stands in them."""

import csv
import io
import re
import shutil
import subprocess

import pytest

from remamber_hf.evaluation.tables import TABLE_FORMATS, Table, write_csv, write_latex, write_markdown


STRANGE = r"a|b & 50% $x_1$ #2 {c} ~^\ <d> ±–−≥× " "quoted" ", comma"
TABLE = Table(
    ["model", "data", "oIoU"], [[["ours", STRANGE, "50.10 ± 0.20"]], [["theirs", "two\nlines\x1b[31m", "–"]]]
)


def test_csv_gives_back_what_stands_in_the_table():
    read = list(csv.reader(io.StringIO(write_csv(TABLE))))
    assert read == [TABLE.header, TABLE.rows[0], ["theirs", r"two lines\x1b[31m", "–"]]


def test_csv_holds_no_formula_and_leaves_numbers():
    names = ["=cmd|' /C calc'!A0", "@SUM(A1)", "+1+1", "-2-3"]
    cells = [*names, "+0.25", "-1.20", "[-1.20, +0.30]", "50.10 ± 0.20", "–"]
    (_, read) = csv.reader(io.StringIO(write_csv(Table(["x"] * len(cells), [[cells]]))))
    assert read == [*(f"'{name}" for name in names), *cells[4:]]


def test_markdown_has_a_table_where_a_column_is_one_letter_wide():
    rule = write_markdown(Table(["a", "b", "p"], [[["x", "y", "–"]]])).splitlines()[1]
    assert all(re.fullmatch("-+:?", cell.strip()) for cell in rule.strip("|").split("|")) and rule.endswith("-: |")


def test_latex_reads_no_cell_as_an_option_and_sets_a_minus_before_numbers():
    rows = [["[ours]", "2-5", "-1.20"], ["*", "a-1", "[-0.10, +0.30]"]]
    lines = write_latex(Table(["model", "part", "x"], [rows])).splitlines()
    assert lines[4:6] == [r"{}[ours] & 2-5 & $-$1.20 \\", r"{}* & a-1 & [$-$0.10, +0.30] \\"]


def test_markdown_has_a_line_per_row_and_as_many_cells_in_each():
    lines = write_markdown(TABLE).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert all(len(re.split(r"(?<!\\)\|", line)) == 5 for line in lines)
    assert re.split(r"(?<!\\)\|", lines[1])[3].endswith(": ") and "\x1b" not in "".join(lines)


def test_latex_has_a_rule_between_groups_and_no_letter_that_it_reads_otherwise():
    text = write_latex(TABLE)
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{llr}" and lines[-1] == r"\end{tabular}"
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\midrule", r"\bottomrule"]
    rows = [line for line in lines if line.endswith(r"\\")]
    assert [len(re.split(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3]
    assert r"50.10 $\pm$ 0.20" in rows[1] and rows[1].startswith(r"ours & a|b \& 50\% \$x\_1\$ \#2 \{c\} ")
    assert text.isascii()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_is_typeset(tmp_path):
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + write_latex(TABLE) + r"\end{document}"
    (tmp_path / "table.tex").write_text(document)
    subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", "table.tex"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("format", TABLE_FORMATS)
def test_a_table_without_rows_is_a_table(format):
    text = TABLE_FORMATS[format](Table(["a", "b", "c"], [[]]))
    assert text.count("a") >= 1 and text.endswith("\n")
