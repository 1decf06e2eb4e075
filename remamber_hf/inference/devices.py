# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Where a model computes and in which numbers: the one table of devices and of types, by the names that users give."""

import torch


DEVICES = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS"}  # type of a device → its title
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_device(device: str | torch.device) -> torch.device:
    """
    The device that is meant.

    Args:
        device: "auto" (a GPU if there is one), a type of `DEVICES`, or one of several, as "cuda:1".

    Raises:
        ValueError: if it is unknown or not on this machine.
    """
    numbers = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if numbers[name]))
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in DEVICES:
        raise ValueError(f"the device {str(device)!r} is unknown; use one of auto, {', '.join(DEVICES)}.")
    if (found.index or 0) >= numbers[found.type]:
        raise ValueError(f"the device {str(device)!r} is not available on this machine; use auto.")
    return found


def find_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """The type that is meant: "auto", a name of `DTYPES` or such a type; ValueError if it is another."""
    if dtype == "auto" or dtype in DTYPES.values():
        return dtype
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"the dtype {str(dtype)!r} is unknown; use one of auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def peak_gpu_memory(device: torch.device) -> int | None:
    """MiB of a CUDA device that tensors of this process took at most, so far; None for another device."""
    return round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else None
