# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the reference of modules, roles and lookups as HTML, from their own specs.

Started by `make reference`. Whatever Sphinx warns of is an error, so a reference that is written is whole.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # no installed package

from support.checkout import find_tool, link_collection

COLLECTION = "guardops.qwen3guard"
# Sphinx reads it from a file. Labels in Ansible's own documentation lead nowhere here: their pages are not fetched.
CONF = f"""\
project = "{COLLECTION}"
extensions = ["sphinx_antsibull_ext"]
suppress_warnings = ["ref.ref"]
html_theme = "alabaster"
html_theme_options = {{
    "font_family": "sans-serif", "head_font_family": "sans-serif", "font_size": "15px", "page_width": "1200px",
}}
html_sidebars = {{"**": ["about.html", "searchfield.html"]}}
html_show_sourcelink = False
html_copy_source = False
"""


def write_reference(target: pathlib.Path) -> None:
    """The pages into ``target``, which is replaced, with the sources that they are made of beside it."""
    sources = target.with_name(target.name + ".rst")
    for directory in (target, sources):
        shutil.rmtree(directory, ignore_errors=True)
    sources.mkdir(parents=True)
    (sources / "conf.py").write_text(CONF, encoding="utf-8")
    bin_first = os.path.dirname(find_tool("ansible-doc")) + os.pathsep + os.environ.get("PATH", os.defpath)
    environment = {**os.environ, "PATH": bin_first, "ANSIBLE_COLLECTIONS_PATH": str(link_collection())}
    pages = ["collection", "--use-current", "--squash-hierarchy", "--fail-on-error", f"--dest-dir={sources}"]
    sphinx = ["--quiet", "--fail-on-warning", "--keep-going", "--jobs=2"]
    for command in (["antsibull-docs", *pages, COLLECTION], ["sphinx-build", *sphinx, str(sources), str(target)]):
        subprocess.run([find_tool(command[0]), *command[1:]], env=environment, cwd=sources, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=pathlib.Path, default=ROOT / ".cache" / "reference")
    target = parser.parse_args().directory.absolute()
    try:
        write_reference(target)
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed: exit code {error.returncode}, see above", file=sys.stderr)
        return 1
    print(f"The reference is in {target / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
