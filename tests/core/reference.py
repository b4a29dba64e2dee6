# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A slow reference implementation of P-GRPO: it keeps every reward, and statistics are exact rationals."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import fsum


def exact_moments(values: list[float]) -> tuple[int, Fraction, Fraction]:
    """Count, mean and M2 of float64 values without any rounding."""
    if not values:
        return 0, Fraction(0), Fraction(0)
    # A float64 is an integer over a power of two: with a common denominator, the sums are sums of integers.
    ratios = [float(value).as_integer_ratio() for value in values]
    unit, count = max(denominator for _, denominator in ratios), len(values)
    whole = [numerator * (unit // denominator) for numerator, denominator in ratios]
    total, squares = sum(whole), sum(number * number for number in whole)
    return count, Fraction(total, count * unit), Fraction(count * squares - total * total, count * unit * unit)


def exact_std(values: list[float]) -> float:
    """Return the sample standard deviation (Bessel), to 28 digits and then rounded; 0 without spread."""
    count, _, m2 = exact_moments(values)
    if count < 2:
        return 0.0
    variance = m2 / (count - 1)  # a Decimal can be smaller and larger than a float
    return float((Decimal(variance.numerator) / variance.denominator).sqrt())


def exponential_moments(batches: list[list[float]], half_life: float) -> tuple[float, float, float]:
    """Total weight, mean and M2 of one group's batches, with the weight of every reward written out.

    A reward's weight halves with every `half_life` later rewards of the group. The k rewards of one batch have the same
    age and share the total weight of k rewards of ages 0, 1, ..., k-1. Their squared deviations from the batch's mean
    share the degrees of freedom of these weights.
    """
    decay = 0.5 ** (1.0 / half_life)
    weighted: list[tuple[float, float]] = []  # of each batch: its weight and its mean
    inside = []
    later = sum(map(len, batches))
    for batch in filter(None, batches):
        later -= len(batch)
        weights = [decay**age for age in range(len(batch))]
        freedom = fsum(weights) - fsum(weight**2 for weight in weights) / fsum(weights)
        center = fsum(batch) / len(batch)
        squares = fsum((value - center) ** 2 for value in batch)
        inside.append(decay**later * freedom / max(len(batch) - 1, 1) * squares)
        weighted.append((decay**later * fsum(weights), center))
    total = fsum(weight for weight, _ in weighted)
    mean = fsum(weight * center for weight, center in weighted) / total
    return total, mean, fsum(inside) + fsum(weight * (center - mean) ** 2 for weight, center in weighted)


def advantages(batches: list[tuple[list[str], list[float]]], epsilon: float = 1e-6) -> list[list[float]]:
    """The paper's method with our defaults: add a batch, then (R - mu_p) / (sigma_p + epsilon)."""
    kept: dict[str, list[float]] = {}
    out = []
    for groups, rewards in batches:
        for group, reward in zip(groups, rewards, strict=True):
            kept.setdefault(group, []).append(reward)
        row = []
        for group, reward in zip(groups, rewards, strict=True):
            _, mean, _ = exact_moments(kept[group])
            std = exact_std(kept[group])
            centered = float(Fraction(reward) - mean)
            row.append(centered / (std + epsilon) if std > 0 else centered)
        out.append(row)
    return out
