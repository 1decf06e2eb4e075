# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
ReMamber for Hugging Face transformers: referring image segmentation with Mamba.

`__init__.pyi` names what is public; each name is imported when it is first used. The Auto classes and pipelines of
transformers know ours where both packages are imported, in either order.
"""

from lazy_loader import attach_stub

from .registration import register


get_public, __dir__, __all__ = attach_stub(__name__, __file__)


def __getattr__(name: str):
    if name in __all__:
        import transformers  # noqa: F401  # first: then no other thread waits for a file of ours

    if name != "__version__":
        return get_public(name)
    from importlib.metadata import PackageNotFoundError, version  # late: it takes longer than all the rest

    try:
        return version(__name__)
    except PackageNotFoundError:  # a copy of the folder, as in a Space
        return "unknown"


register()
