# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Can a model match letters to films, as the task `stars` needs it?

    python benchmarks/letters.py     # with the model and data of recipes/movielens/run_smollm2_135m_cpu.sh
    python benchmarks/letters.py --model MODEL --data FOLDER

Two questions per validation prompt: which letter one film of its list has, which takes no taste (this prompt has the
list alone), and the prompt's own, which film the user gives the most stars. The answer is the letter with the highest
probability as the first token. `letters` is the probability of all letters together: if it is small, the model begins
its answers in another way, and the figures say little. `centred`: each letter's mean log-probability over all prompts
is subtracted first, so that a constant preference for a letter has no effect. ± is a 95 % interval over prompts.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from verl_pgrpo.cli.output import format_table
from verl_pgrpo.rewards.movielens_stars import compute_score

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "runs" / "models" / "SmolLM2-135M-Instruct"
DATA = ROOT / "data" / "movielens_stars_smollm2_ml-100k" / "seed0"
CANDIDATE = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)

Chat = list[dict[str, str]]
Floats = npt.NDArray[np.floating[Any]]


def ask_for_letters(chats: Sequence[Chat], seed: int = 0) -> tuple[list[Chat], npt.NDArray[np.int64]]:
    """Return a question for the letter of a random film of each list, and the film's place in the list."""
    lists = [CANDIDATE.findall(chat[-1]["content"]) for chat in chats]
    places = np.random.default_rng(seed).integers([len(films) for films in lists])
    questions = []
    for chat, films, place in zip(chats, lists, places, strict=True):
        listed = "\n".join(f"{letter}. {film}" for letter, film in films)
        question = f'{listed}\n\nWhich letter does "{films[place][1]}" have? Answer with one letter.'
        questions.append([*chat[:-1], {"role": "user", "content": question}])
    return questions, places


def tokens_of(letters: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return all tokens that read as each letter: "A", " A" ...

    Raises:
        ValueError: a letter has no token.
    """
    every = [[token] for token in range(len(tokenizer))]
    texts = [text.strip() for text in tokenizer.batch_decode(every, clean_up_tokenization_spaces=False)]
    tokens = [[token for token, text in enumerate(texts) if text == letter] for letter in letters]
    if missing := [letter for letter, found in zip(letters, tokens, strict=True) if not found]:
        raise ValueError(f"the tokenizer has no token for {', '.join(missing)}")
    return tokens


def log_probabilities(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Chat],
    letters: Sequence[str],
    template: dict[str, Any] | None = None,
) -> Floats:
    """Return the log-probability of each letter as the first token of an answer (chats, letters)."""
    tokens = tokens_of(letters, tokenizer)

    def rows() -> Iterator[list[float]]:
        for chat in tqdm(chats, disable=None):
            prompt = tokenizer.apply_chat_template(
                chat, add_generation_prompt=True, return_tensors="pt", return_dict=True, **(template or {})
            )
            with torch.inference_mode():
                logits = model(**prompt.to(model.device), logits_to_keep=1).logits[0, -1].float()
            yield [logits.log_softmax(-1)[found].logsumexp(0).item() for found in tokens]

    return np.array(list(rows()))


def answers(given: Floats, value: Floats, letters: Sequence[str]) -> dict[str, str]:
    """Return the mean value of the letters with the highest scores, that of a random choice, and each letter's share.

    Args:
        given: scores, such as log-probabilities (questions, letters).
        value: what each letter is worth (questions, letters).
        letters: the columns' names.
    """
    best = given.argmax(1)
    reached = value[np.arange(len(best)), best]
    error = 1.96 * reached.std(ddof=1) / len(best) ** 0.5
    shares = {letter: f"{np.mean(best == i):.2f}" for i, letter in enumerate(letters)}
    return {"reached": f"{reached.mean():.2f} ± {error:.2f}", "by chance": f"{value.mean():.2f}", **shares}


def read_prompts(file: Path, number: int) -> tuple[list[Chat], list[str], Floats]:
    """Return the first prompts of the task `stars`, their letters, and each letter's utility (prompts, letters).

    Raises:
        ValueError: the file is missing or of another task, or has fewer than two prompts or different letters.
    """
    if not file.exists():
        raise ValueError(f"{file} does not exist; `verl-pgrpo data movielens --task stars` writes such a file")
    rows = pd.read_parquet(file).head(number)
    sources = sorted({source.partition("/")[0] for source in rows["data_source"]})  # TASK/GROUP
    if sources != ["movielens_stars"]:
        raise ValueError(f"{file} is not of the task stars: its data_source is {', '.join(sources) or 'empty'}")
    truths = [row["ground_truth"] for row in rows["reward_model"]]
    offered = {tuple(json.loads(truth)["stars"]) for truth in truths}
    if len(truths) < 2 or len(offered) > 1:
        raise ValueError(f"{file}: needs two or more prompts, all with the same letters")
    letters = list(offered.pop())
    utility = [[compute_score("", letter, truth)["utility"] for letter in letters] for truth in truths]
    return [list(prompt) for prompt in rows["prompt"]], letters, np.array(utility)


def json_object(text: str) -> dict[str, Any]:
    """Parse an argument.

    Raises:
        ValueError: it is not a JSON object.
    """
    if not isinstance(value := json.loads(text), dict):
        raise ValueError(f"not a JSON object: {text}")
    return value


def main() -> None:
    """Print a row per question and kind of answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(MODEL))
    parser.add_argument("--data", type=Path, default=DATA, help="folder with val.parquet")
    parser.add_argument("--prompts", type=int, default=400, help="how many (default: 400)")
    parser.add_argument(
        "--template", type=json_object, metavar="JSON", help="as in training; for Qwen3 '{\"enable_thinking\": false}'"
    )
    args = parser.parse_args()
    try:
        chats, letters, utility = read_prompts(args.data / "val.parquet", max(args.prompts, 0))
        if args.model == str(MODEL) and not MODEL.exists():
            raise ValueError(f"{MODEL} does not exist; `make smollm2` creates it")
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = "auto" if device == "cuda" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(
            args.model, dtype=dtype, use_safetensors=True, trust_remote_code=False
        ).to(device)
        naming, places = ask_for_letters(chats)
        table = []
        for question, asked, value in (
            ("which letter does the film have? (share right)", naming, np.eye(len(letters))[places]),
            ("which film has the most stars? (utility)", chats, utility),
        ):
            given = log_probabilities(model, tokenizer, asked, letters, args.template)
            whole = {"letters": f"{np.exp(given).sum(1).mean():.2f}"}
            for name, scores in (("as given", given), ("centred", given - given.mean(0))):
                table.append({"question": question, "scores": name, **answers(scores, value, letters), **whole})
    except (OSError, ValueError) as error:  # no such model, no chat template, no letters ...
        sys.exit(f"letters.py: {error}")
    print(f"{len(chats)} prompts")
    print(format_table(table))


if __name__ == "__main__":
    main()
