# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Audit records that look like the real ones. The same seed and number always give the same record."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

Record = dict[str, Any]

CHINA = timezone(timedelta(hours=8))
FIRST_TIME = datetime(2024, 5, 20, 0, 0, 0, tzinfo=CHINA)
_TEXTS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("texts.json").read_text(encoding="utf-8"))
_CITIES = ("北京", "上海", "广州", "成都", "西安", "杭州", "哈尔滨", "昆明")
_CITIES_EN = ("Leeds", "Osaka", "Lisbon", "Nairobi", "Chengdu", "Austin", "Gdansk", "Lima")
_NETWORKS = ("10.12.{}.{}", "172.20.{}.{}", "192.168.{}.{}", "203.0.113.{1}", "2001:db8::{:x}:{:x}")
_BULK_TEMPLATES = 4000
_BULK_WRITE_LINES = 5000


def trace_id(seed: int, seq: int, when: datetime) -> str:
    """Multiplying by an odd number permutes the 32-bit numbers: it looks random, and never repeats."""
    scattered = (seq * 0x9E3779B1 + seed * 0x85EBCA6B) & 0xFFFFFFFF
    return f"qwg-{when:%Y%m%d}-8b-{scattered:08x}"


def _content(rng: random.Random) -> Record:
    """What depends neither on the number nor on the time."""
    # Most of real traffic is harmless.
    wanted = rng.choices(("safe", "controversial", "unsafe"), weights=(86, 6, 8))[0]
    entry = rng.choice([candidate for candidate in _TEXTS if candidate["verdict"] == wanted])
    text = entry["text"].format(
        n=rng.randint(2, 9999), city=rng.choice(_CITIES), city2=rng.choice(_CITIES), city_en=rng.choice(_CITIES_EN)
    )
    source_ip = rng.choice(_NETWORKS).format(rng.randint(0, 255), rng.randint(1, 254))
    return {
        "source_ip": source_ip,
        "text": text,
        "verdict": entry["verdict"],
        "categories": entry["categories"],
        "confidence": round(1 - rng.random() ** 2 / 2, 4),
    }


def make_record(seed: int, seq: int, when: datetime) -> Record:
    rng = random.Random(f"record {seed} {seq}")
    head = {"seq": seq, "time": when.isoformat(timespec="microseconds"), "trace_id": trace_id(seed, seq, when)}
    return {**head, **_content(rng)}


def time_between(seed: int, seq: int, mean_seconds: float) -> timedelta:
    """How long after the record before it this one comes: more or less, but never zero."""
    rng = random.Random(f"gap {seed} {seq}")
    return timedelta(microseconds=1 + int(rng.uniform(0.2, 1.8) * mean_seconds * 1e6))


def encode(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"


@functools.lru_cache(maxsize=2)
def _bulk_pieces(seed: int) -> list[tuple[str, bytes]]:
    rng = random.Random(f"bulk {seed}")
    pieces = []
    for _number in range(_BULK_TEMPLATES):
        rest = json.dumps(_content(rng), ensure_ascii=False)
        pieces.append((f"{rng.randint(0, 999999):06d}", b", " + rest[1:].encode("utf-8") + b"\n"))
    return pieces


def bulk_blocks(
    total: int, seed: int, first_seq: int = 1, start: datetime = FIRST_TIME, mean_seconds: float = 0.5
) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, ``total`` bytes or a line more in all, each with its number of records.

    For benchmarks: the texts repeat after some thousand lines, numbers, times and ids do not.
    """
    pieces = _bulk_pieces(seed)
    rng = random.Random(f"bulk order {seed} {first_seq}")
    seq, written = first_seq, 0
    scatter_start = seed * 0x85EBCA6B
    while written < total:
        # One date and minute for a block of lines: formatting a datetime for each would take half the time.
        when = start + timedelta(seconds=(seq - first_seq) * mean_seconds)
        minute, day = f"{when:%Y-%m-%dT%H:%M}", f"{when:%Y%m%d}"
        lines, size = [], 0
        for number in range(_BULK_WRITE_LINES):
            micro, rest = pieces[int(rng.random() * _BULK_TEMPLATES)]
            scattered = (seq * 0x9E3779B1 + scatter_start) & 0xFFFFFFFF
            second = number * 60 // _BULK_WRITE_LINES
            head = (
                f'{{"seq": {seq}, "time": "{minute}:{second:02d}.{micro}+08:00", '
                f'"trace_id": "qwg-{day}-8b-{scattered:08x}"'
            )
            line = head.encode("ascii") + rest
            lines.append(line)
            seq += 1
            size += len(line)
            if written + size >= total:
                break
        written += size
        yield len(lines), b"".join(lines)
