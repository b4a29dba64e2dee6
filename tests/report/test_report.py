# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo report`: its numbers against the runs' own files, what it finds in a folder, and mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from tests.report.runs import write_run
from verl_pgrpo.cli import main
from verl_pgrpo.errors import DataError
from verl_pgrpo.report.comparison import Arm, Comparison, Run
from verl_pgrpo.report.curves import Curves
from verl_pgrpo.report.history_snapshot import history_metrics
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.narrative import cautions, findings, headline, value_meaning
from verl_pgrpo.report.page import as_dict, make_report
from verl_pgrpo.report.pooling import ConfidenceBand
from verl_pgrpo.report.run_folder import RunFolder, find_run
from verl_pgrpo.report.samples import find_samples

SECRET = "hunter2"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for estimator in ("grpo", "pgrpo"):
        for seed in range(2):
            write_run(folder / f"{estimator}-{seed}", estimator, seed)
        write_run(folder / f"stars/{estimator}", estimator, groups=3, steps=10, utility=False)
        write_run(folder / f"small/{estimator}", estimator, groups=3, steps=10)
    return folder


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of a run of pgrpo with ten steps and three groups."""
    return Path(shutil.copytree(runs / "small/pgrpo", tmp_path / "run"))


def report(*paths: object, **options: object) -> dict:
    """The numbers of a report."""
    return as_dict(make_report(load_runs([str(path) for path in paths], **options)))


def ends(found: dict, arm: str) -> dict[str, float]:
    """Each preference group's value at the end."""
    return {group["group"]: group["ends"][arm] for group in found["by_group"]}


@pytest.fixture
def page(tmp_path, capsys):
    """Call the command, which writes r.html; return its JSON."""

    def call(*arguments: object) -> dict:
        capsys.readouterr()
        assert main(["report", *map(str, arguments), "-o", str(tmp_path / "r.html"), "--json"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return json.loads(captured.out)

    return call


def table(run: Path) -> pd.DataFrame:
    rows = [json.loads(line) for file in run.glob("rollouts/*.jsonl") for line in file.open()]
    return pd.DataFrame(rows).assign(group=lambda frame: [json.loads(gts)["preference_group"] for gts in frame["gts"]])


def test_seeds_become_means_and_bands(runs, tmp_path, page):
    seeds_of_arms = [runs / f"{estimator}-{seed}" for estimator in ("grpo", "pgrpo") for seed in range(2)]
    found = page(*seeds_of_arms, "--picture", tmp_path / "new" / "p.png")
    assert (tmp_path / "new" / "p.png").read_bytes().startswith(b"\x89PNG")
    assert (found["value"], found["last_fifth"], found["groups"], found["ranked"]) == ("utility", [33, 40], 7, 7)
    assert [(arm["label"], len(arm["runs"])) for arm in found["arms"]] == [("grpo", 2), ("pgrpo", 2)]
    for arm in found["arms"]:
        rows = [table(Path(run)).query("step > 32") for run in arm["runs"]]
        seeds = pd.DataFrame([one.groupby("group")["utility"].mean() for one in rows])
        for group in found["by_group"]:
            assert group["ends"][arm["label"]] == pytest.approx(seeds[group["group"]].mean())
        worst = seeds.min(axis=1)
        assert arm["worst"] == pytest.approx({"mean": worst.mean(), "low": worst.min(), "high": worst.max()})
        assert arm["gap"]["mean"] == pytest.approx((seeds.max(axis=1) - worst).mean())
    assert (found["focus"], found["baseline"], found["ours"]) == ("group6", "grpo", "pgrpo")
    assert found["gained"] >= 5
    assert found["gained"] + found["lost"] + found["unmoved"] == 7
    assert found["headline"] in (tmp_path / "r.html").read_text()


def test_arms_by_name(runs):
    one, two, three = runs / "small/grpo", runs / "small/pgrpo", runs / "stars/grpo"
    found = report(f"a={one},{two}", f"b={three}", baseline="b", value="score")
    assert [(arm["label"], len(arm["runs"])) for arm in found["arms"]] == [("a", 2), ("b", 1)]
    assert (found["baseline"], found["ours"]) == ("b", "a")


def test_rows_without_a_group_belong_to_the_default_group_of_the_run(run, tmp_path):
    config = run / "hydra/.hydra/config.yaml"
    config.write_text(config.read_text().replace("data:", "  pgrpo: {default_group: others}\ndata:"))
    labels = [f"group{i}" for i in range(3)]
    truths = [{"ground_truth": json.dumps({"preference_group": label})} for label in labels]
    prompts = [[{"role": "user", "content": label}] for label in labels]
    data = pd.DataFrame({"prompt": prompts, "reward_model": truths, "preference_group": [*labels[:2], None]})
    data.to_parquet(tmp_path / "train.parquet")
    assert set(ends(report(run, data=[tmp_path / "train.parquet"]), "pgrpo")) == {"group0", "group1", "others"}


def test_without_names_runs_with_equal_settings_are_seeds(tmp_path):
    for rate in "123":
        for seed in range(2):
            folder = write_run(tmp_path / rate / f"s{seed}", "grpo", seed, steps=5)
            config = folder / "hydra/.hydra/config.yaml"
            config.write_text(f"{config.read_text()}actor_rollout_ref:\n  actor: {{optim: {{lr: {rate}e-6}}}}\n")
    found = report(*(tmp_path / rate / f"s{seed}" for rate in "123" for seed in range(2)))
    arms = {arm["label"]: [Path(run).parent.name for run in arm["runs"]] for arm in found["arms"]}
    assert arms == {"grpo": ["1"] * 2, "grpo (s0)": ["2"] * 2, f"grpo ({tmp_path}/3/s0)": ["3"] * 2}


def test_without_a_utility_groups_are_compared_with_themselves(runs):
    arms = runs / "stars/grpo", runs / "stars/pgrpo"
    start = table(arms[0]).query("step <= 2").groupby("group")["score"]
    end = table(arms[1]).query("step > 8").groupby("group")["score"].mean()
    for value, expected in (("auto", (end - start.mean()) / start.std()), ("score", end)):
        assert ends(report(*arms, value=value), "pgrpo") == pytest.approx(expected.to_dict())


def test_a_group_with_hardly_any_responses_is_not_the_worst(tmp_path):
    for name in ("grpo", "pgrpo"):
        write_run(tmp_path / name, name, groups=40, steps=10, prompts=200)
    last = tmp_path / "grpo/rollouts/10.jsonl"
    row = {**json.loads(last.read_text().splitlines()[0]), "uid": "x_0_0", "utility": -9.0}
    with open(last, "a") as file:
        file.write(json.dumps({**row, "gts": '{"preference_group": "seen once"}'}) + "\n")
    found = report(tmp_path / "grpo", tmp_path / "pgrpo")
    assert found["groups"] == 41
    assert found["focus"] != "seen once"
    assert "worst_tenth" in found["arms"][0]


def arm(name: str, groups: str, first: int, last: int) -> Arm:
    """One run whose groups have ten responses in each step."""
    steps = np.arange(first, last + 1)
    cells = pd.DataFrame({"step": np.tile(steps, len(groups)), "group": np.repeat([*groups], len(steps))})
    cells = cells.assign(count=10, rows=10, value=cells["step"] * 1.0, m2=1.0)
    return Arm(name, name, [Run(RunFolder(Path(name)), cells)])


def test_without_common_steps_values_are_standardized_by_the_start_of_the_baseline():
    comparison = Comparison([arm("grpo", "ab", 31, 50), arm("pgrpo", "ab", 1, 20)], "standardized")
    std = np.sqrt((10 * 5 + 4) / 39)  # of steps 31 to 34
    np.testing.assert_allclose(comparison.ends, [[(48.5 - 32.5) / std] * 2, [(18.5 - 32.5) / std] * 2])
    assert "steps 31 to 34 of GRPO (the first fifth of its own" in value_meaning(comparison)
    assert comparison.ranked.all()


@pytest.mark.parametrize("value", ["score", "standardized"])
def test_arms_without_common_groups(value):
    comparison = Comparison([arm("grpo", "ab", 1, 20), arm("pgrpo", "cd", 1, 20)], value)
    assert comparison.ranked.tolist() == [True, True, False, False]
    [text] = [line for line in cautions(comparison) if "ranked" in line]
    assert text.startswith("No group has responses in")
    assert "P-GRPO" not in " ".join([headline(comparison), *findings(comparison)]), "it has none of the ranked groups"


def test_bands_count_the_seeds_that_have_data():
    with_gaps = ConfidenceBand.over_seeds(np.array([1.0, np.nan, 2.0, 3.0, np.nan, 4.0, 5.0]))
    half = 2.776 * 0.7071  # t(0.975, 4), std of the mean
    assert [with_gaps.low, with_gaps.high] == pytest.approx([3 - half, 3 + half], abs=0.001)
    several = ConfidenceBand.over_seeds(np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]]))
    np.testing.assert_equal(
        [several.mean, several.low, several.high], [[2, 5, np.nan], [1, np.nan, np.nan], [3, np.nan, np.nan]]
    )


def test_curves_are_weighted_means_with_a_two_sided_kernel():
    """Of three groups with 40, 3 and 200 responses, spread over the steps."""
    steps, sizes = np.arange(1, 31), (40, 3, 200)
    step = np.concatenate([np.linspace(1, 30, size).round().astype(int) for size in sizes])
    cells = pd.DataFrame({"step": step, "group": np.repeat([*"abc"], sizes), "count": 1, "rows": 1, "m2": 0.0})
    cells["value"] = np.random.default_rng(0).standard_normal(len(cells))
    curves = Curves(Comparison([Arm("grpo", "grpo", [Run(RunFolder(Path("run")), cells)])], "score"))
    kernel = np.linalg.matrix_power(np.exp(-np.abs(np.subtract.outer(steps, steps)) / (30 / 35)), 2)
    for group, own in enumerate(own for _, own in cells.groupby("group")):
        weights = kernel[:, own["step"] - 1]
        assert curves.group(0, group).mean == pytest.approx(weights @ own["value"] / weights.sum(axis=1))
    assert curves.mean(0).mean == pytest.approx(curves.groups[0][0].mean(axis=0))
    assert curves.worst(0).mean == pytest.approx(curves.groups[0][0].min(axis=0))


# ----------------------------------------------------------------------------------------------- what is in a folder


def test_an_abandoned_branch_is_left_out(runs, tmp_path, page, capsys):
    """Killed at step 40, resumed at step 21 with other results, killed again at step 30."""
    run, other = Path(shutil.copytree(runs / "pgrpo-0", tmp_path / "run")), runs / "pgrpo-1"
    for step in range(21, 31):
        shutil.copy(other / f"rollouts/{step}.jsonl", run / "rollouts")
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics_2.jsonl").write_text("".join(lines[20:30]))
    found = page(run)
    assert found["steps"] == [1, 30]
    rows = table(other).query("25 <= step <= 30")
    assert ends(found, "pgrpo") == pytest.approx(rows.groupby("group")["utility"].mean().to_dict())
    assert any("31 to 40" in line for line in found["cautions"])
    shutil.copytree(run / "checkpoints/global_step_40", run / "checkpoints/global_step_25")  # has other rewards
    page(run)
    assert "global_step_" not in (tmp_path / "r.html").read_text()  # histories of the abandoned branch
    assert main(["replay", str(run / "rollouts"), "--group-field", "gts.preference_group", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["steps"]) == 30


def test_metrics_alone_are_enough(runs, tmp_path):
    log = runs / "pgrpo-0/metrics.jsonl"
    found = report(log, value="score")
    assert found["groups"] == 7
    last = table(runs / "pgrpo-0").query("step > 32").groupby("group")["score"].mean()
    assert ends(found, "pgrpo") == pytest.approx(last.to_dict())
    (tmp_path / "resumed.jsonl").write_text("".join(log.read_text().splitlines(keepends=True)[20:]))
    responses = table(runs / "pgrpo-0").query("step > 20").groupby("group").size()
    for group in report(tmp_path / "resumed.jsonl")["by_group"]:  # rewards before the resume are not counted
        assert group["responses"] == pytest.approx(responses[group["group"]], rel=0.1)


def test_the_metrics_of_a_run_may_be_in_two_files(runs, tmp_path):
    lines = (runs / "pgrpo-0/metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "older.jsonl").write_text("".join(lines[:30]))
    (tmp_path / "newer.jsonl").write_text("".join(lines[30:]))
    found = report(f"run={tmp_path / 'older.jsonl'}", metrics=[f"run={tmp_path / 'newer.jsonl'}"], value="score")
    assert ends(found, "run") == ends(report(runs / "pgrpo-0/metrics.jsonl", value="score"), "pgrpo")


@pytest.mark.parametrize("prefix", ["Käthe", f"walks {'on the beach ' * 5}"])
def test_metrics_alone_have_the_history_of_groups_that_are_renamed_in_metrics(tmp_path, prefix):
    run = write_run(tmp_path / "run", "pgrpo", groups=3, steps=5, prefix=prefix)
    count = table(run).groupby("group").size().to_dict()
    shutil.rmtree(run / "rollouts")
    other = Path(shutil.copytree(run, tmp_path / "other"))
    (other / "hydra/.hydra/config.yaml").write_text("algorithm: {adv_estimator: grpo}")
    shutil.rmtree(run / "checkpoints")
    for found in (report(other), report(run, other)):  # the full labels are in the checkpoint of `other`
        assert {group["group"]: group["history"] for group in found["by_group"]} == count
    comparison = load_runs([str(run)])  # without a checkpoint, groups keep their names in metrics
    [snapshot] = make_report(comparison).snapshots
    assert sorted(snapshot.count) == sorted(count.values())
    assert len(history_metrics(comparison.runs[0], comparison.labels[0])) == 5


def test_groups_from_training_data(run, tmp_path):
    shutil.move(run / "rollouts", tmp_path / "plain/rollouts")
    run = tmp_path / "plain"
    for file in run.glob("rollouts/*"):
        file.write_text(file.read_text().replace("preference_group", "user"))
    truths = [{"ground_truth": json.dumps({"user": f"group{i}"})} for i in range(3)]
    data = pd.DataFrame({"reward_model": truths, "preference_group": [f"data{i}" for i in range(3)]})
    data.to_parquet(tmp_path / "elsewhere.parquet")
    with pytest.raises(DataError):
        report(run)
    assert set(ends(report(run, data=[tmp_path / "elsewhere.parquet"]), "plain")) == {"data0", "data1", "data2"}
    assert set(ends(report(run, group_field="gts.user"), "plain")) == {"group0", "group1", "group2"}
    data.to_parquet(run / "train.parquet")
    assert report(run)["focus"].startswith("data")


def test_the_utility_of_personas_is_computed_from_the_text(tmp_path):
    truth = {"surface": "toy", "style": "slang", "offset": 1.0, "scale": 4.0, "noise": 0.0, "seed": 0, "row": "train/0"}
    rows = [
        {"input": "x", "output": "yo dude dope bro rap beat rhyme cypher", "score": 9, "uid": f"{genre}_0_0",
         "gts": json.dumps({**truth, "persona": f"slang_{genre}", "genre": genre})}
        for genre in ("hiphop", "metal")
    ]  # fmt: skip
    (tmp_path / "1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = report(f"run={tmp_path}")
    assert found["value"] == "utility"
    assert ends(found, "run") == {"slang_hiphop": 1.0, "slang_metal": 0.5}


def test_the_utility_of_film_ratings_is_computed_from_the_stars(tmp_path):
    truth, data = json.dumps({"stars": {"A": 2.0, "B": 5.0}}), tmp_path / "train.parquet"
    prompt = [{"role": "user", "content": "x"}]
    row = {"prompt": prompt, "preference_group": "g0", "reward_model": {"ground_truth": truth}}
    pd.DataFrame([row]).to_parquet(data)
    texts = ("A", "The answer is B", "both", "B")
    rows = [{"input": "x", "output": text, "score": 9, "gts": truth, "uid": f"a_{text}_0"} for text in texts]
    (tmp_path / "1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = report(f"run={tmp_path}", data=[data])
    assert (found["value"], ends(found, "run")) == ("utility", {"g0": 0.5})


def test_a_ground_truth_that_only_looks_like_that_of_a_reward_has_no_utility(tmp_path):
    rows = [
        {"input": "x", "output": "A", "score": 4, "gts": '{"stars": 4}', "g": "jazz", "uid": f"{i}_0_0"} for i in "ab"
    ]
    (tmp_path / "1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert report(f"run={tmp_path}", group_field="g")["value"] == "standardized"


def test_a_run_of_one_step_shows_each_prompt_once(tmp_path):
    comparison = load_runs([str(write_run(tmp_path / "run", "pgrpo", steps=1))])
    for samples in find_samples(comparison, [0, 1]).values():
        prompts = [sample["prompt"] for sample in samples]
        assert prompts
        assert len(set(prompts)) == len(prompts)


def test_a_utility_that_metrics_do_not_have_is_an_error(tmp_path):
    rows = [{"step": step, "data": {"pgrpo/group/a/reward": 3.0, "pgrpo/group/a/count": 4}} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="its metrics have no 'utility'; give the training"):
        report(tmp_path, value="utility")


def test_controls_with_other_groups(runs, run, tmp_path, page):
    config = "algorithm:\n  adv_estimator: pgrpo\n  pgrpo:\n    group_key: extra_info.random_group\n"
    (run / "hydra/.hydra/config.yaml").write_text(config)
    found = page(runs / "small/pgrpo", runs / "small/grpo", run)
    assert [arm["label"] for arm in found["arms"]] == ["pgrpo", "grpo", "pgrpo_random_groups"]
    assert (found["baseline"], found["ours"]) == ("grpo", "pgrpo")
    assert any("other groups" in line for line in found["cautions"])
    html = (tmp_path / "r.html").read_text()
    assert "extra_info.random_group" in html
    assert "group0 · P-GRPO" in html
    assert "group0 · pgrpo_random_groups" not in html  # a history of other groups


def test_a_damaged_history_or_number_does_not_stop_the_page(run, tmp_path, page):
    history = run / "checkpoints/global_step_10/pgrpo_history.parquet"
    history.write_bytes(history.read_bytes()[:-40])
    file = run / "rollouts/10.jsonl"
    rows = [json.loads(line) for line in file.open()]
    rows[0] |= {"score": float("nan"), "utility": 10**400, "input": "\ud800", "output": "lone \ud800 and \x00"}
    file.write_text("\n".join(map(json.dumps, rows)) + '\n{"cut')
    found = page(run)
    assert any("pgrpo_history.parquet" in line for line in found["cautions"])
    assert any("1 response without a finite utility" in line for line in found["cautions"])
    assert "the last logged metrics" in (tmp_path / "r.html").read_text()
    assert b"\x00" not in (tmp_path / "r.html").read_bytes()
    assert None not in ends(found, "pgrpo").values()


def test_no_secret_of_a_configuration_reaches_the_page(runs, run, tmp_path, page):
    shown = {"data.seed": 7, "trainer.n_gpus_per_node": 8, "actor_rollout_ref.rollout.name": "org/x"}
    config = OmegaConf.create({"actor_rollout_ref": {}, "algorithm": {"adv_estimator": "pgrpo"}})
    secret = {
        "actor_rollout_ref.model.path": f"/home/{SECRET}/model",
        "algorithm.openai_key": SECRET,
        "algorithm.pgrpo.initial_history": SECRET,
        "algorithm.pgrpo.default_group": f"Basic {SECRET}",
        "algorithm.pgrpo.group_key": f"hf_{SECRET}",
        "data.train_files": [f"hf://{SECRET}@x/train.parquet"],
        "data.truncation": f"Basic {SECRET}==",
        "trainer.device": f"https://host/hf_{SECRET}",
        "reward.custom_reward_function.reward_kwargs.headers": {"Authorization": SECRET},
        "ray_kwargs.ray_init.runtime_env.env_vars": {"HF": f"hf_{SECRET}", "MY_PAT": SECRET},
    }
    for name, value in {**shown, **secret}.items():
        OmegaConf.update(config, name, value)
    printed = str(OmegaConf.to_container(config)).replace(", '", ",\n(TaskRunnerV1 pid=7)  '")
    (run / "run.log").write_text(
        f"+ OPENAI_KEY={SECRET} python3 -m verl.trainer.main_ppo x.api_key={SECRET}\n"
        f"\x1b[36m(TaskRunnerV1 pid=7)\x1b[0m {printed}\n"
        "(TaskRunnerV1 pid=7) P-GRPO warning: group 'jazz' has received no rewards\n"
    )
    assert find_run(run).config == OmegaConf.to_container(config)
    page(run, runs / "small/grpo", "--group-field", "gts.preference_group")
    html = (tmp_path / "r.html").read_text()
    assert SECRET not in html
    assert "received no rewards" in html
    for name, value in {**shown, "actor_rollout_ref.model.path": "model"}.items():
        assert f"{name}: {value}" in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "no such run"), (["empty"], "neither rollouts"), (["text"], "file logger"),
        (["good", "again=good"], "named twice"), (["a=good", "a=good/rollouts"], "named twice"),
        (["bad"], "3.jsonl, line 1"),
        (["good", "--baseline", "x"], "the arms are pgrpo"), (["good", "--value", "x"], "'x'"),
        (["good", "--group-field", "x"], "known preference group"), (["good", "-o", "empty"], "is a folder"),
        (["good", "--picture", "p.txt"], "ends in .png"),
        (["good", "--group-field", "x", "--data", "d"], "--data has no effect with --group-field"),
        (["good", "--group-field", "x", "--group-key", "k"], "--group-key has no effect with --group-field"),
        (["good", "--data", "text", "-o", "text"], "--out text is also an input"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(runs, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("good").symlink_to(runs / "small/pgrpo")
    Path("empty").mkdir()
    Path("text").write_text("[1]\n")
    shutil.copytree(runs / "stars/grpo", "bad")
    Path("bad/rollouts/3.jsonl").write_text("nonsense\n{}\n")
    assert main(["report", "-o", "r.html", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert message in line
    assert not Path("r.html").exists()
