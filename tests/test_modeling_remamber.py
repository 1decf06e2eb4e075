# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""ReMamber: the reference cases stage by stage, sizes, sharing of pictures, precision, training."""

import copy
import json
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    MASK_HEADS,
    SEGMENTATION_CASES,
    base_inputs,
    build,
    golden_inputs,
    golden_model,
    remamber_config,
    segmentation_inputs,
    unlabelled_inputs,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from remamber_hf import ReMamberForImageSegmentation, ReMamberModel, configuration_scan
from remamber_hf.mask_heads_remamber import (
    COMMUTED_CHANNELS,
    batch_norm,
    convolve_before_resize,
    convolve_resized,
)
from remamber_hf.modeling_remamber import segmentation_loss
from remamber_hf.modeling_vmamba import SS2D, VMambaDownsample


# --------------------------------------------------------------------------------------------------- sizes and outputs
@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize("size", [(50, 70), (33, 97), (32, 32), (1, 1), (17, 64)])
def test_logits_have_the_size_of_the_picture(mask_head, size):
    with torch.no_grad():
        logits = build(mask_head)(**unlabelled_inputs(2, *size)).logits
    assert logits.shape == (2, 1, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_sample_gives_the_same_alone_and_in_a_batch(mask_head):
    model, inputs = build(mask_head), unlabelled_inputs(3, 50, 70)
    with torch.no_grad():
        together = model(**inputs).logits
        alone = [model(**{name: tensor[i : i + 1] for name, tensor in inputs.items()}).logits for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_expression_changes_the_mask(mask_head):
    model, inputs = build(mask_head), unlabelled_inputs(1)
    with torch.no_grad():
        logits = model(**inputs).logits
        inputs["input_ids"] = inputs["input_ids"].clone()
        inputs["input_ids"][0, 1] += 1
        assert not torch.allclose(model(**inputs).logits, logits, atol=1e-6)


def test_hidden_states_are_the_map_of_the_stem_and_the_four_fused_maps():
    model, inputs = build(model_class=ReMamberModel), unlabelled_inputs()
    with torch.no_grad():
        assert model(**inputs).hidden_states is None
        outputs = model(**inputs, output_hidden_states=True)
        model.config.output_hidden_states = True
        assert len(model(**inputs).hidden_states) == 5
    sizes = [(16, 24), (16, 24), (8, 12), (4, 6), (2, 3)]
    shapes = [(2, channels, *size) for channels, size in zip((8, 8, 16, 32, 64), sizes, strict=True)]
    assert [feature_map.shape for feature_map in outputs.hidden_states] == shapes
    for feature_map, hidden_state in zip(outputs.feature_maps, outputs.hidden_states[1:], strict=True):
        assert torch.equal(feature_map, hidden_state)
    assert torch.equal(outputs.last_hidden_state, outputs.feature_maps[-1])
    assert outputs.text_hidden_states.shape == (2, 7, 32)


def test_hidden_states_may_be_chosen_by_index():
    model, inputs = build(), unlabelled_inputs()
    with torch.no_grad():
        everything = model(**inputs, output_hidden_states=True).hidden_states
        chosen = model(**inputs, output_hidden_states=[1, -1]).hidden_states
    assert [hidden_state is None for hidden_state in chosen] == [True, False, True, True, False]
    assert torch.equal(chosen[1], everything[1]) and torch.equal(chosen[4], everything[4])


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_gradients_flow_through_the_returned_hidden_states(mask_head):
    outputs = build(mask_head)(**segmentation_inputs(), output_hidden_states=True)
    gradients = torch.autograd.grad(outputs.loss, outputs.hidden_states)
    assert all(gradient.any() for gradient in gradients)


def test_attentions_of_the_text_encoder_come_when_asked_for():
    model, inputs = build(), unlabelled_inputs()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        assert model(**inputs).attentions is None
        attentions = model(**inputs, output_attentions=True).attentions
    assert [attention.shape for attention in attentions] == [(2, 4, 7, 7)] * 2


def test_the_attention_implementation_is_that_of_the_text_encoder(tmp_path):
    build().save_pretrained(tmp_path)
    inputs = unlabelled_inputs()
    logits = []
    for name in ("eager", "sdpa"):
        model = ReMamberForImageSegmentation.from_pretrained(tmp_path, attn_implementation=name)
        assert model.remamber.text_encoder.config._attn_implementation == name
        with torch.no_grad():
            logits.append(model(**inputs).logits)
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_downsample_runs_once_between_two_stages(mask_head):
    model = build(mask_head)
    calls = []
    for module in model.modules():
        if isinstance(module, VMambaDownsample):
            module.register_forward_hook(lambda module, inputs, output: calls.append(module))
    with torch.no_grad():
        model(**unlabelled_inputs())
    assert len(calls) == len(set(calls)) == 3


# ------------------------------------------------------------------------------------------------- pictures and tokens
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_image_index_equals_repeated_pictures(mask_head):
    model, inputs = build(mask_head).train(), segmentation_inputs(3)
    image_index = torch.tensor([1, 0, 1])
    repeated = model(**{**inputs, "pixel_values": inputs["pixel_values"][image_index]})
    repeated.loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    shared = model(**{**inputs, "pixel_values": inputs["pixel_values"][:2]}, image_index=image_index)
    shared.loss.backward()
    torch.testing.assert_close(shared.logits, repeated.logits, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_what_does_not_depend_on_the_text_runs_once_per_picture():
    model, inputs = build(), unlabelled_inputs(3)
    batches = []
    for module in (model.remamber.backbone.stem, *model.remamber.backbone.stages[0].blocks, model.remamber.fusions[0]):
        module.register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    inputs["pixel_values"] = inputs["pixel_values"][:2]
    with torch.no_grad():
        model(**inputs, image_index=torch.tensor([0, 1, 1]))
    assert batches == [2, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": torch.ones(2, 5, dtype=torch.long)}, r"5 tokens per expression, the model reads exactly 7"),
        (
            {"input_ids": torch.ones(3, 7, dtype=torch.long), "attention_mask": None},
            "2 pictures came with 3 expressions; give one picture per expression or image_index",
        ),
        ({"image_index": torch.tensor([0])}, r"image_index has shape \(1,\) for 2 expressions; give one for each"),
        (
            {"labels": torch.ones(2, 32, 48)},
            r"labels have shape \(2, 32, 48\), logits \(2, 1, 64, 96\); give",
        ),
        ({"labels": torch.ones(1, 64, 96)}, r"labels have shape \(1, 64, 96\), logits"),
        ({"labels": torch.full((2, 64, 96), 255)}, "labels from 255 to 255 came; give 1 for the object and 0"),
        ({"labels": torch.full((2, 64, 96), -100)}, "labels from -100 to -100 came"),
        ({"labels": torch.full((2, 64, 96), torch.nan)}, "labels from nan to nan came"),
        ({"image_index": torch.tensor([0, 2])}, r"image_index is \[0, 2\] for 2 pictures; give the picture of each"),
        ({"image_index": torch.tensor([-1, 0])}, r"image_index is \[-1, 0\] for 2 pictures"),
        ({"image_index": torch.tensor([1, 1])}, r"image_index is \[1, 1\] for 2 pictures"),
        ({"image_index": torch.tensor([[0, 1]])}, r"image_index has shape \(1, 2\) for 2 expressions"),
        ({"input_ids": None}, "input_ids are missing, the tokens of an expression; give a picture and a text"),
        ({"pixel_values": torch.ones(2, 64, 96, 3)}, r"it must be \(batch, 3, height, width\)"),
        ({"pixel_values": torch.ones(2, 1, 3, 64, 96)}, r"it must be .*; take \[0\] of each"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        build()(**{**segmentation_inputs(), **change})


@pytest.mark.parametrize("model_class", [ReMamberModel, ReMamberForImageSegmentation])
@pytest.mark.parametrize("name", ["pixel_value", "lables", "num_items_in_batch"])
def test_a_keyword_that_is_not_taken_is_refused_by_its_name(model_class, name):
    inputs = unlabelled_inputs()
    given = inputs.pop("pixel_values") if name == "pixel_value" else 1
    with pytest.raises(TypeError, match=rf"^forward\(\) got an unexpected keyword argument '{name}'; [^\n]*$"):
        build(model_class=model_class)(**inputs, **{name: given})


def test_what_transformers_passes_on_to_text_encoders_arrives():
    model, inputs = build(), unlabelled_inputs()
    positions = torch.arange(7)[None]
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(model(**inputs, position_ids=positions).logits, expected)
        assert not torch.allclose(model(**inputs, position_ids=positions.flip(1)).logits, expected, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- loss
def test_the_loss_is_dice_plus_cross_entropy():
    logits = torch.randn(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[[1, 0, 0, 1, 1]] * 4, [[0] * 5] * 4])
    total = 0.0
    for p, q in zip(logits.sigmoid()[:, 0].double(), labels.double()):
        dice = 1 - (2 * (p * q).sum() + 1) / (p.sum() + q.sum() + 1)
        cross_entropy = -(q * p.log() + (1 - q) * (1 - p).log()).mean()
        total += (dice + cross_entropy) / 2
    for given in (labels, labels[:, None], labels.bool(), labels.float()):
        torch.testing.assert_close(segmentation_loss(logits, given).double(), total, rtol=1e-6, atol=1e-6)


def test_the_loss_of_the_right_mask_is_zero_and_half_precision_does_not_overflow():
    labels = torch.zeros(1, 400, 400)
    labels[:, :200] = 1
    logits = (100 * (2 * labels - 1))[:, None]
    assert segmentation_loss(logits, labels).item() == pytest.approx(0, abs=1e-6)
    loss = segmentation_loss(logits.half(), labels)  # 80 000 pixels, more than float16 can count
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(0, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- precision
@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize("way", ["autocast", "loaded", "cast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_float32(mask_head, way, dtype, tmp_path):
    model, inputs = build(mask_head), unlabelled_inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        if way == "autocast":
            with torch.autocast("cpu", dtype):
                actual = model(**inputs).logits
        elif way == "cast":
            actual = model.to(dtype)(**inputs).logits
        else:
            model.save_pretrained(tmp_path)
            actual = ReMamberForImageSegmentation.from_pretrained(tmp_path, dtype=dtype)(**inputs).logits
    assert (actual.float() - expected).norm() / expected.norm() < (0.04 if dtype == torch.bfloat16 else 0.005)


@pytest.mark.parametrize("way", ["autocast", "cast"])
@pytest.mark.parametrize(
    "case", [*SEGMENTATION_CASES, *(pytest.param(f"{head}_base", marks=pytest.mark.slow) for head in MASK_HEADS)]
)
def test_masks_in_bfloat16_are_those_of_float32(case, way):
    model = golden_model(case)
    inputs = base_inputs(case) if case.endswith("base") else golden_inputs(case)
    with torch.no_grad():
        logits = model(**inputs).logits
        if way == "cast":
            model.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            actual = model(**inputs).logits > 0
    expected = logits > 0
    assert 0 < expected.float().mean() < 1
    # Rounding is 2 to 4 % of the spread of logits, by the processor's instructions. A pixel that it may turn is none
    # that bfloat16 gets wrong, and with the random weights of conv_base 2 % of the pixels are such.
    is_decided = logits.abs() > 0.25 * logits.std()
    assert is_decided.float().mean() > 0.75
    assert torch.equal(actual[is_decided], expected[is_decided])
    if case != "conv_base":
        assert (actual & expected).sum() / (actual | expected).sum() >= 0.99


@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_the_recurrence_stay_float32_when_loaded_in_half_precision(mask_head, dtype, tmp_path):
    build(mask_head).save_pretrained(tmp_path)
    model = ReMamberForImageSegmentation.from_pretrained(tmp_path, dtype=dtype)
    for name, parameter in model.named_parameters():
        is_kept = name.endswith(("A_log", ".D", "dt_proj_bias"))
        assert parameter.dtype == (torch.float32 if is_kept else dtype), name


# ---------------------------------------------------------------------------------------------- resize and convolution
CONVOLUTIONS = [  # channels of the resized map, of the skip, of the output
    (COMMUTED_CHANNELS, 0, 6),
    (COMMUTED_CHANNELS, 5, 6),
    (7, 0, 1),
    (7, 3, 1),
    (7, 3, 4),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(10, 14), (9, 13), (5, 7), (1, 1)])
@pytest.mark.parametrize(("channels", "skip_channels", "output_channels"), CONVOLUTIONS)
def test_a_convolution_before_the_resize_equals_one_after_it(channels, skip_channels, output_channels, size, bias):
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(channels + skip_channels, output_channels, 3, padding=1, bias=bias)
    hidden_states = torch.randn(2, 5, 7, channels, requires_grad=True)
    skip = torch.randn(2, *size, skip_channels, requires_grad=True) if skip_channels else None
    inputs = [tensor for tensor in (hidden_states, skip, *convolution.parameters()) if tensor is not None]
    parameters = [parameter.clone() for parameter in convolution.parameters()]

    resized = F.interpolate(hidden_states.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=True)
    whole = resized if skip is None else torch.cat([resized, skip.permute(0, 3, 1, 2)], dim=1)
    expected = F.conv2d(whole, convolution.weight, convolution.bias, padding=1).permute(0, 2, 3, 1)
    actual = convolve_resized(convolution, hidden_states, size, skip)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(expected)
    for gradient, reference in zip(
        torch.autograd.grad((actual * weights).sum(), inputs), torch.autograd.grad((expected * weights).sum(), inputs)
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        alone = convolve_resized(convolution, hidden_states[:1], size, None if skip is None else skip[:1])
    torch.testing.assert_close(alone, expected[:1], rtol=1e-5, atol=1e-5)
    assert all(map(torch.equal, convolution.parameters(), parameters))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once_by_a_convolution_before_the_resize(dtype):
    """So GPUs convolve to one channel, under autocast and with weights in half precision."""
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(64, 1, 3, padding=1).to(dtype)
    hidden_states = torch.randn(2, 9, 11, 64, dtype=dtype)
    exact = convolve_before_resize(copy.deepcopy(convolution).double(), hidden_states.double(), (18, 22), None)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        actual = convolve_before_resize(convolution, hidden_states, (18, 22), None)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), exact.detach(), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_the_neck_of_the_conv_head_takes_a_third_of_the_arithmetic_on_a_cpu():
    def count_flops(device):
        with torch.device(device):
            config = remamber_config(conv_head_ratio=16)  # 128 channels
            head = ReMamberForImageSegmentation(config).mask_head.eval()
            maps = [torch.zeros(1, 32 // 2**i, 32 // 2**i, 8 * 2**i) for i in range(4)]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            head(maps, None)
        return counter.get_total_flops()

    assert count_flops("cpu") < 0.35 * count_flops("meta")


@pytest.mark.parametrize("name", ["classifier", "neck.0.0", "neck.1.0"])
def test_a_hook_on_a_convolution_after_a_resize_is_called(name):
    model, inputs, seen = build(), unlabelled_inputs(), []
    with torch.no_grad():
        expected = model(**inputs).logits
        model.mask_head.get_submodule(name).register_forward_hook(lambda *arguments: seen.append(arguments))
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    assert len(seen) == 1


# --------------------------------------------------------------------------------------------- optimized for inference
def trained_like(mask_head):
    """A model whose batch norms have statistics and weights of their own."""
    model = build(mask_head)
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 2.0, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(generator=generator)
    return model


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_model_optimized_for_inference_has_no_batch_norm_and_the_same_logits(mask_head):
    model, inputs = trained_like(mask_head), unlabelled_inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        assert model.optimize_for_inference() is model
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
        once = model(**inputs).logits
        twice = model.optimize_for_inference()(**inputs).logits
    assert expected.std() > 1e-2
    torch.testing.assert_close(once, expected, rtol=0, atol=1e-4)
    assert torch.equal(once, twice)


@pytest.mark.slow
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_compiled_model_has_the_same_logits(mask_head):
    model, inputs = trained_like(mask_head), unlabelled_inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        actual = model.optimize_for_inference(compile=True)(**inputs).logits
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_an_optimized_model_is_neither_saved_nor_trained(tmp_path):
    model = trained_like("conv")
    with pytest.raises(RuntimeError, match=r"training mode cannot be optimized for inference; call model\.eval\(\)"):
        model.train().optimize_for_inference()
    model.eval().optimize_for_inference()
    with pytest.raises(RuntimeError, match="load it anew to train it"):
        model.train()
    assert not model.training
    with pytest.raises(RuntimeError, match="save it before, or load it anew"):
        model.save_pretrained(tmp_path / "model")
    assert not any(tmp_path.iterdir())


def test_offloaded_weights_are_not_optimized(tmp_path):
    build().save_pretrained(tmp_path)
    device_map = {"remamber": "cpu", "mask_head": "disk"}
    model = ReMamberForImageSegmentation.from_pretrained(
        tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    with pytest.raises(RuntimeError, match="weights are offloaded; load the model without device_map"):
        model.optimize_for_inference()


# ------------------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_every_parameter_gets_a_gradient_and_moves_in_a_step(mask_head):
    model = build(mask_head, use_conv_bias=True).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-20, weight_decay=0.0)
    model(**segmentation_inputs()).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_one_picture_can_be_trained_on(mask_head, size):
    model = build(mask_head).train()
    loss = model(**segmentation_inputs(1, *size)).loss
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_single_pixel_is_normalized_with_the_running_statistics():
    norm = torch.nn.BatchNorm2d(4).train()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    pixel = torch.randn(1, 1, 1, 4)
    torch.testing.assert_close(batch_norm(norm, pixel), (pixel - 2) / (4 + norm.eps) ** 0.5)
    assert (norm.running_mean == 2).all() and (norm.running_var == 4).all()
    pixels = torch.randn(2, 1, 1, 4)
    torch.testing.assert_close(
        batch_norm(norm, pixels), F.batch_norm(pixels.flatten(0, 2), None, None, training=True)[:, None, None]
    )
    assert (norm.running_mean != 2).all()


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_frozen_batch_norm_keeps_and_uses_its_statistics(mask_head):
    model, inputs = build(mask_head).train(), segmentation_inputs()
    model.mask_head.requires_grad_(False)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(**inputs).loss.backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, model.eval()(**inputs).logits, rtol=1e-4, atol=1e-5)
        model.mask_head.requires_grad_(True)
        model.train()(**inputs)
    assert not all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_without_attention_mask_what_follows_the_end_token_is_padding():
    model, inputs = build(), unlabelled_inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        end = inputs["input_ids"] == model.config.text_config.eos_token_id
        assert torch.equal(inputs.pop("attention_mask"), (end.cumsum(1) < 2).long())
        assert torch.equal(model(**inputs).logits, expected)
        all_ones = model(**inputs, attention_mask=torch.ones_like(inputs["input_ids"])).logits
        assert not torch.allclose(all_ones, expected, atol=1e-6)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
@pytest.mark.parametrize("enable", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
def test_activation_checkpointing_computes_blocks_again_and_changes_no_gradient(mask_head, enable):
    plain, checkpointed = build(mask_head).train(), build(mask_head).train()
    getattr(checkpointed, enable)()
    assert checkpointed.is_activation_checkpointing
    scans = [module for module in checkpointed.modules() if isinstance(module, SS2D)]
    calls = []
    for scan in scans:
        scan.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    for model in (plain, checkpointed):
        model(**segmentation_inputs()).loss.backward()
    assert all(calls.count(scan) == 2 for scan in scans)
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-6, atol=0, msg=name)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_scan_backend_holds_for_every_scan_of_the_model_and_of_its_copies(mask_head):
    model, inputs = build(mask_head).eval(), unlabelled_inputs()
    model.set_scan_backend("reference")
    scans = [module for module in model.modules() if isinstance(module, SS2D)]
    parts = {name.split(".")[1 if name.startswith("remamber.") else 0] for name, module in model.named_modules()
             if module in scans}  # fmt: skip
    assert parts == {"backbone", "fusions"} | ({"mask_head"} if mask_head == "mamba" else set())
    assert {scan.scan_backend for scan in scans} == {"reference"}
    assert {module.scan_backend for module in deepcopy(model).modules() if isinstance(module, SS2D)} == {"reference"}
    for part in (model.remamber.backbone, model.remamber, model):
        part.set_scan_backend("mamba_ssm")
        with pytest.raises(RuntimeError, match="'mamba_ssm' cannot run"), torch.no_grad():
            model(**inputs)
        model.set_scan_backend("auto")
    with pytest.raises(ValueError, match="scan backend 'numba' is unknown; use 'auto' or one of"):
        model.set_scan_backend("numba")


def test_where_a_scan_runs_is_not_saved_and_old_folders_that_say_it_load(tmp_path):
    model = build()
    model.set_scan_backend("reference")
    model.save_pretrained(tmp_path)
    assert "scan_backend" not in (tmp_path / "config.json").read_text()
    config = json.loads((tmp_path / "config.json").read_text())
    config["scan_backend"] = config["vision_config"]["scan_backend"] = "mamba_ssm"
    (tmp_path / "config.json").write_text(json.dumps(config))
    logging.warning_once.cache_clear()
    with CaptureLogger(configuration_scan.logger) as log:
        loaded = type(model).from_pretrained(tmp_path).eval()
    loaded.set_scan_backend("reference")
    assert log.out.count("scan_backend='mamba_ssm' in a configuration is not read; call model.set_scan_backend") == 1
    with torch.no_grad():
        assert torch.equal(loaded(**unlabelled_inputs()).logits, model.eval()(**unlabelled_inputs()).logits)
    loaded.save_pretrained(tmp_path / "again")
    assert "scan_backend" not in (tmp_path / "again" / "config.json").read_text()


def test_a_scan_backend_in_the_configuration_is_refused_with_the_method_that_sets_it(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    for config in (model.config, model.config.vision_config):
        with pytest.raises(ValueError, match="scan_backend='torch' is not part of the .* model.set_scan_backend"):
            config.scan_backend = "torch"
    with pytest.raises(ValueError, match="is not part of the configuration; call model.set_scan_backend"):
        type(model).from_pretrained(tmp_path, scan_backend="torch")


class ValueReads(TorchDispatchMode):
    """Notes the operations that on a GPU make the host wait: a value is read, or a shape hangs on values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        is_reading = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags)
        if function is torch.ops.aten.index.Tensor:  # a mask as index is counted first, integers are not
            is_reading = any(index is not None and index.dtype == torch.bool for index in args[1])
        if is_reading:
            self.found.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("shares_pictures", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_training_step_reads_no_value(mask_head, attention, shares_pictures):
    model, inputs = build(mask_head, attn_implementation=attention).train(), segmentation_inputs()
    if shares_pictures:
        inputs.update(pixel_values=inputs["pixel_values"][:1], image_index=torch.zeros(2, dtype=torch.long))
    with ValueReads() as reads:
        model(**inputs).loss.backward()
    assert reads.found == []
    with ValueReads() as reads:
        bool(inputs["pixel_values"].any())
    assert reads.found == ["aten._local_scalar_dense.default"]


@pytest.mark.parametrize("shares_pictures", [False, True])
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_model_compiles_without_a_graph_break(mask_head, shares_pictures):
    model, inputs = build(mask_head), unlabelled_inputs(2, 32, 64)
    assert model._can_compile_fullgraph
    if shares_pictures:
        inputs.update(pixel_values=inputs["pixel_values"][:1], image_index=torch.zeros(2, dtype=torch.long))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)
