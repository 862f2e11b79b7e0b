# SPDX-License-Identifier: Apache-2.0
"""python -m fedefm_core."""

from fedefm_core.cli import main

if __name__ == "__main__":
    main()
