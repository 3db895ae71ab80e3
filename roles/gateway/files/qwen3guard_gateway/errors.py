# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong with the audit log, in words for people."""

from __future__ import annotations


class JournalError(Exception):
    """The log cannot be used at all as things are: says what to put right. Starting again may be tried at any time."""


class JournalUnavailable(Exception):
    """No record can be written now (full disk, lost permission...); the journal goes on by itself once it can."""
