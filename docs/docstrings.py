# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Docstrings, which are written as Markdown with Google's sections, as the reStructuredText that autodoc reads."""

import dataclasses
import re


FIELD = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (.*)")
ITEM = re.compile(r"- |\d+\. ")


def to_rst(lines: list[str]) -> list[str]:
    """
    A docstring without its indentation → the same in reStructuredText.

    Lines `name: what it is` become a list, a Markdown table a table, an indented block a literal one; a list is set
    off from the sentence before it; [`Name`] is a link. Sections such as `Args:` stay as they are, for napoleon.
    """
    result: list[str] = []
    for block in split_blocks(lines):
        text = [re.sub(r"\[`([\w.]+)`\]", r":py:obj:`.\1`", line) for line in block]
        text = [re.sub(r"\b(\w+://)(?!\S)", r"`\1`", line) for line in text]  # no address, but a kind of them
        if text[0].startswith("|"):
            text = to_list_table(text)
        elif text[0].startswith(" ") and not (result and re.match(r"\s|\w+:$|- |\d+\. ", last_text(result))):
            text = ["::", "", *(f"    {line}" for line in text)]
        elif FIELD.match(text[0]) and all(line.startswith(" ") or FIELD.match(line) for line in text):
            text = [FIELD.sub(r"- `\1`: \2", line) for line in text]
            text = [line if line.startswith("- ") else f"  {line.strip()}" for line in text]
        else:
            text = set_off_lists(text)
        result += [*text, ""]
    return result


def split_blocks(lines: list[str]) -> list[list[str]]:
    """What stands between empty lines; a section such as `Args:` is one block with its indented lines."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block]


def last_text(lines: list[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


def set_off_lists(text: list[str]) -> list[str]:
    """An empty line before the first item of a list, as reStructuredText asks for."""
    result: list[str] = []
    for line in text:
        if ITEM.match(line) and result and not (ITEM.match(result[-1]) or result[-1].startswith(" ")):
            result.append("")
        result.append(line)
    return result


def to_list_table(text: list[str]) -> list[str]:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text]
    result = [".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        result += [f"   {'  ' if index else '* '}- {cell}" for index, cell in enumerate(row)]
    return result


def list_arguments(made: object) -> list[str]:
    """What the fields of a dataclass say of themselves as command-line arguments, a line each."""
    if not (isinstance(made, type) and dataclasses.is_dataclass(made)):
        return []
    own = [field for field in dataclasses.fields(made) if field.name in vars(made).get("__annotations__", {})]
    helps = {field.name: field.metadata["help"] for field in own if "help" in field.metadata}
    return [f"- `{name}`: " + re.sub(r"--\w+", r"`\g<0>`", text) for name, text in helps.items()]
