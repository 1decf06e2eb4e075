# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A model at work on pictures: loading, drawing, explaining; and what is known of this machine."""
