# SPDX-License-Identifier: Apache-2.0
"""Every error that fedefm_core raises on purpose, as one tree.

    FedefmError                  catch this to catch them all; the CLI prints it as one sentence
    ├── ConfigError              a setting is unknown, of the wrong type or out of range
    │   └── ManifestError            a manifest of corpora and silos cannot be followed
    ├── FrameError               an image source cannot be read; names the file and the reason
    │   ├── UnsupportedFormatError   no reader knows this kind of file
    │   └── FrameLimitError          the file is readable but absurdly large
    ├── ModelFileError           a model file is missing, damaged, or does not describe itself
    ├── RuntimeUnavailableError  the inference runtime asked for cannot run on this machine
    │   ├── NotInstalledError        its package is not there: nobody expects it to work
    │   └── EngineError              a TensorRT engine is missing, foreign or damaged
    ├── WeightsError             a weights file does not fit: names, shapes, dtypes, values
    ├── OutputError              a result cannot be written, or would overwrite another
    ├── TruthError               a mask or truth file is missing or does not fit its image
    ├── FederationError          a silo or a round of a federated training failed; names both
    ├── TransportError           an optimal transport problem is ill-posed or did not converge
    ├── ParityError              an exported model drifted from the model it came from
    └── SimulationError          the simulator was asked for something it cannot draw

Messages are sentences for the person who can mend the cause: what was expected, what came, where.
"""


class FedefmError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(FedefmError):
    """A setting is unknown, of the wrong type or out of range."""


class ManifestError(ConfigError):
    """A manifest of corpora and silos cannot be followed: missing path, label, empty silo."""


class FrameError(FedefmError):
    """An image source cannot be read; reason is a short slug that counts failures by kind."""

    def __init__(self, message: str, reason: str = "unreadable") -> None:
        super().__init__(message)
        self.reason = reason


class UnsupportedFormatError(FrameError):
    """No reader knows this kind of file."""


class FrameLimitError(FrameError):
    """A file is larger than the configured limits allow."""


class ModelFileError(FedefmError):
    """A model file is missing, damaged, or does not describe itself."""


class RuntimeUnavailableError(FedefmError):
    """An inference runtime cannot run on this machine."""


class NotInstalledError(RuntimeUnavailableError):
    """The package of an inference runtime is not on this machine."""


class EngineError(RuntimeUnavailableError):
    """A TensorRT engine is missing, foreign, damaged, or cannot be built on this machine."""


class WeightsError(FedefmError):
    """A weights file does not fit the network it is loaded into."""


class OutputError(FedefmError):
    """A result cannot be written, or would overwrite another result."""


class TruthError(FedefmError):
    """A mask or truth file is missing, damaged, or does not fit its image."""


class FederationError(FedefmError):
    """A silo or a round of a federated training failed; the message names both."""


class TransportError(FedefmError):
    """A transport problem is ill-posed, or its solver did not reach a solution."""


class ParityError(FedefmError):
    """An exported model gives other results than the model it came from."""


class SimulationError(FedefmError):
    """The simulator was asked for something that it cannot draw."""
