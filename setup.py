# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Builds the C++ kernel of the scan; everything else about the package stands in setup.cfg."""

import platform

from setuptools import Extension, setup


# One library per instruction set, from one source; cpu_scan.py picks the fastest that the processor can run. They are
# plain C libraries and no Python modules. Without a compiler that can build them the package installs without them.
VARIANTS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    VARIANTS["avx2"] = ["-mavx2", "-mfma"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
    VARIANTS["avx512"] += ["-Wno-maybe-uninitialized"]  # GCC 12 warns of its own header

setup(
    ext_modules=[
        Extension(
            f"remamber_hf._scan_{name}",
            ["remamber_hf/csrc/scan.cpp"],
            language="c++",
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-pthread", *flags],
            extra_link_args=["-pthread"],
            py_limited_api=True,  # they know nothing of Python: one wheel serves every version
            optional=True,
        )
        for name, flags in VARIANTS.items()
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
