# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest


os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test waits for a network
# Before PyTorch is imported: threads that spin while they wait make a test beside another program 4 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Rich and Typer ask these how wide a terminal is and whether it has colours; tests read what is printed without one.
for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "PY_COLORS"):
    os.environ.pop(name, None)
for name in ("FORCE_COLOR", "GITHUB_ACTIONS"):  # either makes a terminal of any output
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def environment_stays_one_object():
    """`datasets` puts a copy in its place at a `map` in several processes, and Rich would go on with the old one."""
    environment = os.environ
    yield
    if os.environ is not environment:
        values = dict(os.environ)
        environment.clear()
        environment.update(values)
        os.environ = environment  # noqa: B003  # which has been cleared


@pytest.fixture(autouse=True, scope="module")
def forget_what_was_compiled():
    """PyTorch compiles a function 8 times at most, and transformers' decorators are the same for all models."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
