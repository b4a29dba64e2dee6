# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Real ratings: which of five films does this user give the most stars? A small policy, many seeds.

    python benchmarks/movielens_stars.py --archive ml-100k.zip     # or another archive of GroupLens
    python benchmarks/movielens_stars.py                           # generated ratings, without an archive

Where GroupLens is out of reach, `recipes/movielens/make_ml_100k.py` writes ml-100k.zip.

The task is `verl-pgrpo data movielens --task stars`: candidates are films that the user has rated, and the reward is
the user's own stars. Each user's ratings are split by time: the first half gives the features (tastes, clusters), the
second half, without the last rating, at most 20 candidate sets per user; sets in which all stars are equal are dropped.
Each seed holds out a fifth of the users, also from the clustering. The first table is about all users, the others are
about those held out. *Utility* is (stars - worst) / (best - worst) of the
candidates, expected under the policy.

The policy is a softmax over the candidates, linear in a bias per film, the film's genres (one set of weights per group
and one for all) and how much the user likes these genres according to the first half. It learns with Adam, 64 responses
per step. Step sizes are chosen for each estimator on separate seeds, as in the bandit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for benchmarks.bandit

from benchmarks.bandit import estimators as adv
from benchmarks.bandit.measures import half_width, signed_pair
from benchmarks.bandit.studies import GRPO, PGRPO, RECOMMENDED, SAFE_ENTRANTS
from benchmarks.bandit.tables import table
from benchmarks.bandit.train import Adam, Entrant, pgrpo, with_neighbors
from benchmarks.stars.task import CANDIDATES, GROUPS, Task, generated, make_task, variances
from verl_pgrpo.data.movielens_archive import read_archive
from verl_pgrpo.errors import DataError

RESPONSES, STEPS = 64, 300
STEP_SIZES = [0.01 * 2 ** (k / 2) for k in range(13)]
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
    pgrpo("pgrpo, random groups", mislabeled=1.0),
    pgrpo("shrinkage, balance 1, random groups", mislabeled=1.0, **RECOMMENDED),
    pgrpo("pgrpo, one group", merged=GROUPS),
    replace(GRPO, name="grpo, groups sampled equally", sampling=1.0),
    pgrpo("shrinkage, groups sampled equally", sampling=1.0, baseline="shrinkage"),
]


class Policy:
    """L step sizes x S seeds of softmax policies that are linear in the features."""

    def __init__(self, task: Task, step_sizes: list[float]) -> None:
        self.task, self.lr = task, torch.tensor(step_sizes)[:, None, None]
        films, genres = task.genres.shape
        size, self.seeds = (len(step_sizes), len(task.group)), torch.arange(len(task.group))[:, None]
        self.film = torch.zeros(*size, films)
        self.liking, self.shared = torch.zeros(2, *size, genres)
        self.own = torch.zeros(*size, GROUPS * genres)
        self.steps = {name: Adam() for name in ("film", "liking", "shared", "own")}

    def __call__(self, rows: Tensor) -> Tensor:
        """(L, S, P, C) probabilities of the candidates of rows (S, P)."""
        genres, liked = self.task.features(rows)
        films = self.task.film[rows].flatten(1).expand(*self.film.shape[:2], -1)
        own = self.own.unflatten(-1, (GROUPS, -1))[:, self.seeds, self.task.group.gather(1, rows)]
        logits = self.film.gather(2, films).view(*self.film.shape[:2], *genres.shape[1:3])
        logits = logits + torch.einsum("spcg,lsg->lspc", liked, self.liking)
        return (logits + torch.einsum("spcg,lspg->lspc", genres, own + self.shared.unsqueeze(2))).softmax(-1)

    def learn(self, rows: Tensor, gradient: Tensor) -> None:
        """Take a step along the gradient with respect to the logits, (L, S, P, C)."""
        genres, liked = self.task.features(rows)
        by_genre = torch.einsum("lspc,spcg->lspg", gradient, genres)
        films = self.task.film[rows].flatten(1).expand(*self.film.shape[:2], -1)
        group = self.task.group.gather(1, rows)[:, :, None].expand_as(by_genre)
        own = torch.zeros_like(self.own).unflatten(-1, (GROUPS, -1)).scatter_add(2, group, by_genre)
        gradients = {
            "film": torch.zeros_like(self.film).scatter_add(2, films, gradient.flatten(2)),
            "liking": torch.einsum("lspc,spcg->lsg", gradient, liked),
            "shared": by_genre.sum(2),
            "own": own.flatten(2),
        }
        for name, value in gradients.items():
            getattr(self, name).addcmul_(self.lr, self.steps[name](value))


def _sampler(rows: Tensor, group: Tensor, sampling: float) -> Callable[[Tensor], Tensor]:
    """A function from uniform numbers to rows, all equally likely; with `sampling` 1, all groups are equally likely."""
    if not sampling:
        return lambda uniform: rows[(uniform * len(rows)).long()]
    edges = (group.bincount().double() ** -sampling)[group].cumsum(0)
    return lambda uniform: rows[torch.searchsorted(edges, uniform.double() * edges[-1], right=True)]


def train(
    task: Task, entrant: Entrant, n: int, step_sizes: list[float], seeds: range, steps: int | None = None
) -> np.ndarray:
    """Utility on held-out users at the end: (L, S, 2), mean over groups and worst group, in hundredths."""
    policy, prompts, steps = Policy(task, step_sizes), RESPONSES // n, steps or STEPS
    runs = len(step_sizes) * len(seeds)
    estimator = entrant.make(runs, GROUPS)
    labels = task.random if entrant.mislabeled else task.group // entrant.merged
    training, test = ([torch.nonzero(part == flag).flatten() for part in task.held_out] for flag in (False, True))
    samplers = [_sampler(own, task.group[seed, own], entrant.sampling) for seed, own in enumerate(training)]
    fewest = min(map(len, test))
    tested = torch.stack([rows[:fewest] for rows in test])  # in random order already
    member = torch.nn.functional.one_hot(task.group.gather(1, tested), GROUPS).float()
    member /= member.sum(1, keepdim=True)  # NaN for a group that this seed does not have
    sources, found = [torch.Generator().manual_seed(seed) for seed in seeds], []
    for step in range(steps):
        drawn = [(torch.rand(prompts, generator=g), torch.rand(prompts, n, generator=g)) for g in sources]
        rows = torch.stack([one(uniform) for one, (uniform, _) in zip(samplers, drawn, strict=True)])
        probability = policy(rows)
        choice = torch.stack([c for _, c in drawn]).expand(len(step_sizes), -1, -1, -1).contiguous()
        answer = torch.searchsorted(probability.cumsum(-1), choice, right=True).clamp(max=CANDIDATES - 1)
        rewards = task.stars[rows].expand_as(probability).gather(3, answer).flatten(0, 1)
        label = labels.gather(1, rows).expand(len(step_sizes), -1, -1).flatten(0, 1)
        advantages = estimator(adv.Batch(rewards, label, rewards, rewards)).float() / RESPONSES
        taken = torch.zeros_like(probability).scatter_add(3, answer, advantages.view(*answer.shape))
        policy.learn(rows, taken - probability * taken.sum(-1, keepdim=True))
        if step >= steps - min(40, steps // 5) and step % 10 == 9:
            expected = (policy(tested) * task.utility[tested].float()).sum(-1)
            found.append(torch.einsum("lsp,spk->lsk", expected, member))
    end = 100 * torch.stack(found).mean(0).double().numpy()
    return np.stack([np.nanmean(end, -1), np.nanmin(end, -1)], -1)


def study(tuning: tuple[Task, range], final: tuple[Task, range], n: int, steps: int) -> list[float]:
    """Print one line per estimator: mean / worst, and both minus grpo's, paired by seed. Return the step sizes."""
    grpo, chosen = None, []
    for entrant in ENTRANTS:
        score = train(tuning[0], entrant, n, STEP_SIZES, tuning[1], steps)[:, :, 0].mean(1)
        best = STEP_SIZES[int(with_neighbors(torch.from_numpy(score)).argmax())]
        [values] = train(final[0], entrant, n, [best], final[1], steps)
        grpo = values if grpo is None else grpo
        cells = [f"{m:.1f} ± {h:.1f}" for m, h in zip(values.mean(0), half_width(values), strict=True)]
        gain = "" if entrant is GRPO else signed_pair(values - grpo)
        print(f"| {n} | {entrant.name} | {best:.3g} | {' | '.join(cells)} | {gain} |", flush=True)
        chosen.append(best)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, metavar="FILE", help="as GroupLens publishes it")
    parser.add_argument("--n", nargs="+", type=int, default=[2, 4, 8], help="responses per prompt")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of {RESPONSES} responses; a multiple of 10")
    parser.add_argument("--quick", action="store_true", help="2 seeds of each kind")
    args = parser.parse_args()
    if wrong := [n for n in args.n if n < 2 or RESPONSES % n]:
        parser.error(f"--n must be at least 2 and divide the {RESPONSES} responses of a step (got {wrong[0]})")
    if args.steps < 10 or args.steps % 10:  # the utility is measured in every tenth step
        parser.error(f"--steps must be a multiple of 10 (got {args.steps})")
    torch.set_num_threads(1)
    start, tuning, final = time.time(), TUNING, FINAL
    if args.quick:
        tuning, final = tuning[:2], final[:2]
    try:
        ratings, films = read_archive(args.archive) if args.archive else generated()
        (tuned, _), (task, summary) = (make_task(ratings, films, seeds) for seeds in (tuning, final))
    except DataError as error:
        parser.error(str(error))
    print(f"{len(ratings)} ratings, {len(task.film)} candidate sets of {len(task.user.unique())} users; left out:")
    print("; ".join(f"{count} {reason}" for reason, count in summary.dropped.items()) + "\n")
    print(variances(task) + "\n")
    chance = 100 * task.utility.mean()
    print(f"Utility of a random choice: {chance:.1f}. Differences are bold where the interval excludes 0.\n")
    print(table(["n", "estimator", "step size", "mean over groups", "worst group", "minus grpo"], []), flush=True)
    chosen = [size for n in args.n for size in study((tuned, tuning), (task, final), n, args.steps)]
    at_end = sum(size in (STEP_SIZES[0], STEP_SIZES[-1]) for size in chosen)
    print(f"\n{at_end} of {len(chosen)} chosen step sizes lie at an end of the range that was tried.")
    print(f"seeds {final[0]} to {final[-1]}, step sizes from seeds {tuning[0]} to {tuning[-1]}, {args.steps} steps of "
          f"{RESPONSES} responses, {time.time() - start:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
