# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import pytest
from refer_fixture import TinyRefer

from remamber_hf.data.refer import load_refer


@pytest.fixture
def load(tmp_path):
    """`load_refer` on the folder that `TinyRefer.write` filled, with a cache of the test's own."""

    def load_from(dataset="refcoco", split_by="unc", split=None, **arguments):
        arguments = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache", **arguments}
        return load_refer(dataset, split_by, split, **arguments)

    return load_from


@pytest.fixture
def tiny():
    return TinyRefer()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"
