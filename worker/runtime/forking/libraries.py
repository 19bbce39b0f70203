"""What trainers and the render worker import: loaded once by the second fork server."""

import worker.runtime.forking.registry
from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):
    import worker.runtime.trainer_orders
    import worker.runtime.warm_pipelines  # noqa: F401
