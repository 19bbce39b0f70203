"""An S3 server of moto in a process of its own, for an object store that can be away."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator

import httpx

from app.registry.paths import ROOT

BUCKET = "brushwork"
URL = f"s3://{BUCKET}/data"


@contextlib.contextmanager
def s3_server() -> Iterator[int]:
    """The port of an S3 server with an empty bucket `BUCKET`; its process ends with the block."""
    command = [sys.executable, "-m", "tests.faults.s3_server"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            httpx.put(f"http://127.0.0.1:{port}/{BUCKET}").raise_for_status()
            yield port
        finally:
            server.kill()


def environment(port: int) -> dict[str, str]:
    """The settings that make a process store its blobs in the bucket behind this port."""
    return {
        "BRUSHWORK_STORAGE_URL": URL,
        "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


def main() -> None:
    """Serve until the pipe to stdin is closed; print the port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
