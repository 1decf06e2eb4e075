# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""When transformers is told of this package: as soon as both have been imported, in either order, and not before."""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register() -> None:
    """Import `auto_classes.py` if transformers is there, else when it will be; it takes PyTorch and seconds."""
    if "transformers" in sys.modules:
        import_module(".auto_classes", __package__)
    else:
        sys.meta_path.insert(0, Registration())


class Registration(MetaPathFinder):
    """
    Imports `auto_classes.py` once transformers has been imported, by whomever, and then goes.

    It waits until what is being imported is whole: transformers, and the module of ours that may have asked for it.
    """

    def __init__(self) -> None:
        self.thread = threading.local()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "transformers" and not name.startswith(f"{__package__}."):
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self.execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        """Execute a module, and register where no other is being executed that waits for it."""
        self.thread.depth = getattr(self.thread, "depth", 0) + 1
        try:
            execute(module)
        finally:
            self.thread.depth -= 1
        if not self.thread.depth and "transformers" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            register()
