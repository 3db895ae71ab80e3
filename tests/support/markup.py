# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read a page of HTML as strictly as no browser does: what is opened is closed, and every element is told."""

from __future__ import annotations

import dataclasses
import html.parser
import typing as t

_VOID = ("meta", "br")


@dataclasses.dataclass
class Element:
    """One element. ``text`` is all that stands in it and in those below it."""

    name: str
    attributes: dict[str, str]
    text: str = ""


class Markup(html.parser.HTMLParser):
    """All elements of a page, in order."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        assert len(element.attributes) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, name: str, **attributes: str) -> list[Element]:
        """Elements of this name with these attributes; ``class_`` is class."""
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [
            element
            for element in self.elements
            if element.name == name and wanted.items() <= element.attributes.items()
        ]

    def values(self) -> t.Iterator[tuple[str, str]]:
        """Every attribute."""
        for element in self.elements:
            yield from element.attributes.items()
