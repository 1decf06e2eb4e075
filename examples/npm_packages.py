# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""npm packages of a pinned version, whose pictures the scripts beside this file write."""

import argparse
import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """A version of an npm package; `integrity` is the registry's: "sha512-" and the base64 of the archive's hash."""

    name: str
    version: str
    integrity: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--package", type=Path, help="the archive, as npm pack writes it; else npm fetches it")


def read_package(package: Package, path: Path | None) -> dict[str, bytes]:
    """
    The files of a package, by their paths in it, from the archive at `path`, or fetched where that is None.

    Raises:
        OSError: if there is no file at `path`.
        ValueError: if the package is not to be had, or is another than the one of that integrity.
    """
    archive = fetch(package) if path is None else path.read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if integrity != package.integrity:
        raise ValueError(
            f"The integrity of {path or 'what npm brought'} is {integrity}, that of {package} is {package.integrity}; "
            "give --package the archive of that version, as the registry has it."
        )
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as files:
        found = {member.name: files.extractfile(member) for member in files if member.isfile()}
        return {name.removeprefix("package/"): file.read() for name, file in found.items() if file is not None}


def fetch(package: Package) -> bytes:
    """
    The archive as npm downloads it, from the registry that npm is set to.

    Raises:
        ValueError: if npm is not there, or brings nothing.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm is not on the PATH; install Node.js, or give --package the archive of {package}.")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", str(package), "--pack-destination", folder]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if result.returncode or len(archives) != 1:
            said = (result.stderr.strip() or "nothing").splitlines()[-1]
            raise ValueError(
                f"npm pack {package} brought no archive and said: {said!r}; see that npm reaches its registry, or "
                "give --package the archive."
            )
        return archives[0].read_bytes()
