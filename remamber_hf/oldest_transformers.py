# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The oldest transformers that this code runs with: imported before all else that needs it, it says so in one line."""

import transformers
from packaging.version import Version


OLDEST_TRANSFORMERS = "5.23"

if Version(transformers.__version__).release < Version(OLDEST_TRANSFORMERS).release:
    raise ImportError(
        f"ReMamber needs transformers >= {OLDEST_TRANSFORMERS}, this is {transformers.__version__}; "
        f'pip install --upgrade "transformers>={OLDEST_TRANSFORMERS}"'
    )
