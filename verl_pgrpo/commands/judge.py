# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo judge`: which of two models' responses a judge prefers, per preference group."""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.commands.arguments import Result, add_command

if TYPE_CHECKING:
    from verl_pgrpo.evaluation.judging import Estimate

EXAMPLE = (
    "verl-pgrpo judge --a samples/pgrpo.jsonl --b samples/grpo.jsonl --model openai/gpt-oss-120b "
    "--base-url http://127.0.0.1:8000/v1 --json judged.json"
)
SHOWN = 40  # preference groups in the table


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, "judge", "pairwise preference per preference group, by a judge model", EXAMPLE)
    for name in ("a", "b"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE", help="what `eval --out` wrote")
    parser.add_argument("--model", required=True, help="the judge's name at the server")
    parser.add_argument("--base-url", required=True, help="of an OpenAI-compatible server, such as vLLM's")
    parser.add_argument("--json", dest="results", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument(
        "--cache", type=Path, metavar="FILE", help="answers so far (default: beside the results, or --a)"
    )
    parser.add_argument(
        "--api-key-env",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="variable that holds the key (default: %(default)s)",
    )
    parser.add_argument("--question", help="what makes one response better, in place of the usual question")
    parser.add_argument(
        "--max-tokens", type=int, default=2048, help="of an answer with its thoughts (default: %(default)s)"
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the request; null takes one away"
    )
    parser.add_argument("--constrain", action="store_true", help="let vLLM allow no other answers than A, B and TIE")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="requests a minute, at most")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for an answer (default: %(default)s)")
    parser.add_argument("--retries", type=int, default=6, help="of a request, with back-off (default: %(default)s)")
    parser.add_argument("--price-in", type=float, help="per million tokens, for the cost estimate")
    parser.add_argument("--price-out", type=float, help="per million tokens")
    parser.add_argument("--max-cost", type=float, help="ask nothing if it may cost more")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would cost, also to --json")
    parser.set_defaults(run=judge_command, json=False)


def judge_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.commands.evaluate import assignments
    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.data.progress import progress
    from verl_pgrpo.evaluation.errors import JudgeError, require

    require("openai", "scipy", "tqdm")
    from verl_pgrpo.evaluation.judge_cache import Cache
    from verl_pgrpo.evaluation.judge_client import Server
    from verl_pgrpo.evaluation.judging import CHOICE, Asking, Estimate, Plan, ask, cost_of
    from verl_pgrpo.evaluation.pairs import read_pairs
    from verl_pgrpo.evaluation.preferences import summarize
    from verl_pgrpo.evaluation.verdicts import QUESTION

    prices = (args.price_in, args.price_out)
    for name in ("price_in", "price_out", "max_cost"):
        number = getattr(args, name)
        if number is not None and not 0 <= number < math.inf:  # NaN is in no order: it would allow any cost
            raise DataError(f"--{name.replace('_', '-')} must be a finite number of at least 0, got {number}")
    if args.max_cost is not None and None in prices:
        raise DataError("--max-cost needs --price-in and --price-out, per million tokens")
    server = Server(
        base_url=args.base_url, key=(os.environ.get(args.api_key_env) or "").strip() or None, key_name=args.api_key_env,
        concurrency=args.concurrency, rate=args.rate, timeout=args.timeout, retries=args.retries,
    )  # fmt: skip
    server.check()
    options = {**(CHOICE if args.constrain else {}), **assignments(args.option, "--option")}
    asking = Asking(model=args.model, question=args.question or QUESTION, max_tokens=args.max_tokens, options=options)
    found = read_pairs(args.a, args.b)
    plan = Plan.of(found.pairs, asking)
    with Cache(args.cache or _beside(args.results or args.a)) as cache:
        estimate = Estimate.of(plan, cache, asking, server, *prices)
        if args.dry_run:
            return _dry_run(args, estimate, cache.path)
        if args.max_cost is not None and estimate.cost is not None and estimate.cost > args.max_cost:
            raise JudgeError(
                f"it may cost {estimate.cost:.2f}, more than --max-cost {args.max_cost:g}; nothing was asked"
            )
        if args.results is not None:
            _check_results(args.results, args.a, args.b, cache.path)
        print(estimate.text(), flush=True)
        with progress("verdicts", estimate.requests, unit="") as bar:
            counts = ask(plan, cache, server, bar.update)
        answers = {key: cache.answers[key] for key in plan.requests if key in cache.answers}
    tokens_in = sum(answer.input_tokens or 0 for answer in answers.values())
    tokens_out = sum(answer.output_tokens or 0 for answer in answers.values())
    judged = plan.judged(answers)
    data = {
        "a": str(args.a),
        "b": str(args.b),
        "model": args.model,
        "unmatched": {"a": found.unmatched_a, "b": found.unmatched_b},
        **summarize(judged),
        "requests": {"made": counts.requests, "retried": counts.retried, "cached": estimate.cached},
        "tokens": {"input": tokens_in, "output": tokens_out},
        "cost": cost_of(tokens_in, tokens_out, *prices),
        "refusal": counts.refusal or None,
        "pairs": [
            {
                "prompt_id": one.pair.prompt_id,
                "sample": one.pair.sample,
                "preference_group": one.pair.group,
                "a_first": one.verdicts[0],
                "b_first": one.verdicts[1],
                "outcome": one.outcome,
            }
            for one in judged
        ],
    }
    text = _text(data)
    if args.results is not None:
        _write(args.results, data)
        text += f"\nwrote {args.results}"
    return Result(text, data)


def _dry_run(args: argparse.Namespace, estimate: Estimate, cache: Path) -> Result:
    text, data = estimate.text(), {"estimate": asdict(estimate)}
    if args.results is not None:
        _check_results(args.results, args.a, args.b, cache)
        _write(args.results, data)
        text += f"\nwrote {args.results}"
    return Result(text, data)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.judge-cache.jsonl")


def _check_results(path: Path, *others: Path) -> None:
    """Raises DataError where the results cannot go; found out before anything is paid for."""
    from verl_pgrpo.data.errors import DataError

    if path.is_dir():
        raise DataError(f"--json {path}: a folder; name a file")
    for other in others:
        if path.resolve() == other.resolve():
            raise DataError(f"--json {path} is also what is read; give another name")
    path.parent.mkdir(parents=True, exist_ok=True)


def _write(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # half a character that a server sent
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _text(data: dict[str, Any]) -> str:
    from verl_pgrpo.data.summary import aligned

    groups, position, verdicts = data["groups"], data["position"], data["verdicts"]
    if left := len(groups) - SHOWN:
        groups = sorted(groups, key=lambda line: line["win_rate"] if line["win_rate"] is not None else 2)
    rows = [*groups[:SHOWN], {"group": "all", **data["overall"], "p_holm": None, "significant": None}]
    shown = [{**row, "significant": {None: "", True: "yes", False: "no"}[row["significant"]]} for row in rows]
    lines = ["", f"a = {data['a']}, b = {data['b']}; judge: {data['model']}", *aligned(shown, 4)]
    if left > 0:
        lines.append(f"({left:,} more groups, where a does better; --json has all)")
    lines.append(
        "win_rate: of a over prompts, ties count half; 95 % interval; p: sign test, p_holm: corrected for all groups"
    )
    lines.append("")
    if position["share_first"] is None:
        lines.append("position bias: no pair has two valid verdicts, so none can be measured")
    else:
        low, high = position["low"], position["high"]
        split = f"{position['always_first']:,} pairs always the first, {position['always_second']:,} always the second"
        lines.append(
            f"position bias: the first was preferred in {position['share_first']:.1%} ({low:.1%} to {high:.1%}) of "
            f"{position['decided']:,} verdicts; {split}"
            + ("" if position["p"] is None else f" (p {position['p']:.2g})")
        )
        lines.append(f"consistency: both orders agree on {position['consistency']:.1%} of the pairs with two verdicts")
    total = sum(verdicts.values())
    lines.append(f"verdicts: {', '.join(f'{count:,} {name}' for name, count in verdicts.items())}; {total:,} in all")
    if data["refusal"]:
        lines.append(f"refused: {data['refusal']}")
    unmatched = data["unmatched"]
    if unmatched["a"] or unmatched["b"]:
        lines.append(f"without a partner: {unmatched['a']:,} responses of a, {unmatched['b']:,} of b")
    requests = data["requests"]
    cost = "" if data["cost"] is None else f"; cost {data['cost']:.4f}"
    lines.append(
        f"{requests['made']:,} requests made ({requests['retried']:,} again), {requests['cached']:,} in the cache; "
        f"all answers: {data['tokens']['input']:,} tokens in, {data['tokens']['output']:,} out{cost}"
    )
    return "\n".join(lines)
