# SPDX-License-Identifier: Apache-2.0
"""DDS transport and domain of processes that we start ourselves; needs no ROS."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping

TRANSPORT_VARIABLE = "FASTDDS_BUILTIN_TRANSPORTS"
# Fast DDS as shipped loses most best-effort messages of image size; both ends must be set alike.
LARGE_DATA = "LARGE_DATA?max_msg_size=4MB&sockets_size=4MB&non_blocking=true"
# Each of these keeps discovery to the loopback interface, on which LARGE_DATA does not work.
LOCALHOST_VARIABLES = ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY")

# RTPS 2.5, section 9.6.2: ports of a domain. Above 101 they meet Linux's ephemeral ports.
FIRST_PORT, PORTS_A_DOMAIN, LAST_DOMAIN = 7400, 250, 100
DISCOVERY_OFFSET = 0  # every participant of a domain listens here
LAST_OFFSET = PORTS_A_DOMAIN - 1  # of participant 119: nobody comes that far


def large_data_environment(
    domain: int, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """A copy of environment for a process in this domain that exchanges images with its peers."""
    kept = {key: value for key, value in environment.items() if key not in LOCALHOST_VARIABLES}
    return {**kept, "ROS_DOMAIN_ID": str(domain), TRANSPORT_VARIABLE: LARGE_DATA}


def large_data_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a launch file adds to environment for the same; it can change variables, not remove
    them."""
    wide = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_LOCALHOST_ONLY": "0"}
    undone = {name: wide[name] for name in LOCALHOST_VARIABLES if name in environment}
    return {TRANSPORT_VARIABLE: LARGE_DATA, **undone}


def claim_domain() -> tuple[int, socket.socket]:
    """A ROS domain that nobody on this machine uses, and the socket that holds it while open.

    Raises OSError when all are taken.
    """
    for domain in random.sample(range(1, LAST_DOMAIN + 1), LAST_DOMAIN):
        first = FIRST_PORT + domain * PORTS_A_DOMAIN
        probe = _bind(first + DISCOVERY_OFFSET)
        if probe is None:
            continue
        probe.close()
        claim = _bind(first + LAST_OFFSET)
        if claim is not None:
            return domain, claim
    raise OSError(f"All ROS domains from 1 to {LAST_DOMAIN} are in use on this machine.")


def _bind(port: int) -> socket.socket | None:
    """A UDP socket on port, None when somebody has it."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.bind(("", port))
    except OSError:
        bound.close()
        return None
    return bound
