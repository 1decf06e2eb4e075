# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Whether an expression means anything: the head beside its formula, its loss, and a model that had none."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import (
    MASK_HEADS,
    SEGMENTATION_CASES,
    build,
    golden_inputs,
    golden_model,
    segmentation_inputs,
    unlabelled_inputs,
)

from remamber_hf import ReMamberForImageSegmentation, ReMamberModel, load_model
from remamber_hf.inference.cost import count_parts
from remamber_hf.losses_remamber import presence_loss, segmentation_loss
from remamber_hf.presence_head_remamber import PRIOR, PresenceHead


def with_head(mask_head: str = "conv", **fields):
    """A tiny model whose head has learned something: it starts with weights of zero, which would hide all before."""
    model = build(mask_head, predicts_presence=True, **fields)
    with torch.no_grad():
        for name, weight in model.presence_head.named_parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def formula(head: PresenceHead, feature_map: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """The head's docstring, one expression and one cell after the other, in float64."""
    weights = {name: weight.double() for name, weight in head.state_dict().items()}

    def norm(vector, name):
        centred = vector - vector.mean()
        scaled = centred / (centred.pow(2).mean() + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    logits = []
    for cells, text in zip(feature_map.double().permute(0, 2, 3, 1).flatten(1, 2), pooled.double()):
        shift = weights["text_proj.weight"] @ norm(text, "text_norm")
        fitting = torch.stack(
            [
                (weights["map_proj.weight"] @ norm(cell, "map_norm") + weights["map_proj.bias"] + shift).clamp(min=0)
                for cell in cells
            ]
        )
        both = torch.cat([fitting.sum(0) / len(cells), fitting.max(0).values])
        logits.append((weights["out_proj.weight"] @ both + weights["out_proj.bias"])[0])
    return torch.stack(logits)


# ---------------------------------------------------------------------------------------------------------- the head
@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_presence_is_that_of_the_formula(mask_head):
    model, inputs = with_head(mask_head), unlabelled_inputs(3, 50, 70)
    with torch.no_grad():
        outputs = model(**inputs)
        base = model.remamber(**inputs)
    end = model.config.text_config.eos_token_id
    first_end = (inputs["input_ids"] == end).int().argmax(1)
    pooled = base.text_hidden_states[torch.arange(3), first_end]
    assert torch.equal(pooled, base.text_pooler_output)
    expected = formula(model.presence_head, base.last_hidden_state, pooled)
    torch.testing.assert_close(outputs.presence_logits.double(), expected, rtol=1e-4, atol=1e-4)
    assert outputs.presence_logits.std() > 0.1


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_the_presence_is_the_same_alone_in_a_batch_and_with_shared_pictures(mask_head):
    model, inputs = with_head(mask_head), unlabelled_inputs(3, 50, 70)
    index = torch.tensor([1, 0, 1])
    shared = {**inputs, "pixel_values": inputs["pixel_values"][:2]}
    repeated = {**inputs, "pixel_values": inputs["pixel_values"][:2][index]}
    with torch.no_grad():
        alone = [model(**{name: tensor[i : i + 1] for name, tensor in repeated.items()}) for i in range(3)]
        together, in_one = model(**repeated), model(**shared, image_index=index)
    expected = torch.cat([outputs.presence_logits for outputs in alone])
    torch.testing.assert_close(together.presence_logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_one.presence_logits, expected, rtol=1e-5, atol=1e-5)


def test_a_model_without_the_head_gives_what_it_always_gave():
    model, inputs = build(), segmentation_inputs()
    outputs = model(**inputs, is_present=torch.tensor([True, True]))
    assert outputs.presence_logits is None and list(outputs) == ["loss", "logits"]
    assert torch.equal(outputs.loss, segmentation_loss(outputs.logits, inputs["labels"]))
    assert not any("presence" in name for name in model.state_dict())


def test_a_tuple_has_the_presence_after_the_masks():
    model, inputs = with_head(), segmentation_inputs()
    with torch.no_grad():
        named, plain = model(**inputs), model(**inputs, return_dict=False)
    assert [entry.shape for entry in plain] == [(), (2, 1, 64, 96), (2,)]
    assert torch.equal(plain[2], named.presence_logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_head_computes_in_float32_under_autocast(dtype):
    model, inputs = with_head(), unlabelled_inputs()
    seen = []
    model.presence_head.map_proj.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with torch.no_grad(), torch.autocast("cpu", dtype):
        logits = model(**inputs).presence_logits
    assert logits.dtype == torch.float32 and seen == [torch.float32]
    with torch.no_grad():
        half = model.to(torch.bfloat16)(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()})
    assert half.presence_logits.dtype == torch.bfloat16  # who loads all in it gets it


# ----------------------------------------------------------------------------------------------- a model that had none
def test_a_seed_gives_the_other_weights_the_same_values_with_the_head_and_without():
    plain, other = build(seed=3), build(seed=3, predicts_presence=True)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize("case", SEGMENTATION_CASES)
def test_a_published_checkpoint_gets_a_fresh_head_and_everything_else_stays_equal(case, tmp_path):
    published = golden_model(case)
    published.save_pretrained(tmp_path)
    model, report = ReMamberForImageSegmentation.from_pretrained(
        tmp_path, predicts_presence=True, output_loading_info=True
    )
    assert report["missing_keys"] == {f"presence_head.{name}" for name in model.presence_head.state_dict()}
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    inputs = golden_inputs(case)
    inputs = {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask") if name in inputs}
    with torch.no_grad():
        before, after = published(**inputs), model(**inputs)
    assert torch.equal(before.logits, after.logits)
    assert after.presence_logits.sigmoid().tolist() == pytest.approx([PRIOR] * len(after.presence_logits))


def test_a_head_that_was_trained_comes_back_and_can_be_left_out(tmp_path):
    model, inputs = with_head(), unlabelled_inputs()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["predicts_presence"] is True
    again, bare = ReMamberForImageSegmentation.from_pretrained(tmp_path), ReMamberModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**inputs).presence_logits, model(**inputs).presence_logits)
        assert torch.equal(bare(**inputs).last_hidden_state, model.remamber(**inputs).last_hidden_state)
    without = ReMamberForImageSegmentation.from_pretrained(tmp_path, predicts_presence=False)
    with torch.no_grad():
        assert torch.equal(without(**inputs).logits, model(**inputs).logits)
    assert without.presence_head is None


def test_load_model_gives_a_fresh_head_on_request_and_refuses_other_gaps(tmp_path):
    model, _ = load_model("bundled", predicts_presence=True)
    assert model.config.predicts_presence
    assert load_model("bundled")[0].presence_head is None
    build(predicts_presence=True).save_pretrained(tmp_path)
    half = {name: w for name, w in build(predicts_presence=True).state_dict().items() if "out_proj" not in name}
    with pytest.raises(ValueError, match="lacks the weights of"):
        build(predicts_presence=True).save_pretrained(tmp_path, state_dict=half)
        load_model(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- loss
def test_the_loss_is_that_of_the_mask_and_the_weighted_cross_entropy_of_the_presence():
    model, inputs = with_head(presence_loss_weight=0.7), segmentation_inputs(4)
    inputs["labels"][1] = 0
    inputs["labels"][3] = 0
    outputs = model(**inputs)
    there = [-F.logsigmoid(logit) for logit in outputs.presence_logits.double()]
    gone = [-F.logsigmoid(-logit) for logit in outputs.presence_logits.double()]
    expected = (there[0] + gone[1] + there[2] + gone[3]) / 4
    mask_loss = segmentation_loss(outputs.logits, inputs["labels"])
    torch.testing.assert_close(outputs.loss.double(), mask_loss.double() + 0.7 * expected, rtol=1e-5, atol=1e-5)
    told = torch.tensor([1, 1, 1, 0])  # the second is there, and too small for its label
    expected = (there[0] + there[1] + there[2] + gone[3]) / 4
    for is_present in (told, told.bool(), told.float()):
        loss = model(**inputs, is_present=is_present).loss
        torch.testing.assert_close(loss.double(), mask_loss.double() + 0.7 * expected, rtol=1e-5, atol=1e-5)


def test_dice_of_an_empty_mask_is_finite_and_falls_with_what_is_predicted():
    labels = torch.zeros(1, 20, 30)
    losses = []
    for logit in (5.0, 0.0, -5.0, -50.0):
        logits = torch.full((1, 1, 20, 30), logit, requires_grad=True)
        loss = segmentation_loss(logits, labels, 1.0, 0.0)
        assert loss.item() == pytest.approx(1 - 1 / (600 * torch.tensor(logit).sigmoid().item() + 1), abs=1e-5)
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all() and (gradient >= 0).all()
    assert losses == sorted(losses, reverse=True) and losses[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("mask_head", MASK_HEADS)
def test_a_batch_of_empty_masks_trains_every_weight(mask_head):
    model, inputs = with_head(mask_head).train(), segmentation_inputs()
    inputs["labels"].zero_()
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_the_presence_teaches_the_maps_below_it():
    model, inputs = with_head(), segmentation_inputs()
    presence_loss(model(**inputs).presence_logits, inputs["labels"]).backward()
    assert model.remamber.fusions[-1].blocks[0] is not None
    trained = {name.split(".")[1] for name, weight in model.named_parameters() if weight.grad is not None}
    assert {"text_encoder", "backbone", "fusions"} <= trained
    assert all(weight.grad is None for weight in model.mask_head.parameters())


@pytest.mark.parametrize(
    ("is_present", "message"),
    [
        (torch.tensor([True]), r"is_present is \(1,\) for 2 expressions; give one bool for each"),
        ([True, True], "is_present is list for 2 expressions"),
        (torch.tensor([True, False]), "is_present is 0 for an expression whose label has pixels"),
    ],
)
def test_a_presence_that_does_not_fit_is_refused(is_present, message):
    with pytest.raises(ValueError, match=message):
        with_head()(**segmentation_inputs(), is_present=is_present)


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(Exception, match="presence_loss_weight is"):
        build(presence_loss_weight=weight)


# ------------------------------------------------------------------------------------------------- compiled and traced
def test_the_head_is_a_part_of_what_a_model_costs():
    parts, without = count_parts(build(predicts_presence=True), 64), count_parts(build(), 64)
    head = parts.pop("presence_head")
    assert head["parameters"] == sum(weight.numel() for weight in PresenceHead(build().config).parameters())
    cells, channels, text = 2 * 2, 64, 32  # of the last map; a multiplication and an addition are two
    assert head["flops"] == 2 * 256 * (cells * channels + text) + 2 * 512
    whole = parts.pop("whole")
    assert whole == {name: number + head[name] for name, number in without.pop("whole").items()}
    assert parts == without


def test_a_model_with_the_head_compiles_without_a_graph_break():
    model, inputs = with_head(), segmentation_inputs()
    model.set_scan_backend("torch")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    outputs, expected = compiled(**inputs), model(**inputs)
    torch.testing.assert_close(outputs.presence_logits, expected.presence_logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=1e-5, atol=1e-5)


def test_the_cross_entropy_does_not_overflow():
    labels = torch.ones(2, 1, 1)
    labels[1] = 0
    logits = torch.tensor([-300.0, 300.0], dtype=torch.float16, requires_grad=True)
    loss = presence_loss(logits, labels)
    assert loss.item() == 300 and loss.dtype == torch.float32
    reference = F.binary_cross_entropy_with_logits(logits.float(), labels[:, 0, 0])
    assert torch.equal(loss, reference)
