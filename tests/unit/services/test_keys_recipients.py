# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key provider gpg_recipients with real keys: who can unwrap, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError, KeyProviderError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.base import bound
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.gpg_recipients import GpgRecipients
from support.keyring import KeyRing, WatchedProgram, living, run_by_hand, tree_bytes, write_manifest

CONTEXT = {"instance": "guard-1", "layer": "logs", "snapshot": "000042"}
OTHER = {**CONTEXT, "snapshot": "000041"}
PRIVATE_PASSPHRASE = "private key's passphrase 密"


@pytest.fixture
def gpg():
    with Gpg() as it:
        yield it


@pytest.fixture(scope="module")
def ring():
    ring = KeyRing()
    try:
        ring.make("owner")
        ring.make("deputy", PRIVATE_PASSPHRASE)
        ring.make("signer", "", "sign")
        ring.make("late", "", "default", "--faked-system-time", "20200101T000000!", expires="2020-06-01")
        yield ring
    finally:
        ring.remove()


@pytest.fixture
def owner(ring, tmp_path):
    return ring.public("owner", tmp_path)


class TestRecipients:
    def test_round_trip(self, gpg, ring, owner, tmp_path):
        provider = GpgRecipients([owner], gpg, private_key_file=ring.private("owner", tmp_path))
        key = provider.new_key(CONTEXT)
        assert json.loads(json.dumps(key.wrapped)) == key.wrapped
        assert provider.can_unwrap
        assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase
        assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase

    def test_any_recipient_can_unwrap(self, gpg, ring, owner, tmp_path):
        key = GpgRecipients([owner, ring.public("deputy", tmp_path)], gpg).new_key(CONTEXT)
        assert len(key.wrapped["key_ids"]) == 2
        for name in ("owner", "deputy"):
            with Gpg() as other:
                provider = GpgRecipients(
                    [],
                    other,
                    private_key_file=ring.private(name, tmp_path),
                    private_key_passphrase=ring.passphrases[name],
                )
                assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase

    def test_of_another_snapshot(self, gpg, ring, owner, tmp_path):
        provider = GpgRecipients([owner], gpg, private_key_file=ring.private("owner", tmp_path))
        with pytest.raises(IntegrityError, match="snapshot=000042"):
            provider.unwrap(provider.new_key(CONTEXT).wrapped, OTHER)

    def test_a_host_without_private_key(self, gpg, owner):
        provider = GpgRecipients([owner], gpg)
        key = provider.new_key(CONTEXT)
        assert not provider.can_unwrap
        with pytest.raises(KeyProviderError, match="none on this host"):
            provider.unwrap(key.wrapped, CONTEXT)

    def test_somebody_elses_private_key(self, gpg, ring, owner, tmp_path):
        provider = GpgRecipients([owner], gpg, private_key_file=ring.private("signer", tmp_path))
        with pytest.raises(KeyProviderError, match="none of them"):
            provider.unwrap(provider.new_key(CONTEXT).wrapped, CONTEXT)

    @pytest.mark.parametrize(
        ("passphrase", "found"), [(None, "found none"), ("wrong", "does not fit"), ("two\nlines", "line breaks")]
    )
    def test_private_key_locked(self, gpg, ring, tmp_path, passphrase, found):
        provider = GpgRecipients(
            [ring.public("deputy", tmp_path)],
            gpg,
            private_key_passphrase=passphrase,
            private_key_file=ring.private("deputy", tmp_path),
        )
        with pytest.raises(KeyProviderError, match=found):
            provider.unwrap(provider.new_key(CONTEXT).wrapped, CONTEXT)

    def test_damaged(self, gpg, ring, owner, tmp_path):
        provider = GpgRecipients([owner], gpg, private_key_file=ring.private("owner", tmp_path))
        wrapped = provider.new_key(CONTEXT).wrapped
        lines = wrapped["pgp_message"].split("\n")
        lines[-4] = lines[-4][::-1]
        with pytest.raises((IntegrityError, KeyProviderError)):
            provider.unwrap({**wrapped, "pgp_message": "\n".join(lines)}, CONTEXT)

    def test_never_encrypted(self, gpg, ring, owner, tmp_path):
        provider = GpgRecipients([owner], gpg, private_key_file=ring.private("owner", tmp_path))
        wrapped = provider.new_key(CONTEXT).wrapped
        forged = ring.gpg("--armor", "--store", data=bound(b"forged", CONTEXT)).decode()
        with pytest.raises(IntegrityError):
            provider.unwrap({**wrapped, "pgp_message": forged}, CONTEXT)

    def test_expired(self, gpg, ring, tmp_path):
        with pytest.raises(KeyProviderError, match="expired on 2020-0"):
            GpgRecipients([ring.public("late", tmp_path)], gpg)

    def test_cannot_encrypt(self, gpg, ring, tmp_path):
        with pytest.raises(KeyProviderError, match="can encrypt"):
            GpgRecipients([ring.public("signer", tmp_path)], gpg)

    def test_expired_since_the_start(self, gpg, ring, owner, tmp_path):
        """All recipients or none: nobody is left out in silence."""
        provider = GpgRecipients([owner], gpg)
        provider._keys.import_keys(Path(ring.public("late", tmp_path)).read_bytes())
        late = [key["fingerprint"] for key in provider._keys.list_keys() if key["trust"] == "e"]
        provider.fingerprints += late
        with pytest.raises(KeyProviderError, match="all of them"):
            provider.new_key(CONTEXT)

    def test_private_key_given_as_public(self, gpg, ring, tmp_path):
        with pytest.raises(KeyProviderError, match="found a private key"):
            GpgRecipients([ring.private("owner", tmp_path)], gpg)

    def test_public_key_given_as_private(self, gpg, owner):
        provider = GpgRecipients([owner], gpg, private_key_file=owner)
        with pytest.raises(KeyProviderError, match="private key"):
            provider.unwrap(provider.new_key(CONTEXT).wrapped, CONTEXT)

    def test_not_a_key(self, gpg, tmp_path):
        (tmp_path / "junk").write_text("junk")
        with pytest.raises(KeyProviderError, match="OpenPGP public key"):
            GpgRecipients([str(tmp_path / "junk")], gpg)
        with pytest.raises(KeyProviderError, match="No such file"):
            GpgRecipients([str(tmp_path / "none")], gpg)

    def test_no_recipient(self, gpg, ring, tmp_path):
        with pytest.raises(KeyProviderError, match="public_key_files"):
            GpgRecipients([], gpg, private_key_file=ring.private("owner", tmp_path)).new_key(CONTEXT)

    @pytest.mark.parametrize("indent", [None, 2])
    def test_by_hand(self, gpg, ring, owner, tmp_path, indent):
        provider = GpgRecipients([owner], gpg)
        key = provider.new_key(CONTEXT)
        write_manifest(tmp_path, key.wrapped, indent)
        output = run_by_hand(provider.by_hand(CONTEXT), tmp_path, {"GNUPGHOME": ring.home})
        assert output == key.passphrase + b"\n"

    def test_with_an_existing_home(self, gpg, ring, owner):
        provider = GpgRecipients([owner], gpg, gpg_home=ring.home)
        key = provider.new_key(CONTEXT)
        ring.stop_agent()
        assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase
        assert not living(f"--homedir {ring.home}"), "an agent that was not there before is ended"

    def test_an_agent_of_the_user_stays(self, gpg, ring, owner):
        provider = GpgRecipients([owner], gpg, gpg_home=ring.home)
        key = provider.new_key(CONTEXT)
        ring.gpg("--list-secret-keys")
        subprocess.run(["gpgconf", "--homedir", ring.home, "--launch", "gpg-agent"], check=True)
        before = living(f"--homedir {ring.home}")
        assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase
        assert len(before) == 1
        assert living(f"--homedir {ring.home}") == before

    def test_no_such_home(self, gpg, owner, tmp_path):
        with pytest.raises(KeyProviderError, match="no such directory"):
            GpgRecipients([owner], gpg, gpg_home=str(tmp_path / "none"))

    def test_nothing_secret_is_seen(self, ring, owner, tmp_path):
        watched = WatchedProgram("gpg", tmp_path)
        public, private = ring.public("deputy", tmp_path), ring.private("deputy", tmp_path)
        with Gpg(watched.path) as gpg:
            provider = GpgRecipients(
                [owner, public], gpg, private_key_file=private, private_key_passphrase=PRIVATE_PASSPHRASE
            )
            key = provider.new_key(CONTEXT)
            assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase
            left = tree_bytes(gpg.home)
            home = gpg.home
        seen = watched.seen()
        assert b"--encrypt" in seen
        assert b"--decrypt" in seen
        for secret in (key.passphrase, PRIVATE_PASSPHRASE.encode()):
            assert secret not in seen + left
        assert not os.path.exists(home)
        assert not living(home)
