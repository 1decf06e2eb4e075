# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pickles of strangers and of Python 2: nothing in them runs, and their text reads right."""

import io
import os
import pickle

import numpy as np
import pytest
from refer_fixture import python2_pickle

from remamber_hf.data.refer import read_refs


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_by_name_and_does_nothing(tiny, root, load, tmp_path, protocol):
    marker = tmp_path / "was_here"
    tiny.refs[0]["sentences"] = Hostile(marker)
    tiny.write(root, refs_content=pickle.dumps(tiny.refs, protocol=protocol))
    with pytest.raises(
        ValueError, match=r"refs\(unc\)\.p is not read: UnpicklingError: it asks for (posix|nt|os)\.mkdir, and only"
    ):
        load(on_error="skip")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"os\.system"),
        (b"(ibuiltins\neval\n.", r"builtins\.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", r"builtins\.eval"),
        (b"Pname\n.", "persistent object"),
        (b"\x80\x02\x82\x01.", "unregistered extension code"),
        (b"\x80\x02]r\xff\xff\xff\x7f", "EOFError"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f", "EOFError|UnpicklingError"),
        (b"", "EOFError"),
        (b"\x80\x02}.", "holds dict, a list of dicts is needed"),
        (b"\x80\x02]K\x01a.", "holds list, a list of dicts is needed"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, reason):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_refs(path)


def test_a_memo_index_beyond_all_memory_costs_nothing(tmp_path):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert read_refs(path) == []


def test_damaged_pickles_raise_nothing_but_ValueError(tiny, tmp_path):
    content = pickle.dumps(tiny.refs, protocol=2)
    generator = np.random.default_rng(0)
    path = tmp_path / "refs(unc).p"
    num_refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for place in generator.integers(len(content), size=3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            read_refs(path)
        except ValueError:
            num_refused += 1
    assert num_refused > 100


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_python_2_text_reads_right(tiny, root, load, protocol, encoding):
    tiny.refs[0]["sentences"][0]["sent"] = "café señor à gauche"
    tiny.write(root, refs_content=python2_pickle(tiny.refs, protocol, encoding))
    assert load(split="train")[0]["sentences"] == ["café señor à gauche", "person 1"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unicode_of_any_protocol_reads_right(tiny, root, load, protocol):
    tiny.refs[0]["sentences"][0]["sent"] = "左边的人 ☂ naïve"
    tiny.write(root, refs_content=pickle.dumps(tiny.refs, protocol=protocol))
    assert load(split="train")[0]["sentences"][0] == "左边的人 ☂ naïve"


def test_half_a_character_is_reported(tiny, root, load):
    tiny.add_generalized()
    tiny.grefs[0]["sentences"][0]["sent"] = "half \ud83d"
    tiny.write(root, "grefcoco")
    with pytest.raises(ValueError, match="which is not Unicode text"):
        load("grefcoco")


def test_the_published_unpickler_would_have_run_it(tmp_path):
    """The hostile pickle above is a real one: the standard reader runs it."""
    pickle.Unpickler(io.BytesIO(pickle.dumps(Hostile(tmp_path / "was_here")))).load()
    assert (tmp_path / "was_here").exists()
