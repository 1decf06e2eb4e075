# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What is written is there whole or not at all."""

import os
import signal
import stat

import pytest
from PIL import Image
from safetensors.torch import load_file
from tiny import remamber_config, vision_config

from remamber_hf import ReMamberForImageSegmentation, VMambaModel
from remamber_hf.files import check_new_folder, make_whole_file, make_whole_folder, save_picture
from remamber_hf.training.ema import WeightAverage


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(OSError):
        save_picture(Image.new("RGBA", (4, 4)), tmp_path / "new" / "overlay.jpg")  # JPEG has no alpha
    assert list((tmp_path / "new").iterdir()) == []


def test_a_file_keeps_its_old_content_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "found.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), make_whole_file(path) as unfinished:
        unfinished.write_text("ne")
        raise KeyboardInterrupt
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
    with make_whole_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert [file.read_text() for file in tmp_path.iterdir()] == ["new"]


def test_a_folder_is_not_there_until_it_is_whole(tmp_path):
    folder = tmp_path / "new" / "results"
    with pytest.raises(KeyboardInterrupt), make_whole_folder(folder) as unfinished:
        (unfinished / "table.md").write_text("|")
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []
    with make_whole_folder(folder) as unfinished:
        (unfinished / "table.md").write_text("| all |")
        assert not folder.exists()
    assert [file.name for file in (tmp_path / "new").rglob("*")] == ["results", "table.md"]


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    """Sets the umask, and returns what it leaves of a file's permissions."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_umask_says_who_may_read_what_is_written(tmp_path, umask):
    with make_whole_folder(tmp_path / "results") as unfinished:
        (unfinished / "table.md").write_text("|")
    with make_whole_file(tmp_path / "found.jsonl") as unfinished:
        unfinished.write_text("{}")
    save_picture(Image.new("L", (4, 4)), tmp_path / "mask.png")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name: permissions(path) for path in written} == dict.fromkeys(
        ["table.md", "found.jsonl", "mask.png"], umask
    )
    assert permissions(tmp_path / "results") == umask | (umask & 0o444) >> 2


@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
@pytest.mark.parametrize("model_class", [VMambaModel, ReMamberForImageSegmentation])
def test_the_umask_says_who_may_read_saved_weights(model_class, shard_size, tmp_path, umask):
    config = remamber_config() if model_class is ReMamberForImageSegmentation else vision_config()
    model_class(config).save_pretrained(tmp_path / "model", max_shard_size=shard_size)
    WeightAverage(model_class(config), decay=0.9, start_step=0).save(tmp_path / "model" / "average.safetensors")
    files = list((tmp_path / "model").iterdir())
    assert sum(file.suffix == ".safetensors" for file in files) >= (2 if shard_size == "5GB" else 3)
    assert {permissions(file) for file in files} == {umask}


def test_a_file_that_is_written_again_keeps_its_permissions(tmp_path, umask):
    path = tmp_path / "found.jsonl"
    path.write_text("old")
    path.chmod(0o640)
    with make_whole_file(path) as unfinished:
        unfinished.write_text("new")
    assert (path.read_text(), permissions(path)) == ("new", 0o640)


def test_links_as_targets_are_followed(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    for name, target in {"mask.png": "disk/mask.png", "results": "disk"}.items():
        (tmp_path / name).symlink_to(target)
    save_picture(Image.new("L", (4, 4)), tmp_path / "mask.png")
    assert Image.open(disk / "mask.png").size == (4, 4)
    (disk / "mask.png").unlink()
    with make_whole_folder(tmp_path / "results") as unfinished:
        (unfinished / "table.md").write_text("|")
    assert (disk / "table.md").read_text() == "|"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to("../disk/weights.safetensors")
    (disk / "weights.safetensors").write_text("old")
    model = VMambaModel(vision_config())
    model.save_pretrained(tmp_path / "model")
    assert load_file(disk / "weights.safetensors").keys() == model.state_dict().keys()
    assert all(path.is_symlink() for path in [*tmp_path.glob("mask.png"), *tmp_path.glob("*/model.safetensors")])


def test_an_empty_folder_is_filled_and_any_other_refused_untouched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with make_whole_folder(".") as unfinished:
        (unfinished / "a").write_text("a")
    assert (tmp_path / "a").read_text() == "a"
    for taken in (tmp_path, tmp_path / "a"):
        with pytest.raises(FileExistsError, match=f"{taken} exists and is not an empty folder; give a new folder"):
            check_new_folder(taken)
        with pytest.raises(FileExistsError), make_whole_folder(taken) as unfinished:
            pytest.fail("nothing may be written")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def start_writer(make, path) -> int:
    """Process id of a child that is in the middle of writing `path`."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        with make(path) as unfinished:
            (unfinished / "half" if unfinished.is_dir() else unfinished).write_text("half")
            os.write(sink, b".")
            signal.pause()
    os.read(source, 1)
    os.close(source)
    os.close(sink)
    return child


def kill(child: int):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("make", [make_whole_file, make_whole_folder])
def test_what_a_killed_writer_left_goes_with_the_next_run_and_what_is_being_written_stays(tmp_path, make):
    path = tmp_path / "a.b[1].json"
    (tmp_path / ".a.b[1].json").mkdir()
    (tmp_path / ".a.b[1].remamber-of_mine.json.old").write_text("mine")  # no name of ours
    (tmp_path / ".a.b[1]-abcdefgh.json").write_text("mine")
    mine = sorted(tmp_path.iterdir())
    dead, alive = start_writer(make, path), start_writer(make, path)
    assert len(list(tmp_path.iterdir())) == 5
    kill(dead)
    try:
        with make(path) as unfinished:
            assert len(list(tmp_path.iterdir())) == 5  # that of the living, and this one
            assert unfinished.exists()
    finally:
        kill(alive)
    assert len(list(tmp_path.iterdir())) == 5
    path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(KeyboardInterrupt), make(path):
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == mine


def test_a_link_that_has_the_name_of_something_unfinished_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (tmp_path / ".out.remamber-abcdefgh").symlink_to(tmp_path / "mine")
    with make_whole_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "mine" / "file").read_text() == "mine"


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="pipe is no regular file; give the name of one"):
        with make_whole_file(pipe) as unfinished:
            unfinished.write_text("no")
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]
