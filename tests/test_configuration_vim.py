# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of Vim: the published tiny by default, sizes, refusals."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny import vim_config
from transformers import AutoConfig

from remamber_hf import VimConfig


def test_the_default_is_the_published_tiny():
    config = VimConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.state_size) == (192, 24, 16)
    assert (config.expand, config.time_step_rank, config.conv_kernel_size, config.use_conv_bias) == (2, None, 4, True)
    assert (config.image_size, config.patch_size, config.stride, config.grid_size) == (224, 16, None, (14, 14))
    assert (config.class_token, config.class_token_places(196), config.num_class_tokens) == ("middle", [98], 1)
    assert VimConfig(stride=8).grid_size == (27, 27) and config.class_token_places(729) == [364]


@pytest.mark.parametrize(
    ("fields", "grid"),
    [
        ({"image_size": [64, 96], "stride": 8}, (7, 11)),
        ({"image_size": 100}, (6, 6)),
        ({"image_size": (16, 17)}, (1, 1)),
        ({"image_size": 512}, (32, 32)),
    ],
)
def test_the_grid_has_the_patches_that_fit(fields, grid):
    assert VimConfig(**fields).grid_size == grid


def test_maps_are_named_by_block():
    config = vim_config()
    assert config.stage_names == ["stem", "stage1", "stage2", "stage3"] and config.out_features == ["stage3"]
    assert vim_config(out_indices=[0, 2]).out_features == ["stem", "stage2"]
    with pytest.raises(ValueError, match="stage9"):
        vim_config(out_features=["stage9"])


def test_a_saved_config_loads_unchanged(tmp_path):
    config = vim_config(stride=8, class_token="both", drop_path_rate=0.1, out_features=["stage1"], num_labels=7)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is VimConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert VimConfig(image_size=(48, 64)).to_dict() == VimConfig(image_size=[48, 64]).to_dict()


BAD = [
    ({"stride": 17}, "stride is 17, patch_size is 16; give a stride from 1 to patch_size"),
    ({"stride": 0}, "stride is 0, patch_size is 16"),
    ({"image_size": 15}, "image_size is 15, patch_size is 16; give a side"),
    ({"image_size": [64, 8]}, r"image_size is \[64, 8\], patch_size is 16"),
    ({"image_size": [64, 64, 64]}, "image_size is"),
    ({"image_size": []}, "image_size is"),
    ({"image_size": [64]}, r"image_size is \[64\], patch_size is 16; give a side, or height and width"),
    ({"expand": 0.001}, "expand is 0.001, which leaves none of 192 channels"),
    ({"image_size": 10**6}, "image_size is 1000000, patch_size is 16; give a side, .* to 8,192"),
    ({"image_size": "224"}, "image_size"),
    ({"patch_size": 0}, "patch_size is 0; it must be greater than 0"),
    ({"hidden_size": -1}, "hidden_size is -1; it must be greater than 0"),
    ({"hidden_size": 10**9}, "hidden_size is 1000000000; it must not be greater than"),
    ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be greater than 0"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must not be greater"),
    ({"num_channels": 0}, "num_channels is 0; it must be greater than 0"),
    ({"conv_kernel_size": 0}, "conv_kernel_size is 0; it must be greater than 0"),
    ({"drop_path_rate": 1.0}, r"drop_path_rate is 1.0; it must be in \[0, 1\)"),
    ({"class_token": "last"}, "class_token"),
    (
        {"apply_layernorm": True, "use_residual_as_feature": False},
        "apply_layernorm is true and use_residual_as_feature",
    ),
    ({"num_labels": 10**9}, "num_labels is 1000000000; give a number up to"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        VimConfig(**fields)


def test_a_backend_is_no_field():
    with pytest.raises(ValueError, match="scan_backend is not part of the configuration"):
        VimConfig().scan_backend  # noqa: B018
