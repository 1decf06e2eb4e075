# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Referring IoU: `scores` holds the definitions, `referring_iou` the `evaluate` module around them."""
