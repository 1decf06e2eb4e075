# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The libraries beside us: the versions that setup.cfg claims, what older ones are told, what newer ones may bring."""

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from remamber_hf.inference.loading import BUNDLED_MODEL, load_model
from remamber_hf.oldest_transformers import OLDEST_TRANSFORMERS
from remamber_hf.saved_code import TASK


ROOT = Path(__file__).parents[1]


def read_bounds(lines: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)(>=\S+)$", lines, flags=re.MULTILINE))


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False, timeout=300
    )


def test_the_code_asks_for_the_transformers_that_setup_cfg_asks_for():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    bounds = read_bounds(config["options"]["install_requires"])
    assert bounds["transformers"] == f">={OLDEST_TRANSFORMERS},<6"
    for name, bound in read_bounds((ROOT / "space" / "requirements.txt").read_text()).items():
        assert bounds[name] == bound, name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model, processor = load_model(BUNDLED_MODEL, "cpu")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


# This version, which says that it is an older one and lacks what that lacks.
IN_OLDER_TRANSFORMERS = """
import sys
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageSegmentation, AutoProcessor
sys.modules["transformers"].__version__ = "4.57.6"
sys.modules["transformers.backbone_utils"] = None
sys.modules["transformers.image_processing_backends"] = None
for auto in (AutoConfig, AutoModel, AutoModelForImageSegmentation, AutoProcessor, AutoImageProcessor):
    try:
        auto.from_pretrained({folder!r}, trust_remote_code=True)
    except ImportError as error:
        print(error)
try:
    sys.path.insert(0, {root!r})
    import remamber_hf
except ImportError as error:
    print(error)
"""


def test_older_transformers_are_told_what_is_needed_in_one_line(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    result = run(IN_OLDER_TRANSFORMERS.format(folder=str(saved), root=str(ROOT)), tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    for line in lines:
        assert line.startswith(f"ReMamber needs transformers >= {OLDEST_TRANSFORMERS}, this is 4.57.6; ")


WITH_MODELS_OF_THEIR_OWN = """
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageSegmentation, AutoProcessor
from transformers import conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.models.auto import auto_factory, configuration_auto, modeling_auto, processing_auto
from transformers.models.auto import image_processing_auto
from transformers.pipelines import PIPELINE_REGISTRY

for model_type, name in (("vmamba", "VMamba"), ("remamber", "ReMamber")):
    configuration_auto.CONFIG_MAPPING_NAMES[model_type] = f"{{name}}Config"
    configuration_auto.CONFIG_MAPPING._mapping[model_type] = f"{{name}}Config"
    conversion_mapping.register_checkpoint_conversion_mapping(model_type, [WeightRenaming("stages", "layers")])
    mappings = [value for module in (modeling_auto, image_processing_auto, processing_auto)
                for value in vars(module).values() if isinstance(value, auto_factory._LazyAutoMapping)]
    assert len(mappings) > 20
    for mapping in mappings:
        mapping._config_mapping[model_type] = f"{{name}}Config"
        mapping._reverse_config_mapping[f"{{name}}Config"] = model_type
        mapping._model_mapping[model_type] = f"{{name}}OfTransformers"
PIPELINE_REGISTRY.supported_tasks[{task!r}] = {{"impl": None, "pt": ()}}

import remamber_hf
from transformers import pipeline

for auto in (AutoConfig, AutoModel, AutoModelForImageSegmentation, AutoProcessor, AutoImageProcessor):
    print(type(auto.from_pretrained({folder!r})).__module__)
print(type(pipeline({task!r}, {folder!r})).__module__)
model, report = remamber_hf.ReMamberForImageSegmentation.from_pretrained({folder!r}, output_loading_info=True)
print(sorted(report["missing_keys"]), sorted(report["unexpected_keys"]))
"""


def test_our_classes_are_taken_where_transformers_has_models_of_the_same_names(tmp_path):
    result = run(WITH_MODELS_OF_THEIR_OWN.format(folder=str(BUNDLED_MODEL), task=TASK), ROOT)
    assert result.returncode == 0, result.stderr
    modules = result.stdout.splitlines()
    assert modules.pop() == "[] []"
    assert len(modules) == 6 and all(module.startswith("remamber_hf.") for module in modules), modules


def test_a_saved_folder_says_nothing_of_how_its_tokenizer_was_loaded(saved, monkeypatch):
    text = (saved / "tokenizer_config.json").read_text()
    assert "local_files_only" not in text and "is_local" not in text


def test_no_hint_installs_the_package_by_a_name_that_anybody_could_register():
    files = [
        path
        for folder in ("remamber_hf", "docs", "recipes", "space", "examples", "benchmarks", ".")
        for path in (ROOT.glob("*") if folder == "." else (ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".md", ".yaml", ".txt", ".ipynb", ".toml") and path.is_file()
    ]
    assert len(files) > 60
    for path in files:
        text = path.read_text()
        assert not re.search(r"(pip3?|uv|pipx)[^\n(]* (install|add)[^\n(]* [\"']?remamber[-_]hf", text), path
        assert not re.search(r"remamber[-_]hf\[", text), path
        if path.name.startswith("requirements"):
            assert not re.search(r"^remamber[-_]hf", text, flags=re.MULTILINE), path
