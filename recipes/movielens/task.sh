# shellcheck shell=bash
# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
#
# What the task wants of a run on GPUs, whatever the model; recipes/_common.sh has the rest.

# The same for every estimator, so that nothing else differs. Four is where GRPO still has a usable generation group.
ROLLOUT_N=${ROLLOUT_N:-4}
# Ten films with titles, genres and stars and ten candidates have some 500 tokens, long titles more.
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-1024}
# A title has about 10 tokens; room for a sentence, so that a talkative policy is scored as such and not cut.
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-64}
TOTAL_EPOCHS=${TOTAL_EPOCHS:-2} # of 16384 prompts: 128 steps of 256
