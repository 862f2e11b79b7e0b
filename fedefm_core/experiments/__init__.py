# SPDX-License-Identifier: Apache-2.0
"""Studies behind the model card and docs/results.md, each made again by one command."""
