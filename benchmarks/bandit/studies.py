# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The studies: which estimators are compared in which settings."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.bandit import estimators as adv
from benchmarks.bandit.ideas import Shrinkage
from benchmarks.bandit.task import Setting
from benchmarks.bandit.train import Entrant, Outcome, Protocol, compare, pgrpo


def _stateless(name: str, estimator: adv.Estimator) -> Entrant:
    return Entrant(name, lambda runs, groups: estimator)


def _oracle(name: str, lagging: str = "", shift: float = 0.0) -> Entrant:
    return Entrant(name, lambda runs, groups: adv.Oracle(runs, groups, lagging, shift))


GRPO, ORACLE = _stateless("grpo", adv.grpo), _oracle("oracle")
PGRPO, BLENDED = pgrpo("pgrpo"), pgrpo("pgrpo blended", baseline="blended")
RANDOM = pgrpo("pgrpo, random groups", mislabeled=1.0)
ENTRANTS = [
    GRPO,
    _stateless("Dr. GRPO", adv.dr_grpo),
    _stateless("RLOO", adv.rloo),
    _stateless("REINFORCE++", adv.batch_norm),
    _stateless("REINFORCE++ baseline", adv.prompt_batch),
    PGRPO,
    pgrpo("pgrpo exponential, 128", half_life=128),
    pgrpo("pgrpo after_normalize", update_order="after_normalize"),
    pgrpo("pgrpo prior_strength 32", prior_strength=32),
    pgrpo("pgrpo min_count 32", min_count=32),
    BLENDED,
    RANDOM,
    pgrpo("pgrpo blended, random groups", mislabeled=1.0, baseline="blended"),
    pgrpo("pgrpo, one group", merged=4),
    ORACLE,
]
GRID = [
    Setting(reward=reward, n=n, noise=noise, mood=mood)
    for reward, mood, n, noise in itertools.product(("dense", "sparse"), (0.0, 1.0), (2, 4, 8, 16), (0.0, 0.3, 1.0))
]
# Shown in full.
CLOSE_UPS = [
    Setting(),
    Setting(reward="sparse"),
    Setting(n=2, noise=1.0),
    Setting(mood=1.0),
]
QUICK = [Setting(n=2), Setting(n=2, mood=1.0)]

ABLATION_SETTINGS = [Setting(n=2), Setting(n=4), Setting(reward="sparse", n=2), Setting(mood=1.0)]
ABLATIONS = [
    GRPO,
    PGRPO,
    BLENDED,
    pgrpo("update_order=after_normalize", update_order="after_normalize"),
    *(pgrpo(f"exponential, half_life {h}", half_life=h) for h in (16, 64, 256, 1024)),
    pgrpo("after_normalize, exponential 64", update_order="after_normalize", half_life=64),
    pgrpo("blended, exponential 256", baseline="blended", half_life=256),
    *(pgrpo(f"prior_strength {k}", prior_strength=k) for k in (8, 32, 128)),
    *(pgrpo(f"min_count {k}", min_count=k) for k in (32, 128)),
    *(pgrpo(f"each group split into {k}", split=k) for k in (2, 4, 16, 64)),
    pgrpo("each split into 64, prior_strength 8", split=64, prior_strength=8),
    pgrpo("merged two by two", merged=2),
    pgrpo("all merged", merged=4),
    *(pgrpo(f"{share:.0%} mislabeled", mislabeled=share) for share in (0.1, 0.25, 0.5)),
    pgrpo("random groups", mislabeled=1.0),
    pgrpo("blended, 25% mislabeled", mislabeled=0.25, baseline="blended"),
]

# The users' shares and scales, and how much of the policy they share.
PEOPLE_GRID = [
    replace(Setting(n=2), people=people, overlap=overlap)
    for people, overlap in itertools.product(("equal", "shares", "rare", "unequal"), (0.0, 0.5, 0.9))
]
PEOPLE_ENTRANTS = [GRPO, PGRPO, BLENDED, pgrpo("pgrpo, one group", merged=4), ORACLE]

# How much prompts may differ before P-GRPO loses its gain.
MOODS = [Setting(reward=reward, mood=mood) for reward in ("dense", "sparse") for mood in (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)]
MOOD_ENTRANTS = [GRPO, PGRPO, BLENDED]

# Is there one setting that is never worse than grpo? With both optimizers, on the grid and for all kinds of users.
RECOMMENDED = {"baseline": "shrinkage", "group_balance": 1.0}
SAFE_ENTRANTS = [
    GRPO,
    Entrant("EBPO", lambda runs, groups: adv.EBPO(runs)),
    Entrant("grpo, groups sampled equally", lambda runs, groups: adv.grpo, sampling=1.0),
    PGRPO,
    BLENDED,
    pgrpo("shrinkage", baseline="shrinkage"),
    pgrpo("shrinkage, balance 0.5", baseline="shrinkage", group_balance=0.5),
    pgrpo("shrinkage, balance 1", **RECOMMENDED),
    pgrpo("shrinkage, groups sampled equally", baseline="shrinkage", sampling=1.0),
    pgrpo("shrinkage, balance 1, random groups", mislabeled=1.0, **RECOMMENDED),
]
SAFE_ADAM, SAFE_SGD = ([replace(s, optimizer=o) for s in GRID] for o in ("adam", "sgd"))
SAFE_PEOPLE = [replace(s, optimizer=o) for o in ("adam", "sgd") for s in PEOPLE_GRID]
EQUALLY = "grpo, groups sampled equally"
HALF, FULL = "shrinkage, balance 0.5", "shrinkage, balance 1"
CONFIRMATION_ENTRANTS = [e for e in SAFE_ENTRANTS if e.name in ("grpo", FULL) or e.sampling]
PEOPLE_CONFIRMATION_ENTRANTS = [e for e in SAFE_ENTRANTS if e.name in ("grpo", HALF, FULL) or e.sampling]

# Ideas that were not adopted, and why a lagging history beats the true mean.
IDEAS = [s for s in SAFE_ADAM + SAFE_SGD if s.n in (2, 8)]
IDEAS_ENTRANTS = [
    GRPO,
    pgrpo("shrinkage", baseline="shrinkage"),
    *(
        Entrant(name, lambda runs, groups, part=part: Shrinkage(runs, groups, part))
        for name, part in {
            "divided by sigma_p": "sigma_p",
            "moderated divisor": "moderated",
            "the history's lag kept": "lag",
            "w not rounded up": "unrounded",
        }.items()
    ),
    pgrpo("half_life 512", baseline="shrinkage", half_life=512),
]
LAG = [s for s in SAFE_ADAM + SAFE_SGD if s.n == 4 and s.noise == 0.3]
LAG_ENTRANTS = [
    GRPO,
    ORACLE,
    PGRPO,
    _oracle("the history's mean, the true std", "mean"),
    _oracle("the true mean, the history's std", "std"),
    _oracle("true mean and std, mean lowered by 0.2 std", shift=-0.2),
    _oracle("true mean and std, mean raised by 0.2 std", shift=0.2),
]


# Cold starts: 256 small groups, all on one scale.
SMALL_GROUPS = [
    replace(Setting(n=2), people="equal", noise=noise, optimizer=optimizer)
    for optimizer in ("adam", "sgd")
    for noise in (0.3, 1.0)
]
SMALL_GROUPS_ENTRANTS = [
    GRPO,
    pgrpo("pgrpo", split=64),
    pgrpo("one group", merged=4),
    *(pgrpo(f"prior_strength {k}", split=64, prior_strength=k) for k in (8, 32)),
    pgrpo("min_count 32", split=64, min_count=32),
    pgrpo("after_normalize", split=64, update_order="after_normalize"),
    pgrpo("after_normalize, prior_strength 8", split=64, update_order="after_normalize", prior_strength=8),
    pgrpo("shrinkage", split=64, baseline="shrinkage"),
    pgrpo("shrinkage, balance 1", split=64, **RECOMMENDED),
]


def run(setting: Setting, entrants: str, protocol: Protocol, folder: Path | None = None) -> dict[str, Outcome]:
    """Run one setting in a separate process. Entrants are passed by the name of their list, as functions do not pickle.

    With a folder, results that an interrupted study saved there are reused.
    """
    torch.set_num_threads(1)
    if folder is None:
        return compare(setting, globals()[entrants], protocol)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = f"seeds {protocol.tuning[0]}-{protocol.tuning[-1]} {protocol.final[0]}-{protocol.final[-1]}"
    choice = f"smooth {protocol.smooth:d} at_grpos {protocol.at_grpos:d}"
    file = folder / f"{entrants}, {setting}, {setting.optimizer}, overlap {setting.overlap:g}, {seeds}, {choice}.pt"
    saved = torch.load(file, weights_only=True) if file.exists() else {}
    known = {name: Outcome(**values) for name, values in saved.items()}
    found = compare(setting, globals()[entrants], protocol, known)
    if found.keys() != known.keys():
        torch.save({name: vars(outcome) for name, outcome in found.items()}, file)
    return {entrant.name: found[entrant.name] for entrant in globals()[entrants]}
