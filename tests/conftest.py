# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import os
import sys

import pytest


os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test waits for a network
# Before PyTorch is imported: threads that spin while they wait make a test beside another program 4 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True, scope="module")
def forget_what_was_compiled():
    """PyTorch compiles a function 8 times at most, and transformers' decorators are the same for all models."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
