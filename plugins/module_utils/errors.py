# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception that the engine raises for what a user can act on.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations


class GuardError(Exception):
    """Something a user can act on: names the thing, what was expected, what was found, what to do.

    ``thing``    what it is about: a path, an object, an option
    ``expected`` what should have been there
    ``found``    what was there instead
    ``hint``     what to do next
    """

    def __init__(self, thing: str, expected: str, found: str, hint: str = ""):
        self.thing = thing
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.thing}: expected {self.expected}, found {self.found}"
        return f"{text}. {self.hint}" if self.hint else text


class StoreError(GuardError):
    """The repository's store did not do what was asked; another try may help."""


class IntegrityError(GuardError):
    """What the repository holds is not what was put there."""


class KeyProviderError(GuardError):
    """The key provider refused, or does not have the key."""


class SourceChanged(GuardError):
    """A file changed while it was read; another try may help."""
