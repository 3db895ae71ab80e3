# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Python of the test bed's hosts compiles what it imports from zip files once, and not again in each task.

Ansible sends a module and all that it imports as a zip of sources. To compile them takes a host about 0.15 s in each
task, and the processors are what the scenarios wait for. What runs stays the same: the key is the source. Times that
scenarios print, a recovery's too, are shorter by it than a host's own. tools/testbed puts this file into the images.
"""

import _imp
import marshal
import os
import sys
import zipimport

PLACE = "/srv/bytecode"  # a volume, which all hosts share

_compile = zipimport._compile_source


def _compile_once(path, source):
    name = os.path.join(PLACE, f"{_imp.source_hash(0, source).hex()}.{sys.implementation.cache_tag}")
    try:
        with open(name, "rb") as file:
            code = marshal.loads(file.read())  # noqa: S302 - only the hosts write there; to load from a file is slow
    except (OSError, EOFError, ValueError, TypeError):  # not there yet, or torn
        code = _compile(path, source)
        _keep(name, code)
    else:
        _imp._fix_co_filename(code, path)
    return code


def _keep(name, code):
    part = f"{name}.{os.getpid()}.{id(code)}"
    try:
        with open(part, "xb") as file:
            marshal.dump(code, file)
        os.rename(part, name)
    except OSError:  # another user than root, or no such volume
        return


zipimport._compile_source = _compile_once
