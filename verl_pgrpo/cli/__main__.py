# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m verl_pgrpo.cli`."""

import sys

from verl_pgrpo.cli import main

sys.exit(main())
