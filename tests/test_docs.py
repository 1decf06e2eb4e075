# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The pages in docs/: the index names each, links lead somewhere; the snippets of eight of them run.

The snippets of the other pages run in the tests of what they are about.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_checkpoint import remamber_shapes, vmamba_shapes
from tiny import golden_fill, make_tokenizer
from typer.testing import CliRunner
from vim_reference import published_state_dict

from remamber_hf import ReMamberConfig, VimConfig
from remamber_hf.cli.main import app


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
SMALL_SIZES = {"hidden_sizes": (4, 8, 16, 32), "depths": (1, 1, 1, 1)}


def run_page(name: str) -> dict:
    """Run what the page shows, in order, but for what has a word after its language; returns the variables."""
    page = (DOCS / name).read_text(encoding="utf-8")
    namespace = {}
    for language, code in re.findall(r"^```(python|python script|bash)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        if language != "bash":
            exec(compile(code, name, "exec"), namespace)
            continue
        for line in code.splitlines():
            remamber, *arguments = shlex.split(line)
            assert remamber == "remamber"
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (line, result.output, result.exception)
    return namespace


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """An empty folder that looks like the root of a clone, as the working folder."""
    (tmp_path / "remamber_hf").symlink_to(ROOT / "remamber_hf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_snippets_about_explaining_run(clone):
    namespace = run_page("explain.md")
    assert (clone / "build" / "explain.png").is_file()
    assert namespace["explanation"].tokens == ["[start]", "the", "purple", "star", "[end]"]


def test_the_snippets_about_fusion_run(clone):
    page = (DOCS / "fusion.md").read_text(encoding="utf-8")
    (clone / "variant.yaml").write_text(re.search(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE).group(1))
    namespace = run_page("fusion.md")
    trained = ReMamberConfig.from_pretrained(clone / "runs" / "variant")
    for config in (namespace["model"].config, trained):
        assert (config.fusion, config.in_context_window) == ("in_context", 4)


def test_the_snippets_about_named_things_run(clone):
    run_page("compose.md")
    assert (clone / "composed" / "things" / "grefs(unc).json").is_file() and (clone / "composed.png").is_file()


def test_the_snippets_about_nothing_one_or_many_run(clone):
    namespace = run_page("generalized.md")
    assert namespace["model"].config.predicts_presence and namespace["loss"].isfinite()
    assert [tuple(mask.shape) for mask in namespace["masks"]] == [(480, 480)] * 2
    assert (clone / "build" / "tells.png").is_file()


def test_the_snippets_about_efficiency_run(clone):
    namespace = run_page("profile.md")
    whole = namespace["parts"]["whole"]
    assert whole["trained"] < whole["parameters"]
    assert (clone / "build" / "efficiency.tex").read_text(encoding="utf-8").count(r"\toprule") == 2
    assert (clone / "build" / "efficiency.csv").is_file()


def test_the_snippets_about_conversion_run(clone):
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained("clip-tokenizer")
    text = {"size": 64, "vocabulary": len(tokenizer), "positions": 24, "intermediate": 64}
    fusion = {"channel_scan_size": 4, "num_blocks": 1}
    shapes = remamber_shapes(text=text, correlation_size=16, fusion=fusion, **SMALL_SIZES)
    weights = {name: torch.from_numpy(golden_fill.fill(name, shape)) for name, shape in shapes.items()}
    torch.save({"model": weights, "model_ema": weights, "epoch": 49}, "ReMamber_Conv.pth")
    shapes = vmamba_shapes(**SMALL_SIZES)
    weights = {name: torch.from_numpy(golden_fill.fill(name, shape)) for name, shape in shapes.items()}
    torch.save({"model": weights}, "vmamba_base.pth")
    namespace = run_page("convert.md")
    assert namespace["backbone"].config.hidden_sizes == [4, 8, 16, 32]
    assert (clone / "remamber-conv-ema" / "tokenizer.json").is_file()


def test_the_snippets_about_vim_run(clone):
    config = VimConfig(hidden_size=24, num_hidden_layers=4, state_size=4, num_labels=10)
    torch.save({"model": published_state_dict(config), "args": argparse.Namespace()}, "vim_t_midclstok_76p1acc.pth")
    namespace = run_page("vim.md")
    assert [tuple(feature_map.shape) for feature_map in namespace["maps"]] == [(1, 24, 6, 10)] * 2
    assert namespace["model"].config.class_token == "first"


def test_the_snippets_about_idioms_run(clone):
    namespace = run_page("idioms.md")
    assert namespace["inputs"]["pixel_values"].shape[0] == 2
    assert torch.cat(namespace["found"]).shape[0] == len(namespace["rows"]) == 8


def test_the_loop_on_the_page_about_idioms_sees_each_row_once_on_two_processes(clone):
    page = (DOCS / "idioms.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python[a-z ]*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    loop = next(code for language, code in blocks if language == "python script")
    count = "open(f'count{accelerator.process_index}', 'w').write(str(len(torch.cat(found))))\n"
    (clone / "script.py").write_text("".join(code for _, code in blocks[:2]) + loop + count)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "script.py"]
    result = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [(clone / f"count{rank}").read_text() for rank in range(2)] == ["8", "8"]


def test_the_messages_that_the_page_on_conversion_explains_are_those_of_the_code():
    page = (DOCS / "convert.md").read_text(encoding="utf-8")
    files = [ROOT / "remamber_hf" / "convert_checkpoint.py", ROOT / "remamber_hf" / "cli" / "convert.py"]
    code = "".join(re.findall(r'f?"([^"\n]*)"', "".join(path.read_text() for path in files)))
    messages = re.findall(r"^\| `([^`]+)` \| [a-z]", page.split("## When it is refused")[1], re.MULTILINE)
    assert len(messages) == 6
    for message in messages:
        for part in message.split("…"):
            assert part.strip() in code, message


def test_the_index_names_every_page():
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert {"README.md", *re.findall(r"\]\(([a-z_]+\.md)\)", index)} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", (DOCS / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (DOCS / link).exists()] == []
