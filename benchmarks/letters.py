# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Can an untrained model use the letters of the task `stars`?

    python benchmarks/letters.py     # with the model and data of recipes/movielens/run_smollm2_135m_cpu.sh: 7 minutes
    python benchmarks/letters.py --model MODEL --data FOLDER

Each prompt lists candidate films, lettered A to E, and asks one of two questions: which letter a film of the list has,
which takes no taste, or which film the user gives the most stars, which is the task. The answer is the most probable
letter. A model may prefer one letter wherever the film is, so `no preference` first subtracts each letter's mean
log-probability over all prompts. If a model fails the first question, its answers depend on
the letter and not on the film, so no estimator finds a taste in their rewards.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_pgrpo.cli.output import format_table

ROOT = Path(__file__).resolve().parents[1]
CANDIDATE = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)


def ask_for_letters(prompts: list[str], seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Return a question for the letter of a random film of each prompt's list, and the film's place in the list."""
    lists = [CANDIDATE.findall(prompt) for prompt in prompts]
    places = np.random.default_rng(seed).integers([len(films) for films in lists])
    questions = [
        "\n".join(f"{letter}. {film}" for letter, film in films)
        + f'\n\nWhich letter does "{films[place][1]}" have? Answer with one letter.'
        for films, place in zip(lists, places, strict=True)
    ]
    return questions, places


def log_probabilities(model: str, questions: list[str], letters: list[str]) -> np.ndarray:
    """Return the log-probability of each letter as the first token of an answer (questions, letters)."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    columns = [tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters]
    result = []
    for question in tqdm(questions, disable=None):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            result.append(policy(**prompt).logits[0, -1].log_softmax(-1)[columns].numpy())
    return np.stack(result)


def answers(given: np.ndarray, value: np.ndarray, letters: list[str]) -> dict[str, str]:
    """Return the mean value of the most probable letters, that of a random choice, and how often each letter is chosen.

    Args:
        given: log-probabilities (questions, letters).
        value: what each letter is worth (questions, letters).
        letters: the columns' names.
    """
    best = given.argmax(1)
    reached = value[np.arange(len(best)), best]
    error = 1.96 * reached.std(ddof=1) / len(best) ** 0.5
    shares = {letter: f"{np.mean(best == i):.2f}" for i, letter in enumerate(letters)}
    return {"reached": f"{reached.mean():.2f} ± {error:.2f}", "by chance": f"{value.mean():.2f}", **shares}


def main() -> None:
    """Print a row per question and way to choose a letter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "runs" / "models" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "movielens_stars_smollm2_ml-100k" / "seed0")
    parser.add_argument("--prompts", type=int, default=400, help="of validation (default: 400)")
    args = parser.parse_args()
    file = args.data / "val.parquet"
    if not file.exists():
        parser.error(f"{file} does not exist; `verl-pgrpo data movielens --task stars` writes it")
    rows = pd.read_parquet(file).head(args.prompts)
    sources = sorted(set(rows["data_source"]))
    if sources != ["movielens_stars"]:
        parser.error(f"{file} is not of the task stars: its data_source is {', '.join(sources)}")

    prompts = [row[-1]["content"] for row in rows["prompt"]]
    stars = pd.DataFrame([json.loads(row["ground_truth"])["stars"] for row in rows["reward_model"]])
    letters, worth = list(stars), stars.to_numpy()
    lowest, highest = worth.min(1, keepdims=True), worth.max(1, keepdims=True)
    naming, places = ask_for_letters(prompts)
    table = []
    for question, texts, value in (
        ("which letter does a film have? (share right)", naming, np.eye(len(letters))[places]),
        ("which film has the most stars? (utility)", prompts, (worth - lowest) / (highest - lowest)),
    ):
        given = log_probabilities(args.model, texts, letters)
        for answer, scores in (("most probable", given), ("no preference", given - given.mean(0))):
            table.append({"question": question, "answer": answer, **answers(scores, value, letters)})
    print(format_table(table))


if __name__ == "__main__":
    main()
