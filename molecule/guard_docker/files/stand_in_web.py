# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for a qwen3guard-gen-web image: it answers in that form, and writes each audit to its log. No model."""

import http.server
import json
import os


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404, {"status": "ok"})

    def do_POST(self) -> None:
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        bad = "bomb" in text and os.environ.get("SAYS") != "safe"
        with open("/app/data/logs/audit.log", "a", encoding="utf-8") as log:
            log.write(json.dumps({"text": text, "verdict": "unsafe" if bad else "safe"}) + "\n")
        self._answer(200, {"verdict": "unsafe" if bad else "safe", "categories": ["Violent"] if bad else []})

    def _answer(self, status: int, document: object) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())


http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()  # noqa: S104 - in a container
