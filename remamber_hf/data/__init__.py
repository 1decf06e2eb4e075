# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Referring data: readers of REFER sets, of own pictures and of mixtures, what a row is made of, and batches."""
