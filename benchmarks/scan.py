# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time the scan and SS2D's core on this CPU: our backends, other packages' scans, and the bound that hardware sets.

    python benchmarks/scan.py                       writes scan.json, scan.md, scan_vim.json, scan_vim.md in benchmarks
    python benchmarks/scan.py --operations core --state_sizes 1 --threads 2      what the bars ask for, 6 minutes
    python benchmarks/scan.py --operations vim      only scan_vim.json and scan_vim.md
    python benchmarks/scan.py --quick               tiny sizes, to see that it works; writes to build/bench-quick

The shapes are those of ReMamber-base at 480×480, batch 1: the four stages and the channel scan of the Twister; and
those of Vision Mamba (Vim, arXiv 2401.09417), batch 1.

- "scan" is `selective_scan` on sequences of K·channels, with one group: transformers and mambapy know no more.
- "core" is `cross_selective_scan`: map in, map out, x_proj included. The rivals run it in the published layout, on a
  channels-first map. transformers and mambapy scan one direction after the other.
- "vim" is `selective_scan` as Vim calls it: N = 16, and 2·E channels in two groups, one per direction. transformers
  and mambapy scan one group after the other.

All versions take turns in one run and every figure is a median of wall time. First the outputs, and the gradients of
all inputs, are compared with the reference's: one that differs gets no figure. The plain loops' backward pass is
quadratic in the length (the gradient of every slice is a tensor of full size). They are therefore timed forward and
backward on a map cut to 15×15 pixels, for Vim on sequences that are no longer than that, together with all others;
nothing is extrapolated. On what is larger gradients are compared with those of blocked PyTorch, which the same run has
compared with the reference on the smaller ones.

The bound is the larger of two times, both measured in the same run: the tensors that must be read or written once,
at the speed of adding two large arrays; and the exp and softplus that must be taken, at the speed of the kernel's own
functions on data in the first-level cache. Forward and backward take them twice, for no version that saves memory
keeps them.
"""

import argparse
import concurrent.futures
import ctypes
import shlex
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from common import (
    HERE,
    MAX_ROUNDS,
    Bar,
    bar_table,
    describe,
    largest_difference,
    machine,
    output_dir,
    ratio,
    time_in_turns,
    write_report,
)
from rivals import cross_selective_scan_channels_first, plain_recurrence, rival_scans

from remamber_hf import cpu_scan, keep_freed_memory
from remamber_hf.selective_scan import BACKENDS, Direction, cross_selective_scan, selective_scan


TOLERANCE = 1e-4  # of the largest value
QUADRATIC = ("reference", "plain recurrence", "transformers")  # backward
NAMES = {"cpu": "C++", "torch": "blocked PyTorch"}
FORWARD, BOTH = "forward", "forward + backward"
NUM_DIRECTIONS = len(Direction)
FLAGS = {  # of the libraries, as setup.py has them
    "_scan_baseline": [],
    "_scan_avx2": ["-mavx2", "-mfma"],
    "_scan_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}


@dataclass(frozen=True)
class Shape:
    name: str
    height: int
    width: int
    channels: int
    rank: int
    num_scans: int = NUM_DIRECTIONS  # of the channels
    groups: int = 1  # of "scan" and "vim": scans with B and C of their own

    @property
    def length(self) -> int:
        return self.height * self.width

    def cut(self, side: int) -> "Shape":
        """At most `side`² pixels; the channel scan's map of height 1 stays one."""
        if self.length <= side**2:
            return self
        height, width = (side, side) if self.height > 1 else (1, side**2)
        return replace(self, name=f"{self.name}, cut to {height}×{width}", height=height, width=width)


SHAPES = [
    Shape("stage 1", 120, 120, 256, 8),
    Shape("stage 2", 60, 60, 512, 16),
    Shape("stage 3", 30, 30, 1024, 32),
    Shape("stage 4", 15, 15, 2048, 64),
    Shape("channel scan, stage 1", 1, 384, 512, 16),
    Shape("channel scan, stage 4", 1, 3072, 512, 16),
]
VIM_SHAPES = [  # E × length
    Shape(f"{channels} × {length}", 1, length, channels, channels // 16, num_scans=2, groups=2)
    for channels, length in ((384, 197), (384, 730), (384, 1024), (768, 197))
]
VIM_STATE_SIZE = 16
CUT_SIDE = 15
QUICK_SHAPES = [Shape("stage 1", 6, 5, 16, 2), Shape("channel scan, stage 1", 1, 30, 16, 2)]
QUICK_VIM_SHAPES = [Shape(f"16 × {length}", 1, length, 16, 1, num_scans=2, groups=2) for length in (12, 40)]
QUICK_CUT_SIDE = 4
QUICK_ROUNDS = 1
BOUND_ROUNDS = 25  # the fastest counts: what else runs on the machine makes a bound no lower
REPORTS = {"scan": ("core", "scan"), "scan_vim": ("vim",)}  # which operations stand in which file
OPERATIONS = [operation for operations in REPORTS.values() for operation in operations]


# ---------------------------------------------------------------------------------------------------------- versions


def scan_inputs(shape: Shape, state_size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Arguments of `selective_scan`, with time steps and decays as at initialisation: around 0.01 and −1."""
    normal = partial(torch.randn, generator=generator)
    channels = shape.num_scans * shape.channels
    return {
        "u": normal(1, channels, shape.length),
        "delta": normal(1, channels, shape.length) / 2,
        "A": -torch.exp(0.3 * normal(channels, state_size)),
        "B": normal(1, shape.groups, state_size, shape.length),
        "C": normal(1, shape.groups, state_size, shape.length),
        "D": torch.ones(channels),
        "delta_bias": normal(channels) - 4.5,
    }


def core_inputs(shape: Shape, state_size: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Arguments of `cross_selective_scan`, the same way."""
    normal = partial(torch.randn, generator=generator)
    channels, rank = shape.channels, shape.rank
    return {
        "x": normal(1, shape.height, shape.width, channels),
        "x_proj_weight": normal(NUM_DIRECTIONS, rank + 2 * state_size, channels) / channels**0.5,
        "dt_proj_weight": normal(NUM_DIRECTIONS, channels, rank) / (3 * rank) ** 0.5,
        "dt_proj_bias": normal(NUM_DIRECTIONS, channels) - 4.5,
        "A_log": 0.3 * normal(NUM_DIRECTIONS * channels, state_size),
        "D": torch.ones(NUM_DIRECTIONS * channels),
    }


def run(function: Callable, inputs: dict[str, torch.Tensor], with_backward: bool) -> list[torch.Tensor]:
    """The output and, if asked for, the gradients of all inputs."""
    with torch.set_grad_enabled(with_backward):
        y = function(**inputs)
    if not with_backward:
        return [y]
    return [y.detach(), *torch.autograd.grad(y, list(inputs.values()), torch.ones_like(y))]


def run_channels_first(function: Callable, inputs: dict[str, torch.Tensor], with_backward: bool) -> list[torch.Tensor]:
    """`run` on a channels-first map; what comes back is viewed channels-last."""
    y, *gradients = run(function, inputs, with_backward)
    return [y.permute(0, 2, 3, 1), *(tensor.permute(0, 2, 3, 1) for tensor in gradients[:1]), *gradients[1:]]


def versions(operation: str, shape: Shape, state_size: int, with_backward: bool) -> dict[str, Callable]:
    """Every version of an operation as a function without arguments, all on equal inputs."""
    make_inputs = core_inputs if operation == "core" else scan_inputs
    inputs = make_inputs(shape, state_size, torch.Generator().manual_seed(0))
    inputs = {name: tensor.requires_grad_(with_backward) for name, tensor in inputs.items()}
    backends = [name for name, backend in BACKENDS.items() if not backend.why_not(torch.device("cpu"))]
    if operation != "core":
        scans = {name: partial(selective_scan, backend=name) for name in backends} | rival_scans()
        return {
            name: partial(run, partial(scan, delta_softplus=True), inputs, with_backward)
            for name, scan in scans.items()
        }
    cores = {
        name: partial(run, partial(cross_selective_scan, backend=name), inputs, with_backward) for name in backends
    }
    x = inputs["x"].detach().permute(0, 3, 1, 2).contiguous().requires_grad_(with_backward)
    for name, scan in rival_scans().items():
        core = partial(cross_selective_scan_channels_first, scan)
        cores[name] = partial(run_channels_first, core, {**inputs, "x": x}, with_backward)
    return cores


# --------------------------------------------------------------------------------------------------------- the bound


def measure_bandwidth(num_values: int) -> float:
    """Bytes per second of adding two arrays into a third."""
    a, b, c = torch.ones(3, num_values)
    return 3 * a.nbytes / min(_seconds(lambda: torch.add(a, b, out=c)) for _ in range(BOUND_ROUNDS))


def measure_functions(rounds: int) -> dict[str, float] | None:
    """
    Values per second of the kernel's exp and softplus, on as many threads as torch has, or `None` without a compiler.
    """
    compiler = shlex.split(sysconfig.get_config_var("CXX") or "c++")
    flags = ["-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", *FLAGS[cpu_scan.load_library()[1]]]
    threads, size = torch.get_num_threads(), 1024
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "exp_throughput.so")
        try:
            subprocess.run([*compiler, *flags, str(HERE / "exp_throughput.cpp"), "-o", path], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"The bound is not measured, for its C++ file does not compile: {error}")
            return None
        library = ctypes.CDLL(path)
    buffers = [torch.linspace(-6, 0, 2 * size) for _ in range(threads)]
    speeds = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for name in ("exp", "softplus"):
            function = partial(_call, getattr(library, f"time_{name}"), size, rounds)
            seconds = min(_seconds(lambda: list(pool.map(function, buffers))) for _ in range(BOUND_ROUNDS))  # noqa: B023
            speeds[name] = threads * size * rounds / seconds
    return speeds


def _call(entry, size: int, rounds: int, buffer: torch.Tensor) -> None:
    entry(ctypes.c_void_p(buffer.data_ptr()), ctypes.c_int64(size), ctypes.c_int64(rounds))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bound(operation: str, shape: Shape, state_size: int, with_backward: bool, speeds: dict) -> dict[str, float]:
    """Times in ms below which no version can come: for memory and for exp and softplus."""
    scanned = shape.num_scans * shape.channels * shape.length
    if operation == "core":
        read = written = shape.channels * shape.length
    else:
        read, written = 2 * scanned + 2 * shape.groups * state_size * shape.length, scanned
    # Backward reads the inputs again and the gradient of the output, and writes the gradients of the inputs.
    moved = read + written + (2 * read + written if with_backward else 0)
    times = 2 if with_backward else 1
    functions = scanned * times * (1 / speeds["softplus"] + state_size / speeds["exp"])
    return {"memory": 1e3 * 4 * moved / speeds["bytes"], "exp and softplus": 1e3 * functions}


# ----------------------------------------------------------------------------------------------------------- the run


def compare(
    operation: str, shape: Shape, state_size: int, which: str, with_loops: bool, speeds: dict | None, rounds: int
) -> dict:
    """Check, then time, all versions at one shape."""
    functions = versions(operation, shape, state_size, which == BOTH)
    if not with_loops:
        functions = {name: function for name, function in functions.items() if name not in QUADRATIC}
    expected = functions["reference" if with_loops else "torch"]()
    differences = {name: largest_difference(function(), expected) for name, function in functions.items()}
    correct = {name: functions[name] for name, difference in differences.items() if difference <= TOLERANCE}
    return {
        "operation": operation,
        "shape": shape.name,
        "size": [shape.height, shape.width, shape.channels, shape.rank],
        "states": state_size,
        "pass": which,
        "differences": differences,
        "milliseconds": time_in_turns(correct, rounds),
        "bound": speeds and bound(operation, shape, state_size, which == BOTH, speeds),
    }


def cases_of(operation: str, is_quick: bool) -> Iterator[tuple[Shape, str, bool]]:
    """Shapes, passes, and whether the plain loops take part."""
    cut_side = QUICK_CUT_SIDE if is_quick else CUT_SIDE
    if operation == "vim":
        for shape in QUICK_VIM_SHAPES if is_quick else VIM_SHAPES:
            yield shape, FORWARD, True
            yield shape, BOTH, shape.cut(cut_side) == shape
        return
    for shape in QUICK_SHAPES if is_quick else SHAPES:
        cut = shape.cut(cut_side)
        yield shape, FORWARD, True
        yield cut, BOTH, True
        if cut != shape:
            yield shape, BOTH, False


def measure(threads: int, operations: list[str], state_sizes: list[int], is_quick: bool) -> dict:
    """All rows for one number of threads."""
    rounds = QUICK_ROUNDS if is_quick else MAX_ROUNDS
    torch.set_num_threads(threads)
    speeds = measure_functions(100 if is_quick else 20000)
    if speeds is not None:
        speeds["bytes"] = measure_bandwidth(2**16 if is_quick else 2**26)
    rows = []
    for operation in operations:
        for state_size in [VIM_STATE_SIZE] if operation == "vim" else state_sizes:
            for shape, which, with_loops in cases_of(operation, is_quick):
                rows.append(compare(operation, shape, state_size, which, with_loops, speeds, rounds))
                print(f"{threads} thread(s), {operation}, N = {state_size}, {shape.name}, {which}", flush=True)
    return {"threads": threads, "per_second": speeds, "rows": rows}


def find_bars(name: str, run: dict) -> list[Bar]:
    def milliseconds(version: str, which: str, operation: str, shape: str, states: int) -> float | None:
        wanted = (operation, shape, states, which)
        rows = [row for row in run["rows"] if (row["operation"], row["shape"], row["states"], row["pass"]) == wanted]
        if not rows:
            return None
        if version == "bound":
            return rows[0]["bound"] and max(rows[0]["bound"].values())
        return rows[0]["milliseconds"].get(version)

    def quotient(of: str, by: str, which: str, *where) -> float | None:
        return ratio(milliseconds(of, which, *where), milliseconds(by, which, *where))

    if name == "scan_vim":
        return [
            Bar(
                f"Vim scan, N = {VIM_STATE_SIZE}, {shape}, {which}: time over the bound",
                3,
                quotient("cpu", "bound", which, "vim", shape, VIM_STATE_SIZE),
                is_minimum=False,
            )
            for shape in ("384 × 197", "384 × 1024")
            for which in (FORWARD, BOTH)
        ]
    core = ("core", "stage 1", 1)
    return [
        Bar(
            "core forward, stage 1: over the plain recurrence", 25, quotient("plain recurrence", "cpu", FORWARD, *core)
        ),
        Bar("core forward, stage 1: over mambapy", 8, quotient("mambapy", "cpu", FORWARD, *core)),
        Bar("core forward + backward, stage 1: over mambapy", 10, quotient("mambapy", "cpu", BOTH, *core)),
        Bar(
            "core forward, stage 1: time over the bound",
            3,
            quotient("cpu", "bound", FORWARD, *core),
            is_minimum=False,
        ),
    ]


def markdown(name: str, report: dict) -> list[str]:
    lines = [
        "# Scan and core" if name == "scan" else "# Vision Mamba's scan",
        "",
        *describe(report["machine"], report["is_quick"]),
    ]
    lines += [
        "Medians of wall time in ms, batch 1, float32; in brackets how much longer than the C++ kernel. The last "
        "column is the bound (m: memory, e: exp and softplus) and how much longer than it the C++ kernel takes. "
        f"`scan.py` says what is compared. Plain recurrence: {report['plain_recurrence']}.",
        "",
        *bar_table(report["bars"], report["runs"][-1]["threads"]),
    ]
    for run in report["runs"]:
        lines += ["", f"## {run['threads']} thread(s)"]
        if run["per_second"]:
            speeds = {name: value / 1e9 for name, value in run["per_second"].items()}
            lines += [
                "",
                f"Measured for the bound: {speeds['bytes']:.1f} GB/s, {speeds['exp']:.2f} · 10⁹ exp/s, "
                f"{speeds['softplus']:.2f} · 10⁹ softplus/s.",
            ]
        for operation in REPORTS[name]:
            for states in sorted({row["states"] for row in run["rows"]}):
                rows = [row for row in run["rows"] if (row["operation"], row["states"]) == (operation, states)]
                if rows:
                    lines += ["", f"### {operation}, N = {states}", "", *table(rows)]
    return lines


def table(rows: list[dict]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row["differences"]))
    columns.sort(key=lambda name: name != "cpu")
    lines = [
        " | ".join(["| shape", "pass", *(NAMES.get(name, name) for name in columns), "bound |"]),
        "|---" * (len(columns) + 3) + "|",
    ]
    for row in rows:
        times = row["milliseconds"]
        cells = [cell(times, row["differences"], name) for name in columns]
        lines.append(" | ".join([f"| {row['shape']}", row["pass"], *cells, f"{bound_cell(row)} |"]))
    return lines


def cell(times: dict[str, float], differences: dict[str, float], name: str) -> str:
    if name not in differences:
        return "–"
    if name not in times:
        return "wrong"
    factor = f" ({times[name] / times['cpu']:.1f}×)" if name != "cpu" and "cpu" in times else ""
    return f"{times[name]:.3g}{factor}" if times[name] < 1000 else f"{times[name]:.0f}{factor}"


def bound_cell(row: dict) -> str:
    if row["bound"] is None:
        return "–"
    name = max(row["bound"], key=row["bound"].get)
    over = ratio(row["milliseconds"].get("cpu"), row["bound"][name])
    return f"{row['bound'][name]:.3g} {name[0]}" + ("" if over is None else f" ({over:.1f}×)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    parser.add_argument(
        "--state_sizes", type=int, nargs="+", default=[1, 16], help="over 1: with the last threads; not of vim"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    library, reason = cpu_scan.load_library()
    if library is None:
        raise SystemExit(f"There is no C++ kernel to time: {reason}")
    keep_freed_memory()  # or what a rival frees is taken from the system again, page by page, by whoever comes next
    for name, all_operations in REPORTS.items():
        operations = [operation for operation in all_operations if operation in arguments.operations]
        if not operations:
            continue
        report = {
            "machine": machine("mambapy"),
            "plain_recurrence": plain_recurrence()[1],
            "is_quick": arguments.quick,
            "runs": [
                measure(
                    threads,
                    operations,
                    arguments.state_sizes if threads == arguments.threads[-1] else [1],
                    arguments.quick,
                )
                for threads in arguments.threads
            ],
        }
        report["bars"] = find_bars(name, report["runs"][-1])
        write_report(output_dir(arguments.output_dir, arguments.quick), name, report, markdown(name, report))


if __name__ == "__main__":
    main()
