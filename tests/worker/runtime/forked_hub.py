"""`python -m worker.core.hub` as a fork of a process that has imported the client already.

The client reads the address of its Hub when it is imported; each test has a Hub of its own.
"""

from __future__ import annotations

import os
import sys

from huggingface_hub import constants

from worker.core.hub.__main__ import main

if __name__ == "__main__":
    before, constants.ENDPOINT = constants.ENDPOINT, os.environ["HF_ENDPOINT"]
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(before, constants.ENDPOINT)
    constants.HUGGINGFACE_CO_URL_TEMPLATE = template
    sys.exit(main())
