# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Preference groups by clustering: fit, number of groups, storage without pickle, later assignment, random control."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture

from verl_pgrpo.cli import main
from verl_pgrpo.data.cluster import ALGORITHMS, fit_groups, randomize
from verl_pgrpo.data.group_model import GroupModel, load_groups, random_groups, save_groups
from verl_pgrpo.data.taste import equal_weights
from verl_pgrpo.errors import DataError

CENTERS = np.array([[0.0, 0, 0], [8, 0, 0], [0, 8, 0], [0, 0, 8]])
SIZES = (160, 120, 80, 40)


@pytest.fixture(scope="module")
def users() -> tuple[np.ndarray, np.ndarray]:
    """Features of four well separated groups of unequal size, and the true groups, in random order."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(4), SIZES))
    return CENTERS[truth] + rng.normal(size=(len(truth), 3)), truth


def fit(users: tuple[np.ndarray, np.ndarray], **options: object) -> GroupModel:
    return fit_groups(users[0], ["a", "b", "c"], **options)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_groups_and_their_number_are_found_and_stored(users, tmp_path: Path, algorithm: str) -> None:
    model = fit(users, algorithm=algorithm, k_range=(3, 5))
    assert (model.groups, model.sizes) == (("g0", "g1", "g2", "g3"), SIZES), "the largest first"
    assigned = model.assign(users[0])
    assert (pd.crosstab(users[1], assigned).to_numpy() > 0).sum() == 4, "one group is one truth"
    tried = {row["k"]: row["silhouette"] for row in model.choice}
    assert sorted(tried) == [3, 4, 5]
    assert tried[4] == max(tried.values())
    theirs = {
        "kmeans": KMeans(4, n_init=4, random_state=0),
        "minibatch-kmeans": MiniBatchKMeans(4, n_init=4, batch_size=4096, random_state=0),
        "gaussian-mixture": GaussianMixture(4, covariance_type="diag", reg_covar=1e-3, n_init=2, random_state=0),
    }[algorithm]
    scaled = (users[0] - users[0].mean(0)) / users[0].std(0)
    assert list(theirs.fit(scaled).predict(scaled)) == list(model.clusters(scaled))
    for name in "ab":
        save_groups(fit(users, algorithm=algorithm, id_column="user", k=4), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = load_groups(tmp_path / "a")
    assert (list(again.assign(users[0])), again.id_column) == (list(assigned), "user")
    assert len(set(again.assign(CENTERS + 0.5))) == 4, "new users"


def test_small_groups_join_their_nearest_and_a_constant_feature_does_no_harm(users) -> None:
    model = fit(users, k=4, min_size=60)
    assert (len(model.groups), sum(model.sizes)) == (3, sum(SIZES))
    assert min(model.sizes) >= 60
    values = np.column_stack([users[0][:40], np.full(40, 7.0)])
    assert sum(fit_groups(values, list("abcd"), k=2).sizes) == 40
    with pytest.raises(DataError, match="only one group"):
        fit(users, k=2, min_size=190)
    with pytest.raises(DataError, match="distinct"):
        fit_groups(np.ones((10, 2)), ["a", "b"])


def test_kinds_of_features_count_alike_whatever_their_number():
    """Twenty noisy features say nothing, one says which of two camps a user belongs to."""
    rng = np.random.default_rng(0)
    camp = np.arange(400) % 2
    noise, style = rng.normal(size=(400, 20)), camp[:, None] + rng.normal(0, 0.05, (400, 1))
    values, names = np.hstack([noise, style]), [f"x{i}" for i in range(21)]
    weights = equal_weights(names[:20], names[20:])
    assert np.mean(weights) == pytest.approx(1)
    groups = fit_groups(values, names, k=2, weights=weights).assign(values)
    assert len({*zip(camp, groups, strict=True)}) == 2


def test_random_groups_have_the_sizes_and_nothing_else(users) -> None:
    model, ids = fit(users, k=4), [f"u{i}" for i in range(len(users[0]))]
    true = model.assign(users[0])
    control = randomize(model, true, ids, seed=1)
    drawn = control.assign(users[0], ids)
    assert sorted(drawn) == sorted(true)
    assert (drawn == true).mean() < 0.5
    assert list(control.assign(users[0], ids[::-1])) == list(drawn[::-1]), "by id, not by place"
    new = [f"new {i}" for i in range(4000)]
    share = pd.Series(control.assign(np.zeros((4000, 3)), new)).value_counts(normalize=True)
    assert share["g0"] == pytest.approx(0.4, abs=0.04), "new users in the same proportions"
    with pytest.raises(DataError, match="not unique"):
        randomize(model, true, ["a"] * len(true), seed=0)
    assert random_groups(np.array(["x", "x", "y"]), ["a", "a", "b"], seed=0).sizes == (1, 1), "a user counts once"


def test_only_whole_unaltered_files_are_read(users, tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    save_groups(fit(users, k=4), path)
    whole = path.read_bytes()
    pickle = b"\x80\x04}\x94\x8c\x01a\x94K\x01s."
    for content in (pickle, b"", b"[" * 100_000, whole[:-200], b"[1, 2]", whole.replace(b"g1", b"g9")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"groups\.json"):
            load_groups(path)
    with pytest.raises(DataError, match="no such file"):
        load_groups(tmp_path / "none.json")


# -- the commands


def run(*arguments: object) -> int:
    return main(["groups", *map(str, arguments)])


@pytest.mark.parametrize(
    "options", [("--k-min", 4, "--k-max", 4), ("--groups", 4, "--random"), ("--groups", 4, "--no-scale")]
)
def test_fit_assign_inspect(users, tmp_path: Path, monkeypatch, capsys, options: tuple) -> None:
    """By columns, at random by id, or by a column of embeddings."""
    monkeypatch.chdir(tmp_path)
    features = {"e": list(users[0])} if "--no-scale" in options else dict(zip("abc", users[0].T, strict=True))
    ids = pd.Series(np.arange(len(users[0])) + 2**53, name="user")
    pd.DataFrame({"user": ids, **features}).to_parquet("users.parquet")
    out = ("--out", "groups.json", "--assignments", "fitted.parquet", "--picture", "groups.png")
    assert run("fit", "--input", "users.parquet", "--id-column", "user", *options, *out) == 0
    assert ("k=4" in capsys.readouterr().out) == ("--k-min" in options), "how K was chosen"
    assert Path("groups.png").read_bytes().startswith(b"\x89PNG")
    model = load_groups(Path("groups.json"))
    names = ("e[0]", "e[1]", "e[2]") if "e" in features else ("a", "b", "c")
    assert (model.features, model.columns) == (names, tuple(features))
    fitted = pd.read_parquet("fitted.parquet")
    pd.testing.assert_series_equal(fitted["user"], ids)  # exact integers
    pure = (pd.crosstab(users[1], fitted["preference_group"]).to_numpy() > 0).sum() == 4
    assert pure == ("--random" not in options)
    readers = {"csv": pd.read_csv, "jsonl": partial(pd.read_json, lines=True), "parquet": pd.read_parquet}
    for suffix, read in readers.items():
        assert run("assign", "--groups", "groups.json", "--input", "users.parquet", "--out", f"a.{suffix}") == 0
        pd.testing.assert_frame_equal(read(f"a.{suffix}"), fitted)
    assert "silhouette" not in capsys.readouterr().out
    assert run("inspect", "groups.json", "--input", "users.parquet", "--json") == 0
    assert [row["users"] for row in json.loads(capsys.readouterr().out)["groups"]] == list(SIZES)
    assert run("inspect", "groups.json") == 0


def test_ids_in_several_spellings_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spelled.parquet"
    pd.DataFrame({"user": ["caf\u00e9", "cafe\u0301", " b", "c"] * 10, "a": np.arange(40.0)}).to_parquet(path)
    own = ("--input", path, "--id-column", "user", "--groups", 2, "--json")
    assert run("fit", *own, "--out", tmp_path / "g.json") == 0
    [note] = json.loads(capsys.readouterr().out)["notes"]
    assert ("U+0301" in note, note.count("10 rows")) == (True, 2)


GOOD = "user,a,b\n" + "".join(f"{i},{i},{i % 3}\n" for i in range(8))


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (GOOD.replace("\n0,0,", "\n0,,"), (), "row 1"),
        (GOOD.replace("\n0,0,", "\n0,inf,"), (), "row 1"),
        (GOOD.replace("\n1,", "\n,"), ("--id-column", "user"), "row 2: no id"),
        (GOOD, ("--features", "a,nope"), "no column 'nope'"),
        (GOOD, ("--groups", "four"), "must be a number or auto"),
        (GOOD, ("--groups", "1"), "--groups must be at least 2 (got 1)"),
        (GOOD, ("--groups", "3", "--k-min", "5"), "--k-min has no effect with a fixed --groups"),
        (GOOD, ("--min-size", "300"), "--min-size 300"),
        (GOOD, ("--random",), "--random needs --id-column"),
        (GOOD, ("--id-column", "preference_group"), "--id-column preference_group"),
        (GOOD, ("--assignments", "a.txt"), "--assignments a.txt"),
        (GOOD, ("--assignments", "users.csv"), "--assignments users.csv is also an input"),
        (GOOD, ("--picture", "p.xyz"), "--picture p.xyz"),
        (GOOD, ("--picture", "g.json"), "--picture g.json"),
        (GOOD, ("--out", "users.csv"), "--out users.csv is also an input"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch, capsys, text: str, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("users.csv").write_text(text)
    assert run("fit", "--input", "users.csv", "--out", "g.json", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("users.csv", text)]


@pytest.mark.parametrize(
    "arguments",
    [
        "assign --groups g.json --input users.csv --out users.csv",
        "assign --groups g.json --input users.csv --out a.txt",
        "assign --groups g.json --input users.csv --out a.csv --id-column preference_group",
        "inspect g.json --input users.csv --picture p.xyz", "inspect g.json --picture p.png",
        "inspect g.json --split train", "inspect g.json --encoding latin-1",
    ],
)  # fmt: skip
def test_mistakes_of_assign_and_inspect(tmp_path: Path, monkeypatch, capsys, arguments: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("users.csv").write_text(GOOD)
    assert run("fit", "--input", "users.csv", "--out", "g.json", "--groups", 2, "--id-column", "user") == 0
    capsys.readouterr()
    assert run(*arguments.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"error: {' '.join(arguments.split()[-2:])}" in line or f"error: {arguments.split()[-2]} has no" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.json", "users.csv"]
    assert Path("users.csv").read_text() == GOOD
