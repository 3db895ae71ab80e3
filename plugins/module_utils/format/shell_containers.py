# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that a shell script starts, and what of the host they mount, as far as the script itself tells.

It is no shell: variables that are set by plain assignments are known, and of everything else it is said that it is not.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import re
import shlex
import typing as t

_ENGINES = ("docker", "podman", "nerdctl")
_TELL_NOTHING = ("start", "restart", "exec", "compose", "kube", "play")  # of a container that was made elsewhere
_SPEAKERS = ("echo", "printf", "logger")
_UNKNOWN = "\0"  # in place of what only a shell would know
# Options of `run` without a value of their own. All others have one, in the same word or in the next.
_FLAGS = frozenset(
    [
        "detach",
        "interactive",
        "tty",
        "rm",
        "privileged",
        "read-only",
        "init",
        "no-healthcheck",
        "oom-kill-disable",
        "publish-all",
        "sig-proxy",
        "quiet",
        "disable-content-trust",
        "help",
        "replace",
        "tls-verify",
        "no-hosts",
        "no-hostname",
        "env-host",
        "http-proxy",
        "rmi",
        "passwd",
        "read-only-tmpfs",
        "unsetenv-all",
    ]
)
_SHORT_FLAGS = "ditqP"


class Run(t.NamedTuple):
    """A container that a line starts."""

    line: int
    mounts: list[str]  # directories of the host
    unclear: str  # why there may be others; empty where there are none


def containers(script: bytes) -> list[Run]:
    """All that the script starts, in the order of their lines."""
    text = os.fsdecode(script)
    variables = _assignments(text)
    found: list[Run] = []
    for number, line in _lines(text):
        for command in _commands(line, variables):
            run = _container(number, command)
            if run:
                found.append(run)
    return found


def _lines(text: str) -> t.Iterator[tuple[int, str]]:
    """Lines with those that they go on in, and their numbers."""
    whole, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        if line.rstrip("\r").endswith("\\"):
            whole += line.rstrip("\r")[:-1]
            continue
        yield first, whole + line
        whole, first = "", 0
    if whole:
        yield first, whole


def _assignments(text: str) -> dict[str, str]:
    """Variables that every assignment gives the same value, worked out."""
    values: dict[str, set[str]] = {}
    for _number, line in _lines(text):
        match = re.match(r"\s*(?:(?:export|readonly|declare(?:\s+-\w+)*|local)\s+)?([A-Za-z_]\w*)=(.*)$", line)
        if match:
            words = _words(match[2])
            values.setdefault(match[1], set()).add(words[0] if words else "")
    plain = {name: found.pop() for name, found in values.items() if len(found) == 1}
    for name in re.findall(r"(?:&&|\|\||;|\bthen\b|\bdo\b|\{)\s*([A-Za-z_]\w*)=", text) + re.findall(r"(\w+)\+=", text):
        plain.pop(name, None)  # it has this value under a condition, or more than it
    return {name: _expand(value, plain) for name, value in plain.items()}


def _expand(word: str, variables: t.Mapping[str, str], depth: int = 8) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not depth or name not in variables:
            return _UNKNOWN
        return _expand(variables[name], variables, depth - 1)

    word = re.sub(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value, word)
    return re.sub(r"\$.?", _UNKNOWN, word)


def _words(line: str) -> list[str]:
    """The words and operators of a line."""
    line = re.sub(r"\$\([^()]*\)|`[^`]*`|\$\{[^}]*[^}\w][^}]*\}", _UNKNOWN, line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation that goes on in the next line
        words = re.sub("[\"']", "", line).split()
    comment = next((index for index, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _commands(line: str, variables: t.Mapping[str, str]) -> t.Iterator[list[str]]:
    """The commands of a line, also those in $( )."""
    for inner in re.findall(r"\$\(([^()]*)\)", line) + re.findall(r"`([^`]*)`", line):
        yield from _commands(inner, variables)
    command: list[str] = []
    for word in _words(line):
        if re.fullmatch(r"[;&|()<>]+", word):
            yield command
            command = []
        else:
            command += _expand_word(word, variables)
    yield command


def _expand_word(word: str, variables: t.Mapping[str, str]) -> list[str]:
    """A word that is nothing but a variable may hold several, as in $OPTIONS."""
    value = _expand(word, variables)
    if re.fullmatch(r"\$\{?\w+\}?", word) and " " in value:
        return _words(value)
    return [value]


def _container(line: int, command: t.Sequence[str]) -> Run | None:
    if not command or os.path.basename(command[0]) in _SPEAKERS:
        return None
    names = [os.path.basename(word) for word in command]
    if any(name in ("docker-compose", "podman-compose") for name in names):
        return Run(line, [], "it is started by a compose file")
    start = next((index for index, name in enumerate(names) if name in _ENGINES), None)
    if start is None:
        if len(command) > 1 and command[0] == _UNKNOWN and command[1] == "run":
            return Run(line, _mounts(command[2:])[0], "the script works out which program starts it")
        return None
    for index in range(start + 1, len(command)):
        if command[index] in ("run", "create"):
            return Run(line, *_mounts(command[index + 1 :]))
        if command[index] in _TELL_NOTHING:
            return Run(line, [], f"`{names[start]} {command[index]}` does not tell")
        if not command[index].startswith("-") and command[index] != "container" and command[index - 1][:1] != "-":
            return None
    return None


def _mounts(arguments: t.Sequence[str]) -> tuple[list[str], str]:
    """What `run` mounts of the host: what stands before the image."""
    mounts: list[str] = []
    unclear = ""
    rest = list(arguments)
    while rest and rest[0].startswith(("-", _UNKNOWN)):
        word = rest.pop(0)
        if word.startswith(_UNKNOWN):  # an option, or several, or none
            unclear = "the script works out some of its options"
            continue
        name, value = _option(word, rest)
        if name in ("v", "volume", "mount"):
            source = _source(name, value)
            if _UNKNOWN in source or source.startswith((".", "~")):
                unclear = "the script works out what it mounts"
            elif source.startswith("/"):
                mounts.append(os.path.normpath(source))
        elif name == "volumes-from":
            unclear = "it has the mounts of another container"
    return mounts, unclear


def _option(word: str, rest: list[str]) -> tuple[str, str]:
    """Name and value; where the value is the next word, that is taken away."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        if not equals and name not in _FLAGS and rest:
            value = rest.pop(0)
        return name, value
    letters = word[1:]
    while letters[:1] and letters[0] in _SHORT_FLAGS:
        letters = letters[1:]
    name, value = letters[:1], letters[1:]
    if name and not value and rest:
        value = rest.pop(0)
    return name, value[1:] if value.startswith("=") else value


def _source(name: str, value: str) -> str:
    """The directory of the host that it names; a named volume is none."""
    if name != "mount":
        return value.partition(":")[0]
    fields = dict(part.partition("=")[::2] for part in value.split(","))
    source = fields.get("source", fields.get("src", ""))
    if _UNKNOWN in value:
        return source if fields.get("type") == "bind" and source else _UNKNOWN
    return source if fields.get("type") == "bind" else ""
