# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Command: what is installed here, which scan backends can run, why others cannot, and which one `auto` takes."""

import json
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cpu_scan import load_library
from .selective_scan import BACKENDS, ScanBackend, fastest_backend


PACKAGES = ("remamber_hf", "torch", "transformers", "accelerate", "datasets", "mamba-ssm", "kernels")
COMPILERS = ("c++", "g++", "clang++")
DEVICES = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
AUTO_CASES = [("cpu", "float32"), ("cpu", "bfloat16"), ("cpu", "float64"), ("cuda", "float32"), ("mps", "float32")]
MIN_WIDTH = 100  # columns of a table that goes to a file


def describe_environment() -> dict[str, Any]:
    """
    What a report of a bug should say, ready for JSON.

    Returns:
        "versions": package → version, or `None`; "machine": system, processor and so on; "devices": device type → its
        name, or `None` where there is none; "backends": name → "device" that it is for (`None` for any), "dtypes" and
        "why_not", which is empty where it can run; "auto": "device, dtype" → name of the backend.
    """
    devices = {"cpu": _processor(), "cuda": None, "mps": None}
    if torch.cuda.is_available():
        devices["cuda"] = torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    library, library_name = load_library()
    return {
        "versions": {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}},
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
            "scan_library": library_name if library else None,
            "compiler": next(filter(None, map(shutil.which, COMPILERS)), None),
        },
        "devices": devices,
        "backends": {
            name: {
                "device": backend.device_type,
                "dtypes": [dtype for dtype in DTYPES if backend.is_float64 or dtype != "float64"],
                "why_not": _why_not(backend, devices),
            }
            for name, backend in BACKENDS.items()
        },
        "auto": {f"{device}, {dtype}": fastest_backend(device, DTYPES[dtype])[0] for device, dtype in AUTO_CASES},
    }


def _why_not(backend: ScanBackend, devices: dict[str, str | None]) -> str:
    device_type = backend.device_type or "cpu"
    reasons = [] if devices[device_type] else [f"PyTorch finds no {DEVICES[device_type]} device here"]
    return "; ".join(filter(None, [*reasons, backend.why_not(torch.device(device_type))]))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name; the standard library does not know it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def env(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for a report of a bug.")] = False,
) -> None:
    """Show versions, the scan backends that can run here, how to get the others, and what `auto` takes."""
    environment = describe_environment()
    if as_json:
        print(json.dumps(environment, indent=2))
        return
    console = Console()
    console.width = console.width if console.is_terminal else max(console.width, MIN_WIDTH)
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
