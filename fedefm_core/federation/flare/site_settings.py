# SPDX-License-Identifier: Apache-2.0
"""A site's own settings: what images it holds, what it gives, what it allows.

They lie on the site's own disk, where no job writes, so nobody else can change them. Light to
import: a site reads them before it loads anything else.
"""

from __future__ import annotations

import re
from datetime import time
from pathlib import Path

from pydantic import Field, field_validator

from fedefm_core.config import Settings

SERVER_NAME = "server"  # what FLARE calls the server of a job
HOURS = re.compile(r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")


class LimitSettings(Settings):
    """What a site gives. cpu_threads: None: all. device: cpu, or cuda (auto: where it is there).
    memory_gib: of the training process. hours: local time in which it works, '19:00-07:00'; the
    site refuses a step that would begin outside of them. steps: gradient steps that one call may
    ask for."""

    cpu_threads: int | None = Field(None, ge=1)
    device: str = Field("cpu", pattern="^(auto|cpu|cuda)$")
    memory_gib: float | None = Field(None, gt=0)
    hours: str | None = None
    steps: int = Field(10_000, ge=1)

    @field_validator("hours")
    @classmethod
    def _hours(cls, hours: str | None) -> str | None:
        if hours is not None and not HOURS.match(hours):
            raise ValueError(f"must be as '19:00-07:00' (got '{hours}')")
        return hours


class SitePrivacySettings(Settings):
    """minimum_images: with fewer, the site does not take part. guests: weights of others may be
    trained on the images here. losses: the mean loss of a training is told to the server."""

    minimum_images: int = Field(1, ge=1)
    guests: bool = True
    losses: bool = True


class SiteSettings(Settings):
    """A site's own. manifest, override: what images it holds, as pretrain's 'corpora'; without a
    manifest, simulated ones. silo: the part of the manifest that it has; None: all of it. state:
    folder of its weights between jobs and of its record of what left; None: beside FLARE's logs.
    """

    manifest: Path | None = None
    override: tuple[str, ...] = ()
    silo: str | None = None
    state: Path | None = None
    limits: LimitSettings = LimitSettings()
    privacy: SitePrivacySettings = SitePrivacySettings()


def works_at(hours: str | None, now: time) -> bool:
    """Whether now lies in hours, which may pass midnight."""
    if hours is None:
        return True
    first, last = (time.fromisoformat(part) for part in hours.split("-"))
    return first <= now < last if first <= last else now >= first or now < last


def settings_file(kit: Path, site: str) -> Path:
    """Where a site's own settings lie in its start-up kit: in the folder that no job writes."""
    return kit / "local" / f"{site}.yaml"
