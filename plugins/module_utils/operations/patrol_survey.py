# Copyright: guardops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read of many instances what a patrol has to know: few listings, few small objects, no key.

Private to the collection: use the modules, not this file.

What is read next depends on what was found: a newest snapshot without a manifest was interrupted, so the one before it
is asked for. Each reader is a generator that yields names of objects and is sent their contents; `read_together` asks
for what all of them want at once, so that a thousand instances cost a few calls of rclone and not a thousand.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import typing as t

from ..errors import IntegrityError
from ..format import drill as drill_records
from ..format import manifest as manifests
from ..format import verdict as verdict_format
from ..format.drill import Drill
from ..format.manifest import FULL, LAYERS, Manifest, snapshot_number
from ..format.repository import MANIFEST, Repository, is_instance
from ..format.verdict import PROVING, READING, Verdict
from ..services.store import Store

DRILLS, VERIFICATIONS, HEARTBEAT = drill_records.PREFIX, "verifications", "patrol.json"
_MOST_TRIED = 100  # manifests or verdicts of one layer, newest first
_FEW = 3  # drills

Contents = t.Mapping[str, bytes]
Answer = t.TypeVar("Answer")
Key = t.TypeVar("Key", bound=t.Hashable)
Reader = t.Generator[list[str], Contents, Answer]


@dataclasses.dataclass
class Names:
    """What the store lists of one instance."""

    snapshots: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # by layer, in order of the numbers
    verified: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # snapshots that have verdicts
    drills: list[str] = dataclasses.field(default_factory=list)  # names of objects, in order
    heartbeat: bool = False


@dataclasses.dataclass
class LayerSurvey:
    """What a layer's manifests and verdicts say."""

    layer: str
    snapshots: list[str]
    newest: Manifest | None = None  # the newest that is complete and fits
    interrupted: list[str] = dataclasses.field(default_factory=list)  # newer ones without a manifest
    damaged: list[str] = dataclasses.field(default_factory=list)  # manifests that do not fit, in words
    chain: list[Manifest] = dataclasses.field(default_factory=list)  # of the logs: the full, and increments on it
    whole_chain: bool = False  # whether ``chain`` has every increment
    verdicts: dict[str, Verdict] = dataclasses.field(default_factory=dict)  # the newest of each level
    whole: dict[str, Verdict] = dataclasses.field(default_factory=dict)  # and that restored everything, by level
    first_created: str = ""  # of the oldest snapshot; read only where something was never done


@dataclasses.dataclass
class Survey:
    """What was read of one instance."""

    layers: dict[str, LayerSurvey]
    drills: list[Drill | IntegrityError]  # newest first; in the place of a damaged one the error that says how
    heartbeat: dict[str, t.Any] | None


def list_instances(store: Store, instance: str = "") -> dict[str, Names]:
    """Names by instance: of one, or of all that the repository has."""
    top: list[t.Collection[str] | None] = [] if instance else [None]
    found: dict[str, Names] = {instance: Names()} if instance else {}
    for levels in (
        [*top, {*LAYERS, DRILLS, HEARTBEAT}, None],
        [*top, {VERIFICATIONS}, set(LAYERS), None],
    ):
        for path in store.walk(instance, levels):
            owner, _slash, rest = ("", "", path) if instance else path.partition("/")
            owner = owner or instance
            if rest and is_instance(owner):
                _take_name(found.setdefault(owner, Names()), rest)
    for names in found.values():
        names.drills.sort()
        for of_layer in (names.snapshots, names.verified):
            for layer, snapshots in of_layer.items():
                of_layer[layer] = sorted(snapshots, key=lambda snapshot: (snapshot_number(snapshot) or 0, snapshot))
    return dict(sorted(found.items()))


def _take_name(names: Names, path: str) -> None:
    """One name below an instance; what is none of ours is left alone."""
    parts = path.split("/")
    if parts[0] in LAYERS and len(parts) == 3 and not parts[2] and snapshot_number(parts[1]) is not None:
        names.snapshots.setdefault(parts[0], []).append(parts[1])
    elif parts[0] == VERIFICATIONS and len(parts) == 3 and parts[1] in LAYERS:
        snapshot, dot, suffix = parts[2].partition(".")
        if f"{dot}{suffix}" == ".json" and snapshot_number(snapshot) is not None:
            names.verified.setdefault(parts[1], []).append(snapshot)
    elif parts[0] == DRILLS and len(parts) == 2 and drill_records.is_name(parts[1]):
        names.drills.append(path)
    elif path == HEARTBEAT:
        names.heartbeat = True


def read_surveys(store: Store, listed: t.Mapping[str, Names], whole_chains: bool) -> dict[str, Survey]:
    """The surveys of these instances. ``whole_chains`` reads every increment since the last full of the logs."""
    readers: dict[tuple[str, str], Reader[t.Any]] = {}
    for instance, names in listed.items():
        repository = Repository(store, instance)
        for layer in LAYERS:
            readers[instance, layer] = _read_layer(repository, layer, names, whole_chains)
        readers[instance, DRILLS] = _read_drills(repository, names)
        readers[instance, HEARTBEAT] = _read_heartbeat(repository, names)
    answers = read_together(store, readers)
    return {
        instance: Survey(
            layers={layer: answers[instance, layer] for layer in LAYERS},
            drills=answers[instance, DRILLS],
            heartbeat=answers[instance, HEARTBEAT],
        )
        for instance in listed
    }


def read_together(store: Store, readers: t.Mapping[Key, Reader[Answer]]) -> dict[Key, Answer]:
    """Run all readers to their ends, each round with one call for what they all want."""
    answers: dict[Key, Answer] = {}
    sent: dict[Key, Contents | None] = dict.fromkeys(readers)
    while sent:
        wanted: dict[Key, list[str]] = {}
        for key, contents in sent.items():
            try:
                # A generator that has not begun takes no value.
                wanted[key] = next(readers[key]) if contents is None else readers[key].send(contents)
            except StopIteration as end:
                answers[key] = end.value
        found = store.read_several(sorted({name for names in wanted.values() for name in names}))
        sent = {key: {name: found[name] for name in names if name in found} for key, names in wanted.items()}
    return answers


def _read_layer(repository: Repository, layer: str, names: Names, whole_chain: bool) -> Reader[LayerSurvey]:
    survey = LayerSurvey(layer, names.snapshots.get(layer, []))
    yield from _find_newest(repository, survey)
    if layer == "logs" and survey.newest is not None:
        yield from _read_chain(repository, survey, survey.newest, whole_chain)
    yield from _read_verdicts(repository, survey, names.verified.get(layer, []))
    never = not names.drills or not survey.whole
    if survey.newest is not None and never:
        survey.first_created = yield from _read_first(repository, survey, survey.newest)
    return survey


def _batches(items: list[str], first: int) -> t.Iterator[list[str]]:
    """A few, then more and more: mostly the first few are enough."""
    place, size = 0, first
    while place < min(len(items), _MOST_TRIED):
        yield items[place : place + size]
        place, size = place + size, size * 2


def _find_newest(repository: Repository, survey: LayerSurvey) -> Reader[None]:
    for batch in _batches(survey.snapshots[::-1], 1):
        found = {manifest.snapshot: manifest for manifest in (yield from _read_manifests(repository, survey, batch))}
        for snapshot in batch:
            if snapshot in found:
                survey.newest = found[snapshot]
                return
            survey.interrupted.append(snapshot)


def _read_first(repository: Repository, survey: LayerSurvey, newest: Manifest) -> Reader[str]:
    """When the oldest snapshot was made; the very first may have been interrupted."""
    for batch in _batches(survey.snapshots, 1):
        found = yield from _read_manifests(repository, survey, batch)
        if found:
            return found[0].created
    return newest.created


def _read_manifests(repository: Repository, survey: LayerSurvey, snapshots: list[str]) -> Reader[list[Manifest]]:
    """Those that are there and fit, in the order of the numbers."""
    names = {repository.name(survey.layer, snapshot, MANIFEST): snapshot for snapshot in snapshots}
    contents = yield list(names)
    found = []
    for name, data in contents.items():
        where = repository.store.full_name(name)
        try:
            found.append(manifests.parse(data, where, repository.instance, survey.layer, names[name]))
        except IntegrityError as error:
            if str(error) not in survey.damaged:
                survey.damaged.append(str(error))
    return sorted(found, key=lambda manifest: (manifest.number, manifest.snapshot))


def _read_chain(repository: Repository, survey: LayerSurvey, newest: Manifest, whole: bool) -> Reader[None]:
    """The full that the newest snapshot stands on, and what lies between."""
    survey.chain = [newest]
    survey.whole_chain = newest.type == FULL
    if newest.type == FULL:
        return
    begin = snapshot_number(newest.base) or 0
    since = [item for item in survey.snapshots if begin <= (snapshot_number(item) or 0) < newest.number]
    wanted = since[: _MOST_TRIED * 5] if whole else [newest.base]
    found = yield from _read_manifests(repository, survey, wanted)
    survey.chain = [*(manifest for manifest in found if manifest.base == newest.base), newest]
    parents = {manifest.parent for manifest in survey.chain}
    survey.whole_chain = {manifest.snapshot for manifest in survey.chain} >= parents - {""}


def _read_verdicts(repository: Repository, survey: LayerSurvey, verified: list[str]) -> Reader[None]:
    """The newest verdict of each level, until there is one that restored everything."""
    for batch in _batches(verified[::-1], 2):
        names = [repository.name(VERIFICATIONS, survey.layer, f"{snapshot}.json") for snapshot in batch]
        contents = yield names
        for name in names:
            for level, verdict in _verdicts_in(contents.get(name, b"")).items():
                survey.verdicts.setdefault(level, verdict)
                whole = verdict_format.whole(verdict)
                if level in PROVING and whole is not None:
                    survey.whole.setdefault(level, whole)
        if survey.whole:
            return


def _verdicts_in(data: bytes) -> dict[str, Verdict]:
    """Verdicts by level; a document that is none counts as none, as everywhere."""
    verdicts = _object_in(data).get("verdicts")
    if not isinstance(verdicts, dict):
        return {}
    return {level: verdict for level, verdict in verdicts.items() if level in READING and isinstance(verdict, dict)}


def _read_drills(repository: Repository, names: Names) -> Reader[list[Drill | IntegrityError]]:
    wanted = [repository.name(name) for name in itertools.islice(reversed(names.drills), _FEW)]
    if not wanted:
        return []
    contents = yield wanted
    found: list[Drill | IntegrityError] = []
    for name in wanted:
        try:
            found.append(
                drill_records.parse(contents.get(name, b""), repository.store.full_name(name), repository.instance)
            )
        except IntegrityError as error:
            found.append(error)
    return found


def _read_heartbeat(repository: Repository, names: Names) -> Reader[dict[str, t.Any] | None]:
    if not names.heartbeat:
        return None
    name = repository.name(HEARTBEAT)
    contents = yield [name]
    return _object_in(contents.get(name, b""))


def _object_in(data: bytes) -> dict[str, t.Any]:
    """A JSON object that anybody may have written; empty where it is none."""
    try:
        raw = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}
