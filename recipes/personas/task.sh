# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# What the task wants of a run on GPUs, whatever the model; recipes/_common.sh has the rest.

DATA_DIR=${DATA_DIR:-data/personas_english}
# A profile and a request have about 100 tokens. 80 words are about 110; more room than that, so that an answer that is
# too long is scored as such (the utility lowers in proportion) and not cut to the wanted length.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-256}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-3} # of 16384 prompts: 96 steps of 512
