"""Time the backends of `cross_selective_scan` on this CPU, forward and forward + backward, at the base model's shapes.

    python benchmarks/scan.py                       writes benchmarks/scan.json and benchmarks/scan.md

The shapes are those of ReMamber-base at 480×480, batch 1, N = 1: the four stages and the channel scan of the Twister.
The backends take turns in one run and every figure is a median of wall time. First the outputs of each, and the
gradients of all inputs, are compared with blocked PyTorch's, which the tests compare with the reference: one that
differs gets no figure. The reference, whose backward pass is quadratic in the length, is timed forward only.
"""

import argparse
import json
import os
import platform
import time
from datetime import date
from pathlib import Path
from statistics import median

import torch

from remamber_hf import cpu_scan
from remamber_hf.selective_scan import BACKENDS, Direction


# (name, height, width, channels, time-step rank)
SHAPES = [
    ("stage 1", 120, 120, 256, 8),
    ("stage 2", 60, 60, 512, 16),
    ("stage 3", 30, 30, 1024, 32),
    ("stage 4", 15, 15, 2048, 64),
    ("channel scan, stage 1", 1, 384, 512, 16),
    ("channel scan, stage 4", 1, 3072, 512, 16),
]
TOLERANCE = 2e-5  # of the largest value, as in the tests


def make_inputs(height: int, width: int, channels: int, rank: int) -> dict[str, torch.Tensor]:
    """Arguments of a backend, with time steps and decays as at initialisation: steps around 0.01, A around −1."""
    generator = torch.Generator().manual_seed(0)
    num_directions = len(Direction)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    inputs = {
        "x": normal(1, height, width, channels),
        "projections": normal(1, height, width, num_directions, rank + 2),
        "dt_proj_weight": normal(num_directions, channels, rank) / (3 * rank) ** 0.5,
        "dt_proj_bias": normal(num_directions, channels) - 4.5,
        "A": -torch.exp(0.3 * normal(num_directions * channels, 1)),
        "D": torch.ones(num_directions * channels),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def run_forward(backend: str, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [BACKENDS[backend].cross_selective_scan(**inputs, directions=tuple(Direction))]


def run_forward_and_backward(backend: str, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    y = BACKENDS[backend].cross_selective_scan(**inputs, directions=tuple(Direction))
    return [y.detach(), *torch.autograd.grad(y, list(inputs.values()), torch.ones_like(y))]


def largest_difference(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest difference of two lists of tensors, as a share of the largest value of each tensor."""
    pairs = zip(actual, expected, strict=True)
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in pairs)


def time_in_turns(run, backends: list[str], inputs: dict[str, torch.Tensor], repeats: int) -> dict[str, float]:
    """Median wall time of each backend, in ms."""
    times = {backend: [] for backend in backends}
    for _ in range(repeats):
        for backend in backends:
            start = time.perf_counter()
            run(backend, inputs)
            times[backend].append(1e3 * (time.perf_counter() - start))
    return {backend: median(values) for backend, values in times.items()}


def compare(name: str, size: tuple[int, ...], repeats: int, with_reference: bool) -> list[dict]:
    """One row for forward and one for forward + backward."""
    inputs = make_inputs(*size)
    rows = []
    for run in (run_forward, run_forward_and_backward):
        backends = ["cpu", "torch"]
        if with_reference and run is run_forward:
            backends.append("reference")
        expected = run("torch", inputs)
        differences = {backend: largest_difference(run(backend, inputs), expected) for backend in backends}
        correct = [backend for backend in backends if differences[backend] <= TOLERANCE]
        rows.append(
            {
                "shape": name,
                "size": size,
                "pass": "forward" if run is run_forward else "forward + backward",
                "differences": differences,
                "milliseconds": time_in_turns(run, correct, inputs, repeats),
            }
        )
    return rows


def machine() -> dict[str, str | int | float]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "library": cpu_scan.load_library()[1],
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def markdown(report: dict) -> str:
    about = report["machine"]
    lines = [
        f"Cross-selective-scan on {about['processor']}, {about['threads']} thread(s), {about['library']}, "
        f"torch {about['torch']}, {about['date']}, load {about['load_at_start']} at the start.",
        "Medians of wall time in ms; the factor is how much longer than the C++ kernel.",
        "",
        "| shape | pass | C++ | blocked PyTorch | reference |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        times = row["milliseconds"]
        cells = [f"{times['cpu']:.1f}" if "cpu" in times else "wrong"]
        for backend in ("torch", "reference"):
            if "cpu" in times and backend in times:
                cells.append(f"{times[backend]:.1f} ({times[backend] / times['cpu']:.1f}×)")
            else:
                cells.append("wrong" if backend in row["differences"] else "–")
        lines.append(" | ".join([f"| {row['shape']}", row["pass"], *cells]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--reference", action="store_true", help="time the plain recurrence as well, which takes long")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "scan", help="path without suffix")
    arguments = parser.parse_args()
    library, reason = cpu_scan.load_library()
    if library is None:
        raise SystemExit(f"There is no C++ kernel to time: {reason}")
    torch.set_num_threads(arguments.threads)
    report = {"machine": machine(), "rows": []}
    for name, *size in SHAPES:
        report["rows"] += compare(name, tuple(size), arguments.repeats, arguments.reference)
        print(json.dumps(report["rows"][-2:]), flush=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    arguments.output.with_suffix(".md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
