# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Every named protocol prints the digits that the evaluation it is named after prints.

Those evaluations are written here anew, from what docs/evaluation.md says of them: sample by sample, with the sums and
the formats that each of them has.
"""

import json

import numpy as np
import pytest
import torch
from evaluation_runs import MODEL, run
from PIL import Image
from pycocotools import mask as coco_mask

from remamber_hf.data.refer import read_refs
from remamber_hf.evaluation.protocols import PROTOCOLS, Protocol
from remamber_hf.evaluation.scoring import Tally
from remamber_hf.inference.image_backend import with_pil
from remamber_hf.inference.loading import load_model
from remamber_hf.synthetic.dataset import synthesize


Pairs = list[tuple[np.ndarray, np.ndarray]]  # predictions and truths, bool (height, width)


def count(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    return int((prediction & truth).sum()), int((prediction | truth).sum())


def print_remamber(pairs: Pairs) -> list[str]:
    """* IoU 0.000 oIoU 0.000: means of the samples, 1e-6 added to unions."""
    intersections, unions, ious = [], [], []
    for pair in pairs:
        intersection, union = count(*pair)
        intersections.append(intersection)
        unions.append(union)
        ious.append(intersection / (union + 1e-6))
    iou = sum(ious) / len(ious)
    oiou = (sum(intersections) / len(pairs)) / (sum(unions) / len(pairs) + 1e-6)
    return [f"{iou:.3f}", f"{oiou:.3f}"]


def print_lavt(pairs: Pairs) -> list[str]:
    """Mean IoU, precision@0.5 … 0.9 and overall IoU in per cent; an empty union is 0, and IoU ≥ X counts."""
    total_i, total_u, ious, right = 0, 0, [], np.zeros(5, dtype=np.int32)
    for pair in pairs:
        intersection, union = count(*pair)
        iou = 0.0 if union == 0 else intersection * 1.0 / union
        ious.append(iou)
        total_i += intersection
        total_u += union
        for place, threshold in enumerate([0.5, 0.6, 0.7, 0.8, 0.9]):
            right[place] += iou >= threshold
    mean = np.mean(np.array(ious)) * 100.0
    return [f"{mean:.2f}", *(f"{each * 100.0 / len(pairs):.2f}" for each in right), f"{total_i * 100.0 / total_u:.2f}"]


def print_cris(pairs: Pairs) -> list[str]:
    """IoU and Pr@50 … 90 in per cent; 1e-6 added to unions, and IoU > X counts, X in float32."""
    ious = torch.from_numpy(np.stack([np.float64(i) / (np.float64(u) + 1e-6) for i, u in (count(*p) for p in pairs)]))
    shares = [(ious > threshold).float().mean().item() for threshold in torch.arange(0.5, 1.0, 0.1)]
    return [f"{100.0 * ious.mean().item():.2f}", *(f"{100.0 * share:.2f}" for share in shares)]


def print_rela(pairs: Pairs, said_nothing: list[bool] | None = None, meant_nothing: list[bool] | None = None) -> list:
    """gIoU, cIoU, Pr@0.7 … 0.9 in per cent, T_acc, N_acc: those of a sample that means nothing apart."""
    none = [False] * len(pairs)
    total_iou, total_i, total_u = 0.0, 0, 0
    right, table = dict.fromkeys((0.7, 0.8, 0.9), 0), {(a, b): 0 for a in (True, False) for b in (True, False)}
    for pair, said, meant in zip(pairs, said_nothing or none, meant_nothing or none):
        intersection, union = count(*pair)
        table[meant, said] += 1
        if meant:
            total_iou += said
            total_u += 0 if said else union
            continue
        intersection = 0 if said else intersection
        iou = 0.0 if union == 0 else intersection / union
        total_iou, total_i, total_u = total_iou + iou, total_i + intersection, total_u + union
        for x in right:
            right[x] += iou >= x
    num_meant = table[False, True] + table[False, False]
    printed = [f"{100.0 * total_iou / len(pairs):.4f}", f"{total_i * 100.0 / total_u:.4f}"]
    printed += [f"{right[x] * 100.0 / num_meant:.4f}" for x in right]
    if any(table[True, said] for said in (True, False)):
        printed += [f"{table[False, False] / num_meant:.6f}"]
        printed += [f"{table[True, True] / (table[True, True] + table[True, False]):.6f}"]
    return printed


PRECISIONS = [f"precision@{x}" for x in (0.5, 0.6, 0.7, 0.8, 0.9)]


def as_printed(protocol: str, scores: dict[str, float]) -> list[str]:
    """Our scores in the format and order of the code that a protocol is named after."""
    if protocol == "published":
        return [f"{scores['miou']:.3f}", f"{scores['oiou']:.3f}"]
    precisions = [f"{100 * scores[name]:.2f}" for name in PRECISIONS] if "miou" in scores else []
    if protocol in ("lavt", "full"):
        return [f"{100 * scores['miou']:.2f}", *precisions, f"{100 * scores['oiou']:.2f}"]
    if protocol == "cris":
        return [f"{100 * scores['miou']:.2f}", *precisions]
    names = ["giou", "ciou", *(f"target_precision@{x}" for x in (0.7, 0.8, 0.9))]
    printed = [f"{100 * scores[name]:.4f}" for name in names]
    return printed + [f"{scores[name]:.6f}" for name in ("t_acc", "n_acc") if scores["n_acc"] is not None]


def random_pairs(seed: int, num_pairs: int = 500) -> Pairs:
    """Masks of many sizes; IoU of all values, 0.5, 0.6 … exactly among them, empty ones too."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(num_pairs):
        shape = rng.integers(4, 40, 2)
        truth = rng.random(shape) < rng.uniform(0.05, 0.9)
        prediction = truth ^ (rng.random(shape) < rng.choice([0.02, 0.1, 0.3, 0.6]))
        if number % 10 == 0:  # thresholds to the pixel
            truth, prediction = np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
            truth.ravel()[:10] = True
            prediction.ravel()[: 5 + number // 10 % 6] = True
        if number % 37 == 0:
            prediction = np.zeros_like(truth)
        if number % 111 == 0:
            truth = np.zeros_like(truth)
        pairs.append((prediction, truth))
    return pairs


def tally_of(pairs: Pairs, configuration: str, said_nothing=None, meant_nothing=None) -> Tally:
    pixels = np.array([(*count(*pair), pair[1].sum()) for pair in pairs], dtype=np.int64)
    nothing = np.zeros(len(pairs), dtype=bool)
    kinds = np.where(nothing if meant_nothing is None else meant_nothing, "none", "one")
    return Tally(
        configuration, pixels, nothing if said_nothing is None else said_nothing, None, kinds, np.arange(len(pairs))
    )


PRINTED = {"published": print_remamber, "lavt": print_lavt, "cris": print_cris, "full": print_lavt}


@pytest.mark.parametrize("protocol", PRINTED)
@pytest.mark.parametrize("seed", [0, 1])
def test_500_random_masks_print_the_digits_of_the_released_code(protocol, seed):
    pairs = random_pairs(seed)
    assert as_printed(protocol, tally_of(pairs, "default").scores(PROTOCOLS[protocol])) == PRINTED[protocol](pairs)


@pytest.mark.parametrize("seed", [0, 1])
def test_500_random_masks_print_the_digits_of_relas_evaluator(seed):
    pairs = random_pairs(seed)
    rng = np.random.default_rng(seed)
    meant = rng.random(500) < 0.4
    pairs = [(prediction, truth & ~np.bool_(nothing)) for (prediction, truth), nothing in zip(pairs, meant)]
    said = rng.random(500) < np.where(meant, 0.7, 0.1)
    scores = tally_of(pairs, "generalized", said, meant).scores(PROTOCOLS["rela"])
    assert as_printed("rela", scores) == print_rela(pairs, said.tolist(), meant.tolist())


# --------------------------------------------------------------------------------------------------- a trained model


@pytest.fixture(scope="module")
def rich_dir(tmp_path_factory):
    """Textured shapes that cover each other, as polygons and as run lengths; sentences that mean nothing or many."""
    folder = tmp_path_factory.mktemp("rich") / "shapes"
    synthesize(folder, 60, 3, num_workers=1, progress=False, no_target=True, many=True)
    return folder


def squash(mask: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8), mode="L").resize((480, 480), Image.Resampling.NEAREST)
    return np.asarray(picture) == 1


def draw(annotation: dict, height: int, width: int) -> list[np.ndarray]:
    parts = annotation["segmentation"]
    rles = coco_mask.frPyObjects(parts, height, width) if isinstance(parts[0], list) else parts
    return [coco_mask.decode(rle).astype(bool) for rle in rles]


def true_mask(protocol: str, annotations: list[dict], height: int, width: int) -> np.ndarray:
    size = (480, 480) if protocol in ("lavt", "rela") else (height, width)
    truth = np.zeros(size, dtype=bool)
    for annotation in annotations:
        parts = annotation["segmentation"]
        if protocol == "rela":
            if isinstance(parts[0], list):
                scale = [480 / width, 480 / height]
                scaled = [(np.reshape(part, (-1, 2)) * scale).ravel().tolist() for part in parts]
                drawn = draw({"segmentation": scaled}, 480, 480)
            else:
                drawn = [squash(np.logical_or.reduce(draw(annotation, height, width)))]
            truth |= np.logical_or.reduce(drawn)
        elif protocol == "cris":
            truth |= np.logical_or.reduce(draw(annotation, height, width))
        else:
            once = np.sum(draw(annotation, height, width), axis=0) == 1
            truth |= squash(once) if protocol == "lavt" else once
    return truth


def find(protocol: str, logits: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    resized = (
        torch.nn.functional.interpolate(logits, size)
        if protocol == "published"
        else torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    )
    return resized[0, 0].sigmoid().numpy() > (0.35 if protocol == "cris" else 0.5)


def evaluate_anew(protocol: str, folder, refs: list[dict], split: str) -> tuple[Pairs, list[bool]]:
    """Predictions and truths of the sentences of a split, one by one, and whether each means nothing."""
    model, processor = load_model(MODEL, "cpu", "float32")
    processor = with_pil(processor)
    instances = json.loads((folder / "shapes" / "instances.json").read_text())
    annotations = {each["id"]: each for each in instances["annotations"]}
    images = {each["id"]: each for each in instances["images"]}
    (pictures,) = {path.parent for path in folder.rglob("*.jpg")} | {path.parent for path in folder.rglob("*.png")}
    pairs, means_nothing = [], []
    for ref in (ref for ref in refs if ref["split"] == split):
        image = images[ref["image_id"]]
        ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
        meant = [annotations[ann_id] for ann_id in ids if ann_id != -1]
        truth = true_mask(protocol, meant, image["height"], image["width"])
        picture = Image.open(pictures / image["file_name"]).convert("RGB")
        for sentence in ref["sentences"]:
            text = sentence["raw" if protocol in ("lavt", "rela") else "sent"]
            with torch.no_grad():
                logits = model(**processor(images=picture, text=[text], return_tensors="pt")).logits
            pairs.append((find(protocol, logits, truth.shape), truth))
            means_nothing.append(not meant)
    return pairs, means_nothing


@pytest.mark.parametrize("protocol", PRINTED)
def test_a_trained_model_gets_the_digits_of_the_released_code(protocol, rich_dir, tmp_path):
    pairs, _ = evaluate_anew(protocol, rich_dir, read_refs(rich_dir / "shapes" / "refs(unc).p"), "val")
    results, _, _ = run(tmp_path / "out", data_dir=rich_dir, splits="val", protocol=protocol)
    assert as_printed(protocol, results["splits"]["val"]["scores"]) == PRINTED[protocol](pairs)
    assert len(pairs) > 10 and results["sentences"] == ("raw" if protocol == "lavt" else "sent")


def test_a_trained_model_gets_the_digits_of_relas_evaluator(rich_dir, tmp_path):
    refs = json.loads((rich_dir / "shapes" / "grefs(unc).json").read_text())
    pairs, meant = evaluate_anew("rela", rich_dir, refs, "val")
    results, _, _ = run(tmp_path / "out", data_dir=rich_dir, splits="val", protocol="rela", generalized=True)
    said = [not prediction.any() for prediction, _ in pairs]  # what a model without a head of its own says
    assert as_printed("rela", results["splits"]["val"]["scores"]) == print_rela(pairs, said, meant)
    assert any(meant) and not all(meant) and results["sentences"] == "raw"


def test_a_protocol_reads_the_text_of_its_code_unless_another_is_asked_for(rich_dir, tmp_path):
    results, _, report = run(tmp_path / "a", data_dir=rich_dir, splits="val", protocol="lavt", sentences="sent")
    assert results["sentences"] == "sent" and "text of the data set: sent" in report
    assert Protocol().sentences == "sent"


def test_a_folder_of_ones_own_has_one_text_whatever_the_protocol(own_folder, tmp_path):
    results, _, _ = run(tmp_path / "a", data_dir=own_folder, splits="train", protocol="lavt")
    assert results["sentences"] is None
    with pytest.raises(ValueError, match="--sentences raw is for REFER sets"):
        run(tmp_path / "b", data_dir=own_folder, splits="train", sentences="raw")


@pytest.fixture
def own_folder(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    Image.new("RGB", (60, 40), "red").save(folder / "a.png")
    mask = Image.new("L", (60, 40))
    mask.paste(255, (5, 5, 20, 20))
    mask.save(folder / "a_mask.png")
    (folder / "metadata.csv").write_text("file_name,mask_file_name,expression\na.png,a_mask.png,the thing\n")
    return folder
