"""What a render worker needs beside its jobs: warm pipelines, and a watch for cancels."""
