# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# What the task wants of a run on GPUs, whatever the model; recipes/_common.sh has the rest.

# The same for every estimator, so that nothing else differs. Four is where GRPO still has a usable generation group.
ROLLOUT_N=${ROLLOUT_N:-4}
# Title, stars and 60 words of a description have some 150 tokens.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}
# 120 words are about 160 tokens; more room, so that what is too long is scored as such and not cut.
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-256}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-2} # of 16384 prompts: 128 steps of 256
