# SPDX-License-Identifier: Apache-2.0
"""Training of one model over silos that never show each other an image."""
