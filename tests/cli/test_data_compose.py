# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber data compose`."""

import pytest
from PIL import Image, ImageDraw


@pytest.fixture
def cutouts(tmp_path):
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for noun, colour in {"dog": "red", "cat": "blue", "left": "green"}.items():
        picture = Image.new("RGBA", (60, 60))
        ImageDraw.Draw(picture).ellipse((5, 5, 55, 55), fill=colour)
        picture.save(folder / f"{noun}.png")
    return folder


def test_it_writes_a_set_that_the_other_commands_read_and_says_what_it_left_out(data_command, cutouts, tmp_path):
    output = tmp_path / "set"
    command = ["compose", output, "--cutouts", cutouts, "--images", 8, "--image_size", 64]
    code, printed = data_command(*command, "--many", "--no_target", "--dataset_name", "pets")
    assert code == 0
    assert "left out: 'left' consists of words of place, degree or number" in printed
    assert f"written: {output}, 8 pictures, 2 nouns, " in printed
    code, printed = data_command("check", "--data_dir", output)
    assert code == 0 and "pets (unc)" in printed and "all right" in printed
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        data_command(*command)


def test_further_words_come_from_a_file(data_command, cutouts, tmp_path):
    (tmp_path / "words.yaml").write_text("dog: [hound, puppy]\n")
    command = ["compose", tmp_path / "set", "--cutouts", cutouts, "--images", 20, "--image_size", 64]
    code, _ = data_command(*command, "--synonyms", tmp_path / "words.yaml")
    assert code == 0 and b"hound" in (tmp_path / "set/things/refs(unc).p").read_bytes()
    (tmp_path / "words.yaml").write_text("wolf: [hound]\n")
    with pytest.raises(ValueError, match="there are synonyms for 'wolf', which is no category"):
        data_command(*command[:1], tmp_path / "other", *command[2:], "--synonyms", tmp_path / "words.yaml")
    assert not (tmp_path / "other").exists()
