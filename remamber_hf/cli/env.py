# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber env`: the facts of `inference/environment.py`, as tables or JSON."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..inference.devices import DEVICES
from ..inference.environment import describe_environment
from .options import make_console


def env(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, as for a report of a bug.")] = False,
) -> None:
    """Show versions, the scan backends that can run here, how to get the others, and what `auto` takes."""
    environment = describe_environment()
    if as_json:
        print(json.dumps(environment, indent=2))
        return
    console = make_console()
    for table in (_facts_table(environment), _backends_table(environment), _auto_table(environment)):
        console.print(table, "")
    for name, backend in environment["backends"].items():
        if backend["why_not"]:  # outside the table, whose cells are no lines to copy a command from
            console.print(Text(f"{name} cannot run: {backend['why_not']}", style="yellow"), soft_wrap=True)


def _facts_table(environment: dict[str, Any]) -> Table:
    machine, devices = environment["machine"], environment["devices"]
    table = Table(title="Installed", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for package, number in environment["versions"].items():
        table.add_row(package, number or "not installed")
    table.add_section()
    table.add_row("system", machine["system"])
    table.add_row("processor", f"{devices['cpu']}, {machine['cores']} cores")
    table.add_row("vector instructions", machine["vector_instructions"])
    table.add_row("threads", f"{machine['threads']} (torch.set_num_threads, OMP_NUM_THREADS)")
    table.add_row("C++ compiler", machine["compiler"] or "none found (Debian and Ubuntu: apt install g++)")
    for device in ("cuda", "mps"):
        table.add_row(f"{DEVICES[device]} device", devices[device] or "none")
    return table


def _backends_table(environment: dict[str, Any]) -> Table:
    table = Table(title="Scan backends", title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("runs on", no_wrap=True)
    table.add_column("types")
    table.add_column("here")
    library = environment["machine"]["scan_library"]
    for name, backend in environment["backends"].items():
        runs_on = DEVICES.get(backend["device"], "any device")
        here = Text("no", style="yellow") if backend["why_not"] else Text("yes", style="green")
        if name == "cpu" and library:
            here.append(f", {library}")
        table.add_row(name, runs_on, ", ".join(backend["dtypes"]), here)
    return table


def _auto_table(environment: dict[str, Any]) -> Table:
    table = Table(title="What auto takes", title_justify="left")
    for header in ("device", "type", "backend"):
        table.add_column(header)
    for case, name in environment["auto"].items():
        device, dtype = case.split(", ")
        is_here = environment["devices"][device]
        table.add_row(DEVICES[device], dtype, name if is_here else f"{name} (no such device here)")
    return table
