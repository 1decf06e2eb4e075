# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber train`: `run_training.py` with the arguments as they are."""

import typer

from ..run_training import main


def train(context: typer.Context) -> None:
    main(context.args)
