# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo replay` against verl's own GRPO, and against a slow computation from the definitions."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.cli import main
from verl_pgrpo.errors import NonFiniteRewardError
from verl_pgrpo.evaluation.replay import grpo_advantages, replay

USERS = {"jazz": 5, "folk": 3, "rare": 1}


def steps(count: int = 3, n: int = 4) -> list[pd.DataFrame]:
    """Frames of `read_dump`: nine prompts a step; the responses to every third have equal rewards."""
    draw = np.random.default_rng(0)
    groups = [name for name, users in USERS.items() for _ in range(users)]
    prompt = np.repeat(np.arange(len(groups)), n)
    columns = {"group": np.repeat(groups, n).astype(object), "prompt_id": prompt}
    return [
        pd.DataFrame({"step": step, **columns, "score": np.where(prompt % 3, draw.integers(0, 3, len(prompt)), 1.0)})
        for step in range(1, count + 1)
    ]


@pytest.mark.parametrize("norm_by_std", [True, False])
def test_grpo_is_verls(norm_by_std):
    torch = pytest.importorskip("torch")
    algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    draw = np.random.default_rng(0)
    prompts = np.repeat([f"p{i}" for i in range(7)], [1, 1, 2, 2, 5, 5, 5])[draw.permutation(21)]
    rewards = torch.from_numpy(draw.normal(size=(21, 1)))
    theirs, _ = algos.compute_grpo_outcome_advantage(
        rewards, torch.ones(21, 1), prompts, norm_adv_by_std_in_grpo=norm_by_std
    )
    ours = grpo_advantages(rewards[:, 0].numpy(), list(prompts), norm_by_std)
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"epsilon": 0.1}, {"norm_adv_by_std_in_grpo": False}])
def test_scale_and_shift_relate_the_two_advantages(options):
    rows = replay(steps(), PGRPOConfig(**options)).responses
    np.testing.assert_allclose(rows["scale"] * rows["grpo"] + rows["shift"], rows["pgrpo"], rtol=1e-9, atol=1e-9)


def test_the_sums_follow_from_the_definitions():
    frames, history = steps(), GroupHistoryManager()
    result = replay(frames, PGRPOConfig())
    rows = pd.concat(frames, ignore_index=True)
    same = rows.groupby(["step", "prompt_id"])["score"]
    rows["grpo"] = (rows["score"] - same.transform("mean")) / (same.transform("std") + 1e-6)
    rows["pgrpo"] = np.concatenate(
        [history.compute_advantages([*one["group"]], one["score"], [*one["prompt_id"]]).advantages for one in frames]
    )
    rows["no signal in grpo"] = same.transform("nunique") == 1
    rows["opposed"] = rows["grpo"] * rows["pgrpo"] < 0
    assert (result.prompts, result.silent_prompts) == (27, rows["no signal in grpo"].sum() / 4)
    assert result.silent_prompts >= 9
    table = result.by_group().set_index("group")
    assert table["responses"].to_dict() == {"jazz": 60, "folk": 36, "rare": 12}
    for name in ("no signal in grpo", "opposed"):
        assert table[name].to_dict() == pytest.approx(rows.groupby("group")[name].mean().to_dict())
    for name in ("grpo", "pgrpo"):
        squares = (rows[name] ** 2).groupby(rows["group"])
        assert table[f"{name} signal"].to_dict() == pytest.approx(squares.mean().to_dict())
        assert table[f"{name} share"].to_dict() == pytest.approx((squares.sum() / squares.sum().sum()).to_dict())
    cosine = rows["grpo"] @ rows["pgrpo"] / np.linalg.norm(rows["grpo"]) / np.linalg.norm(rows["pgrpo"])
    assert result.agreement == pytest.approx(cosine)
    assert result.by_step(2)["steps"].tolist() == ["1-2", "3"]
    assert result.by_step()["reward"].tolist() == pytest.approx([frame["score"].mean() for frame in frames])


@pytest.mark.parametrize("norm", [True, False])
def test_a_prompt_has_no_signal_in_grpo_if_its_rewards_are_equal(norm):
    """To a few units in the last place, whatever their size. A prompt's only response keeps its reward."""
    prompts = {"equal": [1e6 + 0.3] * 7, "rounded": [0.3, 0.1 + 0.2], "zero": [0.0], "close": [0.5, 0.5 + 1e-9]}
    prompts["single"] = [2.0]
    rows = [("a", name, score) for name, scores in prompts.items() for score in scores]
    frame = pd.DataFrame(rows, columns=["group", "prompt_id", "score"]).assign(step=1)
    result = replay([frame], PGRPOConfig(norm_adv_by_std_in_grpo=norm))
    silent = result.responses.groupby("prompt")["no signal in grpo"].all()
    assert silent.to_dict() == {f"1/{name}": name in ("equal", "rounded", "zero") for name in prompts}


def test_unknown_groups_and_skipped_rewards_are_counted_and_left_out():
    [frame] = steps(1)
    more = pd.DataFrame(
        {"step": 1, "group": ["jazz", "new", None], "prompt_id": [0, 99, 0], "score": [np.nan, np.inf, 1.0]}
    )
    both = [pd.concat([frame, more], ignore_index=True)]
    result = replay(both, PGRPOConfig(on_nonfinite="skip"))
    assert (result.unknown, result.nonfinite) == (1, 2)
    pd.testing.assert_frame_equal(result.by_group(), replay([frame], PGRPOConfig()).by_group())
    with pytest.raises(NonFiniteRewardError):
        replay(both, PGRPOConfig())


def write_dumps(folder, frames):
    for frame in frames:
        rows = [
            {"input": "hi", "output": "la", "gts": json.dumps({"wants": row.group}), "score": row.score,
             "uid": f"{row.prompt_id}_{i}_0"}
            for i, row in enumerate(frame.itertuples())
        ]  # fmt: skip
        (folder / f"{frame['step'][0]}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_run_without_a_finite_reward_is_not_one_without_groups(tmp_path, capsys):
    write_dumps(tmp_path, [frame.assign(score=np.nan) for frame in steps()])
    call = ["replay", str(tmp_path), "--group-field", "gts.wants", "--option", "on_nonfinite=skip"]
    assert main(call) == 2
    assert "none of its 108 responses has a finite reward" in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    write_dumps(tmp_path, steps())
    call = ["replay", str(tmp_path), "--group-field", "gts.wants"]
    assert main([*call, "--option", "half_life=50", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommended_options"]["baseline"] == "shrinkage"
    assert (found["responses"], found["prompts"], found["responses_of_unknown_group"]) == (108, 27, 0)
    assert [row["steps"] for row in found["steps"]] == ["1", "2", "3"]
    assert sum(row["pgrpo share"] for row in found["groups"]) == pytest.approx(1)
    assert main([*call, "--parts", "2"]) == 0
    assert "1-2" in capsys.readouterr().out
    before = GroupHistoryManager(PGRPOConfig(group_key="user"))
    before.update(["jazz"] * 9, range(9))
    before.save(tmp_path / "start.parquet")
    start = ["--option", f"initial_history={tmp_path / 'start.parquet'}", "--option", "group_key=user"]
    assert main([*call, *start, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agreement"] != found["agreement"]
    field = ["--group-field", "gts.wants"]
    unused = ([*field, "--option", "default_group=x"], [*field, "--option", "group_key=k"])
    for mistake in ([], [*field, "--option", "half_live=3"], ["--data", "none.parquet"], *unused):
        assert main(["replay", str(tmp_path), *mistake]) == 2
