"""The command `remamber segment`, on the bundled model and on pictures of every kind."""

import numpy as np
import pytest
import torch
from PIL import Image

from remamber_hf.segment import (
    BUNDLED_MODEL,
    BUNDLED_PICTURES,
    MASK_FORMATS,
    OVERLAY_FORMATS,
    check_target,
    find_device,
    load_model,
    mask_paths,
    save_picture,
    segment_picture,
)


@pytest.fixture(scope="module")
def bundled():
    return load_model(BUNDLED_MODEL, "cpu")


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1], rows[-1]


def test_the_bundled_model_finds_the_yellow_square(bundled):
    picture = Image.open(BUNDLED_PICTURES / "shapes_1.png").convert("RGB")
    (found,) = segment_picture(*bundled, picture, ["the yellow square"])
    colours = np.asarray(picture, dtype=int)
    is_yellow = (colours[..., 0] > 200) & (colours[..., 1] > 180) & (colours[..., 2] < 100)
    overlap = (found.mask & is_yellow).sum() / (found.mask | is_yellow).sum()
    assert overlap > 0.5
    assert 0.5 < found.probability <= 1


def test_masks_have_the_size_of_the_picture_and_follow_the_order_of_the_expressions(bundled):
    picture = Image.open(BUNDLED_PICTURES / "shapes_1.png").convert("RGB").resize((301, 203))
    expressions = ["the yellow square", "the triangle"]
    found = segment_picture(*bundled, picture, expressions)
    assert [entry.expression for entry in found] == expressions
    assert [entry.mask.shape for entry in found] == [(203, 301)] * 2
    alone = [segment_picture(*bundled, picture, [expression])[0] for expression in expressions]
    for together, single in zip(found, alone):
        assert (together.mask == single.mask).mean() > 0.999


def test_a_higher_threshold_gives_a_mask_inside_that_of_a_lower_one(bundled):
    picture = Image.open(BUNDLED_PICTURES / "shapes_1.png").convert("RGB")
    (low,), (high,) = (segment_picture(*bundled, picture, ["the triangle"], threshold) for threshold in (0.2, 0.8))
    assert (high.mask <= low.mask).all()
    assert high.area < low.area


def test_an_empty_mask_is_described_without_a_probability(bundled):
    (found,) = segment_picture(*bundled, Image.new("RGB", (40, 40)), ["the triangle"], threshold=1.0)
    assert found.describe() == "nothing found"


def test_one_mask_keeps_its_name_and_several_are_numbered(tmp_path):
    assert mask_paths(tmp_path / "mask.png", 1) == [tmp_path / "mask.png"]
    assert mask_paths(tmp_path / "mask.png", 2) == [tmp_path / "mask_1.png", tmp_path / "mask_2.png"]


def test_a_target_that_is_the_picture_a_folder_or_no_picture_format_is_refused(tmp_path):
    picture = tmp_path / "picture.png"
    with pytest.raises(ValueError, match="is the picture itself"):
        check_target(picture, [picture], OVERLAY_FORMATS)
    with pytest.raises(ValueError, match=r"names no format that fits; end it in \.png, \.jpg"):
        check_target(tmp_path / "overlay.txt", [picture], OVERLAY_FORMATS)
    with pytest.raises(ValueError, match=r"names no format that fits; end it in \.png, \.bmp"):
        check_target(tmp_path / "mask.jpg", [picture], MASK_FORMATS)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_target(tmp_path / "folder.png", [picture], OVERLAY_FORMATS)


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with pytest.raises(OSError):
        save_picture(Image.new("RGBA", (4, 4)), tmp_path / "new" / "overlay.jpg")  # JPEG has no alpha
    assert list((tmp_path / "new").iterdir()) == []


def test_a_device_that_is_unknown_or_missing_is_refused():
    with pytest.raises(ValueError, match="'tpu' is unknown; use one of auto, cpu, cuda, mps"):
        find_device("tpu")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here, so --device cuda is no error")
    with pytest.raises(ValueError, match="'cuda' is not available on this machine"):
        find_device("cuda")


def test_a_folder_that_is_no_remamber_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no model that can be loaded"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a model of type 'bert'; give one of type 'remamber'"):
        load_model(tmp_path)


def test_a_model_that_lacks_weights_is_refused(tmp_path, bundled):
    model, processor = bundled
    processor.save_pretrained(tmp_path)
    weights = {name: tensor for name, tensor in model.state_dict().items() if "classifier.bias" not in name}
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match="lacks the weights of mask_head.classifier.bias"):
        load_model(tmp_path)
