# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Vim: the reference cases block by block, a second route in float64, sizes, precision, training, initial values."""

import functools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from tiny import CLASS_TOKENS, golden_fill, golden_state_dict, golden_tensors, scan_backends, vim_config
from torch import nn
from vim_reference import published_state_dict, reference_logits

from remamber_hf import VimBackbone, VimConfig, VimForImageClassification, VimModel
from remamber_hf.convert_checkpoint import convert_state_dict
from remamber_hf.modeling_vim import VimMixer, insert_class_tokens, split_class_tokens


GOLDEN_SIZES = {"vim_tiny_like": (64, 64), "vim_stride8": (64, 96), "vim_seg": (96, 96)}
CLASSIFIERS = ("vim_tiny_like", "vim_stride8")
MODEL_CLASSES = (VimModel, VimBackbone, VimForImageClassification)
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


PUBLISHED_SIZES = {
    "tiny": {},
    "tiny+": {"stride": 8},
    "small": {"hidden_size": 384},
    "small+": {"hidden_size": 384, "stride": 8},
    "base": {"hidden_size": 768},
}


def pictures(batch_size=2, height=48, width=64, channels=3):
    return torch.randn(batch_size, channels, height, width, generator=torch.Generator().manual_seed(0))


def build(model_class=VimModel, seed=0, **fields):
    torch.manual_seed(seed)
    return model_class(vim_config(**fields)).eval()


# ------------------------------------------------------------------------------------------------- the reference cases
def golden_vim(case, scan_backend="auto", **fields):
    """Model with the weights of a reference case."""
    config, state_dict = convert_state_dict(golden_state_dict(case), GOLDEN_SIZES[case])
    for name, value in fields.items():
        setattr(config, name, value)
    model = (VimBackbone if case == "vim_seg" else VimForImageClassification)(config)
    model.load_state_dict(state_dict)
    model.set_scan_backend(scan_backend)
    return model.eval()


@functools.cache
def golden_outputs(case, scan_backend):
    model = golden_vim(case, scan_backend)
    mixed = []
    for block in model.vim.layers:
        block.mixer.register_forward_hook(lambda module, inputs, output: mixed.append(output))
    with torch.no_grad():
        outputs = model(golden_tensors(case)["pixel_values"], output_hidden_states=True)
        norm_f = model.vim.norm(outputs.hidden_states[-1])
    residuals = {f"residual.{index}": stream for index, stream in enumerate(outputs.hidden_states[:-1])}
    hidden = {f"hidden.{index}": output for index, output in enumerate(mixed)}
    return {"logits": outputs.logits, "norm_f": norm_f, **residuals, **hidden}


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch", "reference"))
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_every_block_and_the_logits_equal_the_published_code(case, scan_backend):
    expected, found = golden_tensors(case), golden_outputs(case, scan_backend)
    assert {name for name in expected if name.startswith(("hidden", "residual"))} <= found.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-5, msg=lambda text: f"{name}: {text}")  # noqa: B023


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch"))
@pytest.mark.parametrize("case", CLASSIFIERS)
def test_loss_and_gradients_equal_the_published_code(case, scan_backend):
    tensors, manifest = golden_tensors(case), golden_fill.manifest(case)
    model = golden_vim(case, scan_backend).train()
    outputs = model(tensors["pixel_values"], labels=tensors["labels"])
    torch.testing.assert_close(outputs.logits, tensors["train.logits"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.loss, tensors["train.loss"][0], rtol=1e-5, atol=1e-6)
    outputs.loss.backward()
    found = published_gradients(model, list(manifest["tensors"]))
    assert found.keys() == manifest["train_grad_norm_and_sum"].keys()
    for name, (norm, total) in manifest["train_grad_norm_and_sum"].items():
        assert found[name].norm().item() == pytest.approx(norm, rel=1e-4), name
        assert found[name].double().sum().item() == pytest.approx(total, abs=1e-4 * norm), name
    whole = torch.stack([gradient.norm() for gradient in found.values()]).norm()
    assert whole.item() == pytest.approx(manifest["total_grad_norm"], rel=1e-5)


def published_gradients(model, names):
    """Gradients under the published names: what conversion puts together, taken apart by what it does to numbers."""
    tensors = {name: torch.zeros(shape) for name, shape in golden_shapes(model).items()}
    assert tensors.keys() == set(names)
    start = 0
    for name, tensor in tensors.items():  # every value is its own number, which conversion carries to its place
        tensors[name] = torch.arange(start, start + tensor.numel(), dtype=torch.float64).reshape(tensor.shape)
        start += tensor.numel()
    size = (model.config.image_size,) * 2 if isinstance(model.config.image_size, int) else model.config.image_size
    numbers = convert_state_dict(tensors, list(size))[1]
    gradients = torch.full((start,), float("nan"))
    for name, parameter in model.named_parameters():
        gradients[numbers[name].long().flatten()] = parameter.grad.flatten()
    assert not gradients.isnan().any()
    return {name: gradients[tensor.long().flatten()].reshape(tensor.shape) for name, tensor in tensors.items()}


def golden_shapes(model):
    """Shapes of all published tensors of the model's size."""
    return {name: tensor.shape for name, tensor in published_state_dict(model.config).items()}


@pytest.mark.parametrize(
    ("variant", "fields"),
    [
        ("hidden", {"use_residual_as_feature": False}),
        ("residual", {}),
        ("residual_add", {}),
        ("residual_add_norm", {"apply_layernorm": True}),
    ],
)
def test_maps_of_a_backbone_equal_the_published_code(variant, fields):
    tensors, manifest = golden_tensors("vim_seg"), golden_fill.manifest("vim_seg")
    blocks = manifest["out_indices"]
    model = golden_vim("vim_seg", out_indices=[block + 1 for block in blocks], **fields)
    with torch.no_grad():
        maps = model(tensors["pixel_values"]).feature_maps
    levels = [level for level in range(4) if f"features.{variant}.{level}" in tensors]
    if variant == "residual":  # at the last level the published default returns what the mixer does instead
        levels = levels[:3]
        torch.testing.assert_close(tensors["features.residual.3"], tensors["features.hidden.3"])
    assert levels
    for level in levels:
        torch.testing.assert_close(maps[level], tensors[f"features.{variant}.{level}"], rtol=1e-5, atol=1e-5)


def test_positions_are_resized_as_the_published_loader_does():
    positions = torch.from_numpy(golden_fill.fill("pos_embed", [1, 16, 32]))
    model = build(image_size=64, hidden_size=32, class_token="none")
    model.embeddings.position_embedding.data = positions.unflatten(1, (4, 4))
    resized = model.embeddings.interpolate_positions((6, 6))
    torch.testing.assert_close(resized, golden_tensors("vim_seg")["pos_embed.4x4_to_6x6"], rtol=1e-5, atol=1e-6)


def test_the_epsilon_is_the_published_one_and_that_of_the_config():  # of which logits tell little
    assert {m.eps for m in build(layer_norm_eps=0.5).modules() if isinstance(m, nn.RMSNorm)} == {0.5}
    assert VimConfig().layer_norm_eps == 1e-5
    assert {m.eps for m in golden_vim("vim_tiny_like").modules() if isinstance(m, nn.RMSNorm)} == {1e-5}


# ---------------------------------------------------------------------------------------- a second route, by formulas
VARIANTS = {
    **{f"class token {place}": {"class_token": place} for place in CLASS_TOKENS},
    "overlapping patches": {"stride": 8},
    "one pixel's stride": {"patch_size": 3, "stride": 1, "image_size": [5, 4]},
    "an odd width": {"conv_kernel_size": 5, "time_step_rank": 3, "expand": 1.5},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_those_of_the_formulas(name):
    config = vim_config(num_labels=5, **VARIANTS[name])
    tensors = published_state_dict(config)
    state_dict = convert_state_dict(tensors, config.image_size, config.class_token)[1]
    model = VimForImageClassification(config).double().eval()
    model.load_state_dict(state_dict)
    pixel_values = pictures(2, *config.image_size)
    with torch.no_grad():
        logits = model(pixel_values.double()).logits
    expected = reference_logits(tensors, config, pixel_values)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("class_token", CLASS_TOKENS)
@pytest.mark.parametrize("size", [(64, 48), (32, 96), (16, 16), (112, 80)])
def test_at_another_size_patches_get_resized_positions_and_class_tokens_keep_theirs(class_token, size):
    config = vim_config(num_labels=5, class_token=class_token)
    tensors = published_state_dict(config)
    model = VimForImageClassification(config).double().eval()
    model.load_state_dict(convert_state_dict(tensors, config.image_size, config.class_token)[1])
    rows, columns = size[0] // 16, size[1] // 16
    learned = tensors["pos_embed"][0].double()
    own = {"middle": [6], "first": [0], "both": [0, 13], "none": []}[class_token]  # among 12 patches
    grid = learned[[index for index in range(len(learned)) if index not in own]].T.reshape(1, 24, 3, 4)
    if (rows, columns) != (3, 4):
        grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
    sequence = list(grid.flatten(2)[0].T)
    for index, place in zip(
        own, {"middle": [len(sequence) // 2], "first": [0], "both": [0, len(sequence) + 1]}.get(class_token, [])
    ):
        sequence.insert(place, learned[index])
    pixel_values = pictures(2, *size)
    with torch.no_grad():
        logits = model(pixel_values.double()).logits
    expected = reference_logits(tensors, config, pixel_values, torch.stack(sequence))
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("places", [[], [0], [2], [5], [0, 5], [2, 2]])
def test_class_tokens_are_put_among_patches_and_taken_out_again(places):
    patches, class_tokens = torch.randn(2, 5, 3), torch.randn(2, len(places), 3)
    tokens = insert_class_tokens(patches, class_tokens, places)
    assert tokens.shape == (2, 5 + len(places), 3)
    for index, place in enumerate(places):
        assert torch.equal(tokens[:, place + index], class_tokens[:, index])
    for found, expected in zip(split_class_tokens(tokens, places), (patches, class_tokens), strict=True):
        assert torch.equal(found, expected)


# --------------------------------------------------------------------------------------------------- sizes and outputs
@pytest.mark.parametrize("class_token", CLASS_TOKENS)
@pytest.mark.parametrize("stride", [None, 8, 5])
@pytest.mark.parametrize("size", [(48, 64), (50, 70), (16, 100), (33, 16), (97, 31)])
def test_maps_have_a_pixel_for_each_patch_that_fits(class_token, stride, size):
    model = build(VimBackbone, class_token=class_token, stride=stride, out_features=["stem", "stage2"])
    with torch.no_grad():
        maps = model(pictures(1, *size)).feature_maps
        grid = model.embeddings.patch_embedding(pictures(1, *size))
    assert [feature_map.shape for feature_map in maps] == [grid.shape] * 2
    outputs = VimModel.forward(build(class_token=class_token, stride=stride), pictures(1, *size))
    assert outputs.last_hidden_state.shape[1] == grid[0, 0].numel() + model.config.num_class_tokens


def test_a_map_has_its_patches_where_the_picture_has_them():
    model = build(VimBackbone, num_hidden_layers=1, out_features=["stem"])
    pixel_values = torch.zeros(1, 3, 48, 64)
    with torch.no_grad():
        empty = model(pixel_values).feature_maps[0]
        pixel_values[:, :, 16:32, 48:] = 1
        changed = (model(pixel_values).feature_maps[0] != empty).any(1)[0]
    assert changed.nonzero().tolist() == [[1, 3]]


def test_hidden_states_are_the_stream_and_come_only_when_asked_for():
    for model_class in MODEL_CLASSES:
        model = build(model_class)
        with torch.no_grad():
            assert model(pictures()).hidden_states is None
            every = model(pictures(), output_hidden_states=True).hidden_states
            assert [tuple(stream.shape) for stream in every] == [(2, 13, 24)] * 4
            some = model(pictures(), output_hidden_states=[0, -1]).hidden_states
            assert torch.equal(some[0], every[0]) and torch.equal(some[-1], every[-1]) and some[1] is None
            assert model(pictures(), output_hidden_states=2).hidden_states[:2] == (None, None)
            for wrong in ("yes", [4], [-5], [1.5]):
                with pytest.raises(ValueError, match="^output_hidden_states is .*; give true or false, or indices"):
                    model(pictures(), output_hidden_states=wrong)
            pickle.dumps(model)
            model.config.output_hidden_states = True
            assert len(model(pictures()).hidden_states) == 4
            assert len(model(pictures(), return_dict=False)[-1]) == 4


@pytest.mark.parametrize("class_token", CLASS_TOKENS)
def test_the_pooled_output_is_of_the_class_tokens_or_else_of_all(class_token):
    with torch.no_grad():
        outputs = build(class_token=class_token)(pictures())
    indices = {"middle": [6], "first": [0], "both": [0, 13], "none": list(range(12))}[class_token]
    torch.testing.assert_close(outputs.pooler_output, outputs.last_hidden_state[:, indices].mean(1))


@pytest.mark.parametrize("scan_backend", scan_backends("cpu", "torch"))
def test_a_picture_is_encoded_the_same_alone_and_in_a_batch(scan_backend):
    model = build()
    model.set_scan_backend(scan_backend)
    with torch.no_grad():
        together = model(pictures(5)).last_hidden_state
        alone = torch.cat([model(picture[None]).last_hidden_state for picture in pictures(5)])
    torch.testing.assert_close(together, alone, **CLOSE)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (3, 64, 64), (2, 64, 64, 3), (1, 2, 3, 64, 64)])
def test_pictures_of_another_layout_are_refused(shape):
    for model_class in MODEL_CLASSES:
        with pytest.raises(ValueError, match=r"pixel_values has shape .*; it must be \(batch, 3, height, width\)"):
            build(model_class)(torch.zeros(shape))


@pytest.mark.parametrize("size", [(15, 64), (64, 15), (1, 1)])
def test_a_picture_smaller_than_a_patch_is_refused(size):
    with pytest.raises(
        ValueError, match=r"^pixel_values has shape .*; height and width must be at least a patch, 16 [^\n]*$"
    ):
        build()(pictures(1, *size))


def test_pictures_of_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="pixel_values are torch.uint8; give normalized floats"):
        build()(pictures().to(torch.uint8))


def test_pictures_may_have_another_number_of_channels():
    with torch.no_grad():
        assert build(num_channels=5)(pictures(channels=5)).last_hidden_state.shape == (2, 13, 24)


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_a_keyword_that_is_not_taken_is_refused_by_its_name(model_class):
    for name in ("interpolate_pos_encoding", "num_items_in_batch"):
        with pytest.raises(TypeError, match=rf"^forward\(\) got an unexpected keyword argument '{name}'; [^\n]*$"):
            build(model_class)(pictures(), **{name: True})


@pytest.mark.parametrize("model_class", [VimModel, VimForImageClassification])
def test_the_input_embedding_gets_gradients_into_what_is_frozen(model_class):
    model = build(model_class).requires_grad_(False)
    assert model.get_input_embeddings() is model.base_model.embeddings.patch_embedding
    model.enable_input_require_grads()
    assert model(pictures())[0].requires_grad


# ------------------------------------------------------------------------------------------- backbone and classifier
def test_the_backbone_returns_the_maps_it_is_asked_for():
    model = build(VimBackbone, out_features=["stem", "stage1", "stage3"])
    with torch.no_grad():
        outputs = model(pictures(), output_hidden_states=True)
    for feature_map, index in zip(outputs.feature_maps, (0, 1, 3), strict=True):
        patches = outputs.hidden_states[index][:, [*range(6), *range(7, 13)]]
        assert torch.equal(feature_map, patches.mT.unflatten(2, (3, 4)))
    assert model.channels == [24, 24, 24]


def test_what_no_map_comes_from_is_neither_computed_nor_trained():
    model = build(VimBackbone, out_features=["stem", "stage2"]).train()
    calls = []
    for index, block in enumerate(model.layers):
        block.register_forward_hook(lambda module, inputs, output, index=index: calls.append(index))
    sum(feature_map.square().sum() for feature_map in model(pictures()).feature_maps).backward()
    assert calls == [0, 1]
    for name, parameter in model.named_parameters():
        assert (
            parameter.requires_grad == (parameter.grad is not None) == (not name.startswith(("layers.2", "norm")))
        ), name
    assert len(model(pictures(), output_hidden_states=True).hidden_states) == 4
    normed = build(VimBackbone, out_features=["stage3"], apply_layernorm=True)
    assert all(parameter.requires_grad for parameter in normed.parameters())


def test_the_backbone_has_the_weights_of_the_classifier_with_or_without_class_token(tmp_path):
    build(VimForImageClassification, num_labels=5).save_pretrained(tmp_path)
    with_token, info = VimBackbone.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    without, info = VimBackbone.from_pretrained(tmp_path, class_token="none", output_loading_info=True)
    assert not info["missing_keys"]
    kept = without.state_dict()
    assert all(torch.equal(tensor, with_token.state_dict()[name]) for name, tensor in kept.items())
    assert {name.split(".")[-1] for name in with_token.state_dict().keys() - kept.keys()} == {
        "class_token",
        "class_position_embedding",
    }


def test_the_classifier_computes_cross_entropy_of_a_linear_layer():
    model = build(VimForImageClassification, num_labels=5)
    labels = torch.tensor([1, 4])
    with torch.no_grad():
        outputs = model(pictures(), labels=labels)
        logits = model.vim(pictures()).pooler_output @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(outputs.logits, logits)
    torch.testing.assert_close(outputs.loss, F.cross_entropy(logits, labels))


# ----------------------------------------------------------------------------------------------------------- precision
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_the_recurrence_and_the_stream_stay_float32_in_half_precision(dtype, tmp_path):
    build().save_pretrained(tmp_path)
    model = VimModel.from_pretrained(tmp_path, dtype=dtype).eval()
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    kept = {name for name, found in dtypes.items() if found == torch.float32}
    assert kept == {name for name in dtypes if name.endswith(("A_log", ".D", "dt_proj_bias"))}
    with torch.no_grad():
        outputs = model(pictures(), output_hidden_states=True)
    assert {stream.dtype for stream in outputs.hidden_states} == {torch.float32}
    assert outputs.last_hidden_state.dtype == outputs.pooler_output.dtype == dtype
    backbone = VimBackbone.from_pretrained(tmp_path, dtype=dtype, out_features=["stem", "stage3"])
    assert {feature_map.dtype for feature_map in backbone(pictures()).feature_maps} == {dtype}


@pytest.mark.parametrize("way", ["autocast", "loaded", "cast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_to_float32(way, dtype, tmp_path):
    model = build(num_hidden_layers=6)
    with torch.no_grad():
        expected = model(pictures()).last_hidden_state
        if way == "autocast":
            with torch.autocast("cpu", dtype):
                actual = model(pictures()).last_hidden_state
        elif way == "cast":
            actual = model.to(dtype)(pictures()).last_hidden_state
        else:
            model.save_pretrained(tmp_path)
            actual = VimModel.from_pretrained(tmp_path, dtype=dtype)(pictures()).last_hidden_state
    difference = (actual.float() - expected).norm() / expected.norm()
    assert difference < (0.02 if dtype == torch.bfloat16 else 0.003)


def test_float64_stays_float64():
    model = build().double()
    torch.nn.init.normal_(model.embeddings.position_embedding)  # values that float32 would round
    pixel_values = pictures().double()
    with torch.no_grad():
        outputs = model(pixel_values, output_hidden_states=True)
        compiled = torch.compile(model, backend="aot_eager")(pixel_values)  # which resizes positions always
    torch.testing.assert_close(compiled.last_hidden_state, outputs.last_hidden_state, rtol=1e-12, atol=1e-12)
    assert outputs.last_hidden_state.dtype == outputs.hidden_states[-1].dtype == torch.float64


# ------------------------------------------------------------------------------------------------------------ training
@pytest.mark.parametrize("way", ["activation_checkpointing_enable", "gradient_checkpointing_enable"])
def test_checkpointing_changes_no_gradient(way):
    plain, checkpointed = build().train(), build().train()
    getattr(checkpointed, way)()
    for model in (plain, checkpointed):
        model(pictures()).pooler_output.square().sum().backward()
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad), name


def test_stochastic_depth_rises_linearly_from_zero():
    model = build(num_hidden_layers=5, drop_path_rate=0.4)
    assert [block.drop_path.rate for block in model.layers] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [block.drop_path.rate for block in build(num_hidden_layers=1, drop_path_rate=0.4).layers] == [0.0]


def test_a_dropped_block_leaves_the_stream_as_it_was():
    model = build(num_hidden_layers=2, drop_path_rate=0.999).train()
    torch.manual_seed(0)
    with torch.no_grad():
        streams = model(pictures(4), output_hidden_states=True).hidden_states
        assert torch.equal(streams[2], streams[1]) and not torch.equal(streams[1], streams[0])
        model.eval()
        streams = model(pictures(4), output_hidden_states=True).hidden_states
    assert not torch.equal(streams[2], streams[1])


@pytest.mark.parametrize("class_token", CLASS_TOKENS)
def test_every_parameter_gets_a_gradient_and_moves_in_a_step(class_token):
    model = build(VimForImageClassification, num_labels=5, class_token=class_token).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-20, weight_decay=0.0)
    model(pictures(), labels=torch.tensor([1, 4])).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_the_model_compiles_without_a_graph_break(model_class):
    model = build(model_class)
    assert model._can_compile_fullgraph
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for size in ((48, 64), (80, 48)):
            found, expected = (each(pictures(2, *size), return_dict=False)[0] for each in (compiled, model))
            torch.testing.assert_close(found, expected)


# ------------------------------------------------------------------------------------------------------ initial values
def loaded_without_weights(model_class, **fields):
    return model_class.from_pretrained(None, config=vim_config(**fields), state_dict={})


@pytest.mark.parametrize("make", [build, loaded_without_weights], ids=["built", "loaded with missing weights"])
def test_initial_values_are_the_published_ones(make):
    torch.manual_seed(0)
    fields = {"hidden_size": 128, "num_hidden_layers": 4, "state_size": 16, "image_size": 160, "class_token": "both"}
    model = make(VimForImageClassification, num_labels=200, **fields)
    mixers = [module for module in model.modules() if isinstance(module, VimMixer)]
    assert len(mixers) == 4
    for mixer in mixers:
        torch.testing.assert_close(mixer.A_log, torch.arange(1.0, 17).log().expand_as(mixer.A_log))
        assert (mixer.D == 1).all()
        for weight, bound in (
            (mixer.in_proj.weight, 128**-0.5),
            (mixer.out_proj.weight, 256**-0.5 / 2),  # the depth's root
            (mixer.x_proj_weight, 256**-0.5),
            (mixer.dt_proj_weight, 8**-0.5),
            (mixer.conv_weight, 0.5),
            (mixer.conv_bias, 0.5),
        ):
            assert weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(weight.numel()))
        time_steps = F.softplus(mixer.dt_proj_bias)
        assert time_steps.min() >= 0.99e-3 and time_steps.max() <= 0.101
    embeddings = model.vim.embeddings
    for weight in (embeddings.position_embedding, model.classifier.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    for weight in (embeddings.class_token, embeddings.class_position_embedding):
        assert weight.std().item() == pytest.approx(0.02, rel=0.25)
    patches = embeddings.patch_embedding
    # PyTorch's truncation takes bounds as they are, so nothing is cut, and what makes up for that widens it.
    assert patches.weight.std().item() == pytest.approx((3 * 16 * 16) ** -0.5 / 0.8796, rel=0.02)
    assert not patches.bias.any()
    assert not model.classifier.bias.any()
    norms = [module for module in model.modules() if isinstance(module, nn.RMSNorm)]
    assert len(norms) == 5 and all((norm.weight == 1).all() for norm in norms)


def test_what_is_loaded_is_not_initialised_again(tmp_path):
    model = build(VimForImageClassification)
    torch.nn.init.constant_(model.vim.layers[0].mixer.in_proj.weight, 7.0)
    state_dict = model.state_dict()
    del state_dict["vim.layers.0.mixer.conv_weight"]
    loaded = VimForImageClassification.from_pretrained(None, config=model.config, state_dict=state_dict)
    assert (loaded.vim.layers[0].mixer.in_proj.weight == 7).all()
    assert loaded.vim.layers[0].mixer.conv_weight.any()


def test_the_default_has_as_many_weights_as_the_published_tiny():
    with torch.device("meta"):
        models = {
            size: VimForImageClassification(VimConfig(num_labels=1000, **fields))
            for size, fields in PUBLISHED_SIZES.items()
        }
    counted = {size: sum(parameter.numel() for parameter in model.parameters()) for size, model in models.items()}
    assert counted == {
        "tiny": 7_148_008,
        "tiny+": 7_250_344,
        "small": 25_796_584,
        "small+": 26_001_256,
        "base": 97_598_440,
    }
