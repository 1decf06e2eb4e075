# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

import pytest
import rows
import torch


sys.path.append(str(Path(__file__).parents[1] / "training"))  # for `runs`


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Batches and single calls are compared; with several threads sums come in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Folder of a tiny trained-like model and its processor, see `rows.save_model`."""
    folder = tmp_path_factory.mktemp("idioms") / "model"
    rows.save_model(folder)
    return folder


@pytest.fixture
def model(folder):
    return rows.load_model(folder)


@pytest.fixture(scope="session")
def processor(folder):
    return rows.load_processor(folder)


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Folder of a small data set, as `load_refer` reads it, and of models to start from, see `runs.make_start`."""
    import runs  # which imports much, and only some of the tests need

    folder = tmp_path_factory.mktemp("start")
    runs.make_start(folder)
    return folder
