# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a store gives to whoever writes or reads an object.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import typing as t

from ..errors import StoreError


class NotStored(StoreError):
    """The store answers, and has no such object."""


class Details(t.NamedTuple):
    """What a listing tells of an object."""

    size: int
    modified: float | None = None  # seconds since 1970, by the store's clock; None where it does not say
    tier: str = ""  # the storage class; empty: the usual one, or the store has none


class Upload:
    """An object in the making: write to ``fd``, then `commit`. Left without a commit it is dropped."""

    fd: int
    # True: ``fd`` is the stored file itself, so that a program may write to it directly and
    # what it wrote can be read back from it.
    is_file = False

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_exc: object) -> None:
        raise NotImplementedError

    def commit(self) -> None:
        """Make the object exist, or raise `StoreError`."""
        raise NotImplementedError


class Download:
    """An object being read: read ``fd`` to its end, then `check`."""

    fd: int

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_exc: object) -> None:
        raise NotImplementedError

    def check(self) -> None:
        """Raise `StoreError` where the end was not the object's end as far as the store knows."""
        raise NotImplementedError
