# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one wrapper around rclone: argument lists, exit codes, time-outs.

Private to the collection: use the modules, not this file.

Time-outs and retries are flags: in a remote's section of rclone.conf they are silently ignored.
An exit code of 0 proves nothing (`cat` of a missing object ends with 0, and so does an upload to a
bucket that some stores then make); callers read the store back.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import tempfile
import typing as t

from ..errors import GuardError, StoreError
from ..system.files import directory_for_many, scratch_directory
from ..system.process import Child, Result, find_program, run
from .transfers import Details

# https://rclone.org/docs/#exit-code
EXIT_CODES = {
    1: "an error",
    2: "wrong arguments",
    3: "directory not found",
    4: "object not found",
    5: "a temporary error, retries used up",
    6: "an error that no retry mends",
    7: "a fatal error",
    8: "the transfer limit",
    9: "nothing transferred",
    10: "the time limit",
}

_HINTS = (
    (r"didn't find section in config file", "The remote is not in rclone.conf."),
    (r"restore first|InvalidObjectState|archived (?:object|blob)|BlobArchived",
     "The object is in an archive class: have the store bring it back first, which takes hours (docs/retention.md)."),
    (r"NoSuchBucket|bucket does not exist|directory not found", "The bucket or directory does not exist."),
    (r"AccessDenied|403|Forbidden|permission denied", "Permission denied: check the remote's rights."),
    (r"InvalidAccessKeyId|SignatureDoesNotMatch|401", "The credentials are not accepted."),
    (r"no space left|quota", "The store is full."),
    (r"connection refused|no such host|i/o timeout|deadline exceeded|network is unreachable",
     "The store does not answer: check the network and the endpoint."),
)  # fmt: skip


class NoDirectory(StoreError):
    """rclone found no such directory (or bucket)."""


class Options(t.NamedTuple):
    """How rclone is called."""

    program: str = "rclone"
    config: str | None = None
    retries: int = 3
    idle_timeout: int = 60  # seconds without a byte
    transfer_timeout: int = 1800  # seconds for one object


def base_arguments(options: Options) -> list[str]:
    """What every call carries."""
    arguments = [
        options.program,
        "--retries", str(options.retries),
        "--low-level-retries", str(options.retries),
        "--timeout", f"{options.idle_timeout}s",
        "--contimeout", f"{min(15, options.idle_timeout)}s",
        "--ask-password=false",
        "--stats", "0",
        "--log-level", "ERROR",
        "--use-mmap",  # gives memory back: many small parts need not cost what one large part does
        "--buffer-size", "0",
        # Making a bucket needs rights that a backup does not, and hides a misspelt name.
        "--s3-no-check-bucket",
    ]  # fmt: skip
    return arguments if options.config is None else [*arguments, "--config", options.config]


def list_arguments(options: Options, location: str, recurse: bool) -> list[str]:
    """All files below, as JSON, without what would cost a request each."""
    flags = ["lsjson", "--files-only", "--no-mimetype", "--no-modtime"]
    return [*base_arguments(options), *flags, *(["--recursive"] if recurse else []), "--", location]


def walk_arguments(options: Options, location: str, levels: t.Sequence[t.Collection[str] | None]) -> list[str]:
    """Some directories and objects below, as JSON: a request for each directory, many at once."""
    flags = ["lsjson", "--no-mimetype", "--no-modtime", "--recursive", "--max-depth", str(len(levels))]
    # A directory is entered where a rule lets something below it in.
    chosen = ""
    for names in levels:
        chosen += "/*" if names is None else f"/{{{','.join(sorted(names))}}}"
        flags += ["--filter", f"+ {chosen}"]
    flags += ["--filter", f"+ {chosen}/**", "--filter", "- *"]
    return [*base_arguments(options), *flags, "--checkers", "64", "--", location]


def details_arguments(options: Options, location: str) -> list[str]:
    """The same with times and storage classes, as far as the listing itself has them."""
    flags = ["lsjson", "--files-only", "--no-mimetype", "--use-server-modtime", "--recursive"]
    return [*base_arguments(options), *flags, "--", location]


def rcat_arguments(options: Options, location: str, is_s3: bool = False) -> list[str]:
    """stdin to an object. To S3 each chunk travels with its MD5, so that the store refuses a damaged one."""
    return [
        *base_arguments(options), "rcat",
        # To S3 rclone would hash the whole stream once more, for a comparison with a hash that objects of
        # several chunks do not have: a third of its processor time. Other stores do compare.
        # Without it only chunks have an MD5, so that small objects must travel as one chunk too (seen: SeaweedFS
        # took a flipped bit in what was sent in one request).
        *(["--ignore-checksum", "--streaming-upload-cutoff", "0"] if is_s3 else ["--streaming-upload-cutoff", "1M"]),
        # Memory is chunk x concurrency x workers; streams of unknown length may have 10,000 chunks.
        "--s3-chunk-size", "16M", "--s3-upload-concurrency", "2",
        "--", location,
    ]  # fmt: skip


def cat_arguments(options: Options, location: str) -> list[str]:
    """An object to stdout."""
    return [*base_arguments(options), "cat", "--", location]


def copy_arguments(options: Options, location: str, directory: str, chosen: list[str], at_once: int = 16) -> list[str]:
    """Small objects to files below a directory, many at once.

    One request for each, and not two: for an object's own time, and for a name to write under before it is whole,
    rclone would ask once more. It removes what did not come whole, and it says so by how it ends.
    """
    flags = ["copy", "--transfers", str(at_once), "--checkers", str(at_once), "--use-server-modtime", "--inplace"]
    return [*base_arguments(options), *flags, *chosen, "--", location, directory]


class Rclone:
    """rclone with one set of options."""

    def __init__(self, options: Options):
        program = find_program(options.program, "Install rclone, or name it by the option rclone_path.")
        if options.config is not None and not os.path.isfile(options.config):
            raise GuardError(options.config, "rclone's configuration file", "no such file")
        self.options = options._replace(program=program)
        self._types: dict[str, bytes] = {}
        self._features: dict[str, dict[str, t.Any]] = {}

    def listing(self, location: str, recurse: bool = True) -> dict[str, int]:
        """Sizes by name. Raises `NoDirectory` where there is none (not every store knows)."""
        result = self._run(list_arguments(self.options, location, recurse), location)
        return {name: details.size for name, details in _parse_listing(result.stdout, location).items()}

    def details(self, location: str) -> dict[str, Details]:
        """All below, with times and storage classes. Raises `NoDirectory` where there is none."""
        return _parse_listing(self._run(details_arguments(self.options, location), location).stdout, location)

    def present(self, location: str, names: list[str]) -> dict[str, Details]:
        """Those of these objects that are there; each costs a request, whatever else lies there."""
        with scratch_directory(tempfile.gettempdir(), "guardops-objects-") as directory:
            arguments = list_arguments(self.options, location, recurse=True)
            chosen = ["--checkers", "16", "--files-from-raw", _list_of(names, directory)]
            result = self._run([*arguments[:-2], *chosen, *arguments[-2:]], location)
        return _parse_listing(result.stdout, location)

    def feature(self, location: str, name: str) -> bool:
        """Whether the kind of store has one of rclone's features; asked once, and without the network."""
        remote = location.partition(":")[0]
        if remote not in self._features:
            result = self._run([*base_arguments(self.options), "backend", "features", "--", f"{remote}:"], location)
            try:
                self._features[remote] = json.loads(result.stdout)["Features"]
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(location, "the features of its kind of store", repr(result.stdout[:80])) from error
        return bool(self._features[remote].get(name))

    def set_tier(self, location: str, names: list[str], tier: str) -> None:
        """Move objects to a storage class. rclone says nothing of those that it could not move: read back."""
        with scratch_directory(tempfile.gettempdir(), "guardops-objects-") as directory:
            chosen = ["--no-traverse", "--files-from-raw", _list_of(names, directory)]
            self._run([*base_arguments(self.options), "settier", *chosen, "--", tier, location], location)

    def remove_empty(self, location: str) -> None:
        """Remove directories that hold nothing."""
        self._run([*base_arguments(self.options), "rmdirs", "--leave-root", "--", location], location)

    def versioning(self, location: str) -> str:
        """What an S3 says of its bucket: ``Enabled``, ``Suspended``, ``Unversioned``; empty where it has no such."""
        if not self._is_s3(location):
            return ""
        bucket = "/".join(location.split("/")[:1])
        result = self._run([*base_arguments(self.options), "backend", "versioning", "--", bucket], location)
        return result.stdout.decode("utf-8", "replace").strip().strip('"')

    def settings(self, location: str) -> dict[str, str]:
        """A remote's section of rclone.conf, secrets and all: for memory only."""
        remote = location.partition(":")[0]
        result = self._run([*base_arguments(self.options), "config", "dump"], location)
        try:
            found = json.loads(result.stdout)[remote]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(location, f"the remote {remote} in rclone's configuration", "none that can be read") from (
                error if isinstance(error, KeyError) else None  # a JSON error would show what it could not parse
            )
        return {str(name): str(value) for name, value in found.items()}

    def walk(self, location: str, levels: t.Sequence[t.Collection[str] | None]) -> list[str]:
        """Names down to as many levels, those of directories with a slash. Raises `NoDirectory`."""
        result = self._run(walk_arguments(self.options, location, levels), location)
        try:
            listed = [(str(item["Path"]), bool(item["IsDir"])) for item in json.loads(result.stdout)]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(location, "a listing in JSON", repr(result.stdout[:80])) from error
        return [f"{path}/" if is_directory else path for path, is_directory in listed if _wanted(path, levels)]

    def rcat(self, location: str) -> Child:
        """A child that stores what is written to its stdin."""
        arguments = rcat_arguments(self.options, location, self._is_s3(location))
        return Child(arguments, stdin=subprocess.PIPE, timeout=self.options.transfer_timeout)

    def _is_s3(self, location: str) -> bool:
        """Whether the remote is an S3 by its configuration; asked once. One that is not named there is not."""
        remote = location.partition(":")[0]
        if remote not in self._types:
            told = run([*base_arguments(self.options), "config", "redacted", "--", remote], timeout=60).stdout
            self._types[remote] = next(
                (line.partition(b"=")[2].strip() for line in told.splitlines() if line.startswith(b"type =")), b""
            )
        return self._types[remote] == b"s3"

    def cat(self, location: str) -> Child:
        """A child that writes an object to its stdout."""
        return Child(
            cat_arguments(self.options, location), stdout=subprocess.PIPE, timeout=self.options.transfer_timeout
        )

    def purge(self, location: str) -> None:
        """Remove a directory with all it holds; none there is fine."""
        try:
            self._run([*base_arguments(self.options), "purge", "--", location], location)
        except NoDirectory:
            return

    def drop_unfinished(self, location: str) -> None:
        """Remove the beginnings of uploads that were killed: S3 keeps them, unseen and paid for.

        Backends without such a thing have no such command.
        """
        arguments = [*base_arguments(self.options), "--log-level", "NOTICE", "backend", "cleanup", "-o", "max-age=0s"]
        result = run([*arguments, "--", location], timeout=self.options.transfer_timeout)
        if result.rc != 0 and "command not found" not in result.stderr and "doesn't support" not in result.stderr:
            _judge(result.rc, result.timed_out, result.stderr, location, self.options.transfer_timeout)

    def read_many(self, location: str, name: str) -> dict[str, bytes]:
        """All small files called ``name`` below ``location``, in one call."""
        with scratch_directory(directory_for_many(), "guardops-manifests-") as directory:
            arguments = copy_arguments(self.options, location, directory, ["--include", f"/**/{name}"])
            self._run(arguments, location)
            return _files_below(directory)

    def read_several(self, location: str, names: list[str]) -> dict[str, bytes]:
        """The small files of these names below ``location``, in one call; missing ones are left out."""
        with scratch_directory(directory_for_many(), "guardops-objects-") as directory:
            # To ask only for what is there, an S3 would be asked about each object before.
            chosen = ["--s3-no-head-object", "--retries", "1"]
            result = run(self._copy_of(location, names, directory, chosen), timeout=self.options.transfer_timeout)
            # One that was killed may have left half a file; one that ended by itself has removed it.
            killed = result.timed_out or result.rc < 0
            found = {} if killed else _files_below(os.path.join(directory, "found"))
        if result.rc == 0:
            return found
        # Some are not there, or something is wrong: asked before, the first is no error, and the second is told.
        missing = [name for name in names if name not in found]
        with scratch_directory(directory_for_many(), "guardops-objects-") as directory:
            self._run(self._copy_of(location, missing, directory, []), location)
            return {**found, **_files_below(os.path.join(directory, "found"))}

    def _copy_of(self, location: str, names: list[str], directory: str, more: list[str]) -> list[str]:
        """Arguments for these objects, which come to ``found`` in a directory."""
        chosen = ["--no-traverse", "--files-from-raw", _list_of(names, directory), *more]
        # Each waits for the network most of its time: of thousands more can wait at once.
        at_once = 64 if len(names) > 500 else 16
        return copy_arguments(self.options, location, os.path.join(directory, "found"), chosen, at_once)

    def remove_several(self, location: str, names: list[str]) -> None:
        """Remove the files of these names below ``location``, in one call; missing ones are fine."""
        with scratch_directory(tempfile.gettempdir(), "guardops-objects-") as directory:
            chosen = ["--no-traverse", "--files-from-raw", _list_of(names, directory)]
            self._run([*base_arguments(self.options), "delete", *chosen, "--", location], location)

    def _run(self, arguments: list[str], location: str) -> Result:
        result = run(arguments, timeout=self.options.transfer_timeout)
        _judge(result.rc, result.timed_out, result.stderr, location, self.options.transfer_timeout)
        return result


def _wanted(path: str, levels: t.Sequence[t.Collection[str] | None]) -> bool:
    """Whether each component of a name counts on its level."""
    return all(names is None or name in names for name, names in zip(path.split("/"), levels))


def _parse_listing(stdout: bytes, location: str) -> dict[str, Details]:
    try:
        return {
            item["Path"]: Details(item["Size"], _seconds(item.get("ModTime", "")), item.get("Tier", ""))
            for item in json.loads(stdout)
        }
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(location, "a listing in JSON", repr(stdout[:80])) from error


def _seconds(text: str) -> float | None:
    """A time in rclone's JSON, which has nine digits of fraction, or none."""
    match = _TIME.match(text)
    if match is None:
        return None
    zone = "+00:00" if match[2] == "Z" else match[2]
    return datetime.datetime.fromisoformat(match[1] + zone).timestamp()


_TIME = re.compile(r"\A(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)\Z")


def _list_of(names: list[str], directory: str) -> str:
    """A file that names one object a line."""
    path = os.path.join(directory, "names")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as handle:
        handle.writelines(f"{name}\n" for name in names)
    return path


def _files_below(directory: str) -> dict[str, bytes]:
    """Contents by relative name."""
    found = {}
    for folder, _names, files in os.walk(directory):
        for file in files:
            path = os.path.join(folder, file)
            with open(path, "rb") as handle:
                found[os.path.relpath(path, directory)] = handle.read()
    return found


def check(child: Child, location: str) -> None:
    """Wait for a child of `rcat` or `cat`; raise `StoreError` unless it ended well."""
    _judge(child.wait(), child.timed_out, child.errors(), location, child.timeout)


def _judge(rc: int, timed_out: bool, errors: str, location: str, timeout: float) -> None:
    if timed_out:
        raise StoreError(location, f"a transfer of at most {timeout:.0f} s", "none that ended; it was killed",
                         "Is the network slow? Raise transfer_timeout, or make parts smaller.")  # fmt: skip
    if rc == 0:
        return
    kind = NoDirectory if rc in (3, 4) else StoreError
    last = _masked(errors.splitlines()[-1]) if errors else "no message"
    last = re.sub(r"^\S+ \S+ (CRITICAL|ERROR|NOTICE) *: *", "", last)
    found = f"{EXIT_CODES.get(rc, f'exit code {rc}')} ({last})"
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, errors, re.IGNORECASE)), "")
    raise kind(location, "rclone to end well", found, hint)


def _masked(text: str) -> str:
    """Without what signed URLs and user:password@host would give away."""
    text = re.sub(r"(?i)(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"]+", r"\1***", text)
    return re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:***@", text)[:500]
