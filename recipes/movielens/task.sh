# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# Sizes of the task on GPUs, for every model. The other settings: recipes/_common.sh.

# The same for every estimator. Four responses are enough for GRPO's normalization per prompt.
ROLLOUT_N=${ROLLOUT_N:-4}
# Ten films with titles, genres and stars and ten candidates are about 500 tokens; long titles need more.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-1024}
# A title has about 10 tokens. Room for a sentence, so that long answers are scored, not truncated.
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-64}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-2} # of 16384 prompts: 128 steps of 256
