# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`keep_freed_memory`, in processes of their own, for it cannot be taken back."""

import platform
import subprocess
import sys

import pytest

import remamber_hf.inference.memory
from remamber_hf.cli import main as cli


# Prints what the function returns, and how many pages the process takes anew for one large block and for the next.
CODE = """
import resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
print(keep_freed_memory() if sys.argv[2] == "keep" else None)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * 2**28
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator here is not glibc's")
def test_the_next_block_takes_no_new_page():
    def run(choice):
        command = [sys.executable, "-c", CODE, remamber_hf.inference.memory.__file__, choice]
        result = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return result[0], int(result[1]), int(result[2])

    _, first, second = run("leave")
    assert second > first / 2 > 0
    is_kept, first, second = run("keep")
    assert is_kept == "True"
    assert second < first / 50


def test_where_it_cannot_be_done_it_says_so(monkeypatch):
    monkeypatch.setattr(remamber_hf.inference.memory.sys, "platform", "win32")
    assert not remamber_hf.inference.memory.keep_freed_memory()


def test_the_command_does_it(monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: calls.append(True))
    monkeypatch.setattr(sys, "argv", ["remamber", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == [True]
