# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Symmetric OpenPGP encryption of parts and of the index, with gpg in a throw-away home.

Private to the collection: use the modules, not this file.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from ..errors import GuardError, IntegrityError, KeyProviderError
from ..system.files import claimed_directory, memory_directory, remove_abandoned
from ..system.process import Child, find_program, run

# 2.2.8 is the first that always fails without integrity protection, and whose status lines no file
# name inside a message can forge (CVE-2018-12020).
MINIMUM_VERSION = (2, 2, 8)

BAD_PASSPHRASE = 11  # GPG_ERR_BAD_PASSPHRASE

# The S2K stretches passphrases that people think up. A data key has 256 random bits: there is nothing
# to stretch, and the lowest useful count saves a tenth of a second for each part. What somebody may
# have thought up gets the most that OpenPGP can express.
S2K_COUNT_RANDOM = 65536
S2K_COUNT_HUMAN = 65011712

_HOME_PREFIX = "guardops-gpg-"
_COMMON = (
    "--batch",
    "--no-options",  # /etc/gnupg/gpg.conf must not bend what the repository holds
    "--no-tty",
    "--quiet",
    "--no-secmem-warning",
    "--no-autostart",  # a symmetric key needs no agent, so there is none to leave behind
    "--pinentry-mode",
    "loopback",
    "--no-symkey-cache",
    "--status-fd",
    "2",
    "--passphrase-fd",
    "{secret_fd}",
)


def encrypt_arguments(program: str, home: str, armor: bool = False, s2k_count: int = S2K_COUNT_RANDOM) -> list[str]:
    """Encrypt stdin to stdout with the passphrase on ``{secret_fd}``."""
    return [
        program,
        "--homedir",
        home,
        *_COMMON,
        "--cipher-algo",
        "AES256",
        # The engine compresses where that helps; here it would cost six times the encryption itself.
        "--compress-algo",
        "none",
        # The count is always given, as gpg would otherwise ask an agent to measure one.
        "--s2k-mode",
        "3",
        "--s2k-digest-algo",
        "SHA256",
        "--s2k-cipher-algo",
        "AES256",
        "--s2k-count",
        str(s2k_count),
        *(["--armor"] if armor else []),
        "--output",
        "-",
        "--symmetric",
    ]


def decrypt_arguments(program: str, home: str) -> list[str]:
    """Decrypt stdin to stdout with the passphrase on ``{secret_fd}``."""
    return [program, "--homedir", home, *_COMMON, "--output", "-", "--decrypt"]


class Gpg:
    """gpg with a home of its own, that no user configuration reaches and that is gone afterwards.

    Use as a context manager. One home serves many children at once.
    """

    def __init__(self, program: str = "gpg"):
        self.program = find_program(program, "Install the package gnupg (gpg).")
        self.version = _version(self.program)
        self._home: str | None = None
        self._claim = -1
        self._in_memory = False

    def __enter__(self) -> Gpg:
        self._home, self._claim, self._in_memory = _make_home()
        return self

    def __exit__(self, *_exc: object) -> None:
        home, self._home = self._home, None
        if home is not None:
            try:
                _remove_home(home)
            finally:
                os.close(self._claim)

    @property
    def home(self) -> str:
        """The throw-away GNUPGHOME, mode 0700; only inside ``with``."""
        if self._home is None:
            raise RuntimeError("Gpg is used outside its context")
        return self._home

    @property
    def in_memory(self) -> bool:
        """True when the home is on tmpfs, so that nothing in it reaches a disk (swap aside)."""
        return self._in_memory

    def encrypting(self, passphrase: bytes, stdin: int | None, stdout: int | None, timeout: float) -> Child:
        """A child that encrypts ``stdin`` to ``stdout``. Stream, close its stdin, then call ``check``."""
        return Child(
            encrypt_arguments(self.program, self.home),
            stdin=stdin,
            stdout=stdout,
            secret=_usable(passphrase),
            timeout=timeout,
        )

    def decrypting(self, passphrase: bytes, stdin: int | None, stdout: int | None, timeout: float) -> Child:
        """A child that decrypts ``stdin`` to ``stdout``. Stream to the end, then call ``check``.

        Until ``check`` has returned, what came out is unproven: gpg writes before it knows. When
        ``stdout`` is a file, compare its size or hash as well: gpg 2.2 ends with 0 when the disk is
        full at the last buffer. From a pipe nothing is lost unnoticed.
        """
        return Child(
            decrypt_arguments(self.program, self.home),
            stdin=stdin,
            stdout=stdout,
            secret=_usable(passphrase),
            timeout=timeout,
        )

    def encrypt_bytes(self, data: bytes, passphrase: bytes, what: str = "data", timeout: float = 600.0) -> bytes:
        """Encrypt something small, all in memory."""
        with self.encrypting(passphrase, subprocess.PIPE, subprocess.PIPE, timeout) as child:
            return _through(child, data, what)

    def encrypt_text(self, data: bytes, passphrase: bytes, what: str = "text", timeout: float = 600.0) -> str:
        """Encrypt something small to an armored message, with a passphrase that a person may have thought up."""
        arguments = encrypt_arguments(self.program, self.home, armor=True, s2k_count=S2K_COUNT_HUMAN)
        with Child(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, secret=_usable(passphrase), timeout=timeout
        ) as child:
            return _through(child, data, what).decode("ascii")

    def decrypt_bytes(self, data: bytes, passphrase: bytes, what: str = "data", timeout: float = 600.0) -> bytes:
        """Decrypt something small, all in memory; nothing is returned unless it is proven whole."""
        with self.decrypting(passphrase, subprocess.PIPE, subprocess.PIPE, timeout) as child:
            return _through(child, data, what)


def check(child: Child, what: str) -> None:
    """Wait for gpg and raise unless it did all of its work.

    ``KeyProviderError``: the passphrase does not fit. ``IntegrityError``: the data is damaged, cut,
    unprotected or not encrypted at all. ``GuardError``: gpg itself could not work (killed, disk full).
    An exit code of 0 is not enough: ``gpg --decrypt`` also ends with 0 on a message that was never
    encrypted, and whoever can write to the repository could put one there.
    """
    rc = child.wait()
    if child.timed_out:
        raise GuardError(
            what,
            f"gpg to end within {child.timeout:g} s",
            "it still running; it was killed",
            "Is the disk or the network very slow? Raise the time limit.",
        )
    if rc < 0:
        raise GuardError(
            what,
            "gpg to end by itself",
            f"it killed by {_signal_name(-rc)}",
            "The kernel's log says whether memory ran out.",
        )
    text = child.errors()
    if "--decrypt" in child.argv:
        check_decryption(rc, text, what)
    elif rc != 0 or [line[0] for line in status_lines(text)].count("END_ENCRYPTION") != 1:
        raise GuardError(what, "gpg to encrypt it", f"exit code {rc}: {human_lines(text)}")


def check_decryption(rc: int, text: str, what: str) -> None:
    """Judge a decryption by gpg's exit code and its stderr, which carries the status lines as well."""
    # gpg 2.4 repeats its exit code as a status line, whatever the reason.
    status = [line for line in status_lines(text) if line[:2] != ["FAILURE", "gpg-exit"]]
    names = [line[0] for line in status]
    protection = [line[1:4] for line in status if line[0] == "DECRYPTION_INFO"]
    protected = len(protection) == 1 and _is_protected(protection[0])
    # Exactly this order and nothing twice: one encrypted message, its one content inside it, then
    # the proof. A second or an unencrypted content beside it would change the sequence.
    proof = [name for name in names if name in _DECRYPTION_STEPS]
    if protected and proof == list(_DECRYPTION_STEPS) and not _BAD_NEWS.intersection(names):
        if rc == 0:
            return
        raise GuardError(what, "gpg to write what it decrypted", f"exit code {rc}: {human_lines(text)}")
    if protection and not protected:
        raise IntegrityError(
            what,
            "data encrypted with integrity protection",
            "data without it",
            "It was not made by this collection: anybody could have changed it.",
        )
    if any(error_code(line) == BAD_PASSPHRASE for line in status):
        raise KeyProviderError(
            what,
            "the passphrase that encrypted it",
            "one that does not fit",
            "Or its first bytes are damaged: compare its SHA-256 with the manifest.",
        )
    if "BADMDC" in names:
        raise IntegrityError(
            what,
            "the data that was encrypted",
            "changed or cut data",
            "Restore this object from another copy, or use another snapshot.",
        )
    if "DECRYPTION_OKAY" not in names and ("BEGIN_DECRYPTION" not in names or "NODATA" in names):
        raise IntegrityError(
            what,
            "an encrypted OpenPGP message",
            human_lines(text) or "none",
            "The object is cut, damaged or not encrypted at all.",
        )
    raise IntegrityError(
        what,
        "one message that gpg proves whole",
        f"exit code {rc}: {human_lines(text)}",
        "Restore this object from another copy, or use another snapshot.",
    )


_DECRYPTION_STEPS = ("BEGIN_DECRYPTION", "PLAINTEXT", "DECRYPTION_OKAY", "END_DECRYPTION")
_BAD_NEWS = {"BADMDC", "DECRYPTION_FAILED", "ERROR", "FAILURE", "NODATA", "UNEXPECTED"}


def _is_protected(info: list[str]) -> bool:
    """``DECRYPTION_INFO <mdc method> <cipher> [<aead algorithm>]``: one of the two methods is not 0."""
    return any(value.isdigit() and int(value) > 0 for value in info[:1] + info[2:3])


def status_lines(text: str) -> list[list[str]]:
    """gpg's machine-readable lines; it percent-escapes what comes from inside a message."""
    mark = "[GNUPG:] "
    return [line[len(mark) :].split(" ") for line in text.split("\n") if line.startswith(mark) and line != mark]


def error_code(line: list[str]) -> int:
    """The number in ``ERROR <where> <code>``, as 11_BAD_PASSPHRASE or with its source in the higher bits; else 0."""
    number = line[2].split("_")[0] if line[0] == "ERROR" and len(line) > 2 else ""
    return int(number) & 0xFFFF if number.isdigit() else 0


def human_lines(text: str) -> str:
    """What gpg said to people, on one line."""
    lines = [line for line in text.split("\n") if line and not line.startswith("[GNUPG:]")]
    return "; ".join(line.replace("gpg: ", "", 1) for line in lines[-3:])


def _through(child: Child, data: bytes, what: str) -> bytes:
    output, _none = child.process.communicate(data)
    check(child, what)
    return output


def _usable(passphrase: bytes) -> bytes:
    """Refuse what gpg would silently cut: it stops reading at a line's end."""
    if not re.fullmatch(rb"[\x21-\x7e]{1,255}", passphrase):
        raise KeyProviderError(
            "passphrase",
            "1 to 255 printable ASCII characters without a space",
            f"{len(passphrase)} bytes, some of them others",
            "Check the key provider's settings and its key.",
        )
    return passphrase


def _version(program: str) -> tuple[int, ...]:
    result = run([program, "--version"], timeout=30)
    found = re.match(rb"gpg \(GnuPG[^)]*\) (\d+)\.(\d+)\.(\d+)", result.stdout)
    needed = ".".join(str(number) for number in MINIMUM_VERSION)
    if result.rc != 0 or not found:
        raise GuardError(
            program,
            f"GnuPG {needed} or newer",
            f"exit code {result.rc}: {human_lines(result.stderr)}",
            "Install the package gnupg (gpg).",
        )
    version = tuple(int(number) for number in found.groups())
    if version < MINIMUM_VERSION:
        raise GuardError(
            program,
            f"GnuPG {needed} or newer",
            ".".join(str(number) for number in version),
            "Upgrade gpg: older ones accept data without integrity protection.",
        )
    return version


def _make_home() -> tuple[str, int, bool]:
    """(path, claim, whether it is in memory) of a new private directory; the path is short for agents' sockets.

    Homes of runs that were killed are removed: they may hold keys, and an agent may still serve them.
    """
    parent = memory_directory()
    place = parent or tempfile.gettempdir()
    remove_abandoned(place, _HOME_PREFIX, _remove_home)
    return (*claimed_directory(place, _HOME_PREFIX), bool(parent))


def _remove_home(home: str) -> None:
    """End what listens in ``home`` (key providers may have needed an agent), then remove it."""
    socket = os.path.join(home, "S.gpg-agent")
    if os.path.exists(socket):
        run([find_program("gpgconf"), "--homedir", home, "--kill", "all"], timeout=30)
    # The agent unlinks its sockets while it ends, so the tree may change under our hands.
    for _attempt in range(50):
        shutil.rmtree(home, ignore_errors=True)
        if not os.path.exists(home):
            return
        time.sleep(0.1)
    raise GuardError(
        home, "a throw-away directory that can be removed", "it still there", "Remove it by hand: it may hold keys."
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
