# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A table as Markdown, as LaTeX with booktabs, and as CSV."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..messages import printable


# What LaTeX reads otherwise than it stands.
LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "×": r"$\times$",
}


NUMBER = r"[+-]?\d+(\.\d+)?"


@dataclass(frozen=True)
class Table:
    """
    A table of text.

    header: of each column. groups: rows that belong together; a line stands between groups where the format has one.
    num_left: the first columns, which stand to the left; numbers stand to the right. note: how it was made, which
    stands below it in Markdown, and above it as a comment in LaTeX.
    """

    header: list[str]
    groups: list[list[list[str]]]
    num_left: int = 2
    note: str = ""

    @property
    def rows(self) -> list[list[str]]:
        return [row for group in self.groups for row in group]


def write_markdown(table: Table) -> str:
    """The table as Markdown that is aligned as plain text too."""
    lines = [[_in_one_line(cell).replace("|", "\\|") for cell in row] for row in [table.header, *table.rows]]
    # Three letters at least: of a single one, a rule is no "-:", and the table is none.
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(table.header))]
    places = list(enumerate(widths))
    rules = ["-" * width if column < table.num_left else "-" * (width - 1) + ":" for column, width in places]
    aligned = [
        [
            line[column].ljust(width) if column < table.num_left else line[column].rjust(width)
            for column, width in places
        ]
        for line in lines
    ]
    text = "".join("| " + " | ".join(cells) + " |\n" for cells in [aligned[0], rules, *aligned[1:]])
    return text + (f"\n{_in_one_line(table.note)}\n" if table.note else "")


def write_latex(table: Table) -> str:
    r"""The table as a `tabular`; its document needs `\usepackage{booktabs}`."""
    columns = "l" * table.num_left + "r" * (len(table.header) - table.num_left)
    lines = [f"% {_in_one_line(table.note)}"] if table.note else []
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _latex_row(table.header)]
    for group in table.groups:
        lines += [r"\midrule", *map(_latex_row, group)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def write_csv(table: Table) -> str:
    """
    The table as CSV (RFC 4180, but with line feeds alone).

    Text that a spreadsheet would compute has an apostrophe before it; names are anybody's.
    """
    text = io.StringIO()
    rows = [[_as_text(_in_one_line(cell)) for cell in row] for row in [table.header, *table.rows]]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


TABLE_FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": write_markdown,
    "latex": write_latex,
    "csv": write_csv,
}


def _latex_row(cells: list[str]) -> str:
    numbers = [re.sub(r"(?<!\w)-(?=\d)", "−", _in_one_line(cell)) for cell in cells]  # else it is a hyphen
    escaped = ["".join(LATEX.get(letter, letter) for letter in cell) for cell in numbers]
    # A rule and an end of line take what is in brackets behind them, and a star, for their own.
    guard = "{}" if escaped[0].startswith(("[", "*", "(")) else ""
    return guard + " & ".join(escaped) + r" \\"


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(tuple("=+-@")) and not re.fullmatch(NUMBER, cell) else cell


def _in_one_line(cell: str) -> str:
    return printable(" ".join(cell.split()))
