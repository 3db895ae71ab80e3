# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One record among live logs, as rotation and compression leave them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pathlib
import typing as t

import pytest
import zstandard
from sample_instance.chained import ChainedWriter

from ansible_collections.guardops.qwen3guard.plugins.module_utils.errors import GuardError
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations import trace_live
from ansible_collections.guardops.qwen3guard.plugins.module_utils.operations.trace_live import search_live


@pytest.fixture
def writer(tmp_path: pathlib.Path) -> ChainedWriter:
    made = ChainedWriter(tmp_path / "logs" / "audit.log")
    made.append(20)
    return made


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["plain", "gz", "bz2", "xz", "zst"],
)
def test_found_however_it_is_compressed(writer: ChainedWriter, pack: t.Callable[[bytes], bytes]) -> None:
    wanted = writer.written[7]
    old = writer.rotate("deep.1")
    (old.parent / "below").mkdir()
    (old.parent / "below" / "audit.log.1").write_bytes(pack(old.read_bytes()))
    old.unlink()
    found = search_live(str(old.parent), wanted.trace_id)
    [(path, hit)] = found.hits
    assert (path, hit.line) == (str(old.parent / "below" / "audit.log.1"), wanted.line)
    assert hit.offset == sum(len(record.line) for record in writer.written[:7])
    assert (found.files, found.bytes, found.not_searched) == (2, sum(len(r.line) for r in writer.written), [])


def test_a_compressed_file_without_its_end_is_read_as_far_as_it_goes(writer: ChainedWriter) -> None:
    writer.append(2000)
    wanted = writer.written[3]
    old = writer.rotate("audit.log.1")
    old.with_name("audit.log.1.gz").write_bytes(gzip.compress(old.read_bytes())[:-5000])
    old.unlink()
    found = search_live(str(old.parent), wanted.trace_id)
    assert len(found.hits) == 1
    assert "without an end" in found.not_searched[0]


def test_a_file_that_is_rotated_meanwhile_is_found_under_its_new_name(
    writer: ChainedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = writer.written[7]
    real, rotated = trace_live.scan, []

    def scan_then_rotate(root: str) -> t.Any:
        listed = real(root)
        if not rotated:
            rotated.append(writer.rotate("audit.log.1"))
        return listed

    monkeypatch.setattr(trace_live, "scan", scan_then_rotate)
    found = search_live(str(writer.path.parent), wanted.trace_id)
    assert [path for path, _hit in found.hits] == [str(rotated[0])]
    assert found.not_searched == []


def test_what_is_no_directory(tmp_path: pathlib.Path) -> None:
    with pytest.raises(GuardError, match="directory"):
        search_live(str(tmp_path / "gone"), "x")
