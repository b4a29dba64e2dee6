# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo replay`: dumps as verl's trainers write them, against verl's own GRPO and the history itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.cli import main
from verl_pgrpo.factor import Factor
from verl_pgrpo.report.dumps import GroupsOfData, GroupsOfField, dump_files, read_step
from verl_pgrpo.report.replay import grpo_advantages, replay

USERS = {"jazz": 5, "folk": 3, "rare": 1}


def write_run(folder: Path, steps: int = 3, n: int = 4, uid: bool = True) -> pd.DataFrame:
    """A data set of nine users' prompts, and the dumps of a run over it; the data."""
    draw = np.random.default_rng(0)
    names = [name for name, count in USERS.items() for _ in range(count)]
    rows = [
        {
            "prompt": [{"role": "system", "content": "be kind"}, {"role": "user", "content": f"play  {name} no {i}"}],
            "reward_model": {"style": "rule", "ground_truth": json.dumps({"wants": name, "row": i})},
            "preference_group": name,
            "extra_info": {"segment": name.upper()},
        }
        for i, name in enumerate(names)
    ]
    data = pd.DataFrame(rows)
    folder.mkdir(exist_ok=True)
    data.to_parquet(folder / "train.parquet")
    (folder / "rollouts").mkdir()
    for step in range(1, steps + 1):
        lines = []
        for i, row in enumerate(rows):
            for session in range(n):
                line = {
                    "input": f"system\nbe kind\nuser\n{row['prompt'][1]['content'].replace('  ', ' ')}\nassistant\n",
                    "output": "la la",
                    "gts": row["reward_model"]["ground_truth"],
                    # Every third prompt's responses earn the same.
                    "score": float(draw.integers(0, 3)) if i % 3 else 1.0,
                    "step": step,
                }
                if uid:
                    line["uid"] = f"prompt{i}-{step}_{session}_0"
                lines.append(line)
        (folder / "rollouts" / f"{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data


def steps_of(folder: Path, groups=None) -> list:
    groups = groups or GroupsOfData.of([folder / "train.parquet"])
    return [read_step(path, groups) for path in dump_files(folder / "rollouts")]


def run(capsys, *arguments: object) -> dict:
    assert main(["replay", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("norm", [True, False])
def test_grpo_is_verls(n, norm):
    import torch
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    draw = np.random.default_rng(n)
    prompts = np.repeat([f"p{i}" for i in range(7)], n)[draw.permutation(7 * n)]
    rewards = draw.normal(size=7 * n).astype(np.float32)
    mask = torch.ones(7 * n, 2)
    token_rewards = torch.zeros(7 * n, 2)
    token_rewards[:, 1] = torch.from_numpy(rewards)
    theirs, _ = compute_grpo_outcome_advantage(token_rewards, mask, prompts, norm_adv_by_std_in_grpo=norm)
    ours = grpo_advantages(rewards.astype(np.float64), Factor.of(list(prompts)), norm=norm)
    np.testing.assert_allclose(ours, theirs[:, 0].numpy(), rtol=1e-4, atol=1e-5)


def test_the_sums_are_those_of_a_slow_second_way(tmp_path):
    write_run(tmp_path)
    steps = steps_of(tmp_path)
    found = replay(steps, PGRPOConfig())
    history, expected = GroupHistoryManager(), {}
    silent = prompts = 0
    for step in steps:
        result = history.advantages(step.groups, step.rewards, index=step.prompts)
        for prompt in sorted(set(step.prompts)):
            of = [i for i, other in enumerate(step.prompts) if other == prompt]
            rewards = step.rewards[of]
            prompts += 1
            silent += len(set(rewards)) == 1
            for i in of:
                grpo = (step.rewards[i] - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
                line = expected.setdefault(step.groups[i], {"grpo": [], "pgrpo": [], "opposed": 0})
                line["grpo"].append(grpo)
                line["pgrpo"].append(result.advantages[i])
                line["opposed"] += grpo * result.advantages[i] < 0
    assert (found.prompts, found.silent_prompts) == (prompts, silent) == (27, found.silent_prompts)
    assert silent >= 9
    total = {key: sum(np.square(line[key]).sum() for line in expected.values()) for key in ("grpo", "pgrpo")}
    assert [line["group"] for line in found.by_group()] == ["jazz", "folk", "rare"]
    for line in found.by_group():
        own = expected[line["group"]]
        assert line["responses"] == len(own["grpo"])
        assert line["opposed"] == pytest.approx(own["opposed"] / len(own["grpo"]))
        for key in ("grpo", "pgrpo"):
            assert line[f"{key} signal"] == pytest.approx(np.square(own[key]).mean(), rel=1e-6)
            assert line[f"{key} share"] == pytest.approx(np.square(own[key]).sum() / total[key], rel=1e-6)
    one, two = (np.concatenate([line[key] for line in expected.values()]) for key in ("grpo", "pgrpo"))
    assert found.agreement == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), rel=1e-6)


def test_the_command(tmp_path, capsys):
    write_run(tmp_path)
    facts = run(capsys, tmp_path / "rollouts", "--data", tmp_path / "train.parquet")
    assert (facts["responses"], facts["prompts"], facts["responses_of_unknown_group"]) == (108, 27, 0)
    assert [line["steps"] for line in facts["steps"]] == ["1", "2", "3"]
    assert sum(line["pgrpo share"] for line in facts["groups"]) == pytest.approx(1)
    by_field = run(capsys, tmp_path / "rollouts", "--group-field", "gts.wants")
    assert by_field == facts
    other = run(
        capsys, tmp_path / "rollouts", "--data", tmp_path / "train.parquet", "--option", "group_key=extra_info.segment"
    )
    assert [line["group"] for line in other["groups"]] == ["JAZZ", "FOLK", "RARE"]
    assert main(["replay", str(tmp_path / "rollouts"), "--group-field", "gts.wants", "--parts", "2"]) == 0
    text = capsys.readouterr().out
    assert "3 steps, 27 prompts, 108 responses of 3 preference groups" in text
    assert "1-2" in text


def test_dumps_without_uid_take_the_text_for_the_prompt(tmp_path):
    """As verl's older trainers write them."""
    write_run(tmp_path / "new")
    write_run(tmp_path / "old", uid=False)
    new, old = (replay(steps_of(tmp_path / name), PGRPOConfig()) for name in ("new", "old"))
    assert new.by_group() == old.by_group()
    assert new.silent_prompts == old.silent_prompts


def test_padding_and_earlier_outputs_of_a_session_do_not_count(tmp_path):
    write_run(tmp_path, steps=1)
    plain = replay(steps_of(tmp_path), PGRPOConfig())
    path = tmp_path / "rollouts" / "1.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["uid"] = row["uid"][:-1] + "1"
    early = [{**row, "uid": row["uid"][:-1] + "0", "score": 99.0} for row in rows[:7]]
    padding = [{**rows[0], "uid": f"pad{i}_0_0", "score": 99.0} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *early, *padding]))
    assert replay(steps_of(tmp_path), PGRPOConfig()).by_group() == plain.by_group()


def test_a_ground_truth_of_several_groups_is_told_by_the_prompt(tmp_path):
    data = write_run(tmp_path)
    data["reward_model"] = [{"style": "rule", "ground_truth": "42"}] * len(data)
    data.to_parquet(tmp_path / "train.parquet")
    expected = [step.groups for step in steps_of(tmp_path, GroupsOfField("gts.wants"))]
    for path in dump_files(tmp_path / "rollouts"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**row, "gts": "42"}) + "\n" for row in rows))
    assert [step.groups for step in steps_of(tmp_path)] == expected


def test_responses_of_unknown_groups_are_counted_and_left_out(tmp_path, capsys):
    data = write_run(tmp_path)
    data[data["preference_group"] != "folk"].to_parquet(tmp_path / "train.parquet")
    facts = run(capsys, tmp_path / "rollouts", "--data", tmp_path / "train.parquet")
    assert facts["responses_of_unknown_group"] == 3 * 3 * 4
    assert [line["group"] for line in facts["groups"]] == ["jazz", "rare"]


def test_a_killed_runs_last_line_may_be_cut_off(tmp_path):
    write_run(tmp_path)
    path = tmp_path / "rollouts" / "3.jsonl"
    path.write_text(path.read_text()[:-30])
    assert len(steps_of(tmp_path)[2].groups) == 35


def test_errors_in_one_line(tmp_path, capsys):
    write_run(tmp_path)
    rollouts, data = tmp_path / "rollouts", tmp_path / "train.parquet"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.jsonl").write_text('{"score": 1}\n' * 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no")
    for arguments, message in [
        ([tmp_path / "empty", "--data", data], "no <step>.jsonl in it; was trainer.rollout_data_dir set to it?"),
        ([tmp_path / "bad", "--data", data], "1.jsonl, line 1: not a rollout of verl's (KeyError('output'))"),
        ([rollouts, "--data", tmp_path / "none.parquet"], "none.parquet: no such file"),
        ([rollouts, "--data", tmp_path / "text.parquet"], "not a Parquet file"),
        ([rollouts, "--data", data, "--option", "group_key=user"], "no column 'user'; it has prompt"),
        ([rollouts, "--data", data, "--option", "half_live=3"], "did you mean half_life?"),
        ([rollouts, "--data", data, "--option", "half_life"], "NAME=VALUE"),
        ([rollouts, "--group-field", "nobody"], "none of its 108 responses has a preference group in the field nobody"),
    ]:
        assert main(["replay", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


# ------------------------------------------------------------------------------------------------- what runs contain


def dumped(folder: Path, *lines: str, end: bytes = b"\n") -> Path:
    (folder / "rollouts").mkdir(parents=True)
    (folder / "rollouts/1.jsonl").write_bytes("\n".join(lines).encode() + end)
    return folder / "rollouts"


def response(score: float | str, prompt: str = "p", text: str = "la", session: int = 0, **fields: object) -> str:
    row = {"input": prompt, "output": text, "score": score, "uid": f"{prompt}_{session}_0", **fields}
    return json.dumps(row, ensure_ascii=False)


def test_other_ends_of_lines_and_a_cut_within_a_character(tmp_path):
    lines = [response(1, text="one\u2028two\x85three", g="jazz"), response(2, session=1, g="jazz")]
    [step] = [
        read_step(path, GroupsOfField("g")) for path in dump_files(dumped(tmp_path, *lines, end='\n{"ü'.encode()[:-1]))
    ]
    assert step.rewards.tolist() == [1.0, 2.0]


def test_a_response_at_its_prompts_mean_is_not_without_signal(tmp_path, capsys):
    folder = dumped(tmp_path, *(response(score, session=score, g="jazz") for score in (0, 1, 2)))
    found = run(capsys, folder, "--group-field", "g")
    assert found["prompts_without_signal_in_grpo"] == 0
    assert found["groups"][0]["no signal in grpo"] == 0


def test_skipped_rewards_and_grpos_own_epsilon(tmp_path, capsys):
    lines = [response(score, session=i, g="jazz") for i, score in enumerate([0.0, 1.0, 2.0])]
    plain = run(capsys, dumped(tmp_path / "a", *lines), "--group-field", "g")
    more = [*lines, response("NaN", session=3, g="jazz"), response("Infinity", session=4, g="folk")]
    options = ("--option", "nonfinite=skip", "--option", "epsilon=1")
    found = run(capsys, dumped(tmp_path / "b", *more), "--group-field", "g", *options)
    assert found["responses_without_finite_reward"] == 2
    assert [line["group"] for line in found["groups"]] == ["jazz"]
    assert found["groups"][0]["grpo signal"] == pytest.approx(plain["groups"][0]["grpo signal"])


def test_groups_by_all_that_the_data_tells(tmp_path, capsys):
    def row(system: str, user: str, truth: object, group: str | None) -> dict:
        prompt = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return {"prompt": prompt, "reward_model": {"ground_truth": truth}, "preference_group": group}

    rows = [
        row("I like jazz", "hi", {"a": 1}, "jazz"), row("I like rock", "hi", {"a": 1}, "rock"),
        row("I like folk", "no 1", {"b": 1}, "folk"), row("I like folk", "no 10", {"b": 1}, "late folk"),
        row("", "nobody", {"c": 1}, None),
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "train.parquet")
    lines = [
        response(
            i, prompt="\n".join(part["content"] for part in one["prompt"]), gts=one["reward_model"]["ground_truth"]
        )
        for i, one in enumerate(rows)
    ]
    arguments = (dumped(tmp_path, *lines), "--data", tmp_path / "train.parquet")
    assert sorted(line["group"] for line in run(capsys, *arguments)["groups"]) == ["folk", "jazz", "late folk", "rock"]
    found = run(capsys, *arguments, "--option", "missing_group=others")
    assert "others" in [line["group"] for line in found["groups"]]
    assert found["responses_of_unknown_group"] == 0


def test_data_that_is_not_verls_is_one_line(tmp_path, capsys):
    write_run(tmp_path / "run").assign(reward_model="text").to_parquet(tmp_path / "bad.parquet")
    for wrong in (tmp_path / "bad.parquet", tmp_path):
        assert main(["replay", str(tmp_path / "run/rollouts"), "--data", str(wrong)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_wrong_options_of_replay(tmp_path, capsys):
    folder = dumped(tmp_path, response(1, g="jazz"))
    assert main(["replay", str(folder), "--group-field", "g", "--option", "half_life=["]) == 2
    with pytest.raises(SystemExit):
        main(["replay", str(folder), "--group-field", "g", "--parts", "-1"])
