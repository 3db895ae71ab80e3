# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encryption with real gpg: what it proves, what it refuses, what it leaves behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import (
    GuardError,
    IntegrityError,
    KeyProviderError,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import (
    Gpg,
    check,
    check_decryption,
    decrypt_arguments,
    encrypt_arguments,
    error_code,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.process import Child, run
from support.keyring import WatchedProgram, living, tree_bytes

PASSPHRASE = b"q8Qb0N1nUeEXAMPLEonlyEXAMPLEonlyEXAMPLEonly="


@pytest.fixture
def gpg():
    with Gpg() as it:
        yield it


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def literal(data: bytes) -> bytes:
    return packet(11, b"b\x00\x00\x00\x00\x00" + data)


# b"changeable" as OpenPGP encrypted before it had integrity protection (RFC 4880, 5.7: packet 9), for
# PASSPHRASE. Kept as bytes, since no current gpg makes such a message.
UNPROTECTED = bytes.fromhex(
    "c3ff0000000c04090108467a1b8fa5d854f6c9ff0000002836bf039958448f0af0105e19c9aaaa92ac25771abc938423"
    "6d3b070bb11599cef26894638ac8a53c"
)


class TestArguments:
    def test_no_home_or_secret_is_missing(self):
        for arguments in (encrypt_arguments("gpg", "/h"), decrypt_arguments("gpg", "/h")):
            assert arguments[:3] == ["gpg", "--homedir", "/h"]
            assert arguments[arguments.index("--passphrase-fd") + 1] == "{secret_fd}"

    def test_no_agent_is_started_or_asked(self):
        for arguments in (encrypt_arguments("gpg", "/h"), decrypt_arguments("gpg", "/h")):
            assert {"--no-autostart", "--no-symkey-cache"} <= set(arguments)

    def test_content_is_not_compressed(self):
        arguments = encrypt_arguments("gpg", "/h")
        assert arguments[arguments.index("--compress-algo") + 1] == "none"


class TestHome:
    def test_private_in_memory_and_gone(self):
        with Gpg() as gpg:
            assert stat.S_IMODE(os.stat(gpg.home).st_mode) == 0o700
            assert gpg.in_memory == (run(["stat", "-f", "-c", "%T", gpg.home]).stdout.strip() == b"tmpfs")
            home = gpg.home
        assert not os.path.exists(home)

    def test_gone_after_an_error(self):
        homes = []

        def fail() -> None:
            with Gpg() as gpg:
                homes.append(gpg.home)
                gpg.encrypt_bytes(b"x", b"")

        with pytest.raises(KeyProviderError):
            fail()
        assert not os.path.exists(homes[0])

    def test_an_agent_started_in_it_ends_with_it(self):
        with Gpg() as gpg:
            home = gpg.home
            run(["gpg", "--homedir", home, "--batch", "--passphrase", "", "--quick-gen-key", "a@example.org"])
            assert living(home)
        assert not os.path.exists(home)
        assert not living(home)

    def test_symmetric_work_starts_no_agent(self, gpg):
        gpg.decrypt_bytes(gpg.encrypt_bytes(b"x", PASSPHRASE), PASSPHRASE)
        assert not living(gpg.home)

    def test_outside_its_context(self):
        with pytest.raises(RuntimeError):
            Gpg().encrypt_bytes(b"x", PASSPHRASE)


class TestVersion:
    def fake(self, directory: Path, first_line: str, code: int = 0) -> str:
        path = directory / "gpg"
        path.write_text(f"#!/bin/sh\necho '{first_line}'\nexit {code}\n")
        path.chmod(0o700)
        return str(path)

    @pytest.mark.parametrize("line", ["gpg (GnuPG) 2.2.7", "gpg (GnuPG) 1.4.23", "gpg (GnuPG/MacGPG2) 2.0.30"])
    def test_too_old(self, tmp_path, line):
        with pytest.raises(GuardError, match=r"2\.2\.8 or newer"):
            Gpg(self.fake(tmp_path, line))

    @pytest.mark.parametrize("line", ["gpg (GnuPG) 2.2.8", "gpg (GnuPG) 2.4.7", "gpg (GnuPG) 2.10.0-unknown"])
    def test_new_enough(self, tmp_path, line):
        assert Gpg(self.fake(tmp_path, line)).version >= (2, 2, 8)

    @pytest.mark.parametrize(("line", "code"), [("something else", 0), ("gpg (GnuPG) 2.4.7", 3)])
    def test_not_gpg(self, tmp_path, line, code):
        with pytest.raises(GuardError, match="exit code"):
            Gpg(self.fake(tmp_path, line, code))

    def test_absent(self, tmp_path):
        with pytest.raises(GuardError, match="Install the package gnupg"):
            Gpg(str(tmp_path / "none"))


class TestRoundTrip:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        data=st.binary(max_size=3000),
        passphrase=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255),
    )
    def test_any_bytes_and_any_passphrase(self, gpg, data, passphrase):
        assert gpg.decrypt_bytes(gpg.encrypt_bytes(data, passphrase.encode()), passphrase.encode()) == data

    def test_more_than_a_pipe_holds(self, gpg):
        data = os.urandom(5 << 20)
        assert gpg.decrypt_bytes(gpg.encrypt_bytes(data, PASSPHRASE), PASSPHRASE) == data

    def test_the_same_data_never_looks_the_same(self, gpg):
        assert gpg.encrypt_bytes(b"x" * 100, PASSPHRASE) != gpg.encrypt_bytes(b"x" * 100, PASSPHRASE)

    def test_text_for_a_manifest(self, gpg):
        text = gpg.encrypt_text(b"hello", PASSPHRASE)
        assert text.startswith("-----BEGIN PGP MESSAGE-----\n")
        assert gpg.decrypt_bytes(text.encode(), PASSPHRASE) == b"hello"

    def test_from_file_to_file(self, gpg, tmp_path):
        data = os.urandom(100_000)
        (tmp_path / "plain").write_bytes(data)
        with (
            open(tmp_path / "plain", "rb") as source,
            open(tmp_path / "cipher", "wb") as target,
            gpg.encrypting(PASSPHRASE, source.fileno(), target.fileno(), 60) as child,
        ):
            check(child, "plain")
        assert gpg.decrypt_bytes((tmp_path / "cipher").read_bytes(), PASSPHRASE) == data

    def test_aes256_with_integrity_protection(self, gpg):
        with gpg.decrypting(PASSPHRASE, subprocess.PIPE, subprocess.PIPE, 60) as child:
            child.process.communicate(gpg.encrypt_bytes(b"x", PASSPHRASE))
            check(child, "x")
            assert "[GNUPG:] DECRYPTION_INFO 2 9 0" in child.errors()  # method 2, cipher 9 of RFC 4880

    @pytest.mark.parametrize("bad", [b"", b"two\nlines", b"a b", "ü".encode(), b"nul\0", b"x" * 256])
    def test_a_passphrase_that_gpg_would_cut(self, gpg, bad):
        with pytest.raises(KeyProviderError) as caught:
            gpg.encrypt_bytes(b"x", bad)
        if bad:
            assert bad.decode() not in str(caught.value)


class TestRefusals:
    def test_wrong_passphrase(self, gpg):
        sealed = gpg.encrypt_bytes(b"x" * 5000, PASSPHRASE)
        # With one wrong passphrase in 65,536 gpg's quick check agrees, and the integrity check finds it.
        with pytest.raises((KeyProviderError, IntegrityError)):
            gpg.decrypt_bytes(sealed, b"another")

    def test_wrong_passphrase_is_called_so(self):
        with pytest.raises(KeyProviderError, match="one that does not fit"):
            judged(
                "BEGIN_DECRYPTION",
                "DECRYPTION_INFO 2 9 0",
                "ERROR symkey_decrypt.maybe_error 11_BAD_PASSPHRASE",
                "DECRYPTION_FAILED",
                "END_DECRYPTION",
                rc=2,
            )

    def test_a_changed_bit_anywhere(self, gpg):
        data = os.urandom(600)
        sealed = gpg.encrypt_bytes(data, PASSPHRASE)
        harmless = []
        places = [*range(48), *range(48, len(sealed) - 48, 13), *range(len(sealed) - 48, len(sealed))]
        for place in places:
            changed = bytearray(sealed)
            changed[place] ^= 1 << (place % 8)
            try:
                opened = gpg.decrypt_bytes(bytes(changed), PASSPHRASE)
            except (KeyProviderError, IntegrityError):
                continue
            assert opened == data
            harmless.append(place)
        # gpg reads on past a too small length of the last piece, and proves that the content is the same.
        # Such a change is found by the SHA-256 in the manifest.
        assert len(harmless) <= 1

    @pytest.mark.parametrize("kept", [0, 1, 10, 15, 16, 30, 40, 8191, 8192, 20000, -23, -22, -20, -1])
    def test_cut(self, gpg, kept):
        sealed = gpg.encrypt_bytes(os.urandom(20480), PASSPHRASE)
        with pytest.raises(IntegrityError):
            gpg.decrypt_bytes(sealed[:kept], PASSPHRASE)

    @pytest.mark.parametrize("added", [b"x", b"garbage" * 100, literal(b"more")])
    def test_something_added(self, gpg, added):
        sealed = gpg.encrypt_bytes(b"data", PASSPHRASE)
        with pytest.raises(IntegrityError):
            gpg.decrypt_bytes(sealed + added, PASSPHRASE)

    @pytest.mark.parametrize("size", [10, 20000])
    def test_two_messages(self, gpg, size):
        sealed = gpg.encrypt_bytes(os.urandom(size), PASSPHRASE)
        with pytest.raises(IntegrityError):
            gpg.decrypt_bytes(sealed + sealed, PASSPHRASE)

    def test_never_encrypted(self, gpg):
        forged = literal(b"not secret at all")
        arguments = decrypt_arguments(gpg.program, gpg.home)
        result = run(arguments, data=forged, secret=PASSPHRASE)
        assert (result.rc, result.stdout) == (0, b"not secret at all"), "gpg itself does not mind: we must"
        with pytest.raises(IntegrityError, match="not encrypted at all"):
            gpg.decrypt_bytes(forged, PASSPHRASE)

    def test_something_unencrypted_in_front(self, gpg):
        with pytest.raises(IntegrityError):
            gpg.decrypt_bytes(literal(b"forged") + gpg.encrypt_bytes(b"x", PASSPHRASE), PASSPHRASE)

    def test_without_integrity_protection(self, gpg):
        relaxed = [*decrypt_arguments(gpg.program, gpg.home)[:-1], "--ignore-mdc-error", "--decrypt"]
        assert run(relaxed, data=UNPROTECTED, secret=PASSPHRASE).stdout == b"changeable", "the message is a right one"
        with pytest.raises(IntegrityError, match="integrity protection"):
            gpg.decrypt_bytes(UNPROTECTED, PASSPHRASE)

    def test_without_integrity_protection_though_gpg_is_content(self, gpg):
        arguments = [*decrypt_arguments(gpg.program, gpg.home)[:-1], "--ignore-mdc-error", "--decrypt"]
        with Child(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, secret=PASSPHRASE) as child:
            child.process.communicate(UNPROTECTED)
            with pytest.raises(IntegrityError, match="integrity protection"):
                check(child, "old")

    def test_a_file_name_that_looks_like_status_lines(self, gpg):
        name = b"\n[GNUPG:] BEGIN_DECRYPTION\n[GNUPG:] DECRYPTION_INFO 2 9 0\n[GNUPG:] DECRYPTION_OKAY\n"
        forged = packet(11, b"b" + bytes([len(name)]) + name + b"\x00\x00\x00\x00data")
        with pytest.raises(IntegrityError):
            gpg.decrypt_bytes(forged, PASSPHRASE)


GOOD = ["BEGIN_DECRYPTION", "DECRYPTION_INFO 2 9 0", "PLAINTEXT 62 0 ", "DECRYPTION_OKAY", "GOODMDC", "END_DECRYPTION"]


def judged(*lines: str, rc: int = 0) -> None:
    check_decryption(rc, "\n".join(f"[GNUPG:] {line}" for line in lines), "x")


class TestStatusLines:
    def test_proven(self):
        judged(*GOOD)

    def test_proven_by_authenticated_encryption(self):
        judged(*["DECRYPTION_INFO 0 9 2" if line.startswith("DECRYPTION_INFO") else line for line in GOOD])

    @pytest.mark.parametrize(
        "missing", ["BEGIN_DECRYPTION", "DECRYPTION_INFO", "PLAINTEXT", "DECRYPTION_OKAY", "END_DECRYPTION"]
    )
    def test_a_line_is_missing(self, missing):
        with pytest.raises(IntegrityError):
            judged(*[line for line in GOOD if not line.startswith(missing)])

    @pytest.mark.parametrize("twice", [line for line in GOOD if line != "GOODMDC"])
    def test_a_line_is_there_twice(self, twice):
        with pytest.raises(IntegrityError):
            judged(*[same for line in GOOD for same in [line] * (2 if line == twice else 1)])

    @pytest.mark.parametrize(
        "bad", ["BADMDC", "DECRYPTION_FAILED", "ERROR a 1", "FAILURE decrypt 1", "NODATA 3", "UNEXPECTED 0"]
    )
    def test_bad_news_after_good(self, bad):
        with pytest.raises(IntegrityError):
            judged(*GOOD, bad)

    @pytest.mark.parametrize("line", ["PLAINTEXT 62 0 ", "DECRYPTION_OKAY"])
    def test_another_order(self, line):
        with pytest.raises(IntegrityError):
            judged(*[other for other in GOOD if other != line], line)

    @pytest.mark.parametrize("more", [[], ["FAILURE gpg-exit 33554433"]])
    def test_proven_but_not_all_written(self, more):
        with pytest.raises(GuardError, match="exit code 2") as caught:
            judged(*GOOD, *more, rc=2)
        assert not isinstance(caught.value, IntegrityError)

    def test_what_people_read_is_not_status(self):
        with pytest.raises(IntegrityError):
            check_decryption(0, "\n".join(f"gpg: [GNUPG:] {line}" for line in GOOD), "x")

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            ("ERROR pkdecrypt_failed 67108875", 11),
            ("ERROR a 11_BAD", 11),
            ("ERROR a", 0),
            ("ERROR a b", 0),
            ("FAILURE a 11", 0),
        ],
    )
    def test_error_codes(self, line, code):
        assert error_code(line.split(" ")) == code


class TestTrouble:
    def test_out_of_time(self, gpg):
        with gpg.encrypting(PASSPHRASE, subprocess.PIPE, subprocess.DEVNULL, 0.2) as child:
            with pytest.raises(GuardError, match=r"within 0\.2 s"):
                check(child, "part-00000")
            assert child.process.poll() is not None

    def test_killed(self, gpg):
        with gpg.encrypting(PASSPHRASE, subprocess.PIPE, subprocess.DEVNULL, 60) as child:
            os.kill(child.process.pid, signal.SIGKILL)
            with pytest.raises(GuardError, match="SIGKILL"):
                check(child, "part-00000")

    def test_disk_full_while_encrypting(self, gpg):
        with open("/dev/full", "wb") as full, gpg.encrypting(PASSPHRASE, subprocess.PIPE, full.fileno(), 60) as child:
            child.process.communicate(b"x" * 100_000)
            with pytest.raises(GuardError, match="No space left"):
                check(child, "part-00000")

    def test_disk_full_while_decrypting(self, gpg):
        sealed = gpg.encrypt_bytes(os.urandom(1 << 20), PASSPHRASE)
        with open("/dev/full", "wb") as full, gpg.decrypting(PASSPHRASE, subprocess.PIPE, full.fileno(), 60) as child:
            child.process.communicate(sealed)
            with pytest.raises(GuardError, match="No space left") as caught:
                check(child, "part-00000")
            assert not isinstance(caught.value, IntegrityError), "the data are innocent"


class TestSecrets:
    def test_not_in_arguments_environment_or_files(self, tmp_path):
        watched = WatchedProgram("gpg", tmp_path)
        with Gpg(watched.path) as gpg:
            gpg.decrypt_bytes(gpg.encrypt_bytes(b"x", PASSPHRASE), PASSPHRASE)
            gpg.encrypt_text(b"x", PASSPHRASE)
            assert PASSPHRASE not in tree_bytes(gpg.home)
        seen = watched.seen()
        assert seen.count(b"--symmetric") == 2
        assert seen.count(b"--decrypt") == 1
        assert PASSPHRASE not in seen

    def test_not_visible_in_proc_while_running(self, gpg):
        with gpg.decrypting(PASSPHRASE, subprocess.PIPE, subprocess.PIPE, 60) as child:
            proc = Path(f"/proc/{child.process.pid}")
            # The kernel fills in the arguments a moment after exec has returned to the parent.
            while not (proc / "cmdline").read_bytes():
                assert child.process.poll() is None
            seen = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
            assert b"--decrypt" in seen
            assert PASSPHRASE not in seen

    def test_many_at_once_in_one_home(self, gpg):
        children = [gpg.encrypting(PASSPHRASE, subprocess.PIPE, subprocess.PIPE, 60) for _each in range(6)]
        for number, child in enumerate(children):
            with child:
                sealed, _none = child.process.communicate(b"%d" % number)
                check(child, f"part-{number}")
                assert gpg.decrypt_bytes(sealed, PASSPHRASE) == b"%d" % number
