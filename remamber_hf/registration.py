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

    It waits until what is being imported is whole: transformers, and modules of ours that may have asked for it, in
    this thread or in another one, which holds locks that the import here would wait for.
    """

    def __init__(self) -> None:
        self.thread = threading.local()  # depth: of executions, one in the other; searched: names, in `find_spec`
        self.lock = threading.Lock()
        self.num_threads = 0  # that execute a module

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "transformers" and not name.startswith(f"{__package__}."):
            return None
        searched = vars(self.thread).setdefault("searched", set())
        if name in searched:  # another finder asks all of them
            return None
        searched.add(name)
        try:
            found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
            spec = next(filter(None, found), None)
        finally:
            searched.remove(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = partial(self.execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        """Execute a module; the last one that is executed registers."""
        depth = getattr(self.thread, "depth", 0)
        self.thread.depth = depth + 1
        self._count(depth, 1)
        try:
            execute(module)
            if not depth and self.num_threads == 1 and "transformers" in sys.modules and self in sys.meta_path:
                try:
                    register()
                except ImportError:
                    if self.num_threads == 1:
                        raise  # else a thread was in the way that began meanwhile, and registers when it is done
                else:
                    sys.meta_path.remove(self)
        finally:
            self.thread.depth = depth
            self._count(depth, -1)

    def _count(self, depth: int, change: int) -> None:
        if not depth:
            with self.lock:
                self.num_threads += change
