# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Builds the C++ kernels and the page for PyPI; everything else about the package stands in setup.cfg."""

import configparser
import platform
import re
from pathlib import Path

from setuptools import Extension, setup


# One library per instruction set, from the same sources; cpu_scan.py picks the fastest that the processor runs. They
# are plain C libraries, no Python modules. Without a compiler that can build them the package installs without them.
VARIANTS = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    VARIANTS["avx2"] = ["-mavx2", "-mfma"]
    VARIANTS["avx512"] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]
    VARIANTS["avx512"] += ["-Wno-maybe-uninitialized"]  # GCC 12 warns of its own header


def make_long_description() -> str:
    """
    README.md for a place that has no other file of the repository.

    Its links to files become links into the tag of this version at the `url` in setup.cfg, in GitHub's layout. While
    there is no `url` they become plain words, and pictures are left out.
    """
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    url, tag = config.get("metadata", "url", fallback=""), f"v{config['metadata']['version']}"

    def place(link: re.Match) -> str:
        mark, words, target = link.groups()
        if not url:
            return "" if mark else words
        return f"{mark}[{words}]({url}/{'raw' if mark else 'blob'}/{tag}/{target})"

    readme = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:)([^)\s]+)\)", place, readme)


setup(
    long_description=make_long_description(),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            f"remamber_hf._scan_{name}",
            ["remamber_hf/csrc/scan.cpp", "remamber_hf/csrc/causal_conv.cpp"],
            depends=["remamber_hf/csrc/vectors.h", "remamber_hf/csrc/threads.h"],
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
