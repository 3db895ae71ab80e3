# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Markdown documents: every link leads somewhere, and both languages of a page say the same."""

from __future__ import annotations

import re

import pytest

from support.checkout import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```|((?:^    [^\n]*\n)+)", re.MULTILINE | re.DOTALL)
PAIRS = [(path, path.with_name(f"{path.stem}.zh.md")) for path in (ROOT / "README.md", ROOT / "docs" / "recovery.md")]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to the headings of a document."""
    headings = _HEADING.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    broken = []
    for link in _LINK.findall(_CODE.sub("", text)):
        name, _hash, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (document.parent / name).resolve() if name else document
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            broken.append(f"{link}: no such heading")
    assert broken == []


def test_documents_are_found():
    assert {"README.md", "CONTRIBUTING.md"} < {path.name for path in DOCUMENTS}
    assert anchors("# What was tried, and on what\n```\n# no\n```\n## `x` y") == {"what-was-tried-and-on-what", "x-y"}


# -- two languages


def blocks(text: str) -> list[str]:
    """What somebody copies: blocks of commands and of settings. A drawing has no language, and may be translated."""
    found = _BLOCK.findall(text)
    return [fenced if language else indented for language, fenced, indented in found if language or indented]


def names(text: str) -> set[str]:
    """All that is written as code within sentences: variables, commands, paths, levels."""
    return {" ".join(found.split()) for found in re.findall(r"`([^`]+)`", _BLOCK.sub("", text))}


def shape(text: str) -> list[str]:
    """Headings, tables with their sizes, and lists with their lengths, in order."""
    found: list[str] = []
    for paragraph in re.split(r"\n{2,}", _BLOCK.sub("", text).strip()):
        lines = paragraph.splitlines()
        if heading := re.match(r"#+ ", paragraph):
            found.append(heading[0] + "…")
        elif lines[0].startswith("|"):
            found.append(f"table of {len(lines)} lines, {lines[1].count('|') - 1} columns")
        elif lines[0].startswith("- "):
            found.append(f"list of {sum(line.startswith('- ') for line in lines)}")
        elif step := re.match(r"\*\*(\d+)\.", paragraph):
            found.append(f"step {step[1]}")
    return found


def linked(text: str) -> set[str]:
    """Files to which it links, whatever their language. A heading's name is another in each."""
    links = {link.partition("#")[0] for link in _LINK.findall(_CODE.sub("", text))}
    return {link.replace(".zh.md", ".md") for link in links if link}


@pytest.mark.parametrize("compared", [blocks, names, shape, linked], ids=lambda function: function.__name__)
@pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda path: path.name)
def test_both_languages_say_the_same(english, chinese, compared):
    assert compared(chinese.read_text(encoding="utf-8")) == compared(english.read_text(encoding="utf-8"))


def test_what_is_compared():
    text = """# A `b`

    make c d=1
    make e

```
 drawing
```

```sh
f
```

| g | `h|i` |
|---|---|
| [j](k.zh.md#l) | |

- m
  n
- o

**1. P** `q
r`
"""
    assert blocks(text) == ["    make c d=1\n    make e\n", "f\n"]
    assert names(text) == {"b", "h|i", "q r"}
    assert shape(text) == ["# …", "table of 3 lines, 2 columns", "list of 2", "step 1"]
    assert linked(text) == {"k.md"}
