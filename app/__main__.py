"""The `brushwork` command: reads flags and settings, then runs one module of `app.commands`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

QUEUES = ("train", "render", "io")
SETTING_FLAGS = ("host", "port", "data_dir", "open_browser")


def build_parser() -> ArgumentParser:
    """The parser of every command; `arguments.module` names the module that runs it."""
    parser = ArgumentParser("brushwork", description="Train, try and keep image-style LoRAs.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, help_text: str, *, module: str | None = None) -> ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(module=module or name)
        sub.add_argument("--data-dir", type=Path, metavar="FOLDER", help="folder for all data")
        return sub

    serve = command("serve", "Start everything on this machine: broker, web and workers.")
    web = command("web", "Start the web server alone.")
    for sub in (serve, web):
        sub.add_argument("--host", help="address to listen on (127.0.0.1)")
        sub.add_argument("--port", type=int, help="port to listen on (8188; 0: a free one)")
    serve.add_argument(
        "--no-browser", dest="open_browser", action="store_const", const=False,
        help="do not open a browser",
    )  # fmt: skip
    web.add_argument("--fd", type=int, help="a listening socket inherited from a supervisor")

    worker = command("worker", "Start one worker.")
    worker.add_argument("--queue", choices=QUEUES, required=True, help="what it works on")
    command("migrate", "Bring the database up to date.")
    return parser


def settings_from(arguments: Namespace) -> Any:
    """The settings: flags first, then environment, `.env` and defaults."""
    from app.config import Settings

    flags = {name: getattr(arguments, name, None) for name in SETTING_FLAGS}
    return Settings(**{name: value for name, value in flags.items() if value is not None})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = build_parser().parse_args(argv)
    from pydantic import ValidationError

    try:
        settings = settings_from(arguments)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            print(f"Setting {name}: {problem['msg']}.", file=sys.stderr)
        return 2
    code: int = import_module(f"app.commands.{arguments.module}").run(arguments, settings)
    return code


if __name__ == "__main__":
    sys.exit(main())
