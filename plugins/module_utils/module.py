# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From a module's options to a session, and from errors to a module's failure.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import types
import typing as t

from ansible.module_utils.basic import AnsibleModule

from .errors import GuardError
from .format.manifest import LAYERS
from .format.repository import Repository
from .operations.session import Progress, Session
from .services import rclone
from .services.gpg import Gpg
from .services.keys.options import provider_from_options
from .services.store import Store, open_store

REPOSITORY_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "instance": {"type": "str", "required": True},
    "repository": {"type": "str", "required": True},
    "rclone_config": {"type": "path"},
    "rclone_path": {"type": "str", "default": "rclone"},
    "retries": {"type": "int", "default": 3},
    "idle_timeout": {"type": "int", "default": 60},
    "transfer_timeout": {"type": "int", "default": 1800},
    "state_dir": {"type": "path", "default": "/var/lib/guardops-qwen3guard"},
    "gpg_path": {"type": "str", "default": "gpg"},
}
LAYER_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "layer": {"type": "str", "required": True, "choices": list(LAYERS)},
}
WORKERS_ARGUMENT_SPEC: dict[str, dict[str, t.Any]] = {
    "workers": {"type": "int"},
    "progress_file": {"type": "path"},
}


def stores_of(module: AnsibleModule, locations: t.Iterable[str]) -> list[Store]:
    """Stores at these places, reached as the module's options say."""
    params = module.params
    for name in ("retries", "idle_timeout", "transfer_timeout"):
        if params[name] < 1:
            raise GuardError(f"option {name}", "at least 1", str(params[name]))
    options = rclone.Options(
        program=params["rclone_path"],
        config=params["rclone_config"],
        retries=params["retries"],
        idle_timeout=params["idle_timeout"],
        transfer_timeout=params["transfer_timeout"],
    )
    return [open_store(location, options) for location in locations]


@contextlib.contextmanager
def session_of(module: AnsibleModule, layer: str | None = None) -> t.Iterator[Session]:
    """The session that the module's options describe."""
    # What is known of 10,000 files lives to the end of the run: looking for garbage in it takes a third of the time.
    gc.set_threshold(100_000)
    params = module.params
    repository = Repository(stores_of(module, [params["repository"]])[0], params["instance"])
    with Gpg(params["gpg_path"]) as gpg:
        yield Session(
            repository=repository,
            layer=layer or params["layer"],
            gpg=gpg,
            keys=provider_from_options(params["key"], gpg) if params.get("key") else None,
            state_directory=params["state_dir"],
            workers=params.get("workers") or min(4, max(2, os.cpu_count() or 2)),
            attempts=params["retries"],
            part_timeout=float(params["transfer_timeout"]),
            progress=Progress(params.get("progress_file")),
            dry=module.check_mode,
        )


class _Interrupted(BaseException):
    """A signal asks us to end. Not an `Exception`: nobody on the way is to mistake it for a failure of theirs."""


def _interrupt(number: int, _frame: types.FrameType | None) -> None:
    for each in _ENDING:  # a second one must not break the clean-up off
        signal.signal(each, signal.SIG_IGN)
    raise _Interrupted(signal.Signals(number).name)


_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def failures_told(module: AnsibleModule) -> t.Iterator[None]:
    """Turn what a user can act on into a failure with its fields; anything else stays a traceback: it is a bug.

    A signal that asks us to end (Ctrl-C, a time-out, a closed connection) ends the children, takes the way of an
    error through all clean-up, and is told like one.
    """
    for each in _ENDING:
        if signal.getsignal(each) != signal.SIG_IGN:  # nohup
            signal.signal(each, _interrupt)
    try:
        yield
    except _Interrupted as error:
        _fail(module, GuardError("this run", "to reach its end", str(error), "Run it again: it goes on where it can."))
    except GuardError as error:
        _fail(module, error)


def _fail(module: AnsibleModule, error: GuardError) -> None:
    module.fail_json(
        msg=printable(str(error)),
        thing=printable(error.thing),
        expected=printable(error.expected),
        found=printable(error.found),
        hint=printable(error.hint),
    )


def printable(value: t.Any) -> t.Any:
    """The same with every text fit for JSON: a file's name may be no valid UTF-8."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {printable(name): printable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    return value


def size_option(module: AnsibleModule, name: str, low: int, high: int) -> int:
    """An option that takes a size with a unit (256M), in bytes."""
    return parse_size(name, module.params[name], low, high)


def parse_size(name: str, given: t.Any, low: int, high: int) -> int:
    """A size with a unit, in bytes; ``name`` is the option's."""
    text = str(given).strip().upper().rstrip("B").rstrip("I")
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        value = int(float(number) * unit)
    except ValueError as error:
        raise GuardError(f"option {name}", "a size such as 256M", repr(given)) from error
    if not low <= value <= high:
        raise GuardError(f"option {name}", f"between {low} and {high} bytes", f"{value} bytes")
    return value
