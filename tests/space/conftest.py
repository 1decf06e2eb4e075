# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[2] / "space"))  # the Space's modules are no package
