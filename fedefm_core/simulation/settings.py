# SPDX-License-Identifier: Apache-2.0
"""What may be chosen about simulated X-ray images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, field_validator

from fedefm_core.config import Settings

Kind = Literal["human", "animal", "phantom", "simulation"]


class BackgroundSettings(Settings):
    """Real images that take the place of procedural anatomy in a share of the frames.

    path: a file or folder that any reader takes. pattern: of the files of a folder that are used.
    share: of all frames. kind: what the frames count as. medium: 'picture' for X-ray pictures,
    'volume' for CT in Hounsfield units, which is projected from views angles.
    polygons: folder of NAME.txt with a polygon a line, 'class x1 y1 x2 y2 ...' in fractions of the
    image: what they enclose is known to be no instrument. unlabelled_instruments: the pictures may
    show instruments that nobody marked: dark lines outside the polygons then get the label 255.
    instruments: whether simulated instruments are drawn on them; without, they teach what is none.
    """

    path: Path
    pattern: str = "*"
    share: float = Field(default=0.1, gt=0.0, le=1.0)
    kind: Kind = "human"
    medium: Literal["picture", "volume"] = "picture"
    views: int = Field(default=24, ge=1, le=256)
    polygons: Path | None = None
    unlabelled_instruments: bool = True
    instruments: bool = True


class IngredientSettings(Settings):
    """What a frame is made of. Left out, it teaches what it is worth: all that is drawn besides it
    stays what it is in the frame of the same seed, so that two training sets differ in it alone.

    anatomy: bones, organs and phantoms; without, only their coarse shading, and no foreign bodies.
    foreign_bodies: things that are no instruments, and the fixtures around phantoms. vessels:
    those filled with contrast medium. detector: its blur, scatter, noise and faults. native_sizes:
    a detector of another size than the image. console: collimators, graphics, compression.
    strengthening: instruments that nobody could see are made denser.
    """

    anatomy: bool = True
    foreign_bodies: bool = True
    vessels: bool = True
    detector: bool = True
    native_sizes: bool = True
    console: bool = True
    strengthening: bool = True


class SimulationSettings(Settings):
    """size: image side in pixels. bit_depth: of the detector. kind_weights: how often each kind
    is drawn when none is named. inverted_fraction: images shown with white instruments.
    empty_fraction: images without any instrument. excursion_fraction: sequences in which the
    guidewire leaves the view for a while. backgrounds: real images to draw on; their
    shares leave the rest of the frames to procedural anatomy. ingredients: all, but for studies.
    """

    size: int = Field(default=512, ge=64, le=2048)
    bit_depth: Literal[8, 12, 16] = 8
    kind_weights: dict[Kind, NonNegativeFloat] = Field(
        default={"human": 0.4, "animal": 0.2, "phantom": 0.25, "simulation": 0.15}
    )
    inverted_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    empty_fraction: float = Field(default=0.06, ge=0.0, le=1.0)
    excursion_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    backgrounds: tuple[BackgroundSettings, ...] = ()
    ingredients: IngredientSettings = IngredientSettings()

    @field_validator("kind_weights")
    @classmethod
    def _some_kind(cls, weights: dict[Kind, float]) -> dict[Kind, float]:
        if not 0 < sum(weights.values()) < float("inf"):
            raise ValueError("the weights must be finite and one of them above 0")
        return weights

    @field_validator("backgrounds")
    @classmethod
    def _at_most_all(
        cls, sources: tuple[BackgroundSettings, ...]
    ) -> tuple[BackgroundSettings, ...]:
        total = sum(source.share for source in sources)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares must add up to 1 at most, and they make {total:.3g}")
        return sources


class SimulationFile(Settings):
    """A configuration file that speaks of simulation alone."""

    simulation: SimulationSettings = SimulationSettings()
