# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`pipeline("referring-image-segmentation")`: what goes in, what comes out, and where it can be loaded."""

import http.server
import json
import re
import threading
import weakref
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TEXT_FIELDS, make_tokenizer, remamber_config, run_without_package
from transformers import pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from remamber_hf import (
    ReferringSegmentationPipeline,
    ReMamberForImageSegmentation,
    ReMamberImageProcessorPil,
    ReMamberProcessor,
)
from remamber_hf.saved_code import CUSTOM_PIPELINES, TASK


ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = 30, 50
EXPRESSIONS = ["cat", "the dog", "a cat"]


def make_picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def pipe() -> ReferringSegmentationPipeline:
    """A tiny model whose probabilities lie on both sides of 0.5."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    text_config = {
        **TEXT_FIELDS,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = remamber_config(text_config=text_config, initializer_range=0.3)
    image_processor = ReMamberImageProcessorPil(size={"height": 32, "width": 32})
    processor = ReMamberProcessor(image_processor, tokenizer, text_length=config.text_length)
    model = ReMamberForImageSegmentation(config).eval()
    model.set_scan_backend("torch")  # also there where the package, and with it the C++ kernel, is missing
    built = ReferringSegmentationPipeline(model=model, processor=processor, device="cpu", task=TASK)
    probabilities = built(make_picture(), "cat", return_probabilities=True)["probabilities"]
    with torch.no_grad():
        model.mask_head.classifier.bias -= float(np.log(np.median(probabilities) / (1 - np.median(probabilities))))
    return built


@pytest.fixture(scope="module")
def folder(pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(path)
    return path


def same(first: dict, second: dict) -> bool:
    return first["mask"].tobytes() == second["mask"].tobytes() and first["score"] == second["score"]


def count_stems(pipe, monkeypatch) -> list[int]:
    """The number of pictures in each run of the stem, as a list that grows."""
    sizes, stem = [], pipe.model.remamber.backbone.stem
    forward = stem.forward
    monkeypatch.setattr(stem, "forward", lambda pixels: (sizes.append(len(pixels)), forward(pixels))[1])
    return sizes


# -------------------------------------------------------------------------------------------------------- what goes in
@pytest.mark.parametrize("kind", ["path", "string", "PIL", "array", "file object", "URL"])
def test_a_picture_may_come_in_any_form(pipe, tmp_path, kind):
    picture = make_picture()
    path = tmp_path / "picture.png"
    picture.save(path)
    expected = pipe(picture, "cat")
    if kind == "URL":
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
        handler.func.log_message = lambda *arguments: None
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/"
            found = pipe(url + "picture.png", "cat")
            with pytest.raises(ValueError, match="none.png cannot be fetched: HTTP Error 404"):
                pipe(url + "none.png", "cat")
            server.shutdown()
    elif kind == "file object":
        with path.open("rb") as file:
            found = pipe(file, "cat")
    else:
        forms = {"path": path, "string": str(path), "PIL": picture, "array": np.asarray(picture)}
        found = pipe(forms[kind], "cat")
    assert same(found, expected)


def test_one_expression_gives_a_dict_and_a_list_of_them_a_list_in_their_order(pipe):
    picture = make_picture()
    alone = [pipe(picture, expression, return_probabilities=True) for expression in EXPRESSIONS]
    together = pipe(picture, EXPRESSIONS, return_probabilities=True)
    assert [found["expression"] for found in together] == EXPRESSIONS
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)
    assert np.abs(alone[0]["probabilities"] - alone[1]["probabilities"]).max() > 1e-3
    assert isinstance(pipe(picture, ["cat"]), list)


def test_several_expressions_run_the_stem_once_for_their_picture(pipe, monkeypatch):
    sizes = count_stems(pipe, monkeypatch)
    pipe(make_picture(), EXPRESSIONS)
    assert sizes == [1]


def test_dicts_in_a_list_give_a_list_whatever_the_batch_size(pipe, monkeypatch):
    items = [
        {"image": make_picture(0), "expression": "cat"},
        {"image": make_picture(1), "expression": ["the dog", "cat"]},
        {"image": make_picture(2), "expression": ("cat",)},
    ]
    alone = [pipe(item, return_probabilities=True) for item in items]
    sizes = count_stems(pipe, monkeypatch)
    batched = pipe(items, batch_size=2, return_probabilities=True)
    assert sizes == [2, 1]
    assert [type(found) for found in alone] == [type(found) for found in batched] == [dict, list, list]
    for one, other in zip([alone[0], *alone[1], *alone[2]], [batched[0], *batched[1], *batched[2]], strict=True):
        assert one["expression"] == other["expression"]
        np.testing.assert_allclose(one["probabilities"], other["probabilities"], atol=1e-5)
    assert pipe([]) == []


def test_a_generator_streams(pipe):
    pulled = []

    def items():
        for seed in range(5):
            pulled.append(seed)
            yield {"image": make_picture(seed), "expression": "cat"}

    results = pipe(items(), batch_size=2, return_probabilities=True)
    first = next(results)
    assert len(pulled) == 2
    alone = pipe(make_picture(0), "cat", return_probabilities=True)
    np.testing.assert_allclose(first["probabilities"], alone["probabilities"], atol=1e-5)  # other sums on some CPUs
    assert len(list(results)) == 4
    assert len(list(pipe(iter([{"image": make_picture(), "expression": "cat"}])))) == 1  # any iterable


# ------------------------------------------------------------------------------------------------------ what comes out
def test_mask_score_box_and_probabilities_belong_together(pipe):
    picture = make_picture()
    assert set(pipe(picture, "cat")) == {"mask", "score", "expression"}
    found = pipe(picture, "cat", return_box=True, return_probabilities=True)
    probabilities, mask = found["probabilities"], np.asarray(found["mask"])
    assert found["mask"].mode == "L" and found["mask"].size == picture.size
    assert probabilities.dtype == np.float32 and probabilities.shape == (HEIGHT, WIDTH)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask == 255, probabilities > 0.5)
    assert found["score"] == pytest.approx(probabilities[probabilities > 0.5].mean())
    rows, columns = np.flatnonzero((mask > 0).any(1)), np.flatnonzero((mask > 0).any(0))
    expected = {"xmin": columns[0], "ymin": rows[0], "xmax": columns[-1] + 1, "ymax": rows[-1] + 1}
    assert found["box"] == expected
    assert all(type(value) is int for value in found["box"].values())


def test_an_empty_mask_has_score_0_and_no_box(pipe):
    found = pipe(make_picture(), "cat", threshold=1.0, return_box=True)
    assert not np.asarray(found["mask"]).any()
    assert found["score"] == 0.0 and found["box"] is None


# ------------------------------------------------------------------------------------------------------------ presence
@pytest.fixture(scope="module")
def presence_pipe(pipe) -> ReferringSegmentationPipeline:
    """The model of `pipe` with a head that finds some expressions and not others."""
    config = deepcopy(pipe.model.config)
    config.predicts_presence = True
    torch.manual_seed(1)
    model = ReMamberForImageSegmentation(config).eval()
    model.load_state_dict(pipe.model.state_dict(), strict=False)
    model.set_scan_backend("torch")
    with torch.no_grad():
        torch.nn.init.normal_(model.presence_head.out_proj.weight, std=0.01)
    built = ReferringSegmentationPipeline(model=model, processor=pipe.processor, device="cpu", task=TASK)
    presence = [found["presence"] for found in built(make_picture(), EXPRESSIONS)]
    with torch.no_grad():
        model.presence_head.out_proj.bias -= float(torch.tensor(presence).logit().mean())
    return built


def test_an_absent_object_has_an_empty_mask_and_its_presence(pipe, presence_pipe):
    picture = make_picture()
    plain = pipe(picture, EXPRESSIONS)
    found = presence_pipe(picture, EXPRESSIONS, return_box=True, return_probabilities=True)
    assert len({one["presence"] >= 0.5 for one in found}) == 2
    for one, before in zip(found, plain, strict=True):
        assert "presence" not in before and type(one["presence"]) is float
        if one["presence"] >= 0.5:
            assert same(one, before)
        else:
            assert not np.asarray(one["mask"]).any() and one["score"] == 0 and one["box"] is None
        assert (one["probabilities"] > 0.5).any()  # what they were before anybody said that there is nothing
    for least in (0.0, 1.0):
        gated = presence_pipe(picture, EXPRESSIONS, presence_threshold=least)
        assert [np.asarray(one["mask"]).any() for one in gated] == [least == 0] * len(EXPRESSIONS)


def test_the_presence_is_the_same_whatever_the_batch_size(presence_pipe):
    items = [{"image": make_picture(seed), "expression": EXPRESSIONS[: seed + 1]} for seed in range(3)]
    alone = [[presence_pipe(item["image"], text)["presence"] for text in item["expression"]] for item in items]
    for batch_size in (1, 2, 3):
        together = presence_pipe(items, batch_size=batch_size)
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose([one["presence"] for one in found], expected, atol=1e-4)


def test_a_presence_threshold_is_refused_where_the_model_does_not_say(pipe, presence_pipe, monkeypatch):
    sizes = count_stems(pipe, monkeypatch)
    with pytest.raises(ValueError, match="presence_threshold is 0.3, and the model does not say whether"):
        pipe(make_picture(), "cat", presence_threshold=0.3)
    with pytest.raises(ValueError, match=r"presence_threshold is 1.5; give a probability in \[0, 1\]"):
        presence_pipe(make_picture(), "cat", presence_threshold=1.5)
    assert sizes == [] and same(pipe(make_picture(), "cat", presence_threshold=None), pipe(make_picture(), "cat"))


def test_what_pipeline_is_given_holds_for_every_call_that_does_not_overrule_it(pipe):
    cautious = pipeline(TASK, model=pipe.model, processor=pipe.processor, threshold=1.0, return_box=True, device="cpu")
    assert cautious(make_picture(), "cat")["box"] is None
    assert same(cautious(make_picture(), "cat", threshold=0.5), pipe(make_picture(), "cat"))


def test_a_model_in_training_mode_is_switched_to_evaluation(pipe):
    pipe.model.train()
    ReferringSegmentationPipeline(model=pipe.model, processor=pipe.processor, device="cpu")
    assert not any(module.training for module in pipe.model.modules())


def test_device_and_dtype_are_arguments(pipe, folder):
    half = pipeline(TASK, model=str(folder), dtype=torch.bfloat16, device=torch.device("cpu"))
    assert half.dtype == torch.bfloat16 and half.device.type == "cpu"
    full, other = (made(make_picture(), "cat", return_probabilities=True)["probabilities"] for made in (pipe, half))
    assert other.dtype == np.float32
    assert 0 < np.abs(full - other).max() < 0.1


# ----------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((make_picture(),), "expression is missing"),
        ((make_picture(), " "), r"Expression 0 is ' '; give a str"),
        ((make_picture(), []), "text has 0 expressions"),
        ((make_picture(), ["cat", 3]), "Expression 1 is 3; give a str"),
        (([make_picture()] * 2, ["cat", "dog"]), "2 expressions came with several pictures; give one expression for"),
        (([{"image": make_picture(), "expression": "cat"}], "dog"), "beside a picture that has its own"),
        (([make_picture()],), r"a Image came; give \{\"image\": …, \"expression\": …\} for each picture"),
        (({"image": "a.png"},), r"the keys \['image'\] came; give"),
        ((torch.zeros(3, 8, 8),), "expression is missing"),
        ((3,), "image is a int; give a path"),
        ((np.full((8, 8, 3), -0.5), "cat"), r"pixel values from -0.5 to -0.5 came, \[0, 255\] was needed"),
        ((np.zeros((8, 8, 2), dtype=np.uint8), "cat"), r"an array \(8, 8, 2\) came; give \(height, width\)"),
        (("/", "cat"), "is a folder; give the path of one picture"),
        (("http://127.0.0.1:1/a.png", "cat"), "http://127.0.0.1:1/a.png cannot be fetched"),
    ],
)
def test_bad_input_is_refused_with_what_is_needed(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(*arguments)


def test_a_bad_option_is_refused_before_the_model_runs(pipe, monkeypatch):
    sizes = count_stems(pipe, monkeypatch)
    with pytest.raises(ValueError, match=r"threshold is 1.5; give a probability in \[0, 1\]"):
        pipe(make_picture(), "cat", threshold=1.5)
    with pytest.raises(ValueError, match="the option treshold is unknown"):
        pipe(make_picture(), "cat", treshold=0.5)
    assert sizes == []
    with pytest.raises(FileNotFoundError, match="There is no file 'none.png'"):
        pipe("none.png", "cat")


def test_a_pipeline_without_processor_or_with_another_model_is_refused(pipe):
    with pytest.raises(ValueError, match="the processor is missing"):
        ReferringSegmentationPipeline(model=pipe.model, device="cpu")
    with pytest.raises(ValueError, match="the model is of type 'clip_text_model'; give one of type 'remamber'"):
        ReferringSegmentationPipeline(model=pipe.model.remamber.text_encoder, processor=pipe.processor, device="cpu")


# -------------------------------------------------------------------------------------------------- where it is loaded
def test_the_task_is_registered_on_import():
    assert PIPELINE_REGISTRY.check_task(TASK)[1]["impl"] is ReferringSegmentationPipeline


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": True}])
def test_a_saved_folder_runs_on_the_installed_package_whether_or_not_its_code_is_trusted(pipe, folder, options):
    assert json.loads((folder / "config.json").read_text())["custom_pipelines"] == CUSTOM_PIPELINES
    loaded = pipeline(TASK, model=str(folder), device="cpu", **options)
    assert type(loaded) is ReferringSegmentationPipeline
    # The same processor to both: where torchvision is installed another twin is loaded than the one that was saved.
    alike = pipeline(TASK, model=pipe.model, processor=loaded.processor, device="cpu")
    probabilities = [
        each(make_picture(), "cat", return_probabilities=True)["probabilities"] for each in (loaded, alike)
    ]
    np.testing.assert_allclose(*probabilities, atol=1e-5)


WITHOUT_PACKAGE = """
import numpy as np
from PIL import Image
from transformers import pipeline

picture = Image.open("picture.png")
for folder in ("by_parts", "by_pipeline", "again"):
    pipe = pipeline("referring-image-segmentation", model=folder, trust_remote_code=True, device="cpu")
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    assert type(pipe.processor).__module__.startswith("transformers_modules."), type(pipe.processor)
    found = pipe(picture, ["cat", "the dog"], return_box=True, return_probabilities=True)
    np.save(folder + ".npy", np.stack([one["probabilities"] for one in found]))
    if folder == "by_pipeline":
        pipe.save_pretrained("again")

from transformers import AutoModelForImageSegmentation, AutoProcessor
AutoModelForImageSegmentation.from_pretrained("by_parts", trust_remote_code=True).save_pretrained("model_again")
AutoProcessor.from_pretrained("by_parts", trust_remote_code=True).save_pretrained("model_again")
pipe = pipeline("referring-image-segmentation", model="model_again", trust_remote_code=True, device="cpu")
assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
found = pipe(picture, ["cat", "the dog"], return_probabilities=True)
np.save("model_again.npy", np.stack([one["probabilities"] for one in found]))
"""


def test_a_folder_runs_and_is_saved_again_where_the_package_is_not_installed(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "by_pipeline")
    pipe.model.save_pretrained(tmp_path / "by_parts")
    pipe.processor.save_pretrained(tmp_path / "by_parts")
    make_picture().save(tmp_path / "picture.png")
    run_without_package(WITHOUT_PACKAGE, tmp_path)
    expected = [
        found["probabilities"] for found in pipe(make_picture(), ["cat", "the dog"], return_probabilities=True)
    ]
    for name in ("by_parts", "by_pipeline", "again", "model_again"):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), expected)


# ---------------------------------------------------------------------------------------------------- docs/pipeline.md
def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "pipeline.md").read_text(encoding="utf-8")
    (tmp_path / "build").mkdir()
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for kind, code in re.findall(r"^```python([^\n]*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        if kind:
            run_without_package(code, tmp_path)
        else:
            exec(compile(code, "docs/pipeline.md", "exec"), namespace)
    assert namespace["found"]["box"]["xmin"] < namespace["found"]["box"]["xmax"]


def test_masks_of_a_photograph_are_made_one_at_a_time():
    """Probabilities at full resolution take four times a mask; those of all expressions never lie side by side."""
    from remamber_hf.inference.loading import BUNDLED_MODEL, load_pipeline

    pipe = load_pipeline(BUNDLED_MODEL, "cpu")
    alive, most = weakref.WeakSet(), []
    post_process = pipe.processor.post_process_probabilities

    def watch(logits, **options):
        probabilities = post_process(logits, **options)
        alive.update(probability for probability in probabilities)
        most.append(len(alive))
        return probabilities

    pipe.processor.post_process_probabilities = watch
    expressions = [f"the {number}. star" for number in range(6)]
    found = pipe(Image.new("RGB", (300, 200)), expressions, return_box=True)
    assert [result["expression"] for result in found] == expressions
    assert len(most) == 6 and max(most) == 1
