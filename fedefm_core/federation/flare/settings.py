# SPDX-License-Identifier: Apache-2.0
"""The owner's project: who takes part, what is trained and how weights travel.

A job brings it to the sites. What a site holds and gives is in its own settings
(site_settings.py): neither has the other's keys, so neither can override the other.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from fedefm_core.config import Settings
from fedefm_core.federation.flare.site_settings import SERVER_NAME
from fedefm_core.federation.parcels import Transfer
from fedefm_core.federation.settings import PretrainSettings

SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=60)]


class DeadlineSettings(Settings):
    """Seconds that one call to one site may take; a site that is late is left out of the round.

    answer: to say that it is there. join: to read its images. training: of one set of weights, at
    home or of one guest. transfer: of weights, one way.
    """

    answer: float = Field(30.0, gt=0)
    join: float = Field(1800.0, gt=0)
    training: float = Field(3600.0, gt=0)
    transfer: float = Field(900.0, gt=0)


class ServerSettings(Settings):
    """host: name by which all sites reach the server, and which its certificate is for. port: the
    only one that must be open, and only there."""

    host: str = "localhost"
    port: int = Field(8002, ge=1, le=65535)
    organisation: str = "owner"


class ProjectSettings(Settings):
    """The owner's: who takes part and what is trained.

    sites: by name, the organisation of each. owner: e-mail address of who may submit and abort.
    minimum_sites: a job with fewer does not start. transfer: how weights are written for the road.
    pretrain: as for one machine; its corpora are what Θ is measured on, at the server, and give
    the kinds of image and their size.
    """

    name: SiteName = "fedefm"
    server: ServerSettings = ServerSettings()
    sites: dict[SiteName, str] = Field(min_length=1)
    owner: str = "owner@fedefm.org"
    minimum_sites: int = Field(1, ge=1)
    transfer: Transfer = "exact"
    deadlines: DeadlineSettings = DeadlineSettings()
    pretrain: PretrainSettings = PretrainSettings()

    @field_validator("sites")
    @classmethod
    def _server_is_no_site(cls, sites: dict[str, str]) -> dict[str, str]:
        if SERVER_NAME in sites:
            raise ValueError(f"a site must not be called '{SERVER_NAME}'")
        return sites
