# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo report`: its numbers against the runs' own files, what it finds in a run's folder, and its mistakes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.fixtures_report import write_run
from verl_pgrpo.cli import main
from verl_pgrpo.report.comparison import Arm, Comparison, Run, Spread, Window, band, gini
from verl_pgrpo.report.responses import Responses
from verl_pgrpo.report.rollouts import read_run
from verl_pgrpo.report.run_folder import RunFolder, find_run, flat, read_metrics
from verl_pgrpo.report.smoothing import Curves

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for estimator in ("grpo", "pgrpo"):
        for seed in range(3):
            write_run(folder / f"{estimator}-{seed}", estimator, seed)
    write_run(folder / "stars/grpo", "grpo", groups=3, steps=10, utility=False)
    write_run(folder / "stars/pgrpo", "pgrpo", groups=3, steps=10, utility=False)
    return folder


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["report", *map(str, arguments), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["report", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    return line


def table(run: Path) -> pd.DataFrame:
    rows = [json.loads(line) for file in sorted(run.glob("rollouts/*.jsonl")) for line in file.open()]
    return pd.DataFrame(rows).assign(group=lambda frame: [json.loads(gts)["preference_group"] for gts in frame["gts"]])


# ------------------------------------------------------------------------------------------------------------- numbers


def test_seeds_become_means_and_bands(runs, tmp_path, capsys):
    found = report(capsys, *(runs / f"{e}-{s}" for e in ("grpo", "pgrpo") for s in range(3)), "-o", tmp_path / "r.html")
    assert (found["value"], found["last_fifth"], found["groups"], found["ranked"]) == ("utility", [33, 40], 7, 7)
    assert [(arm["label"], len(arm["runs"])) for arm in found["arms"]] == [("grpo", 3), ("pgrpo", 3)]
    for arm in found["arms"]:
        ends = []
        for run in arm["runs"]:
            rows = table(Path(run))
            ends.append(rows[rows["step"] > 32].groupby("group")["utility"].mean())
        seeds = pd.DataFrame(ends)
        for group in found["by_group"]:
            assert group["ends"][arm["label"]] == pytest.approx(seeds[group["group"]].mean())
        worst = seeds.min(axis=1)
        assert arm["worst"] == pytest.approx({"mean": worst.mean(), "low": worst.min(), "high": worst.max()})
        assert arm["gap"]["mean"] == pytest.approx((seeds.max(axis=1) - worst).mean())
    assert (found["focus"], found["baseline"], found["ours"]) == ("group6", "grpo", "pgrpo")
    assert found["gained"] + found["lost"] + found["unmoved"] == 7
    assert found["gained"] >= 5
    assert found["headline"].startswith("The group that GRPO serves worst, group6 (")
    html = (tmp_path / "r.html").read_text()
    assert found["headline"] in html
    assert "bands: smallest to largest (seeds: GRPO 3, P-GRPO 3)" in html


def test_a_worst_group_that_is_worse_off_than_before_is_in_the_headline(runs, tmp_path, capsys):
    shutil.copytree(runs / "pgrpo-0", tmp_path / "pgrpo")
    for step in range(30, 41):
        file = tmp_path / f"pgrpo/rollouts/{step}.jsonl"
        rows = [json.loads(line) for line in file.open()]
        for row in rows:
            row["utility"] *= "group0" not in row["gts"]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = report(capsys, runs / "grpo-0", tmp_path / "pgrpo", "-o", tmp_path / "r.html")
    assert found["headline"].startswith("The group that GRPO serves worst, group6")
    assert "But P-GRPO leaves another group worse off than that: group0, 0.00, against 0.7" in found["headline"]


def test_the_same_arms_by_name(runs, tmp_path, capsys):
    plain = report(capsys, runs / "grpo-0", runs / "grpo-1", runs / "pgrpo-0", "-o", tmp_path / "r.html")
    named = report(
        capsys, f"grpo={runs / 'grpo-0'},{runs / 'grpo-1'}", f"pgrpo={runs / 'pgrpo-0'}", "-o", tmp_path / "r.html"
    )
    assert plain == named
    twice = report(capsys, f"a={runs / 'grpo-0'}", f"b={runs / 'grpo-1'}", "-o", tmp_path / "r.html", "--baseline", "b")
    assert (twice["baseline"], twice["ours"]) == ("b", "a")


def test_without_a_utility_groups_are_compared_with_themselves(runs, tmp_path, capsys):
    folder = runs / "stars"
    found = report(capsys, folder / "grpo", folder / "pgrpo", "-o", tmp_path / "r.html")
    assert found["value"] == "standardized"
    rows = {name: table(folder / name) for name in ("grpo", "pgrpo")}
    start = rows["grpo"][rows["grpo"]["step"] <= 2].groupby("group")["score"]
    end = rows["pgrpo"][rows["pgrpo"]["step"] > 8].groupby("group")["score"].mean()
    wanted = (end - start.mean()) / start.std()
    for group in found["by_group"]:
        assert group["ends"]["pgrpo"] == pytest.approx(wanted[group["group"]])
    assert found["meaning"] in (tmp_path / "r.html").read_text().replace("&#39;", "'")
    plain = report(capsys, folder / "grpo", folder / "pgrpo", "-o", tmp_path / "r.html", "--value", "score")
    for group in plain["by_group"]:
        assert group["ends"]["pgrpo"] == pytest.approx(end[group["group"]])


def test_the_unit_is_the_spread_of_responses_also_where_only_their_means_are_logged():
    values = np.random.default_rng(0).normal(3.0, 2.0, 4000)
    means = values.reshape(-1, 8).mean(axis=1)

    def window(rewards: np.ndarray, weight: float) -> Window:
        groups, weights = np.zeros(len(rewards), dtype=np.int64), np.full(len(rewards), weight)
        found = Responses(np.ones_like(groups), groups, rewards, rewards, weights, "metrics")
        return Window.of(found, np.ones(1, dtype=np.int64), 1, rewards)

    one, eight = window(values, 1.0), window(means, 8.0)
    assert (eight.count[0], eight.rows[0], eight.mean[0]) == (4000, 500, pytest.approx(one.mean[0]))
    assert one.std[0] == pytest.approx(values.std(ddof=1))
    assert eight.std[0] == pytest.approx(2.0, rel=0.1)
    assert eight.error[0] == pytest.approx(one.error[0], rel=0.1)


def test_runs_of_different_length_are_compared_where_both_are(runs, tmp_path, capsys):
    short = tmp_path / "short"
    shutil.copytree(runs / "pgrpo-0", short)
    for step in range(21, 41):
        (short / f"rollouts/{step}.jsonl").unlink()
    found = report(capsys, runs / "grpo-0", short, "-o", tmp_path / "r.html")
    assert found["last_fifth"] == [17, 20]
    assert any("different length" in line for line in found["cautions"])


def test_runs_without_a_common_step_or_group(tmp_path, capsys):
    write_run(tmp_path / "early", "grpo", groups=3, steps=10)
    write_run(tmp_path / "late", "pgrpo", groups=3, steps=30)
    for step in range(1, 21):
        (tmp_path / f"late/rollouts/{step}.jsonl").unlink()
    found = report(capsys, tmp_path / "early", tmp_path / "late", "-o", tmp_path / "r.html")
    assert any("no step in common" in line for line in found["cautions"])
    for arm, steps in (("early", (9, 10)), ("late", (29, 30))):
        rows = table(tmp_path / arm)
        ends = rows[rows["step"].isin(steps)].groupby("group")["utility"].mean()
        for group in found["by_group"]:
            assert group["ends"][{"early": "grpo", "late": "pgrpo"}[arm]] == pytest.approx(ends[group["group"]])
    write_run(tmp_path / "others", "pgrpo", groups=3, steps=10, prefix="other")
    found = report(capsys, tmp_path / "early", tmp_path / "others", "-o", tmp_path / "r.html")
    assert (found["groups"], found["focus"][:5]) == (6, "group")
    assert "nan" not in re.sub(r'data-v="nan"', "", (tmp_path / "r.html").read_text().partition("<main>")[2])


def test_a_group_of_which_little_is_known_is_not_called_the_worst(tmp_path, capsys):
    for name in ("grpo", "pgrpo"):
        write_run(tmp_path / name, name, groups=40, steps=10, prompts=200)
    last = tmp_path / "grpo/rollouts/10.jsonl"
    row = {**json.loads(last.read_text().splitlines()[0]), "uid": "x_0_0", "utility": -9.0}
    with open(last, "a") as file:
        file.write(json.dumps({**row, "gts": '{"preference_group": "seen once"}'}) + "\n")
    found = report(capsys, tmp_path / "grpo", tmp_path / "pgrpo", "-o", tmp_path / "r.html")
    assert (found["groups"], found["ranked"] < 41, found["focus"] != "seen once") == (41, True, True)
    assert any("at least 10 responses" in line and "too little is known" in line for line in found["cautions"])


def compared(per_group: list[int], steps: int = 30) -> Comparison:
    """One run of `score`, with so many responses of each group, spread over the steps."""
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(len(per_group)), per_group)
    at = np.concatenate([np.linspace(1, steps, count).round().astype(int) for count in per_group])
    reward = draw.standard_normal(len(groups)) + groups
    found = Responses(at, groups, reward, reward, np.ones(len(groups)), "rollouts")
    run = Run(RunFolder(Path("run")), {}, found)
    return Comparison([Arm("grpo", "grpo", [run])], [str(i) for i in range(len(per_group))], "score")


def test_a_single_response_ranks_nobody_where_others_have_more():
    assert compared([50] * 3).enough == 10
    assert compared([50] * 2 + [10]).enough == 2  # of few groups all are ranked
    assert compared([50] * 20 + [10] * 15).enough == 10  # of many not those of which less is known than of most
    few = compared([10] * 20 + [1] * 60)
    assert (few.enough, int(few.ranked.sum())) == (2, 20)
    assert compared([1] * 5).enough == 1


def test_curves_are_gaussian_means_weighted_by_responses():
    made = compared([40, 3, 200])
    curves = Curves(made)
    assert curves.at.tolist() == list(range(1, 31))
    found = made.runs[0].responses
    for group in range(3):
        own = found.groups == group
        for step in (1, 14, 30):
            weight = np.exp(-0.5 * ((found.steps[own] - step) / 1.2) ** 2) + 1e-30
            wanted = (weight * found.value[own]).sum() / weight.sum()
            assert curves.groups[0][0, group, step - 1] == pytest.approx(wanted)
            assert curves.group(0, group).line[step - 1] == pytest.approx(wanted)
    lines = curves.groups[0][0]
    assert curves.over_groups(0, None).line == pytest.approx(lines.mean(axis=0))
    assert curves.over_groups(0, False).line == pytest.approx(lines.min(axis=0))
    at, raw = curves.raw(made.runs[0], 1)
    assert at.tolist() == [1, 16, 30]
    assert raw == pytest.approx(found.value[found.groups == 1])


def test_gini_and_bands():
    assert gini(np.array([1.0, 1.0, 1.0])) == pytest.approx(0)
    assert gini(np.array([0.0, 0.0, 1.0])) == pytest.approx(2 / 3)
    assert np.isnan(gini(np.array([-1.0, 1.0])))
    assert Spread.of(np.array([0.5])) == Spread(0.5, None, None)
    assert Spread.of(np.array([1.0, 3.0])) == Spread(2.0, 1.0, 3.0)
    low, high = band(np.array([[1.0], [2.0], [3.0], [4.0], [5.0]]))  # t(0.975, 4) = 2.776, std of the mean 0.7071
    assert [low[0], high[0]] == pytest.approx([3 - 2.776 * 0.7071, 3 + 2.776 * 0.7071], abs=0.01)


# ---------------------------------------------------------------------------------------------------- what is found


def line(step: int, **data: float) -> str:
    return json.dumps({"step": step, "data": {"training/global_step": step, **data}}) + "\n"


def test_a_resumed_run_logs_steps_twice_and_the_later_line_wins(tmp_path):
    first = "".join(line(step, reward=step, old=1.0) for step in range(1, 8))
    resumed = "".join(line(step, reward=10 * step) for step in range(6, 10))
    (tmp_path / "z.jsonl").write_text(first + '{"step": 8, "da')  # killed while it wrote
    (tmp_path / "a.jsonl").write_text(resumed)
    os.utime(tmp_path / "z.jsonl", (2e9, 2e9))  # times do not survive every copy
    run = find_run(tmp_path)
    assert [file.name for file in run.metrics] == ["z.jsonl", "a.jsonl"]
    series = read_metrics(run.metrics)
    assert series["reward"][0].tolist() == list(range(1, 10))
    assert series["reward"][1].tolist() == [1, 2, 3, 4, 5, 60, 70, 80, 90]
    assert series["old"][0].tolist() == [1, 2, 3, 4, 5]
    (tmp_path / "v.jsonl").write_text(line(1, reward=1.0) + json.dumps({"step": 1, "data": {"val-core/x": 0.5}}) + "\n")
    series = read_metrics([tmp_path / "v.jsonl"])  # a validation's line adds to its step
    assert set(series) == {"training/global_step", "reward", "val-core/x"}


def test_metrics_alone_are_enough(runs, tmp_path, capsys):
    for name, arguments in (
        ("pgrpo", [runs / "pgrpo-0/metrics.jsonl"]),
        ("both", [runs / "pgrpo-0", runs / "pgrpo-1"]),
    ):
        found = report(capsys, *arguments, "-o", tmp_path / f"{name}.html")
        assert found["groups"] == 7
    html = (tmp_path / "pgrpo.html").read_text()
    assert "its groups are known from its metrics only" in html
    rewards = read_metrics([runs / "pgrpo-0/metrics.jsonl"])["pgrpo/group0/reward"][1]
    found = report(capsys, runs / "pgrpo-0/metrics.jsonl", "-o", tmp_path / "r.html", "--value", "score")
    counts = table(runs / "pgrpo-0").groupby(["group", "step"]).size()["group0"][-8:]
    [group0] = [group for group in found["by_group"] if group["group"] == "group0"]
    assert group0["ends"]["pgrpo"] == pytest.approx(np.average(rewards[-8:], weights=counts))


def test_a_log_that_begins_with_a_resumed_run_does_not_count_what_was_before(runs, tmp_path, capsys):
    lines = (runs / "pgrpo-0/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "resumed.jsonl").write_text("".join(lines[20:]))
    found = report(capsys, tmp_path / "resumed.jsonl", "-o", tmp_path / "r.html")
    true = table(runs / "pgrpo-0").query("step > 20").groupby("group").size()
    for group in found["by_group"]:
        assert group["responses"] == pytest.approx(true[group["group"]], rel=0.1)


def test_a_validation_per_group_is_enough(tmp_path, capsys):
    for name, slope in (("grpo", 0.0), ("pgrpo", 0.1)):
        (tmp_path / name).mkdir()
        lines = [
            {"step": 10 * i, "data": {f"val-core/music/{g}/reward/mean@1": 0.1 + slope * i for g in ("jazz", "folk")}}
            for i in range(5)
        ]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = report(capsys, tmp_path / "grpo", tmp_path / "pgrpo", "-o", tmp_path / "r.html", "--value", "score")
    assert {group["group"] for group in found["by_group"]} == {"jazz", "folk"}
    assert found["by_group"][0]["ends"] == pytest.approx({"grpo": 0.1, "pgrpo": 0.5})
    found = report(capsys, tmp_path / "grpo", tmp_path / "pgrpo", "-o", tmp_path / "r.html")
    assert "in units of the standard deviation of those validations' mean rewards" in found["meaning"]


def test_groups_from_the_training_data(tmp_path, capsys):
    from tests.test_replay import write_run as write_replayed

    write_replayed(tmp_path / "run", steps=5)
    report(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
    (tmp_path / "run/train.parquet").rename(tmp_path / "elsewhere.parquet")
    pd.read_parquet(tmp_path / "elsewhere.parquet").drop(columns="preference_group").to_parquet(
        tmp_path / "run/train.parquet"
    )
    assert "--data" in fails(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html", "--data", tmp_path / "elsewhere.parquet")
    assert {group["group"] for group in found["by_group"]} == {"jazz", "folk", "rare"}
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html", "--group-field", "gts.wants")
    assert {group["group"] for group in found["by_group"]} == {"jazz", "folk", "rare"}


def test_personas_have_a_utility(tmp_path, capsys):
    from verl_pgrpo.data.personas import make_split
    from verl_pgrpo.rewards.personas import compute_score

    frame = make_split("train", 64, seed=0, noise=0.2)
    (tmp_path / "run/rollouts").mkdir(parents=True)
    for step in (1, 2, 3):
        rows = []
        for i, row in enumerate(frame.to_dict("records")):
            truth = row["reward_model"]["ground_truth"]
            score = compute_score("personas", "yo dude dope bro rap beat rhyme cypher", truth)
            rows.append(
                {
                    "input": row["prompt"][-1]["content"],
                    "output": "yo dude dope bro rap beat rhyme cypher",
                    "gts": truth,
                    "score": score["score"],
                    "step": step,
                    "uid": f"{i}_0_0",
                }
            )
        (tmp_path / f"run/rollouts/{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
    assert found["value"] == "utility"
    ends = {group["group"]: group["ends"]["run"] for group in found["by_group"]}
    assert ends["slang_hiphop"] == 1.0
    assert ends["slang_metal"] == 0.5


def test_the_first_response_does_not_decide_what_is_compared(runs, tmp_path, capsys):
    shutil.copytree(runs / "pgrpo-0", tmp_path / "run")
    file = tmp_path / "run/rollouts/1.jsonl"
    rows = [json.loads(line) for line in file.open()]
    del rows[0]["utility"]
    rows[1]["utility"] = 10**400
    for text in ("".join(json.dumps(row) + "\n" for row in rows), ""):
        file.write_text(text)
        found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
        assert found["value"] == "utility"
        assert any("2 responses" in line for line in found["cautions"]) == bool(text)


def test_controls_with_other_groups_are_compared_by_the_usual_ones(runs, tmp_path, capsys):
    shutil.copytree(runs / "pgrpo-1", tmp_path / "control")
    config = tmp_path / "control/hydra/.hydra/config.yaml"
    config.write_text("algorithm:\n  adv_estimator: pgrpo\n  pgrpo:\n    group_key: extra_info.random_group\n")
    found = report(capsys, runs / "pgrpo-0", runs / "grpo-0", tmp_path / "control", "-o", tmp_path / "r.html")
    assert [arm["label"] for arm in found["arms"]] == ["pgrpo", "grpo", "pgrpo_random_groups"]
    assert (found["baseline"], found["ours"]) == ("grpo", "pgrpo")
    html = (tmp_path / "r.html").read_text()
    assert "algorithm.pgrpo.group_key" in html
    assert "extra_info.random_group" in html


def test_a_history_of_other_groups_is_not_shown_as_theirs(runs, tmp_path, capsys):
    """A control with random groups of the same names, and nothing in its folder that says so."""
    shutil.copytree(runs / "pgrpo-1", tmp_path / "control")
    shutil.rmtree(tmp_path / "control/hydra")
    swapped = (tmp_path / "control/metrics.jsonl").read_text().replace("pgrpo/group1/", "pgrpo/group0/")
    (tmp_path / "control/metrics.jsonl").write_text(re.sub("pgrpo/group([2-6])/", "pgrpo/group1/", swapped))
    found = report(capsys, runs / "pgrpo-0", f"control={tmp_path / 'control'}", "-o", tmp_path / "r.html")
    assert any("is of other groups" in line and line.startswith("control") for line in found["cautions"])
    html = (tmp_path / "r.html").read_text()
    assert "group0 · P-GRPO" in html
    assert "· control" not in html
    assert "control/checkpoints" not in html


def test_the_page_has_configuration_versions_history_and_samples(runs, tmp_path, capsys):
    import torch

    report(capsys, runs / "grpo-0", runs / "pgrpo-0", "-o", tmp_path / "r.html", "--samples-of", "group3")
    html = (tmp_path / "r.html").read_text()
    for text in (
        "algorithm.adv_estimator: pgrpo", torch.__version__, "pgrpo_history.parquet", "la la grpo 40", "la la pgrpo 40",
        "what does group6 like", "Cold groups", "History against current reward", "verl-pgrpo report",
        "--samples-of group3",
    ):  # fmt: skip
        assert text in html, text
    assert "hunter2" not in html
    assert "data.api_key: (not shown)" in html


def test_secrets_of_the_configuration_are_not_shown():
    hidden = {
        "ray_init": {
            "runtime_env": {
                "env_vars": {
                    "AWS_SECRET_ACCESS_KEY": "hunter2", "GITHUB_TOKEN": "hunter2", "CLEARML_API_SECRET_KEY": "hunter2",
                    "my_pat": "hunter2", "db_pass": "hunter2",
                }
            }
        },
        "reward_kwargs": {"judges": [{"api_key": "hunter2"}, [{"headers": {"Authorization": "hunter2"}}]]},
        "env": {"key": "hunter2", "pw": "hunter2", "WANDB_KEY": "hunter2", "token": "hunter2"},
        "GITHUB_PAT": "hunter2", "private_key": "hunter2", "api_keys": ["hunter2"], "hf_token": "hunter2",
        "credentials": {"user": "hunter2"}, "secret": 7, "header": "X: Bearer hunter2",
        "url": "http://u:hunter2@h/", "clone": ["https://hunter2@github.com/x", "-e API_KEY=hunter2"],
    }  # fmt: skip
    rows = flat(hidden)
    assert "hunter2" not in json.dumps(rows)
    assert rows["secret"] == rows["ray_init.runtime_env.env_vars.my_pat"] == "(not shown)"
    assert rows["reward_kwargs.judges"].startswith('[{"api_key": "(not shown)"}')
    shown = {
        "pad_token_id": "0", "max_token_len": "8", "eos_token": "<e>", "group_key": "user", "prompt_key": "prompt",
        "reward_fn_key": "data_source", "ppo_max_token_len_per_gpu": "16384", "image_key": "images", "api_key": "null",
        "url": "http://h:1/v1", "max_tokens": "5", "tokenizer": "org/token=x",
    }  # fmt: skip
    assert flat({**shown, "api_key": None}) == shown
    variables = {"TOKENIZERS_PARALLELISM": "true", "PATH": "/bin", "NCCL_DEBUG": "WARN"}
    assert flat({"env_vars": variables}) == {f"env_vars.{name}": value for name, value in variables.items()}


def test_what_verl_prints_of_its_configuration_is_read(tmp_path):
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts/1.jsonl").write_text("")
    (tmp_path / "run.log").write_text(
        "\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m {'actor_rollout_ref': {'actor': {'lr': 0.001}},\n"
        "\x1b[36m(WorkerDict pid=8)\x1b[0m something else\n"
        "\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m  'algorithm': {'adv_estimator': 'grpo', 'gamma': None}}\n"
        "\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m P-GRPO warning: too cold\n"
    )
    run = find_run(tmp_path)
    assert flat(run.config) == {
        "actor_rollout_ref.actor.lr": "0.001",
        "algorithm.adv_estimator": "grpo",
        "algorithm.gamma": "null",
    }
    assert run.estimator({}) == "grpo"
    assert run.said == ["P-GRPO warning: too cold"]


def test_a_damaged_history_is_said_and_the_page_made(runs, tmp_path, capsys):
    shutil.copytree(runs / "pgrpo-0", tmp_path / "run")
    history = tmp_path / "run/checkpoints/global_step_40/pgrpo_history.parquet"
    history.write_bytes(history.read_bytes()[:-40])
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
    assert any("pgrpo_history.parquet" in line for line in found["cautions"])
    assert "From the last logged metrics" in (tmp_path / "r.html").read_text()


def test_a_damaged_first_line_does_not_hide_the_metrics(runs, tmp_path, capsys):
    shutil.copytree(runs / "pgrpo-0", tmp_path / "run")
    file, out = tmp_path / "run/metrics.jsonl", tmp_path / "r.html"
    good = file.read_text()
    for damaged in ("nonsense\n", "[" * 100_000 + "\n"):
        file.write_text(damaged + good)
        assert "metrics.jsonl, line 1: not a line of verl's" in fails(capsys, tmp_path / "run", "-o", out)
        file.rename(tmp_path / "run/log.jsonl")
        assert "log.jsonl, line 1: not a line of verl's" in fails(capsys, tmp_path / "run", "-o", out)
        (tmp_path / "run/log.jsonl").unlink()
    file.write_text("nonsense\n")
    assert "metrics.jsonl, line 1" in fails(capsys, tmp_path / "run", "-o", out)
    file.rename(tmp_path / "run/log.jsonl")
    found = report(capsys, tmp_path / "run", "-o", out)
    assert f"{tmp_path / 'run/log.jsonl'}: its first line is damaged; not read" in found["cautions"]
    (tmp_path / "run/log.jsonl").rename(tmp_path / "run/train.jsonl").write_text('{"prompt": "of another kind"}\n')
    file.write_text('{"step": 1, "da')  # killed while it wrote
    assert not any("damaged" in line for line in report(capsys, tmp_path / "run", "-o", out)["cautions"])
    for damaged in (good.replace('"step": 3,', '"step": 1e999,'), good.replace('"step": 3,', f'"step": {10**400},')):
        file.write_text(damaged)
        assert "metrics.jsonl, line 3" in fails(capsys, tmp_path / "run", "-o", out)
    file.write_text(line(1, **{"pgrpo/x": 10**400}) + line(2, **{"pgrpo/x": 1}))
    assert read_metrics([file])["pgrpo/x"][1].tolist() == [np.inf, 1.0]


def test_numbers_that_are_none_do_not_stop_it(runs, tmp_path, capsys):
    shutil.copytree(runs / "pgrpo-0", tmp_path / "run")
    file = tmp_path / "run/rollouts/40.jsonl"
    rows = [json.loads(line) for line in file.open()]
    rows[0] |= {"score": float("nan"), "utility": float("inf"), "output": "lone \ud800 and \x00"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"cut')
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
    assert all(np.isfinite(end) for group in found["by_group"] for end in group["ends"].values())
    assert b"\x00" not in (tmp_path / "r.html").read_bytes()
    left_out = f"P-GRPO: 1 response (0.04%) of {tmp_path / 'run'} without a finite {{}} is left out."
    assert left_out.format("utility") in found["cautions"]
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html", "--value", "standardized")
    assert left_out.format("reward") in found["cautions"]
    del rows[1]["utility"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = report(capsys, tmp_path / "run", "-o", tmp_path / "r.html")
    assert any("2 responses" in line and "without a finite utility are left out" in line for line in found["cautions"])


def test_ends_of_lines_within_a_response_do_not_cut_the_line(tmp_path):
    from verl_pgrpo.data.personas import make_split

    truth = make_split("train", 64, seed=0, noise=0.2)["reward_model"][0]["ground_truth"]
    row = {"uid": "u_0_0", "gts": truth, "output": "a\u2028b\u2029c\x85d", "score": 1.0, "step": 1}
    text = json.dumps(row, ensure_ascii=False) + "\n"
    (tmp_path / "1.jsonl").write_text(text + text, encoding="utf-8")
    assert len(read_run("run", tmp_path).rows) == 2
    for damaged in ("[" * 100_000, json.dumps({**row, "score": 10**400})):
        (tmp_path / "2.jsonl").write_text(text + damaged + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"2\.jsonl, line 2: not a persona rollout"):
            read_run("run", tmp_path)


# ------------------------------------------------------------------------------------------------------- the command


def test_the_help_has_an_example_that_works(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main(["report", "--help"])
    assert end.value.code == 0
    example = capsys.readouterr().out.rpartition("example:\n")[2].strip()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("grpo", "pgrpo"):
        (tmp_path / "runs" / name).symlink_to(runs / f"{name}-0")
    program, *arguments = shlex.split(example)
    assert (program, main(arguments)) == ("verl-pgrpo", 0)
    text = capsys.readouterr().out
    assert "page: report.html" in text
    assert "P-GRPO     1" in text


def test_the_templates_are_part_of_the_package():
    from verl_pgrpo.report.page import TEMPLATES

    package = ROOT / "verl_pgrpo"
    packed = {
        file for glob in PROJECT["tool"]["setuptools"]["package-data"]["verl_pgrpo"] for file in package.glob(glob)
    }
    assert set(TEMPLATES.iterdir()) <= packed


def test_quiet_without_a_terminal(runs, tmp_path):
    command = [sys.executable, "-m", "verl_pgrpo.cli", "report", str(runs / "grpo-0"), "-o", "r.html", "--json"]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    assert run.stderr == ""
    assert json.loads(run.stdout)["page"] == "r.html"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]  # and no temporary file is left


def test_mistakes_are_one_line(runs, tmp_path, capsys):
    out, good = tmp_path / "r.html", runs / "grpo-0"
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.jsonl").write_text("[1]\n")
    assert "no such run" in fails(capsys, tmp_path / "none", "-o", out)
    assert "neither rollouts" in fails(capsys, tmp_path / "empty", "-o", out)
    assert "no file of verl's `file` logger" in fails(capsys, tmp_path / "other.jsonl", "-o", out)
    assert "named twice" in fails(capsys, good, f"again={good}", "-o", out)
    assert "is a folder" in fails(capsys, good, "-o", tmp_path)
    assert "no number 'nonsense'" in fails(capsys, good, "-o", out, "--value", "nonsense")
    assert "the arms are grpo" in fails(capsys, good, "-o", out, "--baseline", "nonsense")
    assert "none of the 7 groups" in fails(capsys, good, "-o", out, "--samples-of", "nonsense")
    assert "NAME=FILE" in fails(capsys, good, "-o", out, "--metrics", "nonsense")
    assert "empty" in fails(capsys, good, "-o", out, "--data", tmp_path / "empty")
    assert "is of a known preference group" in fails(capsys, good, "-o", out, "--group-field", "nonsense")
    shutil.copytree(good, tmp_path / "bad")
    (tmp_path / "bad/rollouts/3.jsonl").write_text("nonsense\n{}\n")
    assert "3.jsonl, line 1: not a rollout" in fails(capsys, tmp_path / "bad", "-o", out)
    (tmp_path / "bad/rollouts/3.jsonl").write_bytes(b"\xff\xfe\x00\n{}\n")
    assert "3.jsonl, line 1: not a rollout" in fails(capsys, tmp_path / "bad", "-o", out)
    assert not out.exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    assert main(["report", str(runs / "grpo-0"), "-o", str(out)]) == 1
    assert out.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
