"""Parts of a render worker beside its jobs: warm pipelines, and a watch for cancels."""
