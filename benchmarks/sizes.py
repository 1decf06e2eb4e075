# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of the base model against pixels on this CPU, beside transformers' CLIPSeg (rd64, ViT-B/16).

    python benchmarks/sizes.py                      writes benchmarks/sizes.json, .md and .png; half an hour
    python benchmarks/sizes.py --quick              tiny sizes, to see that it works; writes to build/bench-quick

Random weights, batch 1, float32, one expression of 20 tokens, both mask heads. Every point is a fresh process: memory
is the peak of its resident set during the first forward pass, less the weights and what the process took before they
were made; time is the median of the passes after it.
"""

import argparse
import concurrent.futures
import gc
import multiprocessing
from functools import partial
from pathlib import Path

import torch
from common import (
    MAX_ROUNDS,
    Bar,
    bar_table,
    describe,
    machine,
    output_dir,
    ratio,
    time_in_turns,
    write_report,
)
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from model import HEADS, MODEL_NAMES, QUICK_ROUNDS, QUICK_SIDE, SIDE, make_inputs, make_model

from remamber_hf import keep_freed_memory
from remamber_hf.inference.profiling import read_resident, reset_peak_resident


SIDES = (240, 480, 720, 960, 1200, 1440)
QUICK_SIDES = (64, 128)


def measure_sizes(sides: tuple[int, ...], threads: int, is_quick: bool) -> list[dict]:
    """Time and memory of every model at every size, each in a fresh process; those of a quick run share one."""
    points = [(kind, side, threads, is_quick) for side in sides for kind in MODEL_NAMES]
    results = []
    for group in [points] if is_quick else [[point] for point in points]:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            results += [pool.submit(measure_size, *point).result() for point in group]
    return results


@torch.no_grad()
def measure_size(kind: str, side: int, threads: int, is_quick: bool) -> dict:
    """Median time in ms of a forward pass, and the peak memory of the first one in GiB."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    options = {"interpolate_pos_encoding": True} if kind == "clipseg" else {}
    libraries = read_resident("VmRSS")
    model, inputs = make_model(kind, is_quick), make_inputs(side)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    gc.collect()
    reset_peak_resident()
    model(**inputs, **options)
    memory = None if libraries is None else (read_resident("VmHWM") - libraries - weights) / 2**30
    times = time_in_turns({"forward": partial(model, **inputs, **options)}, QUICK_ROUNDS if is_quick else MAX_ROUNDS)
    result = {"model": kind, "side": side, "milliseconds": times["forward"], "peak_gib": memory}
    print(result, flush=True)
    return result


def plot(points: list[dict], path: Path, about: str) -> None:
    """Draw time and memory against pixels, on logarithmic axes."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, field, scale, title in (
        (panels[0], "milliseconds", 1e-3, "Time of one forward pass (s)"),
        (panels[1], "peak_gib", 1, "Peak memory beyond the weights (GiB)"),
    ):
        for (kind, name), marker, colour in zip(MODEL_NAMES.items(), "os^", ("#0072B2", "#009E73", "#D55E00")):
            own = [point for point in points if point["model"] == kind and point[field] is not None]
            x, y = [point["side"] ** 2 for point in own], [scale * point[field] for point in own]
            axes.plot(x, y, marker=marker, color=colour, label=name)
            axes.plot(x, [y[0] * pixels / x[0] for pixels in x], ":", color="black", lw=1, zorder=3)
        sides = sorted({point["side"] for point in points})
        axes.set(xscale="log", yscale="log", title=title, xlabel="picture (pixels)")
        axes.set_xticks([side**2 for side in sides], [f"{side}²" for side in sides])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.25)
        axes.plot([], [], ":", color="black", lw=1, label="linear in pixels")
        axes.legend()
    figure.suptitle(about, fontsize=9)
    figure.savefig(path, dpi=130)


def find_bars(report: dict) -> list[Bar]:
    points = {(point["model"], point["side"]): point for point in report["sizes"]}
    side = QUICK_SIDE if report["is_quick"] else SIDE
    bars = [
        Bar(
            f"{MODEL_NAMES[head]}, peak memory at {side}² beyond the weights",
            2.5,
            points[head, side]["peak_gib"],
            False,
            " GiB",
        )
        for head in HEADS
        if (head, side) in points
    ]
    for head in HEADS:
        for small in report["sides"]:
            if (head, 2 * small) in points:
                growth = ratio(points[head, 2 * small]["milliseconds"], points[head, small]["milliseconds"])
                bars.append(Bar(f"{MODEL_NAMES[head]}, time from {small}² to {2 * small}²", 4.4, growth, False))
    return bars


def markdown(report: dict) -> list[str]:
    lines = ["# Time and memory against pixels", "", *describe(report["machine"], report["is_quick"])]
    lines += [
        "Random weights, batch 1, float32, medians of wall time. `sizes.py` says what is compared.",
        "",
        *bar_table(report["bars"], report["threads"]),
    ]
    lines += ["", "![time and memory against pixels](sizes.png)", ""]
    return lines + size_table(report["sizes"], report["sides"])


def size_table(points: list[dict], sides: list[int]) -> list[str]:
    lines = ["| | " + " | ".join(f"{side}²" for side in sides) + " |", "|---" * (len(sides) + 1) + "|"]
    for kind, name in MODEL_NAMES.items():
        own = [point for point in points if point["model"] == kind]
        lines.append(f"| {name}, s | " + " | ".join(f"{point['milliseconds'] / 1000:.2f}" for point in own) + " |")
        cells = ("–" if point["peak_gib"] is None else f"{point['peak_gib']:.2f}" for point in own)
        lines.append(f"| {name}, GiB | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: only to see that the script works")
    parser.add_argument("--output_dir", type=Path)
    arguments = parser.parse_args()
    sides = QUICK_SIDES if arguments.quick else arguments.sides
    report = {
        "machine": machine(),
        "is_quick": arguments.quick,
        "threads": arguments.threads,
        "sides": sides,
        "sizes": measure_sizes(sides, arguments.threads, arguments.quick),
    }
    report["bars"] = find_bars(report)
    about = report["machine"]
    about_plot = (
        f"{about['processor']}, {arguments.threads} thread(s), batch 1, float32, "
        f"torch {about['versions']['torch']}, transformers {about['versions']['transformers']}, {about['date']}"
    )
    folder = output_dir(arguments.output_dir, arguments.quick)
    folder.mkdir(parents=True, exist_ok=True)
    plot(report["sizes"], folder / "sizes.png", about_plot)
    write_report(folder, "sizes", report, markdown(report))


if __name__ == "__main__":
    main()
