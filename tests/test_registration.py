# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`import remamber_hf`: quick, with every public name, and transformers knows ours whatever is imported first."""

import ast
import inspect
import subprocess
import sys
import types
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import remamber_hf


CHECK = """
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoImageProcessor, AutoBackbone, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
assert type(AutoConfig.for_model("remamber")).__module__ == "remamber_hf.configuration_remamber"
assert type(AutoConfig.for_model("vmamba")).__module__ == "remamber_hf.configuration_remamber"
assert "referring-image-segmentation" in PIPELINE_REGISTRY.get_supported_tasks()
import sys
from remamber_hf.registration import Registration
assert not any(isinstance(finder, Registration) for finder in sys.meta_path)
classes = [cls for cls in object.__subclasses__() if cls.__name__ == "ReMamberForImageSegmentation"]
assert len(classes) <= 1
print("known")
"""
BEGINNINGS = {
    "the package first": "import remamber_hf",
    "transformers first": "import transformers\nimport remamber_hf",
    "a class of transformers first": "from transformers import AutoModel\nimport remamber_hf",
    "a public name first": "from remamber_hf import ReMamberConfig",
    "everything that is public": "from remamber_hf import *",
    "a file of models": "from remamber_hf.modeling_remamber import ReMamberModel",
    "a file of a folder": "from remamber_hf.training.trainer import ReferringSegmentationTrainer",
    "a file without transformers": "import remamber_hf.messages",
    "a file that fails": "try:\n    import remamber_hf.there_is_none\nexcept ImportError:\n    pass",
    "a submodule of transformers": "import remamber_hf\nfrom transformers.models.auto.modeling_auto import AutoModel",
    "pipelines": "import remamber_hf\nfrom transformers import pipeline",
    "in threads": (
        "import threading\n"
        "work = ['import remamber_hf.modeling_remamber', 'import transformers', 'import remamber_hf.cli.env']\n"
        "threads = [threading.Thread(target=exec, args=(line, {})) for line in work]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]"
    ),
    "another finder in front": (
        "import remamber_hf, sys\n"
        "class Finder:\n"
        "    find_spec = staticmethod(lambda name, path, target=None: None)\n"
        "sys.meta_path.insert(0, Finder)"
    ),
}


QUICK = (
    "the package first",
    "a class of transformers first",
    "a file of models",
    "in threads",
    "reloaded",
)  # of 5 s each


def some_slow(beginnings: dict[str, str]) -> list:
    """Those that are not `QUICK` run with `make test-slow`."""
    return [
        pytest.param(code, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, code in beginnings.items()
    ]


@pytest.mark.parametrize("beginning", some_slow(BEGINNINGS))
def test_transformers_knows_us_whatever_is_imported_first(beginning, tmp_path):
    code = beginning + CHECK
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "known\n", result.stderr


def test_importing_the_package_imports_neither_pytorch_nor_transformers():
    code = (
        "import sys, remamber_hf; print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_every_public_name_is_there_and_says_what_it_is():
    stub = ast.parse(Path(remamber_hf.__file__).with_suffix(".pyi").read_text())
    places = {node.names[0].name: node.module for node in stub.body if isinstance(node, ast.ImportFrom)}
    assert sorted(places) == sorted(remamber_hf.__all__)
    for name, module in places.items():
        value = getattr(remamber_hf, name)
        assert value is getattr(import_module(f"remamber_hf.{module}"), name)
        if isinstance(value, (type, types.FunctionType)):
            assert inspect.getdoc(value), name
    assert remamber_hf.__version__ == version("remamber_hf")
    assert set(remamber_hf.__all__) <= set(dir(remamber_hf))
    with pytest.raises(AttributeError, match="no_such_name"):
        remamber_hf.no_such_name  # noqa: B018


RELOADED = {
    "reloaded": "import importlib, remamber_hf; importlib.reload(remamber_hf)",
    "imported anew": (
        "import sys, remamber_hf\n"
        "[sys.modules.pop(name) for name in list(sys.modules) if name.startswith('remamber_hf')]\n"
        "import remamber_hf"
    ),
    "beside a finder that asks all finders": (
        "import remamber_hf, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.startswith(('remamber_hf', 'transformers')) and not name in asked:\n"
        "            asked.append(name)\n"
        "            try:\n"
        "                found = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)\n"
        "                return next(filter(None, found), None)\n"
        "            finally:\n"
        "                asked.remove(name)\n"
        "asked = []\n"
        "sys.meta_path.insert(0, Finder())"
    ),
}


@pytest.mark.parametrize("beginning", some_slow(RELOADED))
def test_importing_us_twice_is_no_endless_search(beginning, tmp_path):
    code = beginning + CHECK
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "known\n", result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("work", ["remamber_hf.ReMamberProcessor", "__import__('remamber_hf.processing_remamber')"])
def test_a_thread_that_imports_us_beside_transformers_registers(work, tmp_path):
    code = (
        "import remamber_hf, threading, time\n"
        f"def begin(): time.sleep(DELAY); {work}\n"
        "thread = threading.Thread(target=begin)\n"
        "thread.start()\n"
        "import transformers\n"
        "thread.join()"
    )
    for delay in ("0", "0.1", "0.5"):
        run = [sys.executable, "-c", code.replace("DELAY", delay) + CHECK]
        result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path)
        assert result.stdout == "known\n", result.stderr
