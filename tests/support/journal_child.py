# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A process that writes to a journal as fast as it can and says what was acknowledged; it is made to be killed.

usage: python journal_child.py LOGS STATE
"""

from __future__ import annotations

import asyncio
import os
import sys

from qwen3guard_gateway.journal import Journal

AT_ONCE = 20


async def main(logs: str, state: str) -> None:
    """Until the end of the world."""
    journal = Journal(logs, state, min_free_bytes=0)
    await journal.start()
    os.write(1, b"started\n")

    async def one(number: int) -> None:
        while True:
            got = await journal.append({"text": "x" * (number * 400)})
            os.write(1, f"{got['trace_id']}\n".encode())  # one call: the line arrives whole or not at all

    await asyncio.gather(*(one(number) for number in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
