# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Prints the lowest versions that setup.cfg allows, as constraints for pip; PyTorch is the one of constraints.txt."""

import re
from configparser import ConfigParser
from pathlib import Path


ROOT = Path(__file__).parents[1]


def list_lowest_versions() -> list[str]:
    """`name==version` of every bound `name>=version` in setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    bounds = dict(re.findall(r"^([\w-]+)>=([\w.]+)", "\n".join(lines), flags=re.MULTILINE))
    del bounds["torch"]
    return [f"{name}=={version}" for name, version in bounds.items()]


if __name__ == "__main__":
    torch = re.search("^torch==.*$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    print("\n".join([*list_lowest_versions(), torch[0]]))
