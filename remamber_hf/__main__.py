# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m remamber_hf COMMAND`, and so with torchrun and accelerate launch: the command `remamber`."""

from .cli.main import main


if __name__ == "__main__":
    main()
