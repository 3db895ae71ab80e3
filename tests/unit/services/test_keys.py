# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Key providers without a network: what binds keys to snapshots, key files with real gpg, options."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.guardops.qwen3guard.plugins.doc_fragments.key import ModuleDocFragment
from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError, KeyProviderError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys import aws_kms, gpg_recipients
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.base import (
    DataKey,
    bound,
    context_line,
    new_passphrase,
    unbound,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.gpg_recipients import GpgRecipients
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.key_file import (
    KeyFile,
    make_key_file,
    read_key_file,
)
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import (
    KEY_ARGUMENT_SPEC,
    provider_from_options,
)
from support.keyring import KeyRing, WatchedProgram, living, run_by_hand, tree_bytes, write_manifest

CONTEXT = {"instance": "guard-1", "layer": "logs", "snapshot": "000042"}
OTHER = {**CONTEXT, "snapshot": "000041"}


@pytest.fixture
def gpg():
    with Gpg() as it:
        yield it


@pytest.fixture
def owner(tmp_path):
    ring = KeyRing()
    try:
        ring.make("owner")
        return ring.public("owner", tmp_path)
    finally:
        ring.remove()


@pytest.fixture
def key_file(tmp_path):
    path = str(tmp_path / "key file")
    make_key_file(path)
    return path


class TestBound:
    names = st.text(min_size=1, max_size=20)

    @given(context=st.dictionaries(names, names, min_size=1, max_size=4))
    def test_round_trip(self, context):
        passphrase = new_passphrase()
        plain = bound(passphrase, context)
        assert plain.split(b"\n")[0] == passphrase
        assert plain.count(b"\n") == 2
        assert unbound(plain, context) == passphrase

    @example(one={"a": "b c=d"}, two={"a": "b", "c": "d"})
    @given(
        one=st.dictionaries(names, names, min_size=1, max_size=3),
        two=st.dictionaries(names, names, min_size=1, max_size=3),
    )
    def test_two_contexts_never_look_alike(self, one, two):
        assert (context_line(one) == context_line(two)) == (one == two)

    def test_readable(self):
        assert context_line(CONTEXT) == "context: instance=guard-1 layer=logs snapshot=000042"

    @pytest.mark.parametrize("context", [{}, {"a": ""}, {"": "a"}])
    def test_an_empty_context_binds_nothing(self, context):
        with pytest.raises(KeyProviderError):
            bound(b"p", context)

    @pytest.mark.parametrize(
        "plain",
        [
            b"",
            b"secret",
            b"secret\n",
            b"secret\ncontext: a=b",
            b"secret\ncontext: a=b\nmore\n",
            b"two words\ncontext: a=b\n",
            b"\ncontext: a=b\n",
        ],
    )
    def test_another_form_is_refused_and_not_shown(self, plain):
        with pytest.raises(IntegrityError) as caught:
            unbound(plain, {"a": "b"})
        assert "secret" not in str(caught.value)

    def test_data_keys_hide_their_passphrase(self):
        key = DataKey(b"hush", {"provider": "file"})
        assert "hush" not in f"{key} {key!r} {[key]}"
        assert "file" in repr(key)


class TestKeyFile:
    def test_round_trip(self, gpg, key_file):
        provider = KeyFile(key_file, gpg)
        key = provider.new_key(CONTEXT)
        assert len(key.passphrase) == 44
        assert json.loads(json.dumps(key.wrapped)) == key.wrapped
        assert key.passphrase.decode() not in json.dumps(key.wrapped)
        assert provider.can_unwrap
        assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase

    def test_each_snapshot_has_its_own(self, gpg, key_file):
        provider = KeyFile(key_file, gpg)
        assert provider.new_key(CONTEXT).passphrase != provider.new_key(CONTEXT).passphrase

    def test_of_another_snapshot(self, gpg, key_file):
        provider = KeyFile(key_file, gpg)
        with pytest.raises(IntegrityError, match="snapshot=000042"):
            provider.unwrap(provider.new_key(CONTEXT).wrapped, OTHER)

    def test_another_key_file(self, gpg, key_file, tmp_path):
        wrapped = KeyFile(key_file, gpg).new_key(CONTEXT).wrapped
        make_key_file(str(tmp_path / "other"))
        with pytest.raises((KeyProviderError, IntegrityError), match="other"):
            KeyFile(str(tmp_path / "other"), gpg).unwrap(wrapped, CONTEXT)

    @pytest.mark.parametrize("indent", [None, 2])
    def test_by_hand(self, gpg, key_file, tmp_path, indent):
        provider = KeyFile(key_file, gpg)
        key = provider.new_key(CONTEXT)
        write_manifest(tmp_path, key.wrapped, indent)
        home = KeyRing()
        try:
            output = run_by_hand(provider.by_hand(CONTEXT), tmp_path, {"GNUPGHOME": home.home})
        finally:
            home.remove()
        assert output == key.passphrase + b"\n"
        assert context_line(CONTEXT) in provider.by_hand(CONTEXT)

    def test_nothing_secret_is_seen(self, key_file, tmp_path):
        watched = WatchedProgram("gpg", tmp_path)
        with Gpg(watched.path) as gpg:
            provider = KeyFile(key_file, gpg)
            key = provider.new_key(CONTEXT)
            provider.unwrap(key.wrapped, CONTEXT)
            left = tree_bytes(gpg.home)
            assert not living(gpg.home)
        assert b"--decrypt" in watched.seen()
        for secret in (key.passphrase, read_key_file(key_file)):
            assert secret not in watched.seen() + left

    def test_of_another_provider(self, gpg, key_file):
        provider = KeyFile(key_file, gpg)
        with pytest.raises(KeyProviderError, match="one of 'aws_kms'"):
            provider.unwrap({**provider.new_key(CONTEXT).wrapped, "provider": "aws_kms"}, CONTEXT)

    @pytest.mark.parametrize(
        "wrapped",
        [
            {},
            {"provider": "file"},
            {"provider": "file", "pgp_message": 1},
            {"provider": "file", "pgp_message": ""},
            {"provider": "file", "pgp_message": "no message"},
        ],
    )
    def test_a_forged_manifest(self, gpg, key_file, wrapped):
        with pytest.raises((KeyProviderError, IntegrityError)):
            KeyFile(key_file, gpg).unwrap(wrapped, CONTEXT)


class TestReadKeyFile:
    def write(self, path: Path, content: bytes, mode: int = 0o600) -> str:
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    def test_made_private_and_never_overwritten(self, tmp_path):
        path = tmp_path / "key"
        make_key_file(str(path))
        content = path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(read_key_file(str(path))) == 44
        with pytest.raises(KeyProviderError, match="free"):
            make_key_file(str(path))
        assert path.read_bytes() == content

    @pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o610, 0o601])
    def test_too_open(self, tmp_path, mode):
        with pytest.raises(KeyProviderError, match=f"mode {mode:04o}.*chmod 0600"):
            read_key_file(self.write(tmp_path / "key", b"k" * 40, mode))

    def test_read_only_is_fine(self, tmp_path):
        assert read_key_file(self.write(tmp_path / "key", b"k" * 40, 0o400)) == b"k" * 40

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (b"", "0"),
            (b"\n", "0"),
            (b"k" * 31, "31"),
            (b"k" * 31 + b"\n", "31"),
            (b"k" * 256, "256"),
            (b"k" * 40 + b"\n\n", "other bytes"),
            (b"k" * 40 + b"\nmore", "other bytes"),
            (b"k" * 40 + b"\r\n", "other bytes"),
            (bytes(range(64)), "other bytes"),
            ("ü" * 40, "other bytes"),
            (b"two words " * 5, "other bytes"),
        ],
    )
    def test_content_that_gpg_would_not_read_whole(self, tmp_path, content, found):
        data = content.encode() if isinstance(content, str) else content
        with pytest.raises(KeyProviderError, match=f"found {found}"):
            read_key_file(self.write(tmp_path / "key", data))

    def test_absent(self, tmp_path):
        with pytest.raises(KeyProviderError, match=r"No such file.*Make one with"):
            read_key_file(str(tmp_path / "none"))

    def test_not_a_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe", 0o600)
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(KeyProviderError, match="a regular file"):
                read_key_file(str(path))

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file of another user")
    def test_of_another_user(self, tmp_path):
        path = self.write(tmp_path / "key", b"k" * 40)
        os.chown(path, 12345, -1)
        with pytest.raises(KeyProviderError, match="12345"):
            read_key_file(path)


class TestLibraries:
    def test_no_python_gnupg(self, gpg, owner, monkeypatch):
        monkeypatch.setattr(gpg_recipients, "HAS_GNUPG", False)
        with pytest.raises(KeyProviderError, match="Install python-gnupg"):
            GpgRecipients([owner], gpg)

    def test_another_library_of_that_name(self, monkeypatch):
        import gnupg

        monkeypatch.setattr(gnupg, "__version__", "0.4.9")
        try:
            assert not importlib.reload(gpg_recipients).HAS_GNUPG
        finally:
            monkeypatch.undo()
            importlib.reload(gpg_recipients)

    def test_no_boto3(self, monkeypatch):
        monkeypatch.setattr(aws_kms, "HAS_BOTO3", False)
        with pytest.raises(KeyProviderError, match="Install boto3"):
            aws_kms.AwsKms("alias/x", region="eu-central-1")


class TestOptions:
    def test_each_provider(self, gpg, key_file, owner):
        for options, expected in (
            ({"provider": "file", "key_file": key_file}, "file"),
            ({"provider": "gpg_recipients", "public_key_files": [owner]}, "gpg_recipients"),
            ({"provider": "aws_kms", "kms_key_id": "alias/x", "kms_region": "eu-central-1"}, "aws_kms"),
        ):
            unset = dict.fromkeys(KEY_ARGUMENT_SPEC["key"]["options"])  # as Ansible fills what is not given
            assert provider_from_options({**unset, **options}, gpg).name == expected

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "provider"),
            ({"provider": "vault"}, "one of aws_kms, gpg_recipients, file"),
            ({"provider": "file"}, "key_file"),
            ({"provider": "file", "key_file": ""}, "key_file"),
            ({"provider": "file", "key_file": "/k", "aws_secret_access_key": "hush"}, "found aws_secret_access_key"),
            ({"provider": "aws_kms"}, "kms_key_id"),
            ({"provider": "aws_kms", "kms_key_id": "k", "key_file": "/k"}, "found key_file"),
            ({"provider": "aws_kms", "kms_key_id": "k", "aws_access_key_id": "a"}, "only one"),
            ({"provider": "aws_kms", "kms_key_id": "k", "aws_secret_access_key": "hush"}, "only one"),
            ({"provider": "aws_kms", "kms_key_id": "k", "aws_session_token": "hush"}, "the token alone"),
            (
                {
                    "provider": "aws_kms",
                    "kms_key_id": "k",
                    "aws_profile": "p",
                    "aws_access_key_id": "a",
                    "aws_secret_access_key": "hush",
                },
                "both",
            ),
            ({"provider": "gpg_recipients"}, "none of them"),
            ({"provider": "gpg_recipients", "public_key_files": []}, "none of them"),
            ({"provider": "gpg_recipients", "private_key_file": "/a", "gpg_home": "/b"}, "both"),
            ({"provider": "gpg_recipients", "public_key_files": ["/a"], "private_key_passphrase": "hush"}, "alone"),
        ],
    )
    def test_missing_or_contradicting(self, gpg, options, message):
        with pytest.raises(KeyProviderError, match=message) as caught:
            provider_from_options(options, gpg)
        assert "hush" not in str(caught.value)

    def test_documentation_and_specification_agree(self):
        documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
        compared = ("type", "required", "choices", "elements")
        assert documented.keys() == KEY_ARGUMENT_SPEC.keys()
        spec = KEY_ARGUMENT_SPEC["key"]
        assert {n: documented["key"].get(n) for n in compared} == {n: spec.get(n) for n in compared}
        assert documented["key"]["suboptions"].keys() == spec["options"].keys()
        for name, option in spec["options"].items():
            shown = documented["key"]["suboptions"][name]
            assert {n: shown.get(n) for n in compared} == {n: option.get(n) for n in compared}, name
            assert shown["description"]

    def test_secrets_are_not_logged(self):
        hidden = {name for name, option in KEY_ARGUMENT_SPEC["key"]["options"].items() if option.get("no_log")}
        assert hidden == {"aws_secret_access_key", "aws_session_token", "private_key_passphrase"}


def test_gpgconf_is_there():
    """Without it agents could not be ended; Debian has it in a package of its own."""
    assert shutil.which("gpgconf")
