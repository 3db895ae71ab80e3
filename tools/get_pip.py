# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ansible-test runs in place of the get-pip script that it would download: see tools/sanity.

Its arguments are pip options and packages; it puts pip and these packages into a new virtual environment.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys

# Left in the environment, it would make ansible-test's own quiet pip runner start this script again.
os.environ.pop("GET_PIP", None)


def main() -> None:
    subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    arguments = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
    sys.argv = ["pip", "install", *arguments]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
