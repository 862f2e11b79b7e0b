# SPDX-License-Identifier: Apache-2.0
"""A Carrier whose silos are sites of FLARE: it has them do things, and never trains itself.

The server says what is done and in which order; weights that one site sends to another go from the
one to the other. A site that fails, or is late, leaves the round; it is asked again in the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from nvflare.collab.api.exceptions import RunAborted

from fedefm_core.errors import FederationError
from fedefm_core.federation.carrier import SERVER, OnFailure, Phase, RoundRecord
from fedefm_core.federation.distillation import DistillationSettings
from fedefm_core.federation.flare.calls import lost
from fedefm_core.federation.flare.settings import ProjectSettings
from fedefm_core.federation.parcels import pack, unpack
from fedefm_core.federation.silo import Task
from fedefm_core.federation.state import State, weighted_sum
from fedefm_core.federation.topology import Link

logger = logging.getLogger(__name__)
Reply = Mapping[str, Any]
Call = tuple[str, dict[str, Any]]  # what a site is asked, and with what
_READING = {
    "own_weights",
    "end",
    "compare",
    "expect_guests",
    "expect_letters",
}  # these leave weights alone


class FlareCarrier:
    """proxies: of the sites that are in the job, by name; the others are away in every round.

    start: θ_0. Raises FederationError when a site fails and the policy is to stop.
    """

    def __init__(
        self,
        project: ProjectSettings,
        proxies: Mapping[str, Any],
        start: State,
        on_failure: OnFailure,
    ) -> None:
        self.silos = tuple(project.sites)
        self.record = RoundRecord(0)
        self.routes: dict[Link, str] = {}
        self.lost: set[str] = set()  # sites that did not answer, unlike those that refused
        self._proxies = proxies
        self._start = start
        self._transfer = project.transfer
        self._deadlines = project.deadlines
        self._on_failure = on_failure
        self._images: dict[str, int] = {}
        self._away: dict[str, str] = {}  # sites that could not join, and why
        self._never_came: frozenset[str] = frozenset()  # those of them that did not answer
        self._cut_off: frozenset[str] = frozenset()
        self._reached: list[str] = []
        self._slots: dict[str, list[str]] = {}
        self._seen: dict[str, State] = dict.fromkeys(self.silos, start)
        self._fresh: set[str] = set()  # sites whose weights are still those that were seen
        self._pool = ThreadPoolExecutor(len(self.silos))

    @property
    def present(self) -> list[str]:
        """Sites that still take part in the round."""
        return [name for name in self.silos if name not in self.record.failures]

    def join(self, campaign: str, project: Mapping[str, Any], first: int) -> None:
        """Have all sites read their images and the state before round first.

        Raises FederationError when none can.
        """
        arguments = {
            "campaign": campaign,
            "project": dict(project),
            "start": pack(self._start, self._start, "exact"),
            "first": first,
        }
        self.record = RoundRecord(first)
        self._reached = list(self.silos)
        replies = self._ask(dict.fromkeys(self.silos, ("join", arguments)), self._deadlines.join)
        for name, reply in replies.items():
            self._images[name] = int(reply["images"])
            logger.info("The site '%s' joined, with its state of %s", name, reply["resumed"])
        self._away = dict(self.record.failures)
        self._never_came = frozenset(self.lost)
        for sentence in self._away.values():
            logger.warning(sentence)
        if not replies:
            raise FederationError(next(iter(self.record.failures.values())))

    def images(self, silo: str) -> int:
        """How many images a silo holds."""
        return self._images[silo]

    def begin(self, round: int, cut_off: Mapping[str, str]) -> None:
        """Open a round; see Carrier. Sites that do not answer are left out of it."""
        self.record = RoundRecord(round)
        self.routes = {}
        self.lost.clear()
        self.lost.update(self._never_came)
        self._slots = {name: [] for name in self.silos}
        self._reached = list(self._images)
        self._cut_off = frozenset()
        for name, sentence in self._away.items():
            self._fail(name, sentence)
        self._ask(dict.fromkeys(self._reached, ("begin", {})), self._deadlines.answer)
        self._reached = [name for name in self._reached if name not in self.record.failures]
        self._cut_off = frozenset(cut_off) & frozenset(self._reached)
        for name in self._cut_off:
            self.record.failures[name] = cut_off[name]

    def end(self) -> None:
        """Close a round; see RunCarrier. Sites that failed in it keep what they had before."""
        self._ask(dict.fromkeys(self._reached, ("end", {})), self._deadlines.transfer)
        self._read()

    def train_local(self, task: Task, *, contrast: bool = False) -> None:
        """See Carrier."""
        asked = [n for n in self.silos if n in self.present or n in self._cut_off]
        arguments = {"task": asdict(task), "contrast": contrast}
        calls = dict.fromkeys(asked, ("train_local", arguments))
        for name, reply in self._ask(calls, self._deadlines.training).items():
            self._count("local", name, reply)

    def visit(self, links: Sequence[Link], task: Task, *, host_share: float = 0.0) -> None:
        """See Carrier."""
        links = self._open(links)
        owners = _by_target(links)
        how = {"task": asdict(task), "host_share": host_share}
        welcome = {
            host: ("expect_guests", {"owners": guests, **how}) for host, guests in owners.items()
        }
        self._ask(welcome, self._deadlines.answer)
        links = self._open(links)
        hosts = _by_source(links)
        # A host trains its guests one after the other, and ours may be the last.
        guests = max((len(names) for names in owners.values()), default=0)
        deadline = guests * self._deadlines.training + 2 * self._deadlines.transfer
        calls = {
            owner: ("visit", {"hosts": names, "deadline": deadline})
            for owner, names in hosts.items()
        }
        replies = self._ask(calls, deadline + self._deadlines.answer)
        for owner, host in links:
            told = replies.get(owner, {}).get("visits", {}).get(host)
            if told is None:
                continue
            if "refused" in told:
                self._turned_down(host, told)
                continue
            self.record.carried((owner, host), int(told["sent"]))
            self.record.carried((host, owner), int(told["received"]))
            self.routes[(owner, host)] = str(told["route"])
            self._count("overseas", f"{owner}->{host}", told)
            self._slots[owner].append(f"expert/{host}")
            self._slots[host].append(f"guest/{owner}")

    def distil(self, steps: int, settings: DistillationSettings, rate: float) -> None:
        """See Carrier."""
        arguments = {"steps": steps, "settings": settings.model_dump(mode="json"), "rate": rate}
        asked = [n for n in self.present if any(s.startswith("expert/") for s in self._slots[n])]
        calls = dict.fromkeys(asked, ("distil", arguments))
        for name, reply in self._ask(calls, self._deadlines.training).items():
            self._count("distillation", name, reply)
            for host, similarity in reply["similarity"].items():
                self.record.similarity[(name, host)] = float(similarity)

    def compare(
        self, prefixes: Sequence[str], settings: DistillationSettings
    ) -> dict[str, dict[str, float]]:
        """See Carrier."""
        arguments = {"prefixes": list(prefixes), "settings": settings.model_dump(mode="json")}
        calls = dict.fromkeys(self.present, ("compare", arguments))
        found = {}
        for name, reply in self._ask(calls, self._deadlines.training).items():
            found[name] = {slot: float(value) for slot, value in reply["similarity"].items()}
            self.record.compared(name, found[name])
        return found

    def send(self, links: Sequence[Link]) -> None:
        """See Carrier."""
        links = self._open(links)
        calls: dict[str, Call] = {
            target: ("expect_letters", {"sources": names})
            for target, names in _by_target(links).items()
        }
        self._ask(calls, self._deadlines.answer)
        links = self._open(links)
        deadline = self._deadlines.transfer
        calls = {
            source: ("send", {"targets": names, "deadline": deadline})
            for source, names in _by_source(links).items()
        }
        replies = self._ask(calls, deadline + self._deadlines.answer)
        for source, target in links:
            told = replies.get(source, {}).get("letters", {}).get(target)
            if told is None:
                continue
            if "refused" in told:
                self._turned_down(target, told)
                continue
            self.record.carried((source, target), int(told["sent"]))
            self.routes[(source, target)] = str(told["route"])
            self._slots[target].append(f"inbox/{source}")

    def mix(self, shares: Callable[[str, Sequence[str]], Mapping[str, float]]) -> None:
        """See Carrier."""
        calls: dict[str, Call] = {
            name: ("mix", {"parts": [list(part) for part in shares(name, slots).items()]})
            for name, slots in self._slots.items()
            if name in self.present
        }
        self._ask(calls, self._deadlines.transfer)

    def pool(self, counted: Callable[[str], float], *, server: bool) -> None:
        """See Carrier. Without a server, sums would come in another order and give other bits:
        settings that ask for it are refused."""
        if not server:
            raise FederationError("Sites of a federation have no all-reduce; use 'gossip'")
        sizes = self._read()
        members = self.present
        if not members:
            return
        total = sum(counted(name) for name in members)
        mean = weighted_sum((counted(name) / total, self._seen[name]) for name in members)
        parcel = pack(mean, self._start, self._transfer)
        calls: dict[str, Call] = dict.fromkeys(self._reached, ("take", {"weights": parcel}))
        taken = self._ask(calls, self._deadlines.transfer)
        for name in members:
            self.record.carried((name, SERVER), sizes[name])
        arrived = unpack(parcel, self._start, "The average")
        for name in taken:
            self.record.carried((SERVER, name), len(parcel))
            self._seen[name] = arrived
            self._fresh.add(name)

    def share_prototypes(self, links: Sequence[Link]) -> None:
        """Prototypes are not shared between sites: settings that ask for them are refused."""
        raise FederationError("Sites of a federation do not share prototypes")

    def weights(self, silo: str) -> State:
        """What a site held when it was last read; see RunCarrier."""
        return self._seen[silo]

    def close(self) -> None:
        """No more calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self) -> dict[str, int]:
        """Bring _seen up to date; how many bytes each site's weights took."""
        asked = [name for name in self.present if name not in self._fresh]
        sizes: dict[str, int] = {}
        calls: dict[str, Call] = dict.fromkeys(asked, ("own_weights", {}))
        for name, reply in self._ask(calls, self._deadlines.transfer).items():
            whose = f"The weights of the silo '{name}' in round {self.record.number}"
            try:
                self._seen[name] = unpack(reply["weights"], self._start, whose)
                sizes[name] = len(reply["weights"])
                self._fresh.add(name)
            except FederationError as error:
                self._fail(name, str(error))
        return sizes

    def _ask(self, calls: Mapping[str, Call], deadline: float) -> dict[str, Reply]:
        """Have sites do something, all at once; the answers of those that did, in the order of
        silos. The others have failed."""
        futures = {
            name: self._pool.submit(self._call, name, *calls[name], deadline)
            for name in self.silos
            if name in calls
        }
        replies = {}
        for name, future in futures.items():
            reply = future.result()
            if "refused" in reply:
                self._fail(name, self._in_round(str(reply["refused"])))
            else:
                replies[name] = reply
        return replies

    def _call(self, site: str, step: str, arguments: dict[str, Any], deadline: float) -> Reply:
        if site not in self._proxies:
            self.lost.add(site)
            return {"refused": f"The site '{site}' is not in this job"}
        if step not in _READING:
            self._fresh.discard(site)
        if step != "join":
            arguments = {**arguments, "round": self.record.number}
        try:
            reply = getattr(self._proxies[site](timeout=deadline), step)(**arguments)
        except RunAborted:
            raise
        except Exception as error:  # whatever the engine raises when a site is gone
            self.lost.add(site)
            return {"refused": lost(site, step, error, deadline)}
        return reply if isinstance(reply, dict) else {"refused": f"'{site}' answered nonsense"}

    def _fail(self, name: str, sentence: str) -> None:
        if name in self._cut_off:
            return
        if self._on_failure == "stop":
            raise FederationError(sentence)
        self.record.failures.setdefault(name, sentence)

    def _turned_down(self, name: str, told: Reply) -> None:
        """A neighbour says that a site refused, or was lost."""
        if told.get("lost"):
            self.lost.add(name)
        self._fail(name, self._in_round(str(told["refused"])))

    def _in_round(self, sentence: str) -> str:
        number = self.record.number
        return sentence if f"round {number}" in sentence else f"In round {number}: {sentence}"

    def _count(self, phase: Phase, key: str, reply: Reply) -> None:
        self.record.steps[phase] += int(reply["steps"])
        if reply["loss"] is not None:  # a site may keep it to itself
            self.record.losses.setdefault(phase, {})[key] = float(reply["loss"])

    def _open(self, links: Sequence[Link]) -> list[Link]:
        """Links whose ends both still take part."""
        return [link for link in links if not self.record.failures.keys() & set(link)]


def _by_source(links: Sequence[Link]) -> dict[str, list[str]]:
    """To whom each source has a link."""
    targets: dict[str, list[str]] = {}
    for source, target in links:
        targets.setdefault(source, []).append(target)
    return targets


def _by_target(links: Sequence[Link]) -> dict[str, list[str]]:
    """From whom each target has a link."""
    return _by_source([(target, source) for source, target in links])
