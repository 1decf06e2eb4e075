# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder a REFER set, or one that is read like it, is made of; the cache follows them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import datasets

from ..messages import describe
from .arefcoco import ORIGINAL_SPLITS, original_paths
from .phrasecut import phrase_paths
from .published import FOLDERS, REFS_NAMES, picture_folders
from .reading import read_regular_file


# Raise it when the rows change: the Arrow cache knows no hash of this file.
VERSION = datasets.Version("1.3.0")
ON_ERROR = ("raise", "skip")
SENTENCES = ("sent", "raw")


@dataclass
class ReferConfig(datasets.BuilderConfig):
    """One data set and the way it is split.

    Args:
        dataset (`str`): name of the folder with the annotations, or one of `PUBLISHED_SETS`.
        split_by (`str`): who split it: the name in the parentheses of the refs file.
        generalized (`bool`): read grefs(split_by).json, in which a sentence may mean several objects or none.
        on_error (`str`): "raise" or "skip", see the top of `refer.py`.
        sentences (`str`): "sent", the text as it was cleaned, or "raw", as it was written.
    """

    version: datasets.Version = VERSION
    dataset: str = ""
    split_by: str = ""
    generalized: bool = False
    on_error: str = "raise"
    sentences: str = "sent"

    def __post_init__(self):
        self.name = f"{self.dataset}_{self.split_by}"
        super().__post_init__()

    @property
    def root(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(self.data_dir)))

    @property
    def folder(self) -> Path:
        """The folder with the annotations, of those that a published set may be in: the first that has refs."""
        folders = [self.root / name for name in FOLDERS.get(self.dataset, (self.dataset,))]
        names = REFS_NAMES.get(self.dataset, ())
        full = [folder for folder in folders if any((folder / name).is_file() for name in names)]
        return [*full, *(folder for folder in folders if folder.is_dir()), *folders][0]

    @property
    def instances_path(self) -> Path:
        return self.folder / "instances.json"

    @property
    def refs_path(self) -> Path:
        """The file that names the refs; of PhraseCut the one that names the pictures."""
        usual = f"grefs({self.split_by}).json" if self.generalized else f"refs({self.split_by}).p"
        paths = [self.folder / name for name in REFS_NAMES.get(self.dataset, (usual,))]
        return next((path for path in paths if path.is_file()), paths[0])

    @property
    def annotation_paths(self) -> list[Path]:
        """All files that are read beside the pictures, there or not."""
        if self.dataset == "arefcoco":
            originals = [path for name in ORIGINAL_SPLITS for path in original_paths(self, name) if path.is_file()]
            return [self.refs_path, *originals]
        if self.dataset == "phrasecut":
            return [self.refs_path, *phrase_paths(self)]
        return [self.instances_path, self.refs_path]

    @property
    def image_folders(self) -> list[Path]:
        """The folders of pictures that are there."""
        return [folder for folder in self.image_places if folder.is_dir()]

    @property
    def image_places(self) -> list[Path]:
        """Where the pictures are looked for."""
        return [self.root / folder for folder in picture_folders(self.dataset)]

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the name of the cache folder: it changes with the arguments and with the files they point to."""
        self._check()
        return super().create_config_id({**config_kwargs, "fingerprint": self._fingerprint()}, custom_features)

    def _check(self) -> None:
        for name, choices in (("on_error", ON_ERROR), ("sentences", SENTENCES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {describe(getattr(self, name))}; choose one of {', '.join(choices)}.")
        if self.data_dir is None:
            raise ValueError(f"data_dir is missing; give the folder that holds {self.dataset}/ and the pictures.")
        paths = self.annotation_paths
        for path in paths:
            if not path.is_file():
                names = " and ".join(f"{path.parent.name}/{path.name}" for path in paths)
                raise FileNotFoundError(f"{path} is missing; data_dir must hold {names}.")
        if not self.image_folders:
            wanted = " or ".join(picture_folders(self.dataset))
            raise FileNotFoundError(f"{self.root} holds no folder of pictures; put them into {wanted}.")

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(os.fsencode(self.root))
        for path in self.annotation_paths:
            digest.update(os.fsencode(f"{path.name}\0"))
            digest.update(hashlib.sha256(read_regular_file(path)).digest())
        if self.on_error == "skip":
            # A picture that was missing may have come since.
            for folder in self.image_folders:
                for parent, _, names in sorted(os.walk(folder)):
                    for name in sorted(names):
                        size = os.stat(os.path.join(parent, name)).st_size
                        digest.update(os.fsencode(f"{parent}/{name}\0{size}\0"))
        return digest.hexdigest()
