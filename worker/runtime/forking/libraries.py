"""Libraries of trainers and the render worker: loaded once by the second fork server.

The weights of the embedded base are loaded as well, without torch: most trainers and renders use
it, and share their memory.
"""

from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):
    pass

from contextlib import suppress

from worker.core import starter
from worker.core.bases.family import BaseModelError
from worker.core.bases.weights import preload_fp32

with suppress(BaseModelError, OSError):  # damaged: whoever loads it says how
    preload_fp32(sorted(starter.PATH.rglob("*.safetensors")))
