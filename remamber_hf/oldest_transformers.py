# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The oldest transformers that this code runs with: imported before all else that needs it, it says so in one line."""

import transformers
from packaging.version import Version


OLDEST_TRANSFORMERS = "5.23"

if Version(transformers.__version__).release < Version(OLDEST_TRANSFORMERS).release:
    raise ImportError(
        f"ReMamber needs transformers >= {OLDEST_TRANSFORMERS}, this is {transformers.__version__}; "
        f'pip install --upgrade "transformers>={OLDEST_TRANSFORMERS}"'
    )
