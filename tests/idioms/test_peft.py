# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters by peft, as its users write them, and batch norms that are frozen beside them."""

from functools import partial

import pytest
import torch
from packaging.version import Version
from rows import load_model, logits_one_by_one, losses_of, make_rows, moved, weights_of
from torch import nn
from torch.utils.data import default_collate
from transformers import Trainer, TrainingArguments
from transformers.integrations.peft import MIN_PEFT_VERSION
from two_processes import process


peft = pytest.importorskip("peft")

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def adapt(model, **fields) -> nn.Module:
    """A PeftModel whose adapters do something: of a fresh one half of the weights is 0."""
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 8, **fields}))
    fill(adapted)
    return adapted.eval()


def fill(adapted):
    generator = torch.Generator().manual_seed(1)
    filled = [weight for name, weight in adapted.named_parameters() if "lora_B" in name or "embedding_A" in name]
    assert filled
    with torch.no_grad():
        for weight in filled:
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))


@pytest.fixture(scope="module")
def dataset(processor):
    return process(processor, make_rows())


@pytest.fixture(scope="module")
def batch(dataset):
    return default_collate(dataset)


TARGETS = {
    "linear layers by name": {"target_modules": ["q_proj", "v_proj", "fc1", "in_proj", "out_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "conv1": {"target_modules": ["conv1"]},
    "conv2": {"target_modules": ["conv2"]},
    "classifier": {"target_modules": ["classifier"]},
    "neck": {"target_modules": r".*neck\.\d\.0"},
    "text-image correlation": {"target_modules": r".*local_text\.conv"},
    "downsample": {"target_modules": r".*downsample\.conv"},
    "linear layers and convolutions": {"target_modules": ["in_proj", "out_proj", "conv1", "conv2", "classifier"]},
    "embeddings": {"target_modules": ["token_embedding"]},
    "whole head": {"target_modules": ["in_proj", "q_proj"], "modules_to_save": ["mask_head"]},
    "rslora": {"target_modules": ["in_proj", "q_proj"], "use_rslora": True},
    "dora": {"target_modules": ["in_proj", "q_proj"], "use_dora": True},
    "pissa": {"target_modules": ["in_proj", "q_proj"], "init_lora_weights": "pissa"},
    "biases": {"target_modules": ["in_proj", "q_proj"], "bias": "all"},
    "parameters of the scan": {"target_modules": [], "target_parameters": ["x_proj_weight", "dt_proj_weight"]},
}


@pytest.mark.parametrize("name", TARGETS)
def test_an_adapter_changes_the_logits_and_merges_and_loads_to_the_same(folder, processor, batch, tmp_path, name):
    rows = make_rows()
    adapted = adapt(load_model(folder), **TARGETS[name])
    logits = logits_one_by_one(adapted, processor, rows)
    assert (logits - logits_one_by_one(load_model(folder), processor, rows)).abs().max() > 1e-4
    with torch.no_grad():
        torch.testing.assert_close(adapted(**batch).logits, logits, **CLOSE)
    adapted.save_pretrained(tmp_path)
    if name != "pissa":  # which changes the base, so that its adapter goes with the changed one
        loaded = peft.PeftModel.from_pretrained(load_model(folder), tmp_path).eval()
        torch.testing.assert_close(logits_one_by_one(loaded, processor, rows), logits, **CLOSE)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(logits_one_by_one(merged, processor, rows), logits, **CLOSE)
    merged.save_pretrained(tmp_path / "merged")
    merged = load_model(tmp_path / "merged")
    torch.testing.assert_close(logits_one_by_one(merged, processor, rows), logits, **CLOSE)


@pytest.mark.parametrize("name", TARGETS)
def test_only_the_adapters_of_a_model_that_is_trained_move(folder, batch, name):
    adapted = adapt(load_model(folder), **TARGETS[name]).train()
    before = weights_of(adapted)
    trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    adapted(**batch).loss.backward()
    torch.optim.SGD(trained.values(), lr=1.0).step()
    names = moved(adapted, before)
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert names <= trained.keys() | (statistics if "modules_to_save" in TARGETS[name] else set())
    assert any("lora_" in name for name in names)


@pytest.mark.parametrize("fields", [{}, {"r": 64}])
def test_depthwise_convolutions_are_adapted_or_refused_in_one_line(folder, processor, tmp_path, fields):
    rows = make_rows()
    depthwise = {"target_modules": r".*stages\.\d.*ss2d\.conv", **fields}
    try:
        adapted = adapt(load_model(folder), **depthwise)
    except ValueError as error:
        assert "group" in str(error) and "\n" not in str(error)
        return
    logits = logits_one_by_one(adapted, processor, rows)
    torch.testing.assert_close(logits_one_by_one(adapted.merge_and_unload(), processor, rows), logits, **CLOSE)


@pytest.mark.parametrize("name", ["conv1", "conv2", "neck"])
@pytest.mark.parametrize("kind", ["dora", "LoHa", "LoKr", "IA3"])
def test_other_adapters_of_convolutions_merge_to_the_same_or_are_refused_in_one_line(folder, processor, name, kind):
    rows = make_rows()
    targets = TARGETS[name]["target_modules"]
    config = {
        "dora": partial(peft.LoraConfig, r=4, use_dora=True),
        "LoHa": partial(peft.LoHaConfig, r=4, init_weights=False),
        "LoKr": partial(peft.LoKrConfig, r=4, init_weights=False),
        "IA3": partial(peft.IA3Config, feedforward_modules=[], init_ia3_weights=False),
    }[kind](target_modules=targets)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(load_model(folder), config).eval()
    if kind == "dora":
        fill(adapted)
    try:
        logits = logits_one_by_one(adapted, processor, rows)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    torch.testing.assert_close(logits_one_by_one(adapted.merge_and_unload(), processor, rows), logits, **CLOSE)


# ---------------------------------------------------------------------------------------------------- saved and loaded


LINEAR = {"target_modules": ["in_proj", "q_proj"]}


def test_auto_peft_model_finds_the_base_by_itself(folder, processor, tmp_path):
    adapted = adapt(load_model(folder), **LINEAR)
    logits = logits_one_by_one(adapted, processor, make_rows())
    adapted.save_pretrained(tmp_path)
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path, import_allowlist=["remamber_hf.modeling_remamber"]).eval()
    torch.testing.assert_close(logits_one_by_one(loaded, processor, make_rows()), logits, **CLOSE)


# transformers 5.24 asks for peft 0.22, where 0.21.2 is the newest to be had (2026-11-26). What peft does alone works.
@pytest.mark.skipif(
    Version(peft.__version__) < Version(MIN_PEFT_VERSION),
    reason=f"the adapters of this transformers need peft {MIN_PEFT_VERSION}, this is {peft.__version__}",
)
def test_adapters_of_transformers_are_added_saved_and_loaded(folder, processor, tmp_path):
    model = load_model(folder)
    expected = logits_one_by_one(model, processor, make_rows())
    model.add_adapter(peft.LoraConfig(**LINEAR), adapter_name="red")
    fill(model)
    logits = logits_one_by_one(model.eval(), processor, make_rows())
    model.disable_adapters()
    torch.testing.assert_close(logits_one_by_one(model, processor, make_rows()), expected, **CLOSE)
    model.enable_adapters()
    model.save_pretrained(tmp_path)
    loaded = load_model(folder)
    loaded.load_adapter(str(tmp_path))
    torch.testing.assert_close(logits_one_by_one(loaded, processor, make_rows()), logits, **CLOSE)
    by_folder = load_model(tmp_path)  # transformers reads which model the adapter belongs to
    torch.testing.assert_close(logits_one_by_one(by_folder, processor, make_rows()), logits, **CLOSE)


def test_two_adapters_are_told_apart_and_can_be_switched_off(folder, processor):
    adapted = adapt(load_model(folder), **LINEAR)
    first = logits_one_by_one(adapted, processor, make_rows())
    adapted.add_adapter("second", peft.LoraConfig(**LINEAR))
    adapted.set_adapter("second")
    plain = logits_one_by_one(load_model(folder), processor, make_rows())
    torch.testing.assert_close(logits_one_by_one(adapted, processor, make_rows()), plain, **CLOSE)
    adapted.set_adapter("default")
    torch.testing.assert_close(logits_one_by_one(adapted, processor, make_rows()), first, **CLOSE)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits_one_by_one(adapted, processor, make_rows()), plain, **CLOSE)


# --------------------------------------------------------------------------------------------------------- batch norms


def statistics_of(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers() if "running" in name or "batches" in name}


def train_by_trainer(model, dataset, tmp_path, **fields):
    args = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        use_cpu=True,
        per_device_train_batch_size=2,
        max_steps=3,
        learning_rate=1e-2,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        label_names=["labels"],  # which peft hides from the Trainer
        logging_steps=1,
        **fields,
    )
    trainer = Trainer(model, args, train_dataset=dataset, eval_dataset=dataset)
    trainer.train()
    return trainer


def train_by_hand(model, dataset, tmp_path):
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    model.train()
    for start in (0, 2):
        model(**default_collate(dataset[start : start + 2])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


LOOPS = pytest.mark.parametrize("train", [train_by_trainer, train_by_hand])
FROZEN_HEAD = ["linear layers by name", "all-linear", "neck", "classifier"]


@LOOPS
@pytest.mark.parametrize("name", FROZEN_HEAD)
def test_a_head_beside_adapters_keeps_its_statistics_and_the_adapter_alone_gives_the_trained_logits(
    folder, processor, dataset, tmp_path, train, name
):
    adapted = adapt(load_model(folder), **TARGETS[name])
    before = statistics_of(adapted)
    train(adapted, dataset, tmp_path)
    torch.testing.assert_close(statistics_of(adapted), before, rtol=0, atol=0)
    adapted.eval().save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(load_model(folder), tmp_path / "adapter").eval()
    logits = logits_one_by_one(adapted, processor, make_rows())
    torch.testing.assert_close(logits_one_by_one(loaded, processor, make_rows()), logits, **CLOSE)


@LOOPS
def test_a_head_that_is_saved_whole_has_its_new_statistics_in_the_adapter(folder, processor, dataset, tmp_path, train):
    adapted = adapt(load_model(folder), **TARGETS["whole head"])
    before = weights_of(adapted)
    train(adapted, dataset, tmp_path)
    assert any("running_mean" in name for name in moved(adapted, before))
    adapted.eval().save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(load_model(folder), tmp_path / "adapter").eval()
    logits = logits_one_by_one(adapted, processor, make_rows())
    torch.testing.assert_close(logits_one_by_one(loaded, processor, make_rows()), logits, **CLOSE)


@LOOPS
@pytest.mark.parametrize("is_frozen", [True, False])
def test_statistics_move_unless_the_head_is_frozen_by_hand(folder, dataset, tmp_path, train, is_frozen):
    model = load_model(folder)
    model.mask_head.requires_grad_(not is_frozen)
    before = statistics_of(model)
    train(model, dataset, tmp_path)
    same = [name for name, tensor in statistics_of(model).items() if torch.equal(tensor, before[name])]
    assert same == (list(before) if is_frozen else [])


def test_gradient_checkpointing_beside_adapters_gives_the_losses_of_a_run_without(folder, dataset, tmp_path):
    runs = []
    for checkpointing in (False, True):
        adapted = adapt(load_model(folder), **LINEAR)
        trainer = train_by_trainer(adapted, dataset, tmp_path, gradient_checkpointing=checkpointing)
        runs.append([*losses_of(trainer), trainer.evaluate()["eval_loss"]])
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_converted_to_synchronized_batch_norm_the_model_infers_and_trains_as_before(
    folder, processor, batch, is_frozen
):
    models = [load_model(folder), nn.SyncBatchNorm.convert_sync_batchnorm(load_model(folder))]
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in models[1].modules()) > 0
    logits = [logits_one_by_one(model, processor, make_rows()) for model in models]
    torch.testing.assert_close(logits[1], logits[0], **CLOSE)
    for model in models:
        model.mask_head.requires_grad_(not is_frozen)
        optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
        model.train()(**batch).loss.backward()
        optimizer.step()
    torch.testing.assert_close(weights_of(models[1]), weights_of(models[0]), **CLOSE)
