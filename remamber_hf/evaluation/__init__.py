# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of referring segmentation: definitions, the evaluation of a data set, published figures, the report."""
