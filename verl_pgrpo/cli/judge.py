# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo judge`: let a judge model compare two models' responses, per preference group."""

from __future__ import annotations

import asyncio
import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from verl_pgrpo.cli.output import check_out, format_table, parse_assignments, plain
from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.judge_client import Answer, JudgeCache, JudgeError, JudgeServer, judge_all
from verl_pgrpo.evaluation.judge_requests import (
    CONSTRAINT,
    QUESTION,
    REFUSED,
    JudgeRequest,
    estimate_cost,
    parse_verdict,
    plan_requests,
    token_cost,
)
from verl_pgrpo.evaluation.preferences import outcome, summarize
from verl_pgrpo.evaluation.samples import read_pairs
from verl_pgrpo.files import atomic_write

EXAMPLE = (
    "verl-pgrpo judge --a samples/pgrpo.jsonl --b samples/grpo.jsonl --model openai/gpt-oss-120b "
    "--base-url http://127.0.0.1:8000/v1 --json judged.json"
)
MAX_ROWS = 40  # preference groups in the table

app = typer.Typer(add_completion=False)
Option = typer.Option
FileOrNone = Path | None
CACHE_HELP = "The judge's answers. Default: next to the results, or to --a."
REASONING_HELP = "The responses begin inside their reasoning: the chat template pre-fills <think>."
LEGEND = (
    "win_rate: of a, over prompts, ties count half; low, high: 95 % interval; p: sign test; p_holm: corrected for all "
    "groups\n"
)


@app.command(
    help="Let a judge model compare the responses of two models, per preference group.", epilog=f"Example: {EXAMPLE}"
)
def judge(
    a: Annotated[Path, Option(metavar="FILE", help="Responses that `eval --out` wrote.")],
    b: Annotated[Path, Option(metavar="FILE", help="The responses to compare with.")],
    model: Annotated[str, Option(help="The judge's name at the server.")],
    base_url: Annotated[str, Option(help="An OpenAI-compatible server, such as vLLM's.")],
    results: Annotated[FileOrNone, Option("--json", metavar="FILE", help="Write the results to this file.")] = None,
    cache: Annotated[FileOrNone, Option(metavar="FILE", help=CACHE_HELP)] = None,
    api_key_env: Annotated[str, Option(metavar="NAME", help="Variable with the API key.")] = "OPENAI_API_KEY",
    question: Annotated[str, Option(show_default=False, help="What makes a response better.")] = QUESTION,
    reasoning: Annotated[bool, Option("--reasoning", help=REASONING_HELP)] = False,
    max_tokens: Annotated[int, Option(help="Limit of an answer, reasoning included.")] = 2048,
    option: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="Field of the request; null: none.")] = None,
    constrain: Annotated[bool, Option("--constrain", help="Let vLLM allow A, B and TIE only.")] = False,
    concurrency: Annotated[int, Option(help="Requests at a time.")] = 8,
    rate: Annotated[float | None, Option(help="Requests per minute, at most.")] = None,
    timeout: Annotated[float, Option(help="Seconds for an answer.")] = 120.0,
    retries: Annotated[int, Option(help="Retries of a request, with back-off.")] = 10,
    price_in: Annotated[float | None, Option(help="Price of a million input tokens, for the estimate.")] = None,
    price_out: Annotated[float | None, Option(help="Price of a million output tokens.")] = None,
    max_cost: Annotated[float | None, Option(help="Send nothing if it may cost more.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only print the cost estimate, also to --json.")] = False,
) -> None:
    for name, number in (("price-in", price_in), ("price-out", price_out), ("max-cost", max_cost)):
        if number is not None and not 0 <= number < math.inf:
            raise DataError(f"--{name} must be a finite number of at least 0, got {number}")
    if (price_in is None) != (price_out is None):
        raise DataError("give --price-in and --price-out together (0 if free)")
    prices = None if price_in is None or price_out is None else (price_in, price_out)
    if max_cost is not None and prices is None:
        raise DataError("--max-cost needs --price-in and --price-out, per million tokens")
    server = JudgeServer(
        base_url=base_url, api_key=os.environ.get(api_key_env, "").strip() or None, key_name=api_key_env,
        concurrency=concurrency, rate=rate, timeout=timeout, retries=retries,
    )  # fmt: skip
    options = {**(CONSTRAINT if constrain else {}), **parse_assignments(option, "--option")}
    request = JudgeRequest(model=model, question=question, max_tokens=max_tokens, reasoning=reasoning, options=options)
    pairs, unmatched = read_pairs(a, b)
    keys, requests = plan_requests(pairs, request)
    check_out("--json", results, a, b, cache)
    if results is not None:  # before any request costs money
        results.parent.mkdir(parents=True, exist_ok=True)
    cache = cache or (results or a).with_name(f"{(results or a).stem}.judge-cache.jsonl")
    answers = JudgeCache(cache)
    missing = {key: body for key, body in requests.items() if key not in answers}
    cached = len(requests) - len(missing)
    estimate = {"pairs": len(pairs), "cached": cached, **estimate_cost(missing.values(), request, prices)}
    cost = estimate["cost"]
    print(
        f"{len(pairs):,} pairs in both orders: {len(missing):,} requests to make, {cached:,} answers in the cache\n"
        f"about {estimate['input_tokens']:,} tokens in, at most {estimate['output_tokens']:,} out; cost "
        f"{'unknown without prices' if cost is None else f'up to about {cost:.2f}'}",
        flush=True,
    )
    if dry_run:
        return _write(results, {"estimate": estimate})
    if max_cost is not None and cost is not None and cost > max_cost:
        raise JudgeError(f"it may cost {cost:.2f}, more than --max-cost {max_cost:g}; nothing was sent")
    with tqdm(total=len(missing), desc="verdicts", leave=False, disable=None) as bar:

        def on_answer(key: str, answer: Answer | None) -> None:
            if answer is not None:
                answers.add(key, answer)
            bar.update()

        counts = asyncio.run(judge_all(server, missing, on_answer, known=cached > 0))
    found = {key: answers[key] for key in requests if key in answers}
    verdicts = {key: parse_verdict(answer.text, answer.finished) for key, answer in found.items()}
    judged = pairs.join(keys.map(lambda key: verdicts.get(key, REFUSED)))
    judged["outcome"] = [outcome(*both) for both in zip(judged["a_first"], judged["b_first"], strict=True)]
    columns = ["prompt_id", "sample", "preference_group", "a_first", "b_first", "outcome"]
    tokens_in = sum(answer.input_tokens or 0 for answer in found.values())
    tokens_out = sum(answer.output_tokens or 0 for answer in found.values())
    result = {
        "a": str(a),
        "b": str(b),
        "model": model,
        "unmatched": unmatched,
        **summarize(judged),
        "requests": {"made": counts.made, "retried": counts.retried, "cached": cached},
        "tokens": {"input": tokens_in, "output": tokens_out},
        "cost": token_cost(tokens_in, tokens_out, prices),
        "refusal": counts.reason or None,
        "pairs": judged[columns].to_dict("records"),
    }
    print(_text(result), flush=True)
    _write(results, result)


def _write(path: Path | None, data: dict[str, Any]) -> None:
    if path is not None:
        with atomic_write(path, errors="backslashreplace") as file:
            file.write(json.dumps(plain(data), ensure_ascii=False, indent=1) + "\n")
        print(f"wrote {path}", flush=True)


def _text(data: dict[str, Any]) -> str:
    groups, position, verdicts, requests = (data[name] for name in ("groups", "position", "verdicts", "requests"))
    if len(groups) > MAX_ROWS:
        groups = sorted(groups, key=lambda line: (math.isnan(line["win_rate"]), line["win_rate"]))
    overall = {"group": "all", **data["overall"], "p_holm": None, "significant": None}
    table = format_table([overall, *groups], most=MAX_ROWS + 1, left="groups in which a does better; --json has all")
    lines = ["", f"a = {data['a']}, b = {data['b']}; judge: {data['model']}", table, LEGEND]
    if not position["decided"]:
        lines.append("position bias: unknown, as no pair has two valid verdicts")
    else:
        p = "" if math.isnan(position["p"]) else f" (p {position['p']:.2g})"
        lines.append(
            f"position bias: the response shown first was preferred in {position['share_first']:.1%} "
            f"({position['low']:.1%} to {position['high']:.1%}) of {position['decided']:,} verdicts; "
            f"{position['always_first']:,} pairs always the first, {position['always_second']:,} always the second{p}"
        )
        lines.append(f"consistency: both orders agree on {position['consistency']:.1%} of the pairs with two verdicts")
    total = sum(verdicts.values())
    lines.append(f"verdicts: {', '.join(f'{count:,} {name}' for name, count in verdicts.items())}; {total:,} in all")
    if data["refusal"]:
        lines.append(f"refused: {data['refusal']}")
    if any(data["unmatched"].values()):
        lines.append(f"without a partner: {data['unmatched']['a']:,} responses of a, {data['unmatched']['b']:,} of b")
    cost = "" if data["cost"] is None else f"; cost {data['cost']:.4f}"
    lines.append(
        f"{requests['made']:,} requests made ({requests['retried']:,} of them retries), {requests['cached']:,} answers "
        f"from the cache; all answers: {data['tokens']['input']:,} tokens in, {data['tokens']['output']:,} out{cost}"
    )
    return "\n".join(lines)
