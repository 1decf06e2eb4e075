# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of referring segmentation; each folder also loads by path with `evaluate.load`."""
