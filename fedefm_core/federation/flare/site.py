# SPDX-License-Identifier: Apache-2.0
"""A site in FLARE: its desk, as methods that the server and neighbours may call.

Each method does one step of a round, for the callers that it is meant for, in the round that is
open. It answers with plain values and parcels, or with {'refused': sentence}: whatever goes wrong
at a site is told, and the site goes on. What leaves is written to traffic.jsonl first.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvflare.collab import collab
from nvflare.collab.api.constants import FL_CONTEXT_PROP

from fedefm_core.config import load_settings
from fedefm_core.errors import FedefmError, FederationError
from fedefm_core.federation.flare.calls import lost
from fedefm_core.federation.flare.site_settings import (
    SERVER_NAME,
    SiteSettings,
    settings_file,
    works_at,
)

if TYPE_CHECKING:
    from fedefm_core.federation.flare.desk import Desk, Report

logger = logging.getLogger(__name__)
Reply = dict[str, Any]
STATE_FOLDER = "fedefm"  # in the site's own folder of FLARE
TRAFFIC = "traffic.jsonl"
_BUSY_S = 5.0  # how long a step may wait for the one before it


def answers(method: Callable[..., Reply]) -> Callable[..., Reply]:
    """Have errors told in the answer, and what leaves recorded."""

    @wraps(method)
    def told(self: FlareSite, *args: Any, context: Any, **kwargs: Any) -> Reply:
        try:
            reply = method(self, *args, context=context, **kwargs)
        except FedefmError as error:
            reply = {"refused": _naming(self.name, str(error))}
        except Exception as error:  # a site tells what is wrong with it, and goes on
            logger.exception("Step '%s' failed", method.__name__)
            what = f"{type(error).__name__}: {error}"
            reply = {"refused": f"The site '{self.name}' failed in '{method.__name__}': {what}"}
        self.record(context.caller, method.__name__, reply)
        return reply

    return told


class FlareSite:
    """What FLARE runs at a site."""

    def __init__(self) -> None:
        self.name = ""
        self._desk: Desk | None = None
        self._settings = SiteSettings()
        self._folder = Path()
        self._root = Path()
        self._guests: dict[str, tuple[dict[str, Any], float]] = {}
        self._letters: frozenset[str] = frozenset()
        self._neighbours: Mapping[str, Any] = {}
        self._cell: Any = None
        self._one_at_a_time = threading.Lock()
        self._recording = threading.Lock()

    @collab.init
    def start(self) -> None:
        """FLARE says who and where we are; nothing here may fail, or no site starts."""
        neighbours = {proxy.name: proxy for proxy in collab.clients}
        cell = collab.get_app_prop(FL_CONTEXT_PROP).get_engine().get_cell()
        root = Path(collab.workspace.get_root_dir())
        self.settle(collab.site_name, root, neighbours, cell)

    def settle(self, name: str, root: Path, neighbours: Mapping[str, Any], cell: Any) -> None:
        """Who this site is, where its kit lies, how it calls others, and FLARE's end of it."""
        self.name = name
        self._root = root
        self._folder = root / STATE_FOLDER
        self._neighbours = neighbours
        self._cell = cell

    @collab.publish
    @answers
    def join(
        self, campaign: str, project: dict[str, Any], start: bytes, first: int, context: Any
    ) -> Reply:
        """Read the site's own settings and images, and the state before round first."""
        self._only(SERVER_NAME, context)
        with self._working():
            # Here, not above: it takes long to load, and FLARE gives a site little time to start.
            from fedefm_core.federation.flare.desk import open_desk

            self._settings = load_settings(SiteSettings, settings_file(self._root, self.name))
            self._folder = self._settings.state or self._folder
            folder = self._folder / campaign
            self._desk = open_desk(self.name, self._settings, project, start, folder)
            resumed = self._desk.resume(first)
        return {"images": self._desk.images, "resumed": resumed}

    @collab.publish
    @answers
    def begin(self, round: int, context: Any) -> Reply:
        """Open a round; a site that is still busy with another is refused."""
        self._only(SERVER_NAME, context)
        with self._working():
            self._guests, self._letters = {}, frozenset()
            self._joined().begin(round)
        return {}

    @collab.publish
    @answers
    def end(self, round: int, context: Any) -> Reply:
        """Close a round and keep the weights."""
        self._only(SERVER_NAME, context)
        with self._step(round) as desk:
            desk.end()
        return {}

    @collab.publish
    @answers
    def train_local(self, round: int, task: dict[str, Any], contrast: bool, context: Any) -> Reply:
        """Train at home."""
        self._only(SERVER_NAME, context)
        self._afford(task["steps"])
        with self._step(round) as desk:
            return self._told(desk.train_local(task, contrast))

    @collab.publish
    @answers
    def distil(
        self, round: int, steps: int, settings: dict[str, Any], rate: float, context: Any
    ) -> Reply:
        """Learn from the experts that came home."""
        self._only(SERVER_NAME, context)
        self._afford(steps)
        with self._step(round) as desk:
            return self._told(desk.distil(steps, settings, rate))

    @collab.publish
    @answers
    def compare(
        self, round: int, prefixes: list[str], settings: dict[str, Any], context: Any
    ) -> Reply:
        """How alike own weights and what came are, on own images."""
        self._only(SERVER_NAME, context)
        with self._step(round) as desk:
            return {"similarity": desk.compare(prefixes, settings)}

    @collab.publish
    @answers
    def expect_guests(
        self,
        round: int,
        owners: list[str],
        task: dict[str, Any],
        host_share: float,
        context: Any,
    ) -> Reply:
        """The server says whose weights will come to be trained, how, and which share of ours they
        take home: a neighbour cannot."""
        self._only(SERVER_NAME, context)
        if not self._settings.privacy.guests:
            raise FederationError(f"The site '{self.name}' trains no weights of others, by policy")
        self._afford(task["steps"])
        with self._step(round):
            self._guests = dict.fromkeys(owners, (task, host_share))
        return {}

    @collab.publish
    @answers
    def visit(self, round: int, hosts: list[str], deadline: float, context: Any) -> Reply:
        """Send own weights to each host, to be trained there, and take them home."""
        self._only(SERVER_NAME, context)
        desk = self._in_round(round)  # not a step: a guest may be training here
        sent = desk.own()

        def call(host: str) -> Reply:
            self.record(host, "weights to be trained", {"weights": sent})
            return self._call(host, deadline, "train_guest", round=round, weights=sent)

        with ThreadPoolExecutor(len(hosts)) as pool:
            replies = dict(zip(hosts, pool.map(call, hosts), strict=True))
        visits: dict[str, Reply] = {}
        desk = self._in_round(round)
        for host, reply in replies.items():  # in the order of hosts, whoever came first
            visits[host] = self._came_home(desk, host, sent, reply)
        return {"visits": visits}

    @collab.publish
    @answers
    def train_guest(self, round: int, weights: bytes, context: Any) -> Reply:
        """Train the weights of the neighbour that calls."""
        owner = context.caller
        with self._step(round, wait=None) as desk:
            if owner not in self._guests:
                raise FederationError(
                    f"The site '{self.name}' expects no weights of '{owner}' in round {round}"
                )
            task, host_share = self._guests.pop(owner)
            trained, report = desk.train_guest(owner, weights, task, host_share)
        return {"weights": trained, **self._told(report)}

    @collab.publish
    @answers
    def expect_letters(self, round: int, sources: list[str], context: Any) -> Reply:
        """The server says whose weights will come."""
        self._only(SERVER_NAME, context)
        with self._step(round):
            self._letters = frozenset(sources)
        return {}

    @collab.publish
    @answers
    def send(self, round: int, targets: list[str], deadline: float, context: Any) -> Reply:
        """Send own weights to neighbours."""
        self._only(SERVER_NAME, context)
        sent = self._in_round(round).own()

        def call(target: str) -> Reply:
            self.record(target, "weights", {"weights": sent})
            reply = self._call(target, deadline, "receive", round=round, weights=sent)
            return {"sent": len(sent), "route": self._route(target), **reply}

        with ThreadPoolExecutor(len(targets)) as pool:
            return {"letters": dict(zip(targets, pool.map(call, targets), strict=True))}

    @collab.publish
    @answers
    def receive(self, round: int, weights: bytes, context: Any) -> Reply:
        """Take the weights of the neighbour that calls."""
        source = context.caller
        desk = self._in_round(round)
        if source not in self._letters:
            raise FederationError(
                f"The site '{self.name}' expects no weights of '{source}' in round {round}"
            )
        desk.take(weights, f"inbox/{source}", f"The weights of '{source}' in round {round}")
        return {}

    @collab.publish
    @answers
    def mix(self, round: int, parts: list[Any], context: Any) -> Reply:
        """Own weights become a sum of what came."""
        self._only(SERVER_NAME, context)
        with self._step(round) as desk:
            desk.mix([(str(slot), float(share)) for slot, share in parts])
        return {}

    @collab.publish
    @answers
    def own_weights(self, round: int, context: Any) -> Reply:
        """The site's weights, for the server's average."""
        self._only(SERVER_NAME, context)
        with self._step(round) as desk:
            return {"weights": desk.own()}

    @collab.publish
    @answers
    def take(self, round: int, weights: bytes, context: Any) -> Reply:
        """The server's average becomes the site's own weights."""
        self._only(SERVER_NAME, context)
        with self._step(round) as desk:
            desk.take(weights, "weights", f"The average of round {round}")
        return {}

    def record(self, to: str, what: str, reply: Mapping[str, Any]) -> None:
        """Write down what is about to leave the site: names and sizes, never contents."""
        line = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "round": self._desk.round if self._desk else None,
            "to": to,
            "what": what,
            "holds": {name: _size(value) for name, value in reply.items()},
        }
        try:
            with self._recording:
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / TRAFFIC).open("a") as lines:
                    lines.write(json.dumps(line) + "\n")
        except OSError:  # a full disk is told by the step that needs it
            logger.exception("Cannot record what leaves the site")

    def _came_home(self, desk: Desk, host: str, sent: bytes, reply: Reply) -> Reply:
        if "refused" in reply:
            return reply
        try:
            desk.welcome(host, sent, reply["weights"])
        except FedefmError as error:
            return {"refused": _naming(host, str(error))}
        told = {key: value for key, value in reply.items() if key != "weights"}
        sizes = {"sent": len(sent), "received": len(reply["weights"])}
        return {**told, **sizes, "route": self._route(host)}

    def _call(self, site: str, deadline: float, method: str, **arguments: Any) -> Reply:
        """Have a neighbour do something; what goes wrong with it is told as its refusal."""
        try:
            proxy = self._neighbours[site]
            secure = self._cell.core_cell.supports_secure_messages()
            call = getattr(proxy(timeout=deadline, secure=secure), method)
            reply = call(**arguments)
        except Exception as error:  # whatever the engine raises when a peer is gone
            return {"refused": lost(site, method, error, deadline), "lost": True}
        return reply if isinstance(reply, dict) else {"refused": f"'{site}' answered nonsense"}

    def _only(self, caller: str, context: Any) -> None:
        if context.caller != caller:
            raise FederationError(
                f"The site '{self.name}' does this for '{caller}' alone (asked by "
                f"'{context.caller}')"
            )

    def _joined(self) -> Desk:
        if self._desk is None:
            raise FederationError(f"The site '{self.name}' has not joined yet")
        return self._desk

    @contextmanager
    def _working(self, wait: float | None = _BUSY_S) -> Iterator[None]:
        """One step at a time, within the hours of the site."""
        hours = self._settings.limits.hours
        now = datetime.now().time()
        if not works_at(hours, now):
            raise FederationError(
                f"The site '{self.name}' works from {hours} (asked at {now:%H:%M})"
            )
        if not self._one_at_a_time.acquire(timeout=-1 if wait is None else wait):
            raise FederationError(f"The site '{self.name}' is still busy with an earlier step")
        try:
            yield
        finally:
            self._one_at_a_time.release()

    @contextmanager
    def _step(self, round: int, wait: float | None = _BUSY_S) -> Iterator[Desk]:
        """A step of the round that is open."""
        with self._working(wait):
            yield self._in_round(round)

    def _in_round(self, round: int) -> Desk:
        desk = self._joined()
        if desk.round != round:
            raise FederationError(
                f"The site '{self.name}' is in round {desk.round} (asked for {round})"
            )
        return desk

    def _afford(self, steps: int) -> None:
        most = self._settings.limits.steps
        if not 0 <= steps <= most:
            raise FederationError(
                f"The site '{self.name}' trains at most {most} steps at a time (asked for {steps})"
            )

    def _told(self, report: Report) -> Reply:
        told = asdict(report)
        if not self._settings.privacy.losses:
            told["loss"] = None
        return told

    def _route(self, site: str) -> str:
        """'direct' when there is a connection to that site itself, else 'relay' by the server."""
        job = self._cell.get_fqcn().partition(".")[2]
        return "direct" if f"{site}.{job}" in self._cell.core_cell.agents else "relay"


def _naming(site: str, sentence: str) -> str:
    return sentence if f"'{site}'" in sentence else f"The site '{site}': {sentence}"


def _size(value: Any) -> Any:
    """What the record says of a value: a parcel's bytes; plain numbers are what they are."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, Mapping):
        return {name: _size(part) for name, part in value.items()}
    return value
