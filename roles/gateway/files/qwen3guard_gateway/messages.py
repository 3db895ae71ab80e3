# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages for operators: one JSON line each on stderr, without users' texts."""

from __future__ import annotations

import json
import logging
import sys
import time

LOGGER = logging.getLogger("qwen3guard_gateway")


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:  # where it happened; local variables, and with them texts, are not part of it
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def set_up() -> None:
    """All loggers write to stderr, in this form; servers' access logs stay silent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("aiohttp").setLevel(logging.ERROR)


def info(message: str, **fields: object) -> None:
    LOGGER.info(message, extra={"fields": fields})


def warning(message: str, **fields: object) -> None:
    LOGGER.warning(message, extra={"fields": fields})
