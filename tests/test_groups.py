# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Preference groups by clustering: found again, chosen in number, kept without pickle, assigned later, controlled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from verl_pgrpo.cli import main
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.artefact import load_groups, save_groups
from verl_pgrpo.data.grouping.clusterers import FITTERS
from verl_pgrpo.data.grouping.fit import fit_groups, random_groups, randomize
from verl_pgrpo.data.grouping.model import GroupModel

pytestmark = pytest.mark.slow

CENTERS = np.array([[0.0, 0, 0], [8, 0, 0], [0, 8, 0], [0, 0, 8]])
SIZES = (160, 120, 80, 40)


@pytest.fixture(scope="module")
def users() -> tuple[np.ndarray, np.ndarray]:
    """Features of four well separated groups of unequal size, and the truth, in random order."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(4), SIZES))
    return CENTERS[truth] + rng.normal(size=(len(truth), 3)), truth


def fit(users: tuple[np.ndarray, np.ndarray], **options: object) -> GroupModel:
    return fit_groups(users[0], ["a", "b", "c"], **options)


@pytest.mark.parametrize("algorithm", sorted(FITTERS))
def test_every_algorithm_finds_the_groups_and_its_number(users, algorithm: str) -> None:
    model = fit(users, algorithm=algorithm)
    assert model.sizes == SIZES
    assert model.groups == ("g0", "g1", "g2", "g3"), "the largest first"
    table = pd.crosstab(users[1], model.assign(users[0])).to_numpy()
    assert (table > 0).sum() == 4, "one group is one truth"


@pytest.mark.parametrize("algorithm", ["kmeans", "minibatch-kmeans", "gaussian-mixture"])
def test_assignment_is_scikit_learns_own(users, algorithm: str) -> None:
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    values = users[0]
    model = fit(users, algorithm=algorithm, k=4)
    scaled = (values - values.mean(0)) / values.std(0)
    if algorithm == "gaussian-mixture":
        theirs = GaussianMixture(4, covariance_type="diag", reg_covar=1e-3, n_init=2, random_state=0).fit(scaled)
        assert list(theirs.predict(scaled)) == list(model.clusters(scaled))
    elif algorithm == "kmeans":
        assert list(KMeans(4, n_init=4, random_state=0).fit(scaled).labels_) == list(model.clusters(scaled))
    new = CENTERS + 0.5
    assert len(set(model.assign(new))) == 4


def test_the_number_is_chosen_by_separation_and_stability(users) -> None:
    model = fit(users)
    chosen = {line["k"]: line for line in model.choice}
    assert sorted(chosen) == list(range(2, 11))
    assert chosen[4]["stability"] > 0.99
    assert chosen[4]["silhouette"] == max(line["silhouette"] for line in chosen.values())
    assert all(line["stability"] <= 1 for line in chosen.values())


def test_small_groups_join_their_nearest(users) -> None:
    model = fit(users, k=4, min_size=60)
    assert len(model.groups) == 3
    assert sum(model.sizes) == sum(SIZES)
    assert min(model.sizes) >= 60
    with pytest.raises(DataError, match="only one group"):
        fit(users, k=2, min_size=190)


def test_equal_seeds_give_equal_files(users, tmp_path: Path) -> None:
    for name in "ab":
        save_groups(fit(users, seed=3), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("algorithm", sorted(FITTERS))
def test_the_file_assigns_as_the_fit_did(users, tmp_path: Path, algorithm: str) -> None:
    model = fit(users, algorithm=algorithm, id_column="user")
    save_groups(model, tmp_path / "groups.json")
    again = load_groups(tmp_path / "groups.json")
    assert list(again.assign(users[0])) == list(model.assign(users[0]))
    assert again.id_column == "user"


def test_random_groups_have_the_sizes_and_nothing_else(users) -> None:
    model = fit(users)
    assigned = model.assign(users[0])
    ids = [f"user {i}" for i in range(len(assigned))]
    control = randomize(model, assigned, ids, seed=0)
    drawn = control.assign(users[0], ids)
    assert sorted(np.unique(drawn, return_counts=True)[1]) == sorted(model.sizes)
    assert 0.2 < (drawn == assigned).mean() < 0.4, "agreement by chance is sum of squared shares, 0.3"
    assert list(control.assign(users[0][::-1], ids[::-1])) == list(drawn[::-1]), "by the id, not by the row"
    new = control.assign(np.zeros((4000, 3)), [f"new {i}" for i in range(4000)])
    shares = pd.Series(new).value_counts(normalize=True).sort_index()
    assert np.allclose(shares, np.array(SIZES) / sum(SIZES), atol=0.03), "new users in the same proportions"
    with pytest.raises(DataError, match="not unique"):
        randomize(model, assigned, ["same"] * len(assigned), seed=0)
    with pytest.raises(DataError, match="id-column"):
        control.assign(users[0])
    assert list(random_groups(np.array(["a", "b", "b"]), [1, 2, 2], 0).sizes) == [1, 1], "an id counts once"


# -- the file


def damage(content: dict, key: str) -> str:
    if key == "checksum":
        content["sizes"][0] += 1
    elif key == "version":
        content["version"] = 99
    elif key == "format":
        content["format"] = "something else"
    return json.dumps(content)


@pytest.mark.parametrize(
    ("key", "message"),
    [("checksum", "altered or damaged"), ("version", "reads version 1"), ("format", "not a grouping")],
)
def test_an_altered_file_is_refused(users, tmp_path: Path, key: str, message: str) -> None:
    path = tmp_path / "groups.json"
    save_groups(fit(users), path)
    path.write_text(damage(json.loads(path.read_text()), key))
    with pytest.raises(DataError, match=message):
        load_groups(path)


def test_no_pickle_no_nonsense_no_cut_off_file_is_read(users, tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    save_groups(fit(users), path)
    whole = path.read_bytes()
    for content in (
        b"\x80\x04}\x94\x8c\x01a\x94K\x01s.",  # {"a": 1} as a pickle
        b"",
        b"[" * 100_000,
        whole[:-200],
        b"[1, 2]",
        whole.replace(b"1", b"NaN", 1),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError):
            load_groups(path)
    with pytest.raises(DataError, match="no such file"):
        load_groups(tmp_path / "none.json")


def test_a_consistent_checksum_does_not_hide_wrong_shapes(users, tmp_path: Path) -> None:
    from verl_pgrpo.data.grouping import artefact

    path = tmp_path / "groups.json"
    save_groups(fit(users), path)
    for key, value in (("cluster_group", [0, 1, 2, 9]), ("mean", [0.0]), ("algorithm", "svm"), ("parameters", {})):
        content = json.loads(path.read_text())
        content.pop("sha256")
        content[key] = value
        content["sha256"] = artefact._checksum(content)
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content))
        with pytest.raises(DataError, match="not consistent"):
            load_groups(other)


# -- the commands


@pytest.fixture
def table(users, tmp_path: Path) -> Path:
    frame = pd.DataFrame(users[0], columns=["a", "b", "c"])
    frame.insert(0, "user", [f"u{i}" for i in range(len(frame))])
    frame.to_parquet(tmp_path / "users.parquet")
    frame.to_csv(tmp_path / "users.csv", index=False)
    frame.to_json(tmp_path / "users.jsonl", orient="records", lines=True)
    pd.DataFrame({"user": frame["user"], "e": list(users[0])}).to_parquet(tmp_path / "embedded.parquet")
    return tmp_path


def run(*arguments: object) -> int:
    return main(["groups", *map(str, arguments)])


def test_fit_assign_inspect(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artefact = table / "groups.json"
    assert run("fit", "--input", table / "users.parquet", "--id-column", "user", "--out", artefact, "--assignments",
               table / "fitted.csv", "--picture", table / "groups.png") == 0  # fmt: skip
    assert (table / "groups.png").read_bytes().startswith(b"\x89PNG")
    assert "k=4" in capsys.readouterr().out
    for name in ("users.csv", "users.jsonl", "users.parquet"):
        assert run("assign", "--groups", artefact, "--input", table / name, "--out", table / "assigned.csv") == 0
        assert (table / "assigned.csv").read_text() == (table / "fitted.csv").read_text()
    capsys.readouterr()
    assert run("inspect", artefact, "--input", table / "users.csv", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [line["users"] for line in shown["groups"]] == list(SIZES)
    assert run("inspect", artefact) == 0


def test_random_control_by_command(table: Path) -> None:
    common = ("--input", table / "users.csv", "--id-column", "user")
    assert run("fit", *common, "--out", table / "t.json", "--assignments", table / "true.parquet") == 0
    assert run("fit", *common, "--random", "--out", table / "r.json", "--assignments", table / "random.parquet") == 0
    true, random = (pd.read_parquet(table / f"{name}.parquet")["preference_group"] for name in ("true", "random"))
    assert true.value_counts().to_dict() == random.value_counts().to_dict()
    assert (true != random).any()
    assert (
        run("assign", "--groups", table / "r.json", "--input", table / "users.jsonl", "--out", table / "a.parquet") == 0
    )
    assert (pd.read_parquet(table / "a.parquet")["preference_group"] == random).all()


def test_embeddings_are_features(table: Path) -> None:
    common = ("--id-column", "user", "--no-scale", "--out", table / "e.json")
    assert run("fit", "--input", table / "embedded.parquet", *common) == 0
    model = load_groups(table / "e.json")
    assert model.features == ("e[0]", "e[1]", "e[2]")
    assert model.columns == ("e",)
    assert (
        run("assign", "--groups", table / "e.json", "--input", table / "embedded.parquet", "--out", table / "x.csv")
        == 0
    )


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("u7,", "u7,oops,"), [], "line 9: 5 fields, the header has 4"),
        (("a,b,c", "a,b,b"), [], "line 1: a column name occurs twice"),
        (("user,", "user,"), ["--features", "a,nope"], "no column 'nope'"),
        (("user,", "user,"), ["--id-column", "id"], "no column 'id'"),
        (("user,", "user,"), ["--groups", "four"], "must be a number or auto"),
        (("user,", "user,"), ["--groups", "1"], "at least two groups"),
        (("user,", "user,"), ["--groups", "4", "--algorithm", "hdbscan"], "leave --groups at auto"),
        (("user,", "user,"), ["--features", "user"], "line 2: column 'user' is not a number: 'u0'"),
        (("user,", "user,"), ["--min-size", "300"], "--min-size 300"),
        (("user,", "user,"), ["--random"], "--random needs --id-column"),
    ],
)
def test_mistakes_are_one_line(
    table: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], arguments: list[str], message: str
) -> None:
    path = table / "users.csv"
    path.write_text(path.read_text().replace(*change, 1))
    own = [] if "--id-column" in arguments or "--random" in arguments else ["--id-column", "user"]
    assert run("fit", "--input", path, "--out", table / "g.json", *own, *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-pgrpo: error: ")
    assert message in line
    assert not (table / "g.json").exists()


@pytest.mark.parametrize("value", ["", "nan", "inf", "text"])
def test_a_bad_number_is_named_with_its_line(table: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    lines = (table / "users.csv").read_text().splitlines()
    lines[10] = f"u9,{value},1.0,2.0"
    (table / "users.csv").write_text("\n".join(lines))
    assert run("fit", "--input", table / "users.csv", "--id-column", "user", "--out", table / "g.json") == 2
    assert "users.csv, line 11: " in capsys.readouterr().err
