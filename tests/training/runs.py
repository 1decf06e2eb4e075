# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Trainer share: tiny data, model and Trainer; as a script, runs in other processes.

python tests/training/runs.py SPEC.json      SPEC: a list of calls of `run`, done one after the other
"""

import json
import os
import signal
import sys
from copy import deepcopy
from pathlib import Path

import torch
from accelerate import PartialState
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation, ReMamberProcessor
from remamber_hf.data.collator import ReMamberCollator
from remamber_hf.data.refer import load_refer
from remamber_hf.image_processing_remamber import ReMamberImageProcessorPil
from remamber_hf.modeling_scan import DropPath
from remamber_hf.synthetic.dataset import synthesize
from remamber_hf.training import checkpoints
from remamber_hf.training.arguments import ReMamberTrainingArguments
from remamber_hf.training.tokenizer import train_tokenizer
from remamber_hf.training.trainer import ReferringSegmentationTrainer


TEXT_LENGTH = 10
SIDE = 64  # the last map is 2×2: on a single pixel a scan has no use for A
TEXT_FIELDS = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 16,
    "max_position_embeddings": TEXT_LENGTH,
}
FIELDS = {
    "text_length": TEXT_LENGTH,
    "correlation_size": 8,
    "channel_scan_size": 4,
    "conv_head_ratio": 1,
    "decoder_depths": [1, 1, 1, 1],
    "num_fusion_blocks": 1,
    "initializer_range": 0.1,
    "vision_config": {
        "hidden_sizes": [8, 16, 32, 64],
        "depths": [1, 1, 1, 1],
        "drop_path_rate": 0.0,
        "initializer_range": 0.1,
    },
}
ARGUMENTS = {
    "use_cpu": True,
    "seed": 3,
    "learning_rate": 2.0e-3,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "max_steps": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def make_start(folder: Path):
    """Write a small data set, and a model of each mask head with its processor, to start from."""
    synthesize(folder / "data" / "shapes", 20, 0, num_workers=1, progress=False)
    rows = load_rows(folder, "train")
    tokenizer = train_tokenizer([text for row in rows for text in row["sentences"]], 560, TEXT_LENGTH)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text_config = {**TEXT_FIELDS, "vocab_size": len(tokenizer), **ids}
    size = {"height": SIDE, "width": SIDE}
    processor = ReMamberProcessor(ReMamberImageProcessorPil(size=size), tokenizer, text_length=TEXT_LENGTH)
    for mask_head in ("conv", "mamba"):
        torch.manual_seed(0)
        config = ReMamberConfig(**FIELDS, text_config=text_config, mask_head=mask_head)
        ReMamberForImageSegmentation(config).save_pretrained(folder / mask_head)
        processor.save_pretrained(folder / mask_head)


def load_rows(folder: Path, split: str):
    data_dir = folder / "data" / "shapes"
    return load_refer("shapes", "unc", split, data_dir=data_dir, expand_sentences=split != "train")


def make_trainer(
    folder: Path,
    output_dir: Path,
    mask_head: str = "conv",
    drop_path_rate: float = 0.0,
    dtype: str = "float32",
    poison=(),
    num_eval: int | None = None,
    callbacks=(),
    **arguments,
) -> ReferringSegmentationTrainer:
    model = ReMamberForImageSegmentation.from_pretrained(folder / mask_head, dtype=dtype)
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = drop_path_rate
    processor = ReMamberProcessor.from_pretrained(folder / mask_head)
    eval_rows = load_rows(folder, "val")
    return ReferringSegmentationTrainer(
        model=model,
        args=ReMamberTrainingArguments(output_dir=str(output_dir), **{**ARGUMENTS, **arguments}),
        data_collator=Poisoned(ReMamberCollator(processor, keep_ids=True, share_pictures=True), poison),
        train_dataset=load_rows(folder, "train"),
        eval_dataset=eval_rows.select(range(num_eval or len(eval_rows))),
        processing_class=processor,
        callbacks=list(callbacks),
    )


def losses_of(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def weights_of(trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


class Poisoned:
    """A collator that makes the pictures of some refs not a number."""

    def __init__(self, collator, ref_ids):
        self.collator, self.ref_ids = collator, ref_ids

    def __call__(self, rows):
        batch = self.collator(rows)
        for index, ref_id in enumerate(batch["ref_ids"]):
            if ref_id in self.ref_ids:
                picture = batch["image_index"][index] if "image_index" in batch else index
                batch["pixel_values"][picture] = torch.nan
        return batch


# ------------------------------------------------------------------------------------------------- killed on the way


def kill_self(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


class KilledBeforeStep(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            kill_self()


def kill_in_the_middle_of(name: str, step: int):
    """Kill this process when half of the file `name` of the checkpoint of `step` is written."""
    save = torch.save

    def half_save(content, path, *args, **kwargs):
        save(content, path, *args, **kwargs)
        if str(path).endswith(f"checkpoint-{step}/{name}"):
            os.truncate(path, os.path.getsize(path) // 2)
            kill_self()

    torch.save = half_save


def kill_before_renaming(step: int):
    """Kill this process when the checkpoint of `step` is written and has its manifest, but not yet its name."""
    flush = checkpoints.flush

    def flush_or_die(path):
        if f"checkpoint-{step}/" in str(path):
            kill_self()
        flush(path)

    checkpoints.flush = flush_or_die


KILLS = {"file": kill_in_the_middle_of, "rename": kill_before_renaming}


# --------------------------------------------------------------------------------------------------- other processes


def run(folder, output_dir, resume=None, kill=None, evaluate=False, save=False, **arguments) -> dict:
    """Train, and return what came of it."""
    callbacks = []
    if kill is not None:
        kind, *details = kill
        if kind == "step":
            callbacks.append(KilledBeforeStep(*details))
        else:
            KILLS[kind](*details)
    folder = Path(folder)
    trainer = make_trainer(folder, Path(output_dir), callbacks=callbacks, **arguments)
    error = None
    try:
        trainer.train(resume_from_checkpoint=resume)
    except RuntimeError as stopped:
        error = str(stopped)
    metrics = trainer.evaluate() if evaluate else {}
    if save:
        trainer.save_model()
    grad_norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    return {
        "losses": losses_of(trainer),
        "grad_norms": grad_norms,
        "metrics": metrics,
        "error": error,
        "nonfinite_steps": trainer.nonfinite_steps.count,
        "weights": {name: tensor.double().sum().item() for name, tensor in trainer.model.state_dict().items()},
    }


def run_sharded(folder, mask_head: str) -> dict:
    """Losses of three steps with weights that are split over the processes by FSDP2, and of a model that is whole."""
    folder = Path(folder)
    trainer = make_trainer(folder, folder / "unused", mask_head, dtype="float64", freeze=["text_encoder"])
    batch = trainer.data_collator([load_rows(folder, "train")[index] for index in range(4)])
    del batch["ref_ids"]
    whole, sharded = deepcopy(trainer.model), trainer.model
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for module in sharded.modules():
        if type(module).__name__ in sharded._no_split_modules:
            fully_shard(module, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    optimizers = {sharded: trainer.create_optimizer(sharded)}
    optimizers[whole] = torch.optim.AdamW(
        [parameter for parameter in whole.parameters() if parameter.requires_grad],
        lr=trainer.args.learning_rate,
        weight_decay=0.0,
    )
    losses = {sharded: [], whole: []}
    for _ in range(3):
        for model, optimizer in optimizers.items():
            loss = model.train()(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[model].append(loss.item())
    is_sharded = all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    return {"is_sharded": is_sharded, "sharded": losses[sharded], "whole": losses[whole]}


ACTIONS = {"run": run, "run_sharded": run_sharded}


if __name__ == "__main__":
    torch.set_num_threads(1)
    spec_path = Path(sys.argv[1])
    specs = json.loads(spec_path.read_text())
    results = [ACTIONS[spec.pop("action", "run")](**spec) for spec in specs]
    rank = os.environ.get("RANK", "0")
    spec_path.with_name(f"{spec_path.stem}_result_{rank}.json").write_text(json.dumps(results))
    PartialState().destroy_process_group()  # its threads may abort a process that ends before them
