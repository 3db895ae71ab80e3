# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a child sees of our environment."""

from __future__ import annotations

import pytest

from ansible_collections.guardops.qwen3guard.plugins.module_utils.system.process import clean_environment


def test_a_proxy_is_passed_on_and_a_secret_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "no_proxy"):
        monkeypatch.setenv(name, f"{name} of this host")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/breaks/rclone")
    seen = clean_environment({"EXTRA": "1"})
    assert {name: seen[name] for name in ("https_proxy", "HTTPS_PROXY", "no_proxy", "EXTRA")} == {
        "https_proxy": "https_proxy of this host",
        "HTTPS_PROXY": "HTTPS_PROXY of this host",
        "no_proxy": "no_proxy of this host",
        "EXTRA": "1",
    }
    assert not {"AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE"} & set(seen)
