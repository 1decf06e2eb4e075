# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `remamber profile` prints: a row for each size of the picture, and one for each part of the model."""

import json
from collections.abc import Callable
from typing import Any

from rich.table import Table as TerminalTable
from rich.text import Text

from ..evaluation.tables import Table, write_csv, write_latex, write_markdown
from ..inference.devices import DEVICES
from ..messages import printable
from .options import make_console


NOTHING = "–"  # where something is not known
COUNTED = (
    "FLOPs: a multiplication and an addition are two. MACs: they are one, which many papers print as FLOPs (fvcore, "
    "thop). Scans are counted; norms, resizes and other elementwise arithmetic are not."
)
QUARTILES = ("q1", "median", "q3")


# ------------------------------------------------------------------------------------------------------------- tables


def sizes_table(results: dict[str, Any]) -> Table:
    """A row for each size of the picture: the whole model."""
    header = ["size", "params, M", "FLOPs, G", "MACs, G"]
    header += ["time, ms", "pictures per s", "memory, MiB"] if results["measured"] else []
    rows = []
    for size in results["sizes"]:
        whole = size["parts"]["whole"]
        row = [size_name(size), millions(whole["parameters"]), billions(whole["flops"]), billions(whole["macs"])]
        if results["measured"]:
            peak = size["peak_mib"]
            row += [milliseconds(size["milliseconds"]), digits(size["pictures_per_second"])]
            row.append(NOTHING if peak is None else f"{peak:.0f}")
        rows.append(row)
    return Table(header, [rows], num_left=1)


def parts_table(results: dict[str, Any]) -> Table:
    """A row for each part and the whole, at each size."""
    is_partly_trained = any(
        counts["trained"] != counts["parameters"] for size in results["sizes"] for counts in size["parts"].values()
    )
    header = ["size", "part", "params, M", *(["trained, M"] * is_partly_trained), "FLOPs, G", "MACs, G"]
    groups = []
    for size in results["sizes"]:
        rows = []
        for part, counts in size["parts"].items():
            row = [size_name(size), part.replace("_", " "), millions(counts["parameters"])]
            row += [millions(counts["trained"])] * is_partly_trained
            rows.append([*row, billions(counts["flops"]), billions(counts["macs"])])
        groups.append(rows)
    return Table(header, groups, num_left=2)


def numbers_table(results: dict[str, Any]) -> Table:
    """A row for each size with every number, not rounded."""
    about = {name: results.get(name) for name in ("model", "fusion", "mask_head", "text_length", "num_expressions")}
    about |= results["measured"] or {}
    records: list[dict[str, Any]] = []
    for size in results["sizes"]:
        height, width = size["image_size"]
        record = {**about, "image_height": height, "image_width": width}
        record |= {f"ms_{name}": (size["milliseconds"] or {}).get(name) for name in QUARTILES}
        record |= {name: size[name] for name in ("pictures_per_second", "peak_mib")}
        for part in ("whole", *(part for part in size["parts"] if part != "whole")):
            record |= {f"{part}_{name}": count for name, count in size["parts"][part].items()}
        records.append(record)
    rows = [["" if value is None else str(value) for value in record.values()] for record in records]
    return Table(list(records[0]), [rows], num_left=1)


# --------------------------------------------------------------------------------------------------------------- words


def describe(results: dict[str, Any]) -> list[str]:
    """What was counted, and where time and memory were taken, in sentences."""
    about = [results["class"]]
    if "fusion" in results:
        about += [f"fusion {results['fusion']}", f"{results['mask_head']} head"]
    sentences = [f"{printable(results['model'])}: {', '.join(about)}; FLOPs of one picture"]
    if "text_length" in results:
        number = results["num_expressions"]
        words = "1 expression" if number == 1 else f"{number} expressions"
        sentences[0] += f" with {words} of {results['text_length']} tokens"
    measured = results["measured"]
    if measured:
        threads = f", {count(measured['threads'], 'thread')}" if measured["device"] == "cpu" else ""
        place = f"{DEVICES[measured['device']]} ({measured['device_name']}{threads})"
        passes, pictures = count(measured["num_runs"], "pass"), count(measured["batch_size"], "picture")
        sentences.append(
            f"Time: median [quartiles] of {passes} after {measured['num_warmup']}, batches of {pictures}, "
            f"{measured['dtype']}, on {place}, scan backend {measured['scan_backend']}, random weights"
        )
        memory = "PyTorch's allocator" if measured["device"] == "cuda" else "resident memory of a process"
        sentences.append(f"Memory: the peak, weights included ({memory})")
    versions = ", ".join(
        f"{package} {results['versions'][package]}" for package in ("remamber_hf", "torch", "transformers")
    )
    return [f"{sentence}." for sentence in [*sentences, versions]] + [COUNTED]


def count(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"


def size_name(size: dict[str, Any]) -> str:
    return "×".join(map(str, size["image_size"]))


def millions(number: int) -> str:
    return digits(number / 1e6)


def billions(number: int) -> str:
    return digits(number / 1e9)


def digits(number: float) -> str:
    """Two decimals, or three digits of what is less than one."""
    return f"{number:,.2f}" if number >= 1 else f"{number:#.3g}" if number else "0"


def milliseconds(quartiles: dict[str, float]) -> str:
    median = quartiles["median"]
    places = 0 if median >= 1000 else 1 if median >= 10 else 2
    first, middle, third = (f"{quartiles[name]:.{places}f}" for name in QUARTILES)
    return f"{middle} [{first}, {third}]"


# ------------------------------------------------------------------------------------------------------------- formats


def to_terminal(results: dict[str, Any]) -> str:
    console = make_console()
    with console.capture() as capture:
        for sentence in describe(results):
            console.print(Text(sentence))
        for table in (sizes_table(results), parts_table(results)):
            console.print("", draw(table))
    return capture.get()


def draw(table: Table) -> TerminalTable:
    drawn = TerminalTable()
    for column, title in enumerate(table.header):
        is_left = column < table.num_left
        drawn.add_column(title, justify="left" if is_left else "right", no_wrap=is_left, overflow="fold")
    for rows in table.groups:
        for row in rows:
            drawn.add_row(*map(Text, row))
        drawn.add_section()
    return drawn


def to_markdown(results: dict[str, Any]) -> str:
    tables = [write_markdown(table) for table in (sizes_table(results), parts_table(results))]
    return "\n".join([f"# {printable(results['model'])}\n", *(f"{line}\n" for line in describe(results)), *tables])


def to_latex(results: dict[str, Any]) -> str:
    tables = [write_latex(table) for table in (sizes_table(results), parts_table(results))]
    return "".join(f"% {sentence}\n" for sentence in describe(results)) + "\n".join(tables)


FORMATS: dict[str, Callable[[dict[str, Any]], str]] = {
    "table": to_terminal,
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": lambda results: write_csv(numbers_table(results)),
    "json": lambda results: json.dumps(results, indent=2) + "\n",
}
