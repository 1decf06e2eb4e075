# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the idioms are tried on: rows of a picture, an expression and a mask; a tiny model; the loop of batch one.

Each row is {"image": PIL image, "expression": str, "mask": bool (height, width)}. No two rows are alike, and on the
model of `save_model` every one of them has logits of its own: whatever pairs them wrongly shows.
"""

import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_tokenizer

from remamber_hf import ReMamberConfig, ReMamberForImageSegmentation, ReMamberImageProcessorPil, ReMamberProcessor
from remamber_hf.modeling_remamber import segmentation_loss


SIDE = 32
TEXT_LENGTH = 7
EXPRESSIONS = ("cat", "dog", "cat dog", "dog cat", "cat cat dog")


def make_rows(count: int = 5, seed: int = 0) -> list[dict]:
    """Rows whose pictures have different sizes and colours, with two objects each."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        height, width = 20 + 3 * index, 40 - 3 * (index % 5)
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        pixels[:] = rng.integers(0, 256, 3)
        pixels[: height // 2, : width // 3] = rng.integers(0, 256, 3)
        pixels += rng.integers(0, 20, pixels.shape, dtype=np.uint8)
        mask = np.zeros((height, width), dtype=bool)
        mask[: height // 2, : width // 3] = True
        expression = EXPRESSIONS[index % len(EXPRESSIONS)]
        rows.append({"image": Image.fromarray(pixels), "expression": expression, "mask": mask})
    return rows


def make_model(mask_head: str = "conv") -> ReMamberForImageSegmentation:
    """A tiny model whose logits depend much on picture and text, and whose batch norms have statistics."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = ReMamberConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
            **ids,
        },
        vision_config={
            "hidden_sizes": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "drop_path_rate": 0.0,
            "initializer_range": 0.1,
        },
        text_length=TEXT_LENGTH,
        correlation_size=8,
        channel_scan_size=4,
        conv_head_ratio=1,
        decoder_depths=[1, 1, 1, 1],
        num_fusion_blocks=1,
        initializer_range=0.1,
        mask_head=mask_head,
    )
    model = ReMamberForImageSegmentation(config)
    processor = make_processor()
    batch = processor(
        [row["image"] for row in make_rows(8, seed=9)],
        [row["expression"] for row in make_rows(8)],
        return_tensors="pt",
    )
    with torch.no_grad():
        for _ in range(20):  # the statistics of batch norm
            model.train()(**batch)
    return model.eval()


def make_processor() -> ReMamberProcessor:
    image_processor = ReMamberImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return ReMamberProcessor(image_processor, make_tokenizer(), text_length=TEXT_LENGTH)


def save_model(folder: Path):
    make_model().save_pretrained(folder)
    make_processor().save_pretrained(folder)


def load_model(folder: Path) -> ReMamberForImageSegmentation:
    return ReMamberForImageSegmentation.from_pretrained(folder).eval()


def load_processor(folder: Path) -> ReMamberProcessor:
    return ReMamberProcessor.from_pretrained(folder)


# ---------------------------------------------------------------------------------------------- the loop of batch one


@torch.no_grad()
def logits_one_by_one(model, processor, rows: list[dict]) -> torch.Tensor:
    """(rows, 1, height, width): each row through processor and model by itself."""
    logits = [
        model(**processor(images=row["image"], text=row["expression"], return_tensors="pt")).logits for row in rows
    ]
    return torch.cat(logits)


@torch.no_grad()
def losses_one_by_one(model, processor, rows: list[dict]) -> torch.Tensor:
    """(rows): the loss of each row by itself, in evaluation."""
    losses = []
    for row in rows:
        inputs = processor(row["image"], row["expression"], row["mask"], return_tensors="pt")
        labels = inputs.pop("labels")
        losses.append(segmentation_loss(model(**inputs).logits, labels))
    return torch.stack(losses)


def masks_one_by_one(model, processor, rows: list[dict]) -> list[np.ndarray]:
    """The mask of each row at its picture's size."""
    masks = []
    for row, logits in zip(rows, logits_one_by_one(model, processor, rows).split(1)):
        size = (row["image"].height, row["image"].width)
        (mask,) = processor.post_process_referring_segmentation(logits, target_sizes=[size])
        masks.append(mask.numpy())
    return masks


# ----------------------------------------------------------------------------------------------------- after training


def weights_of(model) -> dict[str, torch.Tensor]:
    """A copy of weights and statistics."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def moved(model, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the weights and statistics that are no longer as in `before`, see `weights_of`."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def losses_of(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# -------------------------------------------------------------------------------------------- what several files check
@torch.no_grad()
def run(model, batch) -> torch.Tensor:
    """The logits of a batch."""
    return model(**batch).logits


def check_logits(found, expected):
    """A batch of several against the loop of batch one."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def check_refused(call, message: str):
    """The call raises a ValueError of one line in which the pattern is found."""
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def make_shared(processor, counts=(3, 2, 2)):
    """A batch of three pictures with `counts` expressions each, and a row for each expression."""
    pictures = [row["image"] for row in make_rows(len(counts))]
    words = iter(["cat", "dog", "cat dog", "dog cat", "cat cat dog", "dog dog", "cat cat", "dog cat cat"])
    text = [[next(words) for _ in range(count)] for count in counts]
    rows = [{"image": image, "expression": entry} for image, group in zip(pictures, text) for entry in group]
    return processor(images=pictures, text=text, return_tensors="pt"), rows


@contextmanager
def serve(folder: Path):
    """The address of a server on this machine that shows the folder."""
    handler = type("Silent", (SimpleHTTPRequestHandler,), {"log_message": lambda *arguments: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
