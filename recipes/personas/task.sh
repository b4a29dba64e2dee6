# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Sizes of the task on GPUs, for every model. The other settings: recipes/_common.sh.

DATA_DIR=${DATA_DIR:-data/personas_english}
# A profile and a request are about 100 tokens, an answer of 80 words about 110. More room, so that longer answers are
# scored (the utility falls with length), not truncated.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-256}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-3} # of 16384 prompts: 96 steps of 512
