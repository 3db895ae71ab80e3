# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cut a tar stream into parts, before a byte of it is made.

Private to the collection: use the modules, not this file.

A part is a run of pieces: headers, padding, and ranges of files.
Parts that zstd makes smaller and parts that it does not are never mixed: names of the first kind
come first in the stream, and the cut between the two ends a part.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from ..errors import GuardError
from . import tarstream
from .tree import FILE, Entry, Extent, Tree

try:
    import zstandard
except ImportError:  # reported by `require_zstandard`, at use
    zstandard = None  # type: ignore[assignment]  # mypy knows the module, not its absence

PLAIN, ZSTD = "none", "zstd"

# zstd at level 3 on audit records: a sixth of the size at 300 MB/s a core; weights lose nothing.
_SAMPLE_BYTES = 64 * 1024
_WORTH_COMPRESSING = 0.9
# Compressed parts are smaller, so that both cores work and one record costs a short download.
_ZSTD_PART_SHARE = 8


_HEADER = -1


class Piece(t.NamedTuple):
    """Some bytes of the tar stream: of an entry's header, of a file's content, or zeros (no entry)."""

    length: int
    entry: Entry | None = None
    offset: int = 0  # in the header, or in the file
    slot: int = _HEADER  # which of the entry's extents this is, if it is content

    @property
    def file(self) -> Entry | None:
        """The entry whose content this is."""
        return None if self.slot == _HEADER else self.entry

    def literal(self) -> bytes:
        """The bytes of a header or of zeros. Made when they are needed: those of 200,000 files take 400 MiB."""
        if self.entry is None:
            return bytes(self.length)
        return tarstream.header(self.entry)[self.offset : self.offset + self.length]


@dataclasses.dataclass
class Part:
    """One slice of the tar stream. ``size`` and ``sha256`` are of the ciphertext, once it is stored."""

    number: int
    start: int
    codec: str
    length: int = 0
    pieces: list[Piece] = dataclasses.field(default_factory=list)
    size: int = 0
    sha256: str = ""

    @property
    def name(self) -> str:
        """The object's name below the snapshot."""
        return part_name(self.number, self.codec)


def part_name(number: int, codec: str) -> str:
    """The object's name of a part. It tells a person who restores by hand whether zstd is needed."""
    return f"part-{number:05d}{'.zst' if codec == ZSTD else ''}.gpg"


# (entry, start, end) -> an offset after start where a part may end, at end at the most; start: there is none
PartEnds = t.Callable[[Entry, int, int], int]


def anywhere(_entry: Entry, _start: int, end: int) -> int:
    """Parts end where they are full."""
    return end


class Slicer:
    """Takes pieces, gives parts."""

    def __init__(self, part_size: int, part_ends: PartEnds = anywhere):
        self.part_size = part_size
        self.part_ends = part_ends
        self.parts: list[Part] = []
        self.position = 0
        self._codec = PLAIN

    def use(self, codec: str) -> None:
        """From here on the stream is coded so; a change of codec ends the part."""
        if codec != self._codec or not self.parts:
            self._codec = codec
            self._open_part()

    def _limit(self) -> int:
        return max(self.part_size // _ZSTD_PART_SHARE, 1 << 20) if self._codec == ZSTD else self.part_size

    def _open_part(self) -> None:
        if self.parts and not self.parts[-1].length:
            self.parts[-1].codec = self._codec
        else:
            self.parts.append(Part(len(self.parts), self.position, self._codec))

    def add(self, piece: Piece) -> None:
        """Append a piece, cut where a part is full."""
        if not self.parts:
            self._open_part()
        taken = 0
        while taken < piece.length:
            part = self.parts[-1]
            room = self._limit() - part.length
            if room <= 0:
                self._open_part()
                continue
            length = min(room, piece.length - taken)
            if length < piece.length - taken and piece.file is not None:
                start = piece.offset + taken
                allowed = self.part_ends(piece.file, start, start + length) - start
                if not allowed and part.length:
                    self._open_part()  # there may be room enough in a part of its own
                    continue
                length = allowed or length
            cut = piece._replace(length=length, offset=piece.offset + taken)
            if piece.file is not None:
                cut = cut._replace(slot=len(piece.file.extents))
                piece.file.extents.append(Extent(cut.offset, length, self.position, ""))
            part.pieces.append(cut)
            part.length += length
            self.position += length
            taken += length

    def header(self, entry: Entry) -> None:
        """Append what stands before the content of ``entry``."""
        self.add(Piece(len(tarstream.header(entry)), entry))

    def content(self, entry: Entry, start: int, end: int) -> None:
        """Append a range of a file; it becomes an extent of its entry, or several where a part ends within it."""
        self.add(Piece(end - start, entry, start, slot=len(entry.extents)))

    def zeros(self, length: int) -> None:
        """Append padding."""
        self.add(Piece(length))


def no_cuts(_entry: Entry) -> t.Sequence[int]:
    """Extents end where parts do, and nowhere else."""
    return ()


def slice_entries(
    entries: t.Sequence[Entry],
    codec_of: t.Callable[[Entry], str],
    part_size: int,
    cuts: t.Callable[[Entry], t.Sequence[int]] = no_cuts,
    part_ends: PartEnds = anywhere,
) -> list[Part]:
    """The parts of the tar stream that holds ``entries``; their extents are filled in, hashes aside.

    ``cuts`` names offsets in a file where an extent must end, so that its hash stands alone; ``part_ends`` says
    where within a file a part may end. What they say must be the same whenever the files are.
    """
    files = [entry for entry in entries if entry.type == FILE]
    codecs = {id(entry): codec_of(entry) for entry in files}
    slicer = Slicer(part_size, part_ends)
    slicer.use(ZSTD)
    rank = {"directory": 0, "symlink": 1, FILE: 2, "hardlink": 4}
    ordered = sorted(
        entries, key=lambda e: 3 if e.type == FILE and codecs[id(e)] == PLAIN else rank[e.type]
    )  # stable: the names' own order is kept within each group; links come after what they name
    for entry in ordered:
        if entry.type == FILE:
            slicer.use(codecs[id(entry)])
        slicer.header(entry)
        if entry.type == FILE:
            length = 0
            for offset, run in entry.ranges():
                edges = [offset, *(c for c in cuts(entry) if offset < c < offset + run), offset + run]
                for start, end in zip(edges, edges[1:]):
                    slicer.content(entry, start, end)
                length += run
            slicer.zeros(tarstream.padding_length(length))
    slicer.zeros(tarstream.END_OF_ARCHIVE_LENGTH)
    return slicer.parts


def codec_by_sample(tree: Tree, known: t.Callable[[Entry], str | None]) -> t.Callable[[Entry], str]:
    """Decide per file by compressing up to three samples of it."""
    compressor = require_zstandard().ZstdCompressor(level=1)

    def decide(entry: Entry) -> str:
        answer = known(entry)
        if answer is not None:
            return answer
        if entry.size < 4096:
            return ZSTD  # headers and padding weigh more than the content
        fd = tree.open_file(entry)
        try:
            sample = b"".join(
                os.pread(fd, _SAMPLE_BYTES, entry.size * third // 3)
                for third in range(3 if entry.size > 1 << 20 else 1)
            )
        finally:
            os.close(fd)
        return ZSTD if len(compressor.compress(sample)) < _WORTH_COMPRESSING * len(sample) else PLAIN

    return decide


def require_zstandard() -> t.Any:
    """The zstandard library, or an error that says how to get it."""
    if zstandard is None:
        raise GuardError(
            "zstandard",
            "the Python library of that name",
            "none",
            "Install it where the module runs: pip install zstandard.",
        )
    return zstandard
