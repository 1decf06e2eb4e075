# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import os

import pytest
import runs
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Runs of this and of other processes are compared to the last digit, which can differ with the threads."""
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(threads)
    if variable is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = variable


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Folder of a small data set and of two models to start from, see `runs.make_start`."""
    folder = tmp_path_factory.mktemp("start")
    runs.make_start(folder)
    return folder
