# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""RESULTS.md from figures."""

from __future__ import annotations

import statistics
import typing as t

from .contenders import Collection, Cp, RcloneCopy, UsualRecipe
from .measure import Measured

Rounds = dict[str, tuple[list[Measured], list[Measured]]]


def render(figures: dict[str, t.Any], size: int, log_bytes: int, runs: int, machine: str, when: str) -> str:
    """The whole document."""
    lines = [
        "# Benchmark results",
        "",
        "Written by `make bench`. Machines are noisy: what counts are ratios of medians, measured in turn in one run.",
        "",
        f"{when}; {machine}; {size / 2**30:g} GiB of random weights in four files and {log_bytes / 1e6:.0f} MB of log",
        f"lines; {runs} rounds; warm page cache; every contender timed as a whole process.",
    ]
    if "local" in figures:
        lines += ["", "## A local directory as the repository", "", *_table(figures["local"])]
        lines += ["", *_local_goals(figures["local"])]
    if "s3" in figures:
        lines += ["", "## S3 (SeaweedFS on the same machine, on loopback)", "", *_table(figures["s3"])]
        lines += ["", *_s3_goals(figures["s3"])]
    if "memory" in figures:
        lines += ["", "## Memory alone", "", *_table(figures["memory"])]
    for name, title in (("increment", "Increments of the logs"), ("acl", "acl_snapshot")):
        if name in figures:
            lines += ["", f"## {title}", "", "| figure | value |", "|---|---|"]
            lines += [f"| {key.replace('_', ' ')} | {_number(value)} |" for key, value in _flat(figures[name])]
    return "\n".join(lines) + "\n"


def _table(rounds: Rounds) -> list[str]:
    lines = [
        "| | back up, s | CPU s | restore, s | CPU s | peak memory, MiB | peak local temporary files, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (backups, restores) in rounds.items():
        cells = [_spread(backups, "seconds"), _spread(backups, "cpu_seconds")]
        cells += [_spread(restores, "seconds"), _spread(restores, "cpu_seconds")] if restores else ["", ""]
        cells.append(f"{max(m.peak_mib for m in [*backups, *restores]):.0f}")
        cells.append(f"{max(m.peak_disk_mib for m in backups):.0f}" if name == Collection.name else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _spread(runs: list[Measured], field: str) -> str:
    values = [getattr(run, field) for run in runs]
    return f"**{statistics.median(values):.1f}** ({min(values):.1f} to {max(values):.1f})"


def _median(rounds: Rounds, name: str, step: int) -> float:
    return statistics.median(run.seconds for run in rounds[name][step])


def _restic(rounds: Rounds) -> str | None:
    return next((name for name in rounds if name.startswith("restic")), None)


def _goal(what: str, goal: str, value: float, reached: bool) -> str:
    return f"| {what} | {goal} | {value:.2f} | {'reached' if reached else '**not reached**'} |"


def _local_goals(rounds: Rounds) -> list[str]:
    ours, restic = Collection.name, _restic(rounds)
    lines = ["| goal | to reach | measured | |", "|---|---|---|---|"]
    times = _median(rounds, UsualRecipe.name, 0) / _median(rounds, ours, 0)
    lines.append(_goal("back up: times as fast as the usual recipe", "12", times, times >= 12))
    if restic:
        times = _median(rounds, restic, 0) / _median(rounds, ours, 0)
        lines.append(_goal("back up: times as fast as restic", "3", times, times >= 3))
    ratio = _median(rounds, ours, 1) / _median(rounds, Cp.name, 1)
    lines.append(_goal("restore: time of `cp -r` times", "1.1 at most", ratio, ratio <= 1.1))
    if restic:
        times = _median(rounds, restic, 1) / _median(rounds, ours, 1)
        lines.append(_goal("restore: times as fast as restic", "more than 1", times, times > 1))
    return [*lines, *_memory_goals(rounds)]


def _s3_goals(rounds: Rounds) -> list[str]:
    ours = Collection.name
    lines = ["| goal | to reach | measured | |", "|---|---|---|---|"]
    for step, what, goal in ((0, "back up", 1.15), (1, "restore", 1.2)):
        ratio = _median(rounds, ours, step) / _median(rounds, RcloneCopy.name, step)
        lines.append(_goal(f"{what}: time of plain `rclone copy` times", f"{goal} at most", ratio, ratio <= goal))
    return [*lines, *_memory_goals(rounds)]


def _memory_goals(rounds: Rounds) -> list[str]:
    runs = [run for step in rounds[Collection.name] for run in step]
    peak = max(run.peak_mib for run in runs)
    return [_goal("peak memory of all processes, MiB", "under 512", peak, peak < 512)]


def _flat(figures: dict[str, t.Any], prefix: str = "") -> t.Iterator[tuple[str, t.Any]]:
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}: ")
        else:
            yield prefix + key, value


def _number(value: t.Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
