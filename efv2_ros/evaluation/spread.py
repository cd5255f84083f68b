"""Choosing some of many things, spread evenly over all of them."""

from __future__ import annotations

from collections.abc import Sequence


def shares(sizes: Sequence[int], limit: int) -> list[int]:
    """Divide `limit` among groups: the same number for each, or all of a smaller group."""
    limit = min(limit, sum(sizes))
    level = 0
    while sum(min(size, level + 1) for size in sizes) <= limit and level < max(sizes):
        level += 1
    chosen = [min(size, level) for size in sizes]
    larger = [place for place, size in enumerate(sizes) if size > level]
    for place in spread(limit - sum(chosen), len(larger)):
        chosen[larger[place]] += 1
    return chosen


def spread(count: int, length: int) -> list[int]:
    """Choose `count` of `length` places: the middles of as many equal parts."""
    return [(2 * n + 1) * length // (2 * count) for n in range(count)]
