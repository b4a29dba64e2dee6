# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The sub-commands of `verl-pgrpo`. Each imports what it works with only when it runs."""
