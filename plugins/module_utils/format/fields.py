# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the fields of a document that anybody may have written: each gives the value back, or raises ValueError.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import datetime
import re
import typing as t

SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")
TIME = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")


def matching(value: t.Any, pattern: re.Pattern[str]) -> str:
    """A text of this form."""
    if not isinstance(value, str) or not pattern.match(value):
        raise ValueError(f"{value!r:.80}")
    return value


def time(value: t.Any) -> str:
    """A time in UTC, to the second, that exists."""
    datetime.datetime.fromisoformat(matching(value, TIME)[:-1])
    return str(value)


def one_of(value: t.Any, allowed: tuple[str, ...]) -> str:
    """One of these texts."""
    if value not in allowed:
        raise ValueError(f"{value!r:.80}")
    return str(value)


def of_type(value: t.Any, kind: type) -> t.Any:
    """A list, an object, a text."""
    if not isinstance(value, kind):
        raise ValueError(f"{value!r:.80}")
    return value


def text(value: t.Any, length: int) -> str:
    """A text of so many characters at most."""
    if not isinstance(value, str) or len(value) > length:
        raise ValueError(f"{value!r:.80}")
    return value


def cut(value: t.Any, length: int) -> str:
    """As a text that ``text`` takes, and that can be stored: cut where it is too long."""
    found = re.sub("[\ud800-\udfff]", "\ufffd", str(value).strip())
    return found if len(found) <= length else f"{found[: length - 2]} …"


def count(value: t.Any) -> int:
    """A whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r:.80}")
    return value


def seconds(value: t.Any) -> float:
    """A duration: a finite number from 0 on."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError(f"{value!r:.80}")
    return value
