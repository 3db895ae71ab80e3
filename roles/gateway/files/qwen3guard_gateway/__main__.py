# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python -m qwen3guard_gateway --config FILE``"""

from __future__ import annotations

import argparse
import sys

from . import messages
from .config import ConfigError, load
from .server import make_server, serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="qwen3guard_gateway", description="Audit gateway for Qwen3Guard-Gen.")
    parser.add_argument("--config", required=True, metavar="FILE", help="the configuration, JSON; -: standard input")
    parser.add_argument("--check", action="store_true", help="only say whether the configuration can be used")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
        if arguments.check:
            make_server(config)
            print(f"{arguments.config}: fine")
            return 0
        messages.set_up()
        serve(config)
    except ConfigError as error:
        print(f"qwen3guard_gateway: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
