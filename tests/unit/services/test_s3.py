# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an rclone remote's settings become an S3 client, and when two lifecycle rules are the same."""

from __future__ import annotations

import typing as t

import botocore
import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.services import s3

KEYS = {"type": "s3", "access_key_id": "AK", "secret_access_key": "SK"}


@pytest.mark.parametrize(("settings", "style"), [
    ({"provider": "AWS"}, "virtual"), ({"provider": "Alibaba"}, "virtual"), ({"provider": "Minio"}, "path"),
    ({"provider": "Alibaba", "force_path_style": "true"}, "path"),
    ({"provider": "Minio", "force_path_style": "false"}, "virtual"),
])  # fmt: skip
def test_addressing(settings: dict[str, str], style: str) -> None:
    client = s3._client({**KEYS, **settings})
    assert client.meta.config.s3["addressing_style"] == style


@pytest.mark.parametrize(("endpoint", "url"), [
    ("http://127.0.0.1:9", "http://127.0.0.1:9"), ("oss-cn-hangzhou.aliyuncs.com", "https://oss-cn-hangzhou.aliyuncs.com"),
    ("", "https://s3.eu-central-1.amazonaws.com"),
])  # fmt: skip
def test_endpoint(endpoint: str, url: str) -> None:
    client = s3._client({**KEYS, "provider": "AWS", "region": "eu-central-1", "endpoint": endpoint})
    assert client.meta.endpoint_url == url


def test_without_keys_nobody_signs() -> None:
    """As rclone does it; with env_auth the usual places are searched."""
    assert s3._client({"type": "s3"}).meta.config.signature_version is botocore.UNSIGNED
    assert s3._client({"type": "s3", "env_auth": "true"}).meta.config.signature_version != botocore.UNSIGNED


RULE: dict[str, t.Any] = {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 7}}


@pytest.mark.parametrize(("other", "same"), [
    ({**RULE}, True), (dict(reversed(RULE.items())), True), ({**RULE, "Transitions": []}, True),
    ({"ID": "a", "Status": "Enabled", "Prefix": "x/", "Expiration": {"Days": 7}}, True),
    ({**RULE, "Status": "Disabled"}, False), ({**RULE, "Expiration": {"Days": 8}}, False),
    ({**RULE, "Filter": {"Prefix": "y/"}}, False),
])  # fmt: skip
def test_rules_compare_by_what_they_do(other: dict[str, t.Any], same: bool) -> None:
    assert (s3._comparable(RULE) == s3._comparable(other)) is same
