# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""VMamba: the reference case stage by stage, sizes, precision, training, initial values, backbone and classifier."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import golden_inputs, golden_model, golden_tensors, scan_backends, vision_config
from torch import nn

from remamber_hf import VMambaBackbone, VMambaForImageClassification, VMambaModel
from remamber_hf.modeling_scan import DropPath
from remamber_hf.modeling_vmamba import SS2D, VMambaDownsample


def pictures(batch_size=2, height=64, width=96, channels=3):
    return torch.randn(batch_size, channels, height, width, generator=torch.Generator().manual_seed(0))


def build(model_class=VMambaModel, seed=0, **fields):
    torch.manual_seed(seed)
    return model_class(vision_config(**fields)).eval()


# -------------------------------------------------------------------------------------------------- the reference case
@functools.cache
def golden_outputs(scan_backend):
    with torch.no_grad():
        outputs = golden_model("vmamba_tiny", scan_backend)(**golden_inputs("vmamba_tiny"), output_hidden_states=True)
    return {"logits": outputs.logits, **{f"stage{i}": outputs.hidden_states[i] for i in range(1, 5)}}


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch", "reference"))
@pytest.mark.parametrize("output", ["stage1", "stage2", "stage3", "stage4", "logits"])
def test_outputs_equal_the_published_code(output, scan_backend):
    expected = golden_tensors("vmamba_tiny")[output]
    torch.testing.assert_close(golden_outputs(scan_backend)[output], expected, rtol=1e-5, atol=2e-5)


# --------------------------------------------------------------------------------------------------- sizes and outputs
@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 97), (32, 32), (1, 1), (5, 200)])
def test_maps_have_a_quarter_to_a_32nd_of_any_size_rounded_up(size):
    with torch.no_grad():
        outputs = build()(pictures(1, *size), output_hidden_states=True)
    strides, channels = (4, 4, 8, 16, 32), (8, 8, 16, 32, 64)
    expected = [(1, c, *(math.ceil(side / stride) for side in size)) for c, stride in zip(channels, strides)]
    assert [tuple(feature_map.shape) for feature_map in outputs.hidden_states] == expected
    assert torch.equal(outputs.last_hidden_state, outputs.hidden_states[-1])


def test_hidden_states_come_only_when_asked_for():
    model = build()
    with torch.no_grad():
        assert model(pictures()).hidden_states is None
        model.config.output_hidden_states = True
        assert len(model(pictures()).hidden_states) == 5


def test_a_picture_is_encoded_the_same_alone_and_in_a_batch():
    model = build()
    with torch.no_grad():
        together = model(pictures(3)).last_hidden_state
        alone = torch.cat([model(picture[None]).last_hidden_state for picture in pictures(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (3, 64, 64), (2, 64, 64, 3)])
def test_pictures_of_another_layout_are_refused(shape):
    with pytest.raises(ValueError, match=r"pixel_values has shape .*; it must be \(batch, 3, height, width\)"):
        build()(torch.zeros(shape))


def test_pictures_may_have_another_number_of_channels():
    with torch.no_grad():
        assert build(num_channels=5)(pictures(channels=5)).last_hidden_state.shape == (2, 64, 2, 3)


@pytest.mark.parametrize("model_class", [VMambaModel, VMambaBackbone, VMambaForImageClassification])
def test_a_keyword_that_is_not_taken_is_refused_by_its_name(model_class):
    for name in ("interpolate_pos_encoding", "num_items_in_batch"):
        with pytest.raises(TypeError, match=rf"^forward\(\) got an unexpected keyword argument '{name}'; [^\n]*$"):
            build(model_class)(pictures(), **{name: True})


@pytest.mark.parametrize("model_class", [VMambaModel, VMambaForImageClassification])
def test_the_input_embedding_is_the_stem_which_gets_gradients_into_what_is_frozen(model_class):
    model = build(model_class).requires_grad_(False)
    stem = model.base_model.stem
    assert model.get_input_embeddings() is stem
    model.enable_input_require_grads()
    assert model(pictures())[0].requires_grad


def test_the_downsample_runs_once_between_two_stages():
    model = build(VMambaBackbone, out_features=["stage1", "stage2", "stage3", "stage4"])
    calls = []
    for module in model.modules():
        if isinstance(module, VMambaDownsample):
            module.register_forward_hook(lambda module, inputs, output: calls.append(module))
    with torch.no_grad():
        model(pictures())
    assert len(calls) == len(set(calls)) == 3


# ------------------------------------------------------------------------------------------- backbone and classifier
def test_the_backbone_returns_the_maps_it_is_asked_for():
    model = build(VMambaBackbone, out_features=["stem", "stage2", "stage4"])
    with torch.no_grad():
        outputs = model(pictures(), output_hidden_states=True)
    for feature_map, index in zip(outputs.feature_maps, (0, 2, 4), strict=True):
        assert torch.equal(feature_map, outputs.hidden_states[index])
    assert model.channels == [8, 16, 64] == [feature_map.shape[1] for feature_map in outputs.feature_maps]


def test_the_backbone_computes_what_the_model_does():
    backbone, model = build(VMambaBackbone), build(VMambaModel)
    with torch.no_grad():
        assert torch.equal(backbone(pictures()).feature_maps[0], model(pictures()).last_hidden_state)


def test_the_classifier_pools_normed_pixels_and_computes_cross_entropy():
    model = build(VMambaForImageClassification, num_labels=5)
    labels = torch.tensor([1, 4])
    with torch.no_grad():
        outputs = model(pictures(), labels=labels)
        pixels = model.vmamba(pictures()).last_hidden_state.flatten(2).mT
        normed = F.layer_norm(pixels, (64,), model.norm.weight, model.norm.bias, eps=1e-5)
        logits = normed.mean(1) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(outputs.logits, logits)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(logits, labels))


# ----------------------------------------------------------------------------------------------------------- precision
SCAN_WEIGHTS = ("A_log", "D", "dt_proj_bias")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_the_recurrence_stay_float32_when_loaded_in_half_precision(dtype, tmp_path):
    build().save_pretrained(tmp_path)
    model = VMambaModel.from_pretrained(tmp_path, dtype=dtype)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    kept = {name for name, found in dtypes.items() if found == torch.float32}
    assert kept == {name for name in dtypes if name.endswith(SCAN_WEIGHTS)}
    assert set(dtypes.values()) == {torch.float32, dtype}


@pytest.mark.parametrize("way", ["autocast", "loaded", "cast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_float32(way, dtype, tmp_path):
    model = build(depths=[1, 1, 2, 1])
    with torch.no_grad():
        expected = model(pictures()).last_hidden_state
        if way == "autocast":
            with torch.autocast("cpu", dtype):
                actual = model(pictures()).last_hidden_state
        elif way == "cast":
            actual = model.to(dtype)(pictures()).last_hidden_state
        else:
            model.save_pretrained(tmp_path)
            actual = VMambaModel.from_pretrained(tmp_path, dtype=dtype)(pictures()).last_hidden_state
    difference = (actual.float() - expected).norm() / expected.norm()
    assert difference < (0.02 if dtype == torch.bfloat16 else 0.003)


# ------------------------------------------------------------------------------------------------------------ training
def test_activation_checkpointing_changes_no_gradient():
    plain, checkpointed = build(depths=[1, 1, 2, 1]).train(), build(depths=[1, 1, 2, 1]).train()
    checkpointed.activation_checkpointing_enable()
    for model in (plain, checkpointed):
        model(pictures()).last_hidden_state.square().sum().backward()
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), name


def test_stochastic_depth_rises_linearly_from_zero():
    model = build(depths=[1, 2, 1, 1], drop_path_rate=0.4)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [block.drop_path.rate for stage in build(depths=[1, 1, 1, 1]).stages for block in stage.blocks] == [0.0] * 4


def test_stochastic_depth_drops_samples_and_keeps_the_expectation():
    torch.manual_seed(0)
    drop_path = DropPath(0.25).train()
    ones = torch.ones(4000, 2, 3, 5)
    dropped = drop_path(ones)
    per_sample = dropped.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    torch.testing.assert_close(per_sample[:, 0].unique(), torch.tensor([0.0, 4 / 3]))
    assert per_sample[:, 0].mean().item() == pytest.approx(1, abs=0.04)  # 4 standard deviations
    assert torch.equal(drop_path.eval()(ones), ones)
    assert torch.equal(DropPath(0.0).train()(ones), ones)


def test_stochastic_depth_is_off_in_eval_mode():
    model = build(drop_path_rate=0.9)
    with torch.no_grad():
        assert torch.equal(model(pictures()).last_hidden_state, model(pictures()).last_hidden_state)
        model.train()
        assert not torch.equal(model(pictures()).last_hidden_state, model(pictures()).last_hidden_state)


def test_every_parameter_gets_a_gradient_and_moves_in_a_step():
    model = build(VMambaForImageClassification, num_labels=5, use_conv_bias=True).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-20, weight_decay=0.0)
    model(pictures(), labels=torch.tensor([1, 4])).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
        assert not torch.equal(parameter, before[name]), name


def test_the_model_compiles_without_a_graph_break():
    model = build()
    assert model._can_compile_fullgraph
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pictures()).last_hidden_state, model(pictures()).last_hidden_state)


# ------------------------------------------------------------------------------------------------------ initial values
def loaded_without_weights(model_class, **fields):
    return model_class.from_pretrained(None, config=vision_config(**fields), state_dict={})


@pytest.mark.parametrize("make", [build, loaded_without_weights], ids=["built", "loaded with missing weights"])
def test_initial_values_are_mambas(make):
    torch.manual_seed(0)
    model = make(VMambaForImageClassification, hidden_sizes=[32, 64, 128, 256], state_size=16)
    scans = [module for module in model.modules() if isinstance(module, SS2D)]
    assert len(scans) == 4
    for scan in scans:
        inner_size, rank = scan.dt_proj_weight.shape[1:]
        assert scan.A_log.shape == (4 * inner_size, 16)
        torch.testing.assert_close(scan.A_log, torch.arange(1.0, 17).log().expand_as(scan.A_log))
        assert (scan.D == 1).all()
        for weight, bound in ((scan.dt_proj_weight, rank**-0.5), (scan.x_proj_weight, inner_size**-0.5)):
            assert_uniform(weight, bound)
        time_steps = F.softplus(scan.dt_proj_bias)
        assert time_steps.min() >= 0.99e-3 and time_steps.max() <= 0.101
        # log-uniform: its logarithm has the mean of the range's ends
        assert time_steps.log().mean().item() == pytest.approx((math.log(1e-3) + math.log(0.1)) / 2, abs=0.35)


@pytest.mark.parametrize("make", [build, loaded_without_weights], ids=["built", "loaded with missing weights"])
def test_initial_values_of_layers_are_those_of_the_config_and_of_pytorch(make):
    torch.manual_seed(0)
    model = make(VMambaForImageClassification, hidden_sizes=[32, 64, 128, 256], num_labels=200, use_conv_bias=True)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            assert_uniform(module.weight, fan_in**-0.5)
            assert_uniform(module.bias, fan_in**-0.5)
        elif isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any()


def assert_uniform(weight, bound):
    """All values are within ±bound, and many enough have the standard deviation of the uniform distribution."""
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(weight.numel()))


def test_a_lower_clamp_keeps_time_steps_off_zero():
    scan = build(time_step_min=1e-6, time_step_max=2e-6, time_step_floor=1e-3).stages[0].blocks[0].ss2d
    torch.testing.assert_close(F.softplus(scan.dt_proj_bias), torch.full_like(scan.dt_proj_bias, 1e-3))
