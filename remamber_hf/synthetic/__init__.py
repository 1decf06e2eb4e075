# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of coloured shapes with expressions whose truth is known, drawn as a REFER data set."""
