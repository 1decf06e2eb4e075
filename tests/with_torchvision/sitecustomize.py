# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Lets torchvision's wheel, whose compiled operators want CUDA, be imported beside a PyTorch for CPUs.

Python imports this file at its start where its folder is in PYTHONPATH, as in `make test-torchvision`. The operators
that torchvision describes to PyTorch are declared and not there: nothing here resizes or normalizes with them.
"""

import importlib.util
import re
from pathlib import Path

import torch


spec = importlib.util.find_spec("torchvision")
if spec is not None:
    source = (Path(spec.origin).parent / "_meta_registrations.py").read_text()
    names = re.findall(r'@(?:register_meta\("|torch\.library\.register_fake\("torchvision::)(\w+)"\)', source)
    library = torch.library.Library("torchvision", "DEF")  # lives as long as the module
    for name in sorted(set(names)):
        library.define(f"{name}(Tensor x) -> Tensor")
