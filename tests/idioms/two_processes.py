# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Hand-written loops of accelerate, for one process or several: what each gives is compared in test_accelerate.py.

torchrun --nproc_per_node 2 tests/idioms/two_processes.py FOLDER OUTPUT     FOLDER: of the model of `rows.save_model`
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.distributed.algorithms.join import Join
from torch.utils.data import DataLoader, IterableDataset


sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # for `rows` and `tiny`

from accelerate import Accelerator  # noqa: E402
from accelerate.utils import DataLoaderConfiguration, gather_object  # noqa: E402
from rows import load_model, load_processor, make_rows, masks_one_by_one, weights_of  # noqa: E402


COUNT = 5  # rows: odd
RATE = 0.1


def process(processor, rows) -> list[dict]:
    batches = [processor(row["image"], row["expression"], row["mask"], return_tensors="pt") for row in rows]
    return [{name: tensor[0] for name, tensor in batch.items()} for batch in batches]


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def make_accelerator(accumulated: int = 1, **loading) -> Accelerator:
    configuration = DataLoaderConfiguration(**loading)
    return Accelerator(cpu=True, gradient_accumulation_steps=accumulated, dataloader_config=configuration)


def shared(processor, rows):
    """A collator of pictures with three expressions each."""
    expressions = [[row["expression"], "dog dog", "cat cat"] for row in rows]
    return processor([row["image"] for row in rows], expressions, return_tensors="pt")


# -------------------------------------------------------------------------------------------------------- evaluation


@torch.no_grad()
def evaluate(folder, batch_size: int = 2, is_stream: bool = False, **loading) -> torch.Tensor:
    """Logits as `gather_for_metrics` gives them."""
    dataset = process(load_processor(folder), make_rows(COUNT))
    loader = DataLoader(Stream(dataset) if is_stream else dataset, batch_size=batch_size)
    accelerator = make_accelerator(**loading)
    model, loader = accelerator.prepare(load_model(folder), loader)
    model.eval()
    found = [accelerator.gather_for_metrics((model(**batch).logits, batch["labels"])) for batch in loader]
    logits, labels = (torch.cat(tensors) for tensors in zip(*found))
    assert torch.equal(labels, torch.stack([row["labels"] for row in dataset]))
    return logits


def evaluate_objects(folder) -> list:
    """Masks of each row, split as lists and gathered as objects."""
    accelerator = make_accelerator()
    model, processor = load_model(folder), load_processor(folder)
    with accelerator.split_between_processes(make_rows(COUNT)) as rows:
        return gather_object([torch.tensor(mask) for mask in masks_one_by_one(model, processor, rows)])


@torch.no_grad()
def share_pictures(folder, **loading) -> str | torch.Tensor:
    """Logits where pictures are shared, or the line with which they are refused in some process."""
    processor = load_processor(folder)
    loader = DataLoader(make_rows(4), batch_size=2, collate_fn=lambda rows: shared(processor, rows))
    accelerator = make_accelerator(**loading)
    model, loader = accelerator.prepare(load_model(folder), loader)
    model.eval()
    found = []
    for batch in loader:
        try:
            found.append(model(**batch).logits)
        except ValueError as error:
            found.append(str(error))
    lines = gather_object([line for line in found if isinstance(line, str)])
    return lines[0] if lines else accelerator.gather(torch.cat(found))


# ---------------------------------------------------------------------------------------------------------- training


def prepare(folder, batch_size: int, is_synchronized: bool = False, accumulated: int = 1, count: int = 4, **loading):
    accelerator = make_accelerator(accumulated, **loading)
    model = load_model(folder).train()
    if is_synchronized:
        from remamber_hf.training.sync_batch_norm import synchronize_batch_norm

        synchronize_batch_norm(model)
    else:
        model.mask_head.requires_grad_(False)  # its batch norm mixes the samples of a batch
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=RATE)
    loader = DataLoader(process(load_processor(folder), make_rows(count)), batch_size=batch_size)
    return accelerator, *accelerator.prepare(model, optimizer, loader)


def train(accelerator, model, optimizer, loader):
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def step(folder, batch_size: int, **given) -> dict[str, torch.Tensor]:
    """Weights after one step on four rows."""
    accelerator, *prepared = prepare(folder, batch_size, **given)
    train(accelerator, *prepared)
    return weights_of(accelerator.unwrap_model(prepared[0]))


def join_uneven(folder) -> dict[str, torch.Tensor]:
    """Weights after an epoch in which one process has a batch more."""
    accelerator, model, optimizer, loader = prepare(folder, 1, count=COUNT, even_batches=False)
    # What accelerate's join_uneven_inputs enters on GPUs; on CPUs it warns, and the processes would wait for ever.
    with Join([model]) if accelerator.num_processes > 1 else nullcontext():
        for batch in loader:
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
    return weights_of(accelerator.unwrap_model(model))


def save_and_load(folder, output) -> list[dict[str, torch.Tensor]]:
    """Weights of the state that was saved, of the step after it, and of the same once it is loaded."""
    accelerator, model, optimizer, loader = prepare(folder, 2)
    train(accelerator, model, optimizer, loader)
    accelerator.save_state(str(output))
    states = [weights_of(accelerator.unwrap_model(model))]
    for _ in range(2):
        train(accelerator, model, optimizer, loader)
        states.append(weights_of(accelerator.unwrap_model(model)))
        accelerator.load_state(str(output))
    return states


def idioms(folder: Path, output: Path) -> dict:
    """All of them, by name; with a total batch of four rows where they train."""
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    total = 4 // num_processes
    return {
        "evaluate": evaluate(folder),
        "evaluate, batches split": evaluate(folder, split_batches=True),
        "evaluate, batches dispatched": evaluate(folder, dispatch_batches=True),
        "evaluate, split and dispatched": evaluate(folder, split_batches=True, dispatch_batches=True),
        "evaluate, a stream": evaluate(folder, is_stream=True),
        "evaluate, objects": evaluate_objects(folder),
        "share pictures": share_pictures(folder),
        "share pictures, dispatched": share_pictures(folder, dispatch_batches=True),
        "step": step(folder, total),
        "step, accumulated": step(folder, total // 2, accumulated=2),
        "step, dispatched": step(folder, total, dispatch_batches=True),
        "step, batch norm synchronized": step(folder, total, is_synchronized=True),
        "join uneven": join_uneven(folder),
        "save and load": save_and_load(folder, output / "state"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    model_dir, output_dir = map(Path, sys.argv[1:])
    results = idioms(model_dir, output_dir)
    torch.save(results, output_dir / f"{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
