# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Sizes of the task on GPUs, for every model. The other settings: recipes/_common.sh.

# The same for every estimator. Four responses are enough for GRPO's normalization per prompt.
ROLLOUT_N=${ROLLOUT_N:-4}
# Title, stars and 60 words of a description are about 150 tokens.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}
# 120 words are about 160 tokens. More room, so that longer reviews are scored, not truncated.
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-2} # of 16384 prompts: 128 steps of 256
