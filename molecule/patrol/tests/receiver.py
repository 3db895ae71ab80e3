# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on the host: answers as WeCom's bot does, and writes down each request as a line of JSON.

usage: receiver.py PORT TAKEN REFUSE     (it answers with an error, which is a 200 as well, while REFUSE exists)
"""

from __future__ import annotations

import http.server
import json
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self._take(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self._take(b"")

    def _take(self, body: bytes) -> None:
        refuses = os.path.exists(sys.argv[3])
        told = {"method": self.command, "path": self.path, "type": self.headers["Content-Type"], "body": body.decode()}
        with open(sys.argv[2], "a", encoding="utf-8") as taken:
            taken.write(json.dumps({**told, "refused": refuses}) + "\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"errcode": 93000 if refuses else 0, "errmsg": "of the test"}).encode())

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
