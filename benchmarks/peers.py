# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`pgrpo` against the advantage code of verl, TRL and NeMo-RL, in one run, as ratios.

    pip install --no-deps trl==1.16.0                                      # for TRL
    git clone --branch v0.7.0 https://github.com/NVIDIA-NeMo/RL nemo-rl     # for NeMo-RL: on PyPI is a placeholder only
    PYTHONPATH=nemo-rl python benchmarks/peers.py [--quick] [--json FILE]

Who is absent is left out by name. TRL's advantages are computed inline, in the middle of `GRPOTrainer`, and importing
NeMo-RL's asks for vLLM's worker, MLflow and more. So their statements are taken out of their own source when this runs
(with `ast`), and nothing else of theirs is imported. What they give is compared with verl's `grpo` before it is timed.

All get what is cheapest for them: TRL one reward function, rows sorted by prompt; NeMo-RL prompts of one token, and
advantages that are a view over the response's tokens. `pgrpo` is counted whole, from row keys and group names in text
to advantages, its history of 1,000 groups updated. With one token a response the table compares the statistics alone,
with 1,024 the masked advantages of all tokens: TRL and NeMo-RL multiply by the mask in their losses, which is added.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from speed import best_times, history_of, machine, recorded, uids

from verl_pgrpo.integration.estimator import batch_of_run, compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.rows import Rows

GROUPS = 1000
Peer = Callable[[torch.Tensor, int], torch.Tensor]  # rewards (N,), responses per prompt, to advantages (N,)


def taken(file: Path, *names: str) -> list[ast.stmt]:
    """The functions and classes of these names that stand at the top of a source file."""
    found = [node for node in ast.parse(file.read_text()).body if getattr(node, "name", None) in names]
    if len(found) != len(names):
        raise LookupError(f"{file.name} has not all of {', '.join(names)}")
    return found


def made(statements: list[ast.stmt], **known: Any) -> dict[str, Any]:
    """What these statements define, imported from a file of their own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "taken.py"
        file.write_text("from __future__ import annotations\n" + ast.unparse(ast.Module(statements, [])))
        spec = importlib.util.spec_from_file_location("taken", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        vars(module).update(known)
        spec.loader.exec_module(module)
    return vars(module)


def folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise LookupError("not installed")
    return Path(spec.origin).parent


def trl() -> Peer:
    """The statement of `GRPOTrainer._generate_and_score_completions` that turns rewards into advantages."""
    trainer = folder("trl") / "trainer"
    tree = ast.parse((trainer / "grpo_trainer.py").read_text())
    inline = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and "self.multi_objective_aggregation ==" in ast.unparse(node.test)
        and "advantages = rewards - mean_grouped_rewards" in ast.unparse(node)
    ]
    if not inline:
        raise LookupError("its GRPOTrainer has no such statement; trl 1.16.0 has")
    arguments = "self, rewards_per_func, unscorable_mask, num_generations, device"
    shell = ast.parse(f"def advantages_of({arguments}):\n    return torch.nan_to_num(advantages, nan=0.0)").body[0]
    assert isinstance(shell, ast.FunctionDef)
    shell.body.insert(0, inline[0])
    compute = made([*taken(trainer / "utils.py", "nanstd"), shell], torch=torch)["advantages_of"]
    trainer_state = SimpleNamespace(
        multi_objective_aggregation="sum_then_normalize", reward_weights=torch.ones(1), scale_rewards="group"
    )

    def advantages(rewards: torch.Tensor, per_prompt: int) -> torch.Tensor:
        per_function = rewards.unsqueeze(1)
        unscorable = torch.isnan(per_function).all(dim=1)
        return compute(trainer_state, per_function, unscorable, per_prompt, torch.device("cpu"))

    return advantages


def nemo_rl() -> Peer:
    """`GRPOAdvantageEstimator`, with the group's own mean as baseline, as GRPO has it."""
    algorithms = folder("nemo_rl") / "algorithms"
    if not algorithms.is_dir():
        raise LookupError("the placeholder from PyPI is installed, not a checkout")
    statements = taken(algorithms / "utils.py", "calculate_baseline_and_std_per_prompt")
    statements += taken(algorithms / "advantage_estimator.py", "GRPOAdvantageEstimator")
    options = {"use_leave_one_out_baseline": False, "normalize_rewards": True}
    estimator = made(statements, torch=torch)["GRPOAdvantageEstimator"](options, None)

    def advantages(rewards: torch.Tensor, per_prompt: int) -> torch.Tensor:
        prompts = torch.arange(len(rewards)).div(per_prompt, rounding_mode="floor").unsqueeze(1)
        return estimator.compute_advantage(prompts, rewards, mask=torch.ones(len(rewards), 1)).squeeze(1)

    return advantages


def found(peers: dict[str, Callable[[], Peer]]) -> dict[str, Peer]:
    """Those that are installed and compute GRPO's advantages."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rewards, index = torch.randn(64, generator=torch.Generator().manual_seed(0)), np.repeat(np.arange(16), 4)
    expected = compute_grpo_outcome_advantage(rewards.unsqueeze(1), torch.ones(64, 1), index)[0].squeeze(1)
    there: dict[str, Peer] = {}
    for name, make in peers.items():
        try:
            peer = make()
            # Their epsilons are 1e-4 and 1e-6.
            torch.testing.assert_close(peer(rewards, 4), expected, rtol=5e-3, atol=1e-4)
            there[name] = peer
        except LookupError as why:
            print(f"left out: {name}: {why}")
    return there


def case(batch: int, length: int, per_prompt: int, peers: dict[str, Peer], rounds: int, seed: int) -> dict[str, float]:
    """Best seconds of each contender."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, compute_grpo_vectorized_outcome_advantage

    keys, labels = recorded(batch, per_prompt, GROUPS, seed)
    history, index = history_of(GROUPS), uids(keys)
    rewards = torch.zeros(batch, length)
    rewards[:, -1] = torch.randn(batch, generator=torch.Generator().manual_seed(seed))
    scores, mask = rewards[:, -1].clone(), torch.ones(batch, length, dtype=torch.int64)

    def pgrpo() -> None:
        rows = Rows.of(keys, [{}] * batch, labels)
        history.prepare(rows.groups)
        with batch_of_run(history, rows):
            compute_pgrpo_outcome_advantage(rewards, mask, index=index)

    contenders: dict[str, Callable[[], object]] = {
        "pgrpo": pgrpo,
        "verl grpo": lambda: compute_grpo_outcome_advantage(rewards, mask, index=index),
        "verl grpo_vectorized": lambda: compute_grpo_vectorized_outcome_advantage(rewards, mask, index=index),
    }
    for name, peer in peers.items():
        contenders[name] = lambda peer=peer: peer(scores, per_prompt).unsqueeze(1) * mask
    return best_times(contenders, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="batches of 1,024 only")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    args = parser.parse_args()
    print(f"seed {args.seed}, best of {args.rounds} rounds; {machine()}")
    peers = found({"TRL": trl, "NeMo-RL": nemo_rl})
    others = ["verl grpo", "verl grpo_vectorized", *peers]
    print(" batch    n tokens | pgrpo ms | times pgrpo's: " + "  ".join(others))
    table = []
    for batch in (1024,) if args.quick else (1024, 8192):
        for per_prompt in (2, 8):
            for length in (1, 1024):
                best = case(batch, length, per_prompt, peers, args.rounds, args.seed)
                ratios = {name: best[name] / best["pgrpo"] for name in others}
                table.append({"batch": batch, "n": per_prompt, "tokens": length, **best})
                cells = "  ".join(f"{ratio:>{len(name)}.2f}" for name, ratio in ratios.items())
                print(
                    f"{batch:>6} {per_prompt:>4} {length:>6} | {1e3 * best['pgrpo']:>8.2f} | {'':<14} {cells}",
                    flush=True,
                )
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
