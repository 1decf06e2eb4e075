# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is installed here, which scan backends can run, why others cannot, and which one `auto` takes."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..cpu_scan import load_library
from ..selective_scan import BACKENDS, ScanBackend, fastest_backend
from .devices import DEVICES, DTYPES


PACKAGES = ("remamber_hf", "torch", "transformers", "accelerate", "datasets", "mamba-ssm", "causal-conv1d", "kernels")
COMPILERS = ("c++", "g++", "clang++")
SCAN_DTYPES = {**DTYPES, "float64": torch.float64}
AUTO_CASES = [("cpu", "float32"), ("cpu", "bfloat16"), ("cpu", "float64"), ("cuda", "float32"), ("mps", "float32")]


def describe_environment() -> dict[str, Any]:
    """
    What a report of a bug should say, ready for JSON.

    Returns:
        "versions": package → version, or `None`; "machine": system, processor and so on; "devices": device type → its
        name, or `None` where there is none; "backends": name → "device" that it is for (`None` for any), "dtypes" and
        "why_not", which is empty where it can run; "auto": "device, dtype" → name of the backend.
    """
    devices: dict[str, str | None] = {"cpu": device_name(torch.device("cpu")), "cuda": None, "mps": None}
    if torch.cuda.is_available():
        devices["cuda"] = device_name(torch.device("cuda"))
    if torch.backends.mps.is_available():
        devices["mps"] = device_name(torch.device("mps"))
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
                "dtypes": [dtype for dtype in SCAN_DTYPES if backend.is_float64 or dtype != "float64"],
                "why_not": _why_not(backend, devices),
            }
            for name, backend in BACKENDS.items()
        },
        "auto": {f"{device}, {dtype}": fastest_backend(device, SCAN_DTYPES[dtype])[0] for device, dtype in AUTO_CASES},
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


def device_name(device: torch.device) -> str:
    """The name of a device that is here."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else "Apple GPU"


def _processor() -> str:
    """The processor's name; the standard library does not know it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
