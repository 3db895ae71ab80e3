# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An engine that answers at once, always the same, in a process of its own: what is measured is the gateway before it.

Prints its port, then serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import typing as t

import uvloop

_CONTENT = json.dumps(
    {
        "id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": "Qwen3Guard-Gen-8B",
        "choices": [
            {
                "index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Safety: Safe\nCategories: None\nRefusal: No"},
            }
        ],
    }
).encode()  # fmt: skip
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_CONTENT),
    _CONTENT,
)
_LENGTH = b"content-length:"


class Engine(asyncio.Protocol):
    """HTTP as far as the gateway's client needs it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while True:
            head, mark, rest = self._pending.partition(b"\r\n\r\n")
            if not mark:
                return
            at = head.lower().find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(rest) < length:
                return
            self._pending = rest[length:]
            self._transport.write(ANSWER)


async def main() -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Engine, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
