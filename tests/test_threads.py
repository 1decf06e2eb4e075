# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What several threads or processes do at once with one model is what they do one after the other."""

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from remamber_hf.inference.explanation import explain_mask
from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_pipeline
from remamber_hf.pipeline_remamber import in_eval_mode


NUM_THREADS = 8
# Threads share the cores, and how a sum is cut over them can change its last bits.
TOLERANCE = 4e-5
REQUESTS = [
    ("shapes_1.png", "the yellow square"),
    ("shapes_2.png", "the red circle"),
    ("shapes_3.png", "the purple star"),
    ("shapes_5.png", "the pink heart"),
    ("shapes_6.png", "the striped orange moon"),
]
LONG = "the small blue circle left of the large striped square at the top of the very large picture"
EXPRESSIONS = ["the star", "red", LONG, "a b c d e"]


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(BUNDLED_MODEL, "cpu")


@pytest.fixture(scope="module")
def pictures():
    return {name: Image.open(BUNDLED_PICTURES / name).convert("RGB").resize((96, 96)) for name, _ in REQUESTS}


def at_once(function, arguments: list) -> list:
    """What a function gives for each argument, from eight threads that start together."""
    barrier = threading.Barrier(NUM_THREADS)

    def work(number: int) -> list:
        barrier.wait(60)
        return [(place, function(arguments[place])) for place in range(number, len(arguments), NUM_THREADS)]

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = dict(pair for part in pool.map(work, range(NUM_THREADS)) for pair in part)
    return [results[place] for place in range(len(arguments))]


def test_a_pipeline_gives_threads_what_it_gives_one_after_the_other(pipe, pictures):
    def probabilities(request):
        name, expression = request
        return pipe(pictures[name], expression, return_probabilities=True)["probabilities"]

    expected = {request: probabilities(request) for request in REQUESTS}
    for request, found in zip(REQUESTS * 5, at_once(probabilities, REQUESTS * 5)):
        np.testing.assert_allclose(found, expected[request], atol=TOLERANCE, rtol=0)


def test_a_figure_shows_its_own_maps_while_others_use_the_model(pipe, pictures):
    def maps(request):
        name, expression = request
        explanation = explain_mask(pipe.model, pipe.processor, pictures[name], expression)
        return [*explanation.correlations.values(), *explanation.growth]

    expected = {request: maps(request) for request in REQUESTS}
    may_stop = threading.Event()

    def segment_on_and_on(number):
        while not may_stop.is_set():
            name, expression = REQUESTS[number]
            pipe(pictures[name], [expression, "the star"])

    others = [threading.Thread(target=segment_on_and_on, args=(number,)) for number in (0, 3)]
    for thread in others:
        thread.start()
    try:
        found = at_once(maps, REQUESTS * 4)
    finally:
        may_stop.set()
        for thread in others:
            thread.join()
    for request, arrays in zip(REQUESTS * 4, found):
        for array, wanted in zip(arrays, expected[request], strict=True):
            np.testing.assert_allclose(array, wanted, atol=TOLERANCE * max(1, np.abs(wanted).max()), rtol=0)
    assert not any(module._forward_pre_hooks for module in pipe.model.modules())


@pytest.mark.parametrize("options", [{}, {"padding": "max_length", "max_length": 9, "truncation": True}])
def test_the_tokenizer_may_be_used_beside_the_processor(pipe, options):
    processor = pipe.processor
    expected = {text: processor(text=text)["input_ids"] for text in EXPRESSIONS}
    counts = {text: processor.count_tokens(text) for text in EXPRESSIONS}
    plain = {text: processor.tokenizer(text, **options)["input_ids"] for text in EXPRESSIONS}

    def work(place):
        text = EXPRESSIONS[place % len(EXPRESSIONS)]
        if place % 3 == 0:
            return processor.tokenizer(text, **options)["input_ids"] == plain[text]
        if place % 3 == 1:
            return processor.count_tokens(text) == counts[text]
        return processor(text=text)["input_ids"] == expected[text]

    assert all(at_once(work, list(range(6000))))


def test_what_was_set_in_the_tokenizer_changes_nothing(pipe):
    processor = pipe.processor
    expected = [processor(text=EXPRESSIONS)["input_ids"], [processor.count_tokens(text) for text in EXPRESSIONS]]
    assert expected[1][2] > processor.text_length > 9 > expected[1][0]
    padded = {"padding": "max_length", "max_length": 70}
    for options in ({"padding": True}, padded, {"truncation": True, "max_length": 5}):
        for side in ("left", "right"):
            processor.tokenizer(EXPRESSIONS, **options, padding_side=side)
            found = [processor(text=EXPRESSIONS)["input_ids"], [processor.count_tokens(text) for text in EXPRESSIONS]]
            assert found == expected


def test_a_model_in_training_stays_in_eval_mode_until_the_last_thread_is_done():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    with in_eval_mode(model):
        with in_eval_mode(model):
            assert not model[0].training
        assert not model[0].training
    assert model[0].training
    model.eval()
    with pytest.raises(KeyError), in_eval_mode(model):
        raise KeyError
    with in_eval_mode(model):
        pass
    assert not model[0].training


def segment_in_a_process(request) -> np.ndarray:
    torch.set_num_threads(1)
    pipe = load_pipeline(BUNDLED_MODEL, "cpu")
    name, expression = request
    picture = Image.open(BUNDLED_PICTURES / name).convert("RGB").resize((96, 96))
    return pipe(picture, expression, return_probabilities=True)["probabilities"]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_give_what_one_gives(pipe, pictures, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {method}")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        found = list(pool.map(segment_in_a_process, REQUESTS[:3]))
    for (name, expression), probabilities in zip(REQUESTS, found):
        expected = pipe(pictures[name], expression, return_probabilities=True)["probabilities"]
        np.testing.assert_allclose(probabilities, expected, atol=TOLERANCE, rtol=0)
