# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Convert public archives, user tables and synthetic personas to verl's train.parquet and val.parquet.

An invalid file, row or option raises a DataError that names it, and nothing is written.
"""
