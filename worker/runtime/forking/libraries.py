"""What trainers and the render worker import: loaded once by the second fork server.

The weights of the embedded base are loaded as well, without torch: most trainers and renders use
it, and share their memory.
"""

import worker.runtime.forking.registry
from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):
    import worker.runtime.trainer_orders
    import worker.runtime.warm_pipelines  # noqa: F401

from worker.core import starter
from worker.core.bases.weights import preload_fp32

preload_fp32(sorted(starter.PATH.rglob("*.safetensors")))
