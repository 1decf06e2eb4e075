# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The fusion designs: what each computes, by a second route; and that a model with any of them is a whole model."""

import math

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from tiny import (
    FUSION_VARIANTS,
    FUSIONS,
    TEXT_FIELDS,
    VISION_FIELDS,
    build,
    remamber_config,
    run_without_package,
    scan_backends,
    segmentation_inputs,
    unlabelled_inputs,
)

from remamber_hf import ReMamberForImageSegmentation
from remamber_hf.fusion_remamber import (
    FUSIONS as FUSION_CLASSES,
)
from remamber_hf.fusion_remamber import (
    CrossAttention,
    InContextScan,
    MambaTwister,
    NormAdaptationBlock,
)
from remamber_hf.modeling_vmamba import SS2D
from remamber_hf.selective_scan import Direction


TOKENS_READ_THEIR_MASK = [name for name, fields in FUSION_VARIANTS.items() if fields.get("fusion") in
                          ("in_context", "cross_attention")]  # fmt: skip


def build_variant(name: str, **fields) -> ReMamberForImageSegmentation:
    """A model whose weights are as large as its narrow layers need for text to come through them."""
    vision_config = {**VISION_FIELDS, "initializer_range": 0.2}
    model = build(**FUSION_VARIANTS[name], initializer_range=0.2, vision_config=vision_config, **fields)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NormAdaptationBlock):  # which starts as no fusion at all
                module.adaptation.weight.normal_(std=0.2)
    return model


# --------------------------------------------------------------------------------------------------- in-context fusion
def visiting_order(size: tuple[int, int], side: int, direction: Direction) -> list[list[tuple[int, int]]]:
    """Pixels (row, column) of each window in the order in which a direction reads them."""
    height, width = size
    side_h, side_w = (min(side, height) or height), (min(side, width) or width)
    corners = [(row, column) for row in range(0, height, side_h) for column in range(0, width, side_w)]
    if direction.is_column:
        corners.sort(key=lambda corner: (corner[1], corner[0]))
    windows = []
    for top, left in corners:
        pixels = [
            (row, column)
            for row in range(top, min(top + side_h, height))
            for column in range(left, min(left + side_w, width))
        ]
        if direction.is_column:
            pixels.sort(key=lambda pixel: (pixel[1], pixel[0]))
        windows.append(pixels[::-1] if direction.is_reversed else pixels)
    return windows[::-1] if direction.is_reversed else windows


def scan_from(state, vectors, scan, direction):
    """Outputs for some vectors (steps, channels) and the state (channels, N) that they leave, step by step."""
    rank, state_size = scan.dt_proj_weight.shape[-1], scan.A_log.shape[-1]
    channels = vectors.shape[-1]
    A = -scan.A_log[direction * channels : (direction + 1) * channels].exp()
    D = scan.D[direction * channels : (direction + 1) * channels]
    outputs = []
    for vector in vectors:
        dt, B, C = (scan.x_proj_weight[direction] @ vector).split([rank, state_size, state_size])
        delta = F.softplus(scan.dt_proj_weight[direction] @ dt + scan.dt_proj_bias[direction])
        state = (delta[:, None] * A).exp() * state + delta[:, None] * B * vector[:, None]
        outputs.append(state @ C + D * vector)
    return outputs, state


def scan_by_hand(scan: InContextScan, hidden_states, tokens, num_tokens):
    """One picture: the text is scanned alone, the pixels go on from the state that it leaves."""
    height, width = hidden_states.shape[:2]
    pixels = (hidden_states @ scan.in_proj.weight.T).permute(2, 0, 1)
    pixels = F.silu(F.conv2d(pixels, scan.conv.weight, padding=1, groups=len(pixels))).permute(1, 2, 0)
    tokens = F.silu(tokens[:num_tokens] @ scan.in_proj.weight.T)
    y = torch.zeros_like(pixels)
    for direction in Direction:
        state = pixels.new_zeros(pixels.shape[-1], scan.A_log.shape[-1])
        is_front = scan.position in ("prefix", "both") or direction.is_reversed
        is_back = scan.position == "both" or not is_front
        for window in visiting_order((height, width), scan.window, direction):
            if is_front:
                _, state = scan_from(state, tokens, scan, direction)
            outputs, state = scan_from(state, torch.stack([pixels[pixel] for pixel in window]), scan, direction)
            for pixel, output in zip(window, outputs, strict=True):
                y[pixel] += output
            if is_back:
                _, state = scan_from(state, tokens, scan, direction)
    y = F.layer_norm(y, y.shape[-1:], scan.out_norm.weight, scan.out_norm.bias, scan.out_norm.eps)
    return y @ scan.out_proj.weight.T


@pytest.mark.parametrize("position", ["prefix", "suffix", "both"])
@pytest.mark.parametrize(("size", "window"), [((3, 4), 0), ((5, 7), 3), ((2, 5), 4), ((1, 1), 2)])
def test_in_context_is_a_scan_of_the_text_and_then_of_the_picture_from_its_state(size, window, position):
    config = remamber_config(
        fusion="in_context", in_context_window=window, in_context_position=position, state_size=3, time_step_rank=2
    )
    torch.manual_seed(0)
    scan = InContextScan(config, 6).double()
    with torch.no_grad():
        for parameter in scan.parameters():
            parameter.normal_(std=0.5)
        hidden_states, tokens = torch.randn(2, *size, 6).double(), torch.randn(2, 5, 6).double()
        lengths = [2, 5]
        mask = torch.tensor([[1] * length + [0] * (5 - length) for length in lengths])
        actual = scan(hidden_states, tokens, mask)
        for index, length in enumerate(lengths):
            expected = scan_by_hand(scan, hidden_states[index], tokens[index], length)
            torch.testing.assert_close(actual[index], expected, rtol=1e-9, atol=1e-9)
            without_text = scan_by_hand(scan, hidden_states[index], tokens[index], 0)
            assert (expected - without_text).norm() > 0.01 * expected.norm()


def test_in_context_norms_map_and_tokens_alike():
    block = build_variant("in_context").remamber.fusions[1].blocks[0]
    hidden_states, tokens, mask = torch.randn(2, 3, 4, 16), torch.randn(2, 7, 16), torch.ones(2, 7)
    with torch.no_grad():
        normed, normed_tokens = (F.layer_norm(inputs, (16,)) for inputs in (hidden_states, tokens))
        expected = hidden_states + block.in_context_scan(normed, normed_tokens, mask)
        torch.testing.assert_close(block(hidden_states, tokens, mask), expected, rtol=1e-5, atol=1e-6)


def test_a_window_as_large_as_the_map_is_none_however_large():
    hidden_states, tokens, mask = torch.randn(1, 3, 4, 6), torch.randn(1, 5, 6), torch.ones(1, 5)
    outputs = []
    for window in (0, 4, 65536):
        torch.manual_seed(0)
        config = remamber_config(fusion="in_context", in_context_window=window)
        scan = InContextScan(config, 6)
        with torch.no_grad():
            for parameter in scan.parameters():
                parameter.normal_(std=0.5)
            outputs.append(scan(hidden_states, tokens, mask))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_in_context_runs_on_the_backend_that_is_named():
    scan = InContextScan(remamber_config(fusion="in_context"), 6)
    scan.scan_backend = "mamba_ssm"
    with pytest.raises(RuntimeError, match="scan backend 'mamba_ssm' cannot run"):
        scan(torch.randn(1, 3, 4, 6), torch.randn(1, 5, 6), torch.ones(1, 5))


@pytest.mark.parametrize("backend", scan_backends("cpu", "torch"))
@pytest.mark.parametrize("window", [0, 3])
def test_every_backend_serves_in_context_fusion_with_its_gradients(window, backend):
    model = build_variant("window").train()
    for module in model.modules():
        if isinstance(module, InContextScan):
            module.window = window
    inputs, gradients = segmentation_inputs(2, 32, 40), {}
    for name in ("reference", backend):
        model.set_scan_backend(name)
        assert {module.scan_backend for module in model.modules() if isinstance(module, SS2D)} == {name}
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    difference = (gradients[backend] - gradients["reference"]).norm() / gradients["reference"].norm()
    assert difference < 1e-4


# ------------------------------------------------------------------------------------------------------ other designs
def test_cross_attention_is_pytorchs_multi_head_attention_with_padding_masked():
    torch.manual_seed(0)
    attention = CrossAttention(remamber_config(fusion="cross_attention"), 64)
    expected_attention = torch.nn.MultiheadAttention(64, 2, bias=False, kdim=32, vdim=32, batch_first=True)
    with torch.no_grad():
        for ours, theirs in (("q", "q_proj_weight"), ("k", "k_proj_weight"), ("v", "v_proj_weight")):
            getattr(expected_attention, theirs).copy_(getattr(attention, f"{ours}_proj").weight)
        expected_attention.out_proj.weight.copy_(attention.out_proj.weight)
        hidden_states, tokens = torch.randn(2, 3, 4, 64), torch.randn(2, 7, 32)
        mask = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [1] * 7])
        actual = attention(hidden_states, tokens, mask)
        expected, _ = expected_attention(hidden_states.flatten(1, 2), tokens, tokens, key_padding_mask=mask == 0)
    torch.testing.assert_close(actual.flatten(1, 2), expected, rtol=1e-5, atol=1e-6)


def test_norm_adaptation_scales_shifts_and_gates_and_a_new_block_passes_the_map_on():
    block = build(fusion="norm_adaptation").remamber.fusions[1].blocks[0]
    hidden_states, pooled_text = torch.randn(2, 3, 4, 16), torch.randn(2, 32)
    with torch.no_grad():
        assert torch.equal(block(hidden_states, pooled_text), hidden_states)
        block.adaptation.weight.normal_()
        block.adaptation.bias.normal_()
        gates = pooled_text * pooled_text.sigmoid() @ block.adaptation.weight.T + block.adaptation.bias
        scale, shift, gate = gates[:, :16], gates[:, 16:32], gates[:, 32:]
        normed = (hidden_states - hidden_states.mean(-1, keepdim=True)) / (
            hidden_states.var(-1, keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        adapted = normed * (1 + scale[:, None, None]) + shift[:, None, None]
        expected = hidden_states + gate[:, None, None] * block.spatial_scan(adapted)
        torch.testing.assert_close(block(hidden_states, pooled_text), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scans", ["channel_then_spatial", "spatial_then_channel", "parallel", "channel", "spatial"])
def test_the_twister_runs_its_scans_in_the_named_arrangement(scans):
    torch.manual_seed(0)
    twister = MambaTwister(remamber_config(twister_scans=scans), 8)
    with torch.no_grad():
        for parameter in twister.parameters():
            parameter.normal_(std=0.3)
        maps = [torch.randn(2, 5, 6, 8) for _ in range(3)]
        cube = torch.cat(maps, dim=-1)
        if scans == "channel_then_spatial":
            expected = twister.spatial_scan(cube + twister.channel_scan(cube))
        elif scans == "spatial_then_channel":
            spatial = twister.spatial_scan(cube)
            expected = spatial + twister.channel_scan(spatial)
        else:
            expected = 0
            if scans != "spatial":
                expected = expected + (cube + twister.channel_scan(cube)) @ twister.channel_proj.weight.T
            if scans != "channel":
                expected = expected + twister.spatial_scan(cube)
        torch.testing.assert_close(twister(*maps), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "absent", "present"),
    [
        ("twister", "channel_proj", "channel_scan"),
        ("spatial_then_channel", "channel_proj", "channel_scan"),
        ("parallel", "adaptation", "channel_proj"),
        ("channel", "spatial_scan", "channel_proj"),
        ("spatial", "channel_scan", "spatial_scan"),
        ("no_global_text", "global_text", "local_text"),
        ("no_local_text", "local_text", "global_text"),
        ("in_context", "twister", "text_proj"),
        ("cross_attention", "adaptation", "attention"),
        ("norm_adaptation", "attention", "adaptation"),
    ],
)
def test_a_part_that_is_not_used_has_no_parameters(variant, absent, present):
    names = [name for name, _ in build(**FUSION_VARIANTS[variant]).remamber.fusions.named_parameters()]
    assert not any(absent in name for name in names)
    assert any(present in name for name in names)


def test_the_cube_has_as_many_maps_as_there_are_texts():
    sizes = {
        name: build(**FUSION_VARIANTS[name]).remamber.fusions[2].blocks[0].twister.spatial_scan.in_proj.in_features
        for name in ("twister", "no_global_text", "no_local_text")
    }
    assert sizes == {"twister": 96, "no_global_text": 64, "no_local_text": 64}


# ------------------------------------------------------------------------------------------------- the model with them
def test_the_configuration_names_what_there_is():
    assert set(FUSION_CLASSES) == set(FUSIONS)


def test_an_option_that_the_fusion_does_not_read_is_refused_wherever_it_is_given(tmp_path):
    build().save_pretrained(tmp_path)
    message = "in_context_window is 4, which fusion='twister' does not read; leave it out or give fusion='in_context'"
    with pytest.raises(StrictDataclassError, match=message):
        ReMamberForImageSegmentation.from_pretrained(tmp_path, in_context_window=4)
    config = remamber_config()
    config.in_context_window = 4
    with pytest.raises(StrictDataclassError, match=message):
        ReMamberForImageSegmentation(config)


@pytest.mark.parametrize("variant", FUSION_VARIANTS)
def test_text_changes_the_mask(variant):
    model, inputs = build_variant(variant), unlabelled_inputs()
    with torch.no_grad():
        logits = model(**inputs).logits
        other = inputs["input_ids"].clone()
        other[0, 1] += 1
        changed = model(**{**inputs, "input_ids": other}).logits
    assert logits.isfinite().all() and logits.std() > 1e-2
    assert (changed[0] - logits[0]).abs().max() > 1e-4 * logits.std()
    torch.testing.assert_close(changed[1], logits[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", [*TOKENS_READ_THEIR_MASK, "norm_adaptation"])
def test_padding_changes_nothing(variant):
    model, inputs = build_variant(variant), unlabelled_inputs()
    padding = inputs["attention_mask"] == 0
    with torch.no_grad():
        expected = model(**inputs).logits
        inputs["input_ids"] = torch.where(padding, 5, inputs["input_ids"])
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("variant", FUSION_VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (50, 70)])
def test_an_expression_gives_the_same_alone_in_a_batch_and_with_a_shared_picture(variant, size):
    model, inputs = build_variant(variant), unlabelled_inputs(3, *size)
    image_index = torch.tensor([1, 0, 1])
    pictures = inputs["pixel_values"][:2]
    with torch.no_grad():
        together = model(**{**inputs, "pixel_values": pictures}, image_index=image_index).logits
        alone = [
            model(
                pixel_values=pictures[image_index[i : i + 1]],
                input_ids=inputs["input_ids"][i : i + 1],
                attention_mask=inputs["attention_mask"][i : i + 1],
            ).logits
            for i in range(3)
        ]
    assert together.shape == (3, 1, *size)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", FUSION_VARIANTS)
def test_every_parameter_gets_a_gradient_and_moves(variant):
    model, inputs = build_variant(variant, use_conv_bias=True).train(), segmentation_inputs()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-20, weight_decay=0.0)
    model(**inputs).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
        assert not torch.equal(parameter, before[name]), name


def test_a_new_model_with_norm_adaptation_trains_its_scans_from_the_second_step_on():
    model, inputs = build(fusion="norm_adaptation").train(), segmentation_inputs()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-20, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    assert not any(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    "variant", ["in_context", "cross_attention", "norm_adaptation", "window_both", "no_local_text"]
)
def test_activation_checkpointing_computes_blocks_again_and_changes_no_gradient(variant):
    plain, checkpointed = build_variant(variant).train(), build_variant(variant).train()
    checkpointed.load_state_dict(plain.state_dict())
    checkpointed.gradient_checkpointing_enable()
    calls = []
    scans = [module for module in checkpointed.remamber.fusions.modules() if isinstance(module, SS2D)]
    for scan in scans:
        scan.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    for model in (plain, checkpointed):
        model(**segmentation_inputs()).loss.backward()
    assert scans and all(calls.count(scan) == 2 for scan in scans)
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-6, atol=0, msg=name)


@pytest.mark.parametrize("variant", FUSION_VARIANTS)
@pytest.mark.parametrize("way", ["autocast", "cast"])
def test_bfloat16_is_close_to_float32(variant, way):
    model, inputs = build_variant(variant), unlabelled_inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        if way == "cast":
            model.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            actual = model(**inputs).logits
    assert (actual.float() - expected).norm() / expected.norm() < 0.06


@pytest.mark.parametrize("variant", [*FUSIONS, "parallel", "no_global_text"])
def test_saved_and_loaded_a_model_is_the_same_from_memory_and_from_the_disk(variant, tmp_path):
    model, inputs = build_variant(variant), unlabelled_inputs()
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(**inputs).logits
        loaded = ReMamberForImageSegmentation.from_pretrained(tmp_path)
        assert torch.equal(loaded(**inputs).logits, expected)
        device_map = {"remamber": "disk", "mask_head": "cpu"}
        offloaded = ReMamberForImageSegmentation.from_pretrained(
            tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
        )
        assert torch.equal(offloaded(**inputs).logits, expected)
    assert loaded.config.to_diff_dict().items() >= FUSION_VARIANTS[variant].items()


def test_saved_models_load_where_the_package_is_not_installed(tmp_path):
    inputs, expected = unlabelled_inputs(), {}
    names = ["in_context", "cross_attention", "norm_adaptation", "parallel", "window_both"]
    for name in names:
        model = build_variant(name)
        model.save_pretrained(tmp_path / name)
        with torch.no_grad():
            expected[name] = model(**inputs).logits
    torch.save(inputs, tmp_path / "inputs.pt")
    code = f"""
import torch
from transformers import AutoModelForImageSegmentation
inputs = torch.load("inputs.pt")
for name in {names}:
    model = AutoModelForImageSegmentation.from_pretrained(name, trust_remote_code=True).eval()
    with torch.no_grad():
        torch.save(model(**inputs).logits, name + ".pt")
"""
    run_without_package(code, tmp_path)
    for name in names:
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.pt"), expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["in_context", "cross_attention", "norm_adaptation"])
def test_missing_weights_are_initialised_as_in_a_new_model(variant):
    config = remamber_config(**FUSION_VARIANTS[variant])
    torch.manual_seed(0)
    built = ReMamberForImageSegmentation(config).state_dict()
    loaded = ReMamberForImageSegmentation.from_pretrained(None, config=config, state_dict={}).state_dict()
    for name, value in built.items():
        if "adaptation" in name:
            assert not value.any() and not loaded[name].any(), name
        elif ".fusions." in name and value.numel() >= 128 and value.std() > 0:
            assert math.isclose(loaded[name].std(), value.std(), rel_tol=0.35), name


@pytest.mark.slow
@pytest.mark.parametrize("variant", FUSION_VARIANTS)
def test_the_model_compiles_without_a_graph_break(variant):
    model, inputs = build_variant(variant), unlabelled_inputs()
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(**inputs).logits
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(**inputs).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_text_encoder_of_another_width_is_read_by_every_design():
    text_config = {**TEXT_FIELDS, "hidden_size": 20}
    for fields in FUSIONS.values():
        assert build(text_config=text_config, **fields)(**segmentation_inputs(1, 32, 32)).loss.isfinite()
