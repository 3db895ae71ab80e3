# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guard service's configuration directory: web server, API routes, user permissions, a secret, some oddities."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

DEFAULT_SEED = 20240520

_NGINX = """\
worker_processes auto;
pid /run/nginx.pid;

events {
    worker_connections 1024;
}

http {
    server_tokens off;
    client_max_body_size 1m;
    limit_req_zone $binary_remote_addr zone=audit:10m rate=20r/s;
    log_format audit '$time_iso8601 $remote_addr "$request" $status $request_time';
    include /etc/nginx/sites/*.conf;
}
"""

_SITE = """\
upstream guard_engine {
    server 127.0.0.1:8000 max_fails=2 fail_timeout=10s;
    keepalive 16;
}

server {
    listen 8080;
    server_name guard.example.com;
    access_log /app/data/logs/access.log audit;

    location = /health {
        proxy_pass http://guard_engine/health;
    }

    location /api/audit {
        limit_req zone=audit burst=40 nodelay;
        proxy_pass http://guard_engine;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_read_timeout 30s;
    }

    location / {
        root /app/web;
    }
}
"""

_LIMITS = "limit_req_status 429;\nlimit_conn_zone $binary_remote_addr zone=clients:10m;\n"

_PERMISSIONS = """\
# Who may ask the guard, and for what.
roles:
  auditor:
    may: [audit, read_own_records]
  inspector:
    may: [read_all_records, export]
  admin:
    may: [audit, read_all_records, export, change_routes]
users:
  - {name: content-platform, role: auditor, networks: ["10.12.0.0/16"]}
  - {name: comment-service, role: auditor, networks: ["172.20.0.0/16"]}
  - {name: 王检查员, role: inspector, networks: ["192.168.8.0/24"]}
"""

_NOTES = """\
# 站点说明

- 审核服务地址：`https://guard.example.com/api/audit`
- 修改路由后请执行：`nginx -t && systemctl reload nginx`
- 值班电话见内网首页。
"""

_RELOAD_SCRIPT = "#!/bin/sh\nset -eu\nnginx -t\nexec nginx -s reload\n"

_ROUTES = {
    "version": 3,
    "routes": [
        {"path": "/api/audit", "methods": ["POST"], "model": "Qwen3Guard-Gen-8B", "timeout_s": 30},
        {"path": "/api/audit/{trace_id}", "methods": ["GET"], "roles": ["auditor", "inspector"]},
        {"path": "/health", "methods": ["GET"], "public": True},
    ],
    "labels": {"safe": "安全", "controversial": "有争议", "unsafe": "不安全"},
    "block_on": ["unsafe"],
}

PRIVATE_FILE = "users/api_tokens.env"


def write_config(directory: Path, seed: int = DEFAULT_SEED) -> None:
    """Write the directory; the only thing in it that is not always the same are the made-up tokens."""
    files = {
        "nginx.conf": _NGINX,
        "sites/guard.conf": _SITE,
        "sites/conf.d/limits.conf": _LIMITS,
        "routes/api_routes.json": json.dumps(_ROUTES, ensure_ascii=False, indent=2) + "\n",
        "users/permissions.yml": _PERMISSIONS,
        PRIVATE_FILE: "".join(f"{name}_TOKEN={_token(name, seed)}\n" for name in ("CONTENT_PLATFORM", "COMMENTS")),
        "hooks/reload.sh": _RELOAD_SCRIPT,
        "站点说明.md": _NOTES,
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (directory / PRIVATE_FILE).chmod(0o600)
    (directory / "hooks/reload.sh").chmod(0o755)
    (directory / "sites/default.conf").symlink_to("guard.conf")


def grant(directory: Path, user: str, role: str = "auditor") -> None:
    """A change as people make them: one user more."""
    with open(directory / "users/permissions.yml", "a", encoding="utf-8") as permissions:
        permissions.write(f'  - {{name: {user}, role: {role}, networks: ["10.0.0.0/8"]}}\n')


def _token(name: str, seed: int) -> str:
    return hashlib.sha256(f"{name} {seed}".encode("ascii")).hexdigest()[:40]
