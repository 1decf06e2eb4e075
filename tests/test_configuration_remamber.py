# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations: the published base by default, round trips, refusals."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from tiny import TEXT_FIELDS, golden_fill, remamber_config, vision_config
from transformers import AutoConfig, CLIPTextConfig

from remamber_hf import ReMamberConfig, VMambaConfig
from remamber_hf.convert_checkpoint import convert_state_dict


# ------------------------------------------------------------------------------------------------------------ defaults
@pytest.mark.parametrize("mask_head", ["conv", "mamba"])
def test_defaults_are_the_published_base(mask_head):
    shapes = golden_fill.manifest(f"{mask_head}_base")["tensors"]
    published, _ = convert_state_dict({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert ReMamberConfig(mask_head=mask_head).to_dict() == published.to_dict()


def test_the_backbone_of_the_default_is_the_default_backbone():
    assert ReMamberConfig().vision_config.to_dict() == VMambaConfig().to_dict()
    assert VMambaConfig().hidden_size == 1024


def test_sub_configs_come_as_dicts_or_objects():
    vision_fields = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "state_size": 2}
    from_dicts = ReMamberConfig(text_config=dict(TEXT_FIELDS), vision_config=dict(vision_fields))
    from_objects = ReMamberConfig(
        text_config=CLIPTextConfig(**TEXT_FIELDS), vision_config=VMambaConfig(**vision_fields)
    )
    assert from_dicts.to_dict() == from_objects.to_dict()
    assert from_dicts.vision_config.state_size == 2 and from_dicts.text_config.vocab_size == TEXT_FIELDS["vocab_size"]


def test_out_features_and_out_indices_name_the_same_maps():
    assert VMambaConfig().out_features == ["stage4"]
    by_name = VMambaConfig(out_features=["stem", "stage2"])
    assert by_name.out_indices == [0, 2]
    assert VMambaConfig(out_indices=[0, 2]).out_features == ["stem", "stage2"]
    with pytest.raises(ValueError, match="stage9"):
        VMambaConfig(out_features=["stage9"])


# --------------------------------------------------------------------------------------------------------- round trips
CONFIGS = {
    "vmamba": vision_config(
        state_size=4, expand=1, time_step_rank=3, use_conv_bias=True, drop_path_rate=0.3, out_features=["stage1"]
    ),
    "remamber": remamber_config(
        "mamba", text_length=9, state_size=2, vision_config={"depths": [1, 2, 3, 4]}, decoder_depths=[1, 2, 1, 2]
    ),
    "base": ReMamberConfig(),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_config_loads_unchanged(name, tmp_path):
    config = CONFIGS[name]
    config.save_pretrained(tmp_path)
    for loaded in (type(config).from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is type(config)
        assert {**loaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_dict_and_a_copy_of_a_config_are_equal_to_it(name):
    config = CONFIGS[name]
    assert type(config)(**config.to_dict()).to_dict() == config.to_dict()
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_the_backbone_config_loads_from_a_folder_of_remamber(tmp_path):
    config = CONFIGS["remamber"]
    config.save_pretrained(tmp_path)
    assert VMambaConfig.from_pretrained(tmp_path).depths == [1, 2, 3, 4]


# ------------------------------------------------------------------------------------------------------------ refusals
BAD_SS2D_FIELDS = [
    ({"state_size": 0}, "state_size is 0; it must be greater than 0"),
    ({"expand": -1}, "expand is -1; it must be greater than 0"),
    ({"time_step_rank": 0}, "time_step_rank is 0; it must be greater than 0"),
    ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0; it must be greater than 0"),
    ({"time_step_min": 0.0}, "time_step_min is 0.0; it must be greater than 0"),
    ({"time_step_floor": -1.0}, "time_step_floor is -1.0; it must be greater than 0"),
    ({"time_step_max": 1e-4}, "time_step_max is 0.0001, time_step_min is 0.001; give a maximum that is not below"),
    ({"conv_kernel_size": 4}, "conv_kernel_size is 4; it must be odd"),
    ({"conv_kernel_size": -1}, "conv_kernel_size is -1; it must be greater than 0"),
    ({"state_size": "many"}, "'state_size' expected int, got str .value: 'many'."),
]


@pytest.mark.parametrize("config_class", [VMambaConfig, ReMamberConfig])
@pytest.mark.parametrize(("fields", "message"), BAD_SS2D_FIELDS)
def test_bad_fields_of_the_scan_are_refused(config_class, fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        config_class(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": [2, 2, 2]}, "depths has 3 entries, hidden_sizes has 4; give one depth per stage"),
        ({"depths": [2, 2, 0, 2]}, r"depths is \[2, 2, 0, 2\]; every stage needs at least one block"),
        ({"depths": [], "hidden_sizes": []}, r"depths is \[\]; every stage needs at least one block"),
        ({"hidden_sizes": [7, 16, 32, 64]}, r"hidden_sizes is \[7, 16, 32, 64\]; the first must be even"),
        ({"hidden_sizes": [8, 1, 32, 64]}, "hidden_sizes is .*all at least 2"),
        ({"num_channels": 0}, "num_channels is 0"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0"),
        ({"drop_path_rate": 1}, r"drop_path_rate is 1; it must be in \[0, 1\)"),
        ({"drop_path_rate": -0.1}, r"drop_path_rate is -0.1; it must be in \[0, 1\)"),
    ],
)
def test_bad_fields_of_the_backbone_are_refused(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        VMambaConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text_length": 0}, "text_length is 0; it must be greater than 0"),
        ({"text_length": 78}, "text_length is 78, the text encoder has 77 positions; give a text_length"),
        ({"channel_scan_size": 0}, "channel_scan_size is 0"),
        ({"correlation_size": 0}, "correlation_size is 0"),
        ({"num_fusion_blocks": 0}, "num_fusion_blocks is 0"),
        ({"conv_head_ratio": 0}, "conv_head_ratio is 0"),
        ({"mask_head": "unet"}, "'mask_head' expected one of .'conv', 'mamba'., got unet"),
        (
            {"fusion": "film"},
            "'fusion' expected one of .'twister', 'in_context', 'cross_attention', 'norm_adaptation'",
        ),
        ({"twister_scans": "none"}, "'twister_scans' expected one of .'channel_then_spatial', .*, got none"),
        ({"in_context_position": "middle"}, "'in_context_position' expected one of .'prefix', 'suffix', 'both'."),
        (
            {"in_context_window": 4},
            "in_context_window is 4, which fusion='twister' does not read; leave it out or give",
        ),
        (
            {"fusion": "cross_attention", "in_context_position": "both"},
            "in_context_position is 'both', which fusion='cross_attention' does not read",
        ),
        (
            {"fusion": "in_context", "twister_scans": "spatial"},
            "twister_scans is 'spatial', which fusion='in_context' does not read; .* or give fusion='twister'",
        ),
        (
            {"fusion": "norm_adaptation", "use_local_text": False},
            "use_local_text is False, which fusion='norm_adaptation' does not read",
        ),
        (
            {"use_global_text": False, "use_local_text": False},
            "use_global_text and use_local_text are both false; the Twister needs one",
        ),
        (
            {"fusion": "in_context", "in_context_window": -1},
            "in_context_window is -1; give the side of a window in cells up to 65,536, or 0 for none",
        ),
        (
            {"decoder_depths": [2, 4, 2]},
            r"decoder_depths is \[2, 4, 2\]; give one depth of at least 1 for each of the 4",
        ),
        ({"decoder_depths": [2, 4, 0, 2]}, r"decoder_depths is \[2, 4, 0, 2\]; give one depth"),
        (
            {"vision_config": {"depths": [1, 1, 1], "hidden_sizes": [8, 16, 32]}},
            "vision_config has 3 stages; ReMamber's mask heads read exactly 4",
        ),
        (
            {"vision_config": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 64]}, "mask_head": "mamba"},
            r"vision_config.hidden_sizes is \[8, 16, 24, 64\]; the Mamba head needs .* doubled .* mask_head='conv'",
        ),
    ],
)
def test_bad_fields_of_remamber_are_refused(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        ReMamberConfig(**fields)


def test_a_bad_value_that_is_set_later_is_refused_at_saving(tmp_path):
    config = VMambaConfig()
    config.depths = [1, 1]
    with pytest.raises(StrictDataclassError, match="give one depth per stage"):
        config.save_pretrained(tmp_path)


def test_the_end_token_of_clips_published_config_is_the_last_of_its_vocabulary():
    assert ReMamberConfig(text_config={"vocab_size": 99}).text_config.eos_token_id == 98
    text = CLIPTextConfig(vocab_size=99, eos_token_id=2)
    for given in (text, text.to_dict()):
        config = ReMamberConfig(text_config=given)
        assert config.text_config.eos_token_id == 98
        assert ReMamberConfig(**config.to_dict()).text_config.eos_token_id == 98
    assert text.eos_token_id == 2
    assert ReMamberConfig(text_config={"vocab_size": 99, "eos_token_id": 7}).text_config.eos_token_id == 7
