# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: turns, checks, the machine's description, tables, files."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from statistics import median

import torch

from remamber_hf import cpu_scan


HERE = Path(__file__).parent
MIN_ROUNDS = 3
MAX_ROUNDS = 9
SECONDS_PER_FUNCTION = 3.0  # after MIN_ROUNDS, a function that has taken so long leaves the turns


def time_in_turns(functions: dict[str, Callable[[], object]], max_rounds: int = MAX_ROUNDS) -> dict[str, float]:
    """Median wall time in ms of each function. They take turns, so that a change of the machine's load hits all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for done in range(max_rounds):
        for name, function in functions.items():
            if done >= MIN_ROUNDS and sum(times[name]) > SECONDS_PER_FUNCTION:
                continue
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * median(values) for name, values in times.items()}


def largest_difference(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest difference of two lists of tensors, as a share of the largest value of each tensor."""
    pairs = zip(actual, expected, strict=True)
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in pairs)


# ----------------------------------------------------------------------------------------------------------- reports


@dataclass
class Bar:
    """A figure that was set as a goal. `reached` is None where a version failed its check or was not there."""

    name: str
    asked: float
    reached: float | None
    is_minimum: bool = True
    unit: str = "×"

    @property
    def is_met(self) -> bool:
        if self.reached is None:
            return False
        return self.reached >= self.asked if self.is_minimum else self.reached <= self.asked


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or denominator is None else numerator / denominator


def bar_table(bars: list[Bar], threads: int) -> list[str]:
    lines = [f"| goal, {threads} thread(s) | asked | reached | |", "|---|---|---|---|"]
    for bar in bars:
        asked = f"{'≥' if bar.is_minimum else '≤'} {bar.asked:g}{bar.unit}"
        reached = "not measured" if bar.reached is None else f"{bar.reached:.3g}{bar.unit}"
        lines.append(f"| {bar.name} | {asked} | {reached} | {'met' if bar.is_met else 'MISSED'} |")
    return lines


def machine(*packages: str) -> dict:
    """Processor, C++ library, date, load, and the versions of the installed `packages`."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version()}
    for package in ("torch", "transformers", *packages):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "library": cpu_scan.load_library()[1],
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": versions,
        "date": date.today().isoformat(),
    }


def describe(about: dict, is_quick: bool) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['date']}, {about['processor']}, {about['cores']} cores, {about['vectors']}, {about['library']}, "
        f"load {about['load_at_start']} at the start; {versions}.",
        "",
    ]
    if is_quick:
        lines += ["**A quick run on tiny sizes, to see that the script works: its figures mean nothing.**", ""]
    return lines


def write_report(folder: Path, name: str, report: dict, markdown: list[str]) -> None:
    """Write `name`.json and `name`.md into `folder`, and print the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(markdown) + "\n"
    encoded = json.dumps(report, indent=1, ensure_ascii=False, default=asdict)
    (folder / f"{name}.json").write_text(encoded + "\n")
    (folder / f"{name}.md").write_text(text)
    print(text)


def output_dir(folder: Path | None, is_quick: bool) -> Path:
    """`folder`, or where results belong: beside the scripts, those of a quick run out of sight."""
    return folder or (HERE.parent / "build" / "bench-quick" if is_quick else HERE)
