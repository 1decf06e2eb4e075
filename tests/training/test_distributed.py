# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes (gloo, on this machine) against one with the same total batch."""

import json
import socket
import subprocess
import sys

import pytest
import runs
from transformers.integrations import is_deepspeed_available

from remamber_hf import ReMamberForImageSegmentation


BATCH = 4  # in all processes together
# In float64, as AdamW makes large steps of small rounding: a bias before a batch norm has no other gradient.
COMMON = {
    "dtype": "float64",
    "max_steps": 5,
    "evaluate": True,
    "ema_decay": 0.9,
    "num_eval": 5,
}  # 5 samples in batches of 2
SPECS = {
    "conv, batch norm synchronized": {**COMMON, "sync_batch_norm": True, "gradient_accumulation_steps": 2},
    "mamba, its batch norm frozen": {**COMMON, "mask_head": "mamba", "freeze": ["mask_head"]},
    "one process has a loss that is not finite": {**COMMON, "sync_batch_norm": True, "max_nonfinite_steps": 2},
}
ALONE = {"max_steps": 3, "evaluate": True, "save": True, "ema_decay": 0.9, "num_eval": 5}
NONFINITE = "one process has a loss that is not finite"
UNBROKEN = {"max_steps": 15, "drop_path_rate": 0.4, "save_strategy": "steps", "save_steps": 13}  # an epoch has 12
DEEPSPEED = {
    "zero_optimization": {"stage": 2},
    "zero_allow_untested_optimizer": True,
    "gradient_clipping": "auto",
    **dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto"),
}
RESUMED = {"": {}, " with objects of a picture side by side": {"expressions_per_picture": 2}}


def train_in(num_processes: int, specs: list[dict], folder, *flags) -> list[list[dict]]:
    """Results of `specs` for each of the processes."""
    path = folder / f"specs{num_processes}.json"
    path.write_text(json.dumps(specs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", f"--nproc_per_node={num_processes}", f"--master_port={port}"]
    command = [sys.executable, *launch, runs.__file__, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return [
        json.loads((folder / f"specs{num_processes}_result_{rank}.json").read_text()) for rank in range(num_processes)
    ]


def scores(metrics: dict) -> dict:
    """What was measured, but for times and losses."""
    return {name: value for name, value in metrics.items() if "iou" in name or "precision" in name}


@pytest.fixture(scope="module")
def poison(start, tmp_path_factory):
    """One ref of the second and one of the fourth step."""
    folder = tmp_path_factory.mktemp("unused")
    batches = iter(runs.make_trainer(start, folder, per_device_train_batch_size=BATCH).get_train_dataloader())
    refs = [next(batches)["ref_ids"] for _ in range(4)]
    return [refs[1][-1], refs[3][0]]


def spec_of(name, start, folder, num_processes, poison) -> dict:
    spec = {"folder": str(start), "output_dir": str(folder / f"{num_processes} {name}"), **SPECS[name]}
    if "not finite" in name:
        spec["poison"] = poison
    spec["per_device_train_batch_size"] = BATCH // num_processes
    spec["per_device_eval_batch_size"] = 2
    return spec


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory, poison):
    folder = tmp_path_factory.mktemp("alone")
    return {name: runs.run(**spec_of(name, start, folder, 1, poison)) for name in SPECS}


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request, start, tmp_path_factory, poison):
    """What came of each spec, and of more that only several processes can do, in each process."""
    folder = tmp_path_factory.mktemp("together")
    specs = {name: spec_of(name, start, folder, request.param, poison) for name in SPECS}
    specs["sharded"] = {"action": "run_sharded", "folder": str(start), "mask_head": "mamba"}
    specs["batch norm alone"] = {"folder": str(start), "output_dir": str(folder / "batch norm alone"), **ALONE}
    for name, arguments in RESUMED.items():
        unbroken = {"folder": str(start), "output_dir": str(folder / f"unbroken{name}"), **UNBROKEN, **arguments}
        unbroken["per_device_train_batch_size"] = BATCH // request.param
        checkpoint = str(folder / f"unbroken{name}" / "checkpoint-13")
        resumed = {**unbroken, "output_dir": str(folder / f"resumed{name}"), "resume": checkpoint}
        specs |= {f"unbroken{name}": unbroken, f"resumed{name}": resumed}
    ranks = train_in(request.param, list(specs.values()), folder)
    return [{**dict(zip(specs, results)), "folder": folder} for results in ranks]


@pytest.mark.parametrize("name", SPECS)
def test_losses_equal_those_of_one_process(alone, together, name):
    assert together[0][name]["losses"] == pytest.approx(alone[name]["losses"], rel=1e-6)
    expected = pytest.approx(alone[name]["grad_norms"], rel=1e-9, nan_ok=True)
    assert together[0][name]["grad_norms"] == expected
    for result in together:
        assert result[name]["weights"] == together[0][name]["weights"]


@pytest.mark.parametrize("name", SPECS)
def test_metrics_equal_those_of_one_process_to_the_last_digit(alone, together, name):
    expected = scores(alone[name]["metrics"])
    assert len(expected) == 14
    for result in together:
        assert scores(result[name]["metrics"]) == expected
        for loss in ("eval_loss", "eval_ema_loss"):
            assert result[name]["metrics"][loss] == pytest.approx(alone[name]["metrics"][loss], rel=1e-6)


def test_all_processes_skip_the_same_steps(alone, together):
    assert alone[NONFINITE]["nonfinite_steps"] == 2
    assert [result[NONFINITE]["nonfinite_steps"] for result in together] == [2] * len(together)


@pytest.mark.parametrize("prefix, saved", [("eval", ""), ("eval_ema", "ema")])
def test_with_a_batch_norm_in_each_process_the_metrics_are_those_of_the_model_that_is_saved(
    start, together, tmp_path, prefix, saved
):
    trainer = runs.make_trainer(start, tmp_path, num_eval=ALONE["num_eval"])
    model = ReMamberForImageSegmentation.from_pretrained(together[0]["folder"] / "batch norm alone" / saved)
    trainer.model.load_state_dict(model.state_dict())
    metrics = trainer.evaluate()
    for result in together:
        found = result["batch norm alone"]["metrics"]
        assert found[f"{prefix}_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-6)
        assert found[f"{prefix}_miou"] == pytest.approx(metrics["eval_miou"], rel=1e-6)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_goes_on_as_if_nothing_had_happened(together, name):
    for result in together:
        unbroken, resumed = result[f"unbroken{name}"], result[f"resumed{name}"]
        assert len(unbroken["losses"]) == UNBROKEN["max_steps"]
        assert resumed["losses"] == pytest.approx(unbroken["losses"], rel=1e-6)
        # The first all-reduce of a process adds more than two summands in another order than the later ones.
        if len(together) == 2:
            assert resumed["losses"] == unbroken["losses"]
            assert resumed["weights"] == unbroken["weights"]


def test_the_model_trains_with_its_weights_split_over_the_processes(together):
    for result in together:
        assert result["sharded"]["is_sharded"]
        assert result["sharded"]["sharded"] == pytest.approx(result["sharded"]["whole"], rel=1e-9)


@pytest.mark.skipif(not is_deepspeed_available(), reason="deepspeed is not installed")
def test_deepspeed_gives_the_losses_of_ddp_and_resumes_and_stops_at_a_loss_that_is_not_finite(
    start, tmp_path, poison, monkeypatch
):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    common = {
        "folder": str(start),
        "per_device_train_batch_size": BATCH // 2,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    whole = {**common, "output_dir": str(tmp_path / "whole")}
    split = {**common, "deepspeed": DEEPSPEED, "output_dir": str(tmp_path / "split")}
    resumed = {**split, "resume": str(tmp_path / "split" / "checkpoint-2"), "output_dir": str(tmp_path / "resumed")}
    poisoned = {**split, "gradient_accumulation_steps": 1, "poison": poison, "output_dir": str(tmp_path / "poisoned")}
    ddp = train_in(2, [whole], tmp_path)
    deepspeed = train_in(2, [split, resumed, poisoned], tmp_path)
    for (whole,), (split, resumed, poisoned) in zip(ddp, deepspeed):
        assert len(split["losses"]) == 4
        assert split["losses"] == pytest.approx(whole["losses"], rel=1e-5)
        assert resumed["losses"] == split["losses"]
        assert "step 2 was not finite, and DeepSpeed has taken the step already" in poisoned["error"]
    refs = json.loads((tmp_path / "poisoned" / "nonfinite_batches.json").read_text())[0]["ref_ids"]
    assert poison[0] in refs and len(refs) == BATCH
