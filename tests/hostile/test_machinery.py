# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The machinery sees what hostile input would do: else a green test of it would say nothing."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from machinery import attempt


def refuse(text="no"):
    raise ValueError(text)


def allocate(megabytes):
    held = bytearray(megabytes * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    refuse()


def test_a_short_refusal_passes():
    attempt(refuse).check_refused("no")


def test_a_value_is_no_refusal():
    outcome = attempt(len, "four")
    assert (outcome.status, outcome.value) == (0, "4")
    with pytest.raises(AssertionError, match="status 0"):
        outcome.check_refused()


@pytest.mark.parametrize("text", ["two\nlines", "x" * 700, "\x1b[31mred", "\u202eturned", "half \ud83d", ""])
def test_a_refusal_in_other_letters_is_noticed(text):
    with pytest.raises(AssertionError):
        attempt(refuse, text).check_refused()


def test_another_exception_is_no_refusal():
    with pytest.raises(AssertionError, match="KeyError"):
        attempt({}.__getitem__, 1).check_refused()


def test_time_and_what_was_started_end_together():
    outcome = attempt(subprocess.run, [sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.5)
    assert outcome.is_late and outcome.seconds < 30
    assert attempt(time.sleep, 60, seconds=0.2).is_late


def test_memory_is_measured_and_limited():
    with pytest.raises(AssertionError, match=r"grew by [2-4]\d\d MiB"):
        attempt(allocate, 400).check_refused(megabytes=100)
    attempt(allocate, 20).check_refused(megabytes=100)
    assert attempt(allocate, 2000, gigabytes=0.5).error == "MemoryError"


def test_a_crash_is_noticed():
    outcome = attempt(os.abort)
    assert outcome.signal == signal.SIGABRT
    with pytest.raises(AssertionError, match="signal"):
        outcome.check_refused()


def test_programs_and_hosts_are_noted():
    assert attempt(os.system, "true").started
    assert attempt(subprocess.run, ["true"]).started
    assert attempt(socket.create_connection, ("127.0.0.1", 1), 0.1).called


def test_files_are_noted(tmp_path):
    path = tmp_path / "made"
    outcome = attempt(path.write_text, "x", folder=tmp_path)
    assert outcome.left == ["made"] and str(path) in outcome.changed
    outcome = attempt(path.read_text, folder=tmp_path)
    assert not outcome.left and str(path) in outcome.opened


def test_whoever_asks_is_told_yes():
    assert attempt(input, "run it? ").value == "y"


def test_a_status_is_that_of_the_command():
    assert attempt(sys.exit, 2).status == 2
