# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key provider aws_kms against a real KMS server, and against one that refuses."""

from __future__ import annotations

import base64
import http.server
import json
import shlex
import socket
import threading

import boto3
import botocore.session
import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import IntegrityError, KeyProviderError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.gpg import Gpg
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.aws_kms import AwsKms
from ansible_collections.guardops.qwen3guard.plugins.module_utils.services.keys.options import provider_from_options
from support.keyring import run_by_hand
from support.kms import Kms

CONTEXT = {"instance": "guard 1", "layer": "logs", "snapshot": "000042"}


@pytest.fixture(scope="module")
def server():
    with Kms() as it:
        yield it


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch, tmp_path):
    """Credentials of whoever runs the tests must not decide them."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_ENDPOINT_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def provider_at(url: str, key_id: str = "alias/guard", **more: str | None) -> AwsKms:
    settings = {"region": "us-east-1", "access_key": "AKEXAMPLE", "secret_key": "hush-hush", **more}
    return AwsKms(key_id, endpoint_url=url, **settings)


@pytest.fixture
def provider(server):
    return provider_at(server.endpoint_url, server.key_id)


def test_round_trip(provider, server):
    key = provider.new_key(CONTEXT)
    assert len(base64.b64decode(key.passphrase, validate=True)) == 32
    assert json.loads(json.dumps(key.wrapped)) == key.wrapped
    assert server.key_id in key.wrapped["key_id"]
    assert key.passphrase.decode() not in json.dumps(key.wrapped)
    assert provider.can_unwrap
    assert provider.unwrap(key.wrapped, CONTEXT) == key.passphrase


def test_each_snapshot_has_its_own(provider):
    assert provider.new_key(CONTEXT).passphrase != provider.new_key(CONTEXT).passphrase


def test_from_options(server):
    options = {
        "provider": "aws_kms",
        "kms_key_id": server.key_id,
        "kms_endpoint_url": server.endpoint_url,
        "kms_region": server.region,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
    }
    with Gpg() as gpg:
        made = provider_from_options(options, gpg)
        key = made.new_key(CONTEXT)
        sealed = gpg.encrypt_bytes(b"index", key.passphrase)
        assert gpg.decrypt_bytes(sealed, made.unwrap(key.wrapped, CONTEXT)) == b"index"


def test_from_a_profile(server, tmp_path):
    (tmp_path / "credentials").write_text(
        f"[backup]\naws_access_key_id={server.access_key}\naws_secret_access_key={server.secret_key}\n"
    )
    made = provider_at(server.endpoint_url, server.key_id, access_key=None, secret_key=None, profile="backup")
    key = made.new_key(CONTEXT)
    assert made.unwrap(key.wrapped, CONTEXT) == key.passphrase


@pytest.mark.parametrize("context", [{**CONTEXT, "snapshot": "000041"}, {"instance": "guard 1"}, {}])
def test_of_another_snapshot(provider, context):
    wrapped = provider.new_key(CONTEXT).wrapped
    with pytest.raises(KeyProviderError, match="of another snapshot"):
        provider.unwrap(wrapped, context)


def test_wrapped_by_another_key(provider, server):
    """A forged manifest could name its forger's key, which KMS may be able to use."""
    other = provider_at(server.endpoint_url, server.make_key())
    # AWS says IncorrectKeyException here, moto says AccessDeniedException.
    with pytest.raises(KeyProviderError, match=r"another KMS key|access denied"):
        provider.unwrap(other.new_key(CONTEXT).wrapped, CONTEXT)


def test_damaged(provider):
    wrapped = provider.new_key(CONTEXT).wrapped
    blob = bytearray(base64.b64decode(wrapped["kms_ciphertext"]))
    blob[-1] ^= 1
    with pytest.raises(KeyProviderError, match="damaged"):
        provider.unwrap({**wrapped, "kms_ciphertext": base64.b64encode(blob).decode()}, CONTEXT)
    with pytest.raises(IntegrityError, match="base64"):
        provider.unwrap({**wrapped, "kms_ciphertext": wrapped["kms_ciphertext"] + "!"}, CONTEXT)
    with pytest.raises(KeyProviderError, match="'file'"):
        provider.unwrap({**wrapped, "provider": "file"}, CONTEXT)


def test_no_such_key(server):
    with pytest.raises(KeyProviderError, match=r"no such key.*kms_region"):
        provider_at(server.endpoint_url, "alias/none").new_key(CONTEXT)


def test_unreachable():
    with socket.socket() as held:  # bound and not listening: connections are refused, and nobody takes the port
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(KeyProviderError, match=f"no answer from http://127.0.0.1:{port}"):
            provider_at(f"http://127.0.0.1:{port}").new_key(CONTEXT)


def test_no_credentials():
    with pytest.raises(KeyProviderError, match=r"no usable credentials.*aws_access_key_id"):
        provider_at("http://127.0.0.1:9", access_key=None, secret_key=None).new_key(CONTEXT)


def test_no_region():
    with pytest.raises(KeyProviderError, match="kms_region"):
        provider_at("http://127.0.0.1:9", region=None)


def test_no_such_profile():
    with pytest.raises(KeyProviderError, match="absent"):
        provider_at("http://127.0.0.1:9", access_key=None, secret_key=None, profile="absent")


def test_not_an_address():
    with pytest.raises(KeyProviderError, match="kms_endpoint_url"):
        provider_at("not an address")


class Refuser(http.server.BaseHTTPRequestHandler):
    """Answers each request with the error that its server was told."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"__type": self.server.code, "message": "User: x is not authorized"}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def refuser():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuser) as it:
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        yield it
        it.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", "access denied.*kms:GenerateDataKey"),
        ("DisabledException", "a disabled key.*Enable it"),
        ("IncorrectKeyException", "another KMS key"),
        ("KMSInvalidStateException", "deletion"),
        ("ExpiredTokenException", "expired credentials"),
        ("UnrecognizedClientException", "unknown credentials"),
        ("InvalidSignatureException", "does not fit"),
        ("SomethingNewException", "SomethingNewException"),
    ],
)
def test_refused(refuser, code, message):
    refuser.code = code
    with pytest.raises(KeyProviderError, match=f"alias/guard.*{message}") as caught:
        provider_at(f"http://127.0.0.1:{refuser.server_port}").new_key(CONTEXT)
    assert "hush-hush" not in str(caught.value)


def test_disabled_since_the_backup(provider, refuser):
    """moto does not refuse disabled keys, so a real refusal comes from the other server."""
    wrapped = provider.new_key(CONTEXT).wrapped
    refuser.code = "DisabledException"
    with pytest.raises(KeyProviderError, match=r"a disabled key.*nothing can be read"):
        provider_at(f"http://127.0.0.1:{refuser.server_port}").unwrap(wrapped, CONTEXT)


def test_by_hand(provider, server, tmp_path):
    """The shell lines run as they are; for the AWS command line tool stands boto3 with the same arguments."""
    key = provider.new_key(CONTEXT)
    (tmp_path / "manifest.json").write_text(json.dumps({"key": key.wrapped}, indent=1))
    lines = provider.by_hand(CONTEXT).splitlines()
    run_by_hand("\n".join(lines[:-1]), tmp_path)
    command = shlex.split(lines[-1])
    assert command[:3] == ["aws", "kms", "decrypt"]
    given = dict(zip(command[3::2], command[4::2]))
    # Every option is one that the tool makes from the service's own model, or one of its global ones.
    operation = botocore.session.Session().get_service_model("kms").operation_model("Decrypt")
    known = {
        "--" + "".join("-" + c.lower() if c.isupper() else c for c in name).strip("-")
        for name in operation.input_shape.members
    }
    assert given.keys() <= known | {"--region", "--endpoint-url", "--query", "--output"}
    assert given["--ciphertext-blob"] == "fileb://data-key.wrapped"
    client = boto3.client(
        "kms",
        region_name=given["--region"],
        endpoint_url=given["--endpoint-url"],
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    answer = client.decrypt(
        CiphertextBlob=(tmp_path / "data-key.wrapped").read_bytes(),
        KeyId=given["--key-id"],
        EncryptionContext=json.loads(given["--encryption-context"]),
    )
    assert (given["--query"], given["--output"]) == ("Plaintext", "text")
    assert base64.b64encode(answer["Plaintext"]) == key.passphrase
