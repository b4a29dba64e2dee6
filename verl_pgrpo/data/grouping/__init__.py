# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Users into preference groups: clustering of a feature table, kept in a file that assigns new users later."""
