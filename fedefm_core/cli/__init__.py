# SPDX-License-Identifier: Apache-2.0
"""The command line: 'fedefm_core VERB'. A module per group of verbs; imports inside the verbs."""

from fedefm_core.cli import (  # noqa: F401 - each adds its verb to app
    bench,
    check,
    compare_models,
    compare_statistics,
    distill,
    engine,
    evaluate,
    experiment,
    export,
    federate,
    finetune,
    predict,
    pretrain,
    replay,
    report_runs,
    simulate,
    topology,
)
from fedefm_core.cli.main import app, main

__all__ = ["app", "main"]
