# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Data for training and evaluation: REFER files (`refer`), synthetic scenes (`synthetic`), batches (`collator`)."""
