# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""How this process takes memory for tensors on a CPU."""

import ctypes
import sys


# Parameters of glibc's mallopt, from its malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
TOP_PAD_BYTES = 64 * 2**20  # what is asked of the system at least, each time


def keep_freed_memory() -> bool:
    """
    Have this process keep the memory that it frees, for the next tensor, until it ends.

    Left to itself the allocator gives large blocks back to the system, which hands them out anew page by page, zeroed:
    up to a quarter of the base model's time on a CPU at 480×480 (docs/backends.md). It holds for all that runs in the
    process and cannot be taken back. The command `remamber` does it; your own program may, once, at its start.

    Returns:
        whether the allocator took it: glibc's does, the usual one of Linux.
    """
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: TOP_PAD_BYTES}
    return all(libc.mallopt(name, value) == 1 for name, value in settings.items())
