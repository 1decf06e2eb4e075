# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
from functools import cache

import pytest
import torch
from evaluation_runs import MODEL

from remamber_hf.cli import evaluate as evaluate_command
from remamber_hf.inference.loading import load_model
from remamber_hf.synthetic.dataset import synthesize


load_once = cache(load_model)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that torchrun starts: the number of threads can change the last digit of a logit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def models_are_loaded_once():
    """By the command too, which otherwise loads the bundled model again for every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_command, "load_model", load_once)
        yield


@pytest.fixture(scope="session")
def model_and_processor():
    """The bundled model."""
    return load_once(MODEL, "cpu", "float32")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    synthesize(folder, 40, 5, num_workers=1, progress=False, no_target=True)
    return folder
