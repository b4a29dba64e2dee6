# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Dataset builders: public archives, user tables and synthetic personas to verl's train.parquet and val.parquet.

What is wrong with a file, a row or an option is a DataError that names it; nothing is written then.
"""
