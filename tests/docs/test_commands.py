"""Commands and flags in the documents are those of the program, and none is left out."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.adapter_files.arguments import TOOLS, tool_parser
from app.cli.main import build_parser
from tests.docs.pages import DOCS, ROOT, section, shell_commands, text
from worker.core.evaluate_folder import __main__ as evaluation
from worker.core.eyes import __main__ as eyes
from worker.core.families.family import BaseFamily
from worker.core.training.command_line import flags
from worker.core.training.command_line.settings import ALIASES, settings

PAGE = DOCS / "command-line.md"
FLAG = re.compile(r"(?<![\w-])(-{1,2}[a-z][a-z-]*)")
SECTIONS = {"backup": "backup and restore", "restore": "backup and restore"}
FORWARDED = {"evaluate", "name", "train"}
"""Commands whose flags the core reads, each with a test of its own here."""

NEGATED = re.compile(r"^--no-(?!browser)")


def commands(parser: ArgumentParser | None = None) -> dict[str, ArgumentParser]:
    """Every command, of `brushwork` if no other parser is given, with its parser."""
    actions = (parser or build_parser())._actions
    choices = next(action.choices for action in actions if action.dest == "command")
    assert isinstance(choices, dict)
    return choices


def options(parser: ArgumentParser) -> set[str]:
    """The flags of a parser that its help shows, and those of its actions."""
    found = set()
    for action in parser._actions:
        if action.dest == "action" and isinstance(action.choices, dict):
            found |= set().union(*map(options, action.choices.values()))
        elif action.help != "==SUPPRESS==" and action.dest != "help":
            found |= set(action.option_strings)
    return found


def documented(heading: str) -> set[str]:
    """The flags in the inline code and the code blocks of a section."""
    part = section(PAGE, heading)
    code = re.findall(r"```.*?```|`[^`]+`", part, re.DOTALL)
    return set(FLAG.findall(" ".join(code).replace("python -m", "")))


def test_every_command_is_in_the_table() -> None:
    table = section(PAGE, "Command line").partition("\n## ")[0]
    assert set(re.findall(r"\[`([\w-]+)`\]\(#", table)) == set(commands())


@pytest.mark.parametrize("name", sorted(set(commands()) - FORWARDED))
def test_every_flag_of_a_command_is_documented(name: str) -> None:
    expected = options(commands()[name])
    found = documented(SECTIONS.get(name, name))
    if name == "adapters":  # the tools follow in sections of their own
        expected = set()
    assert expected <= found


@pytest.mark.parametrize("name", sorted(set(commands()) - FORWARDED - {"adapters"}))
def test_every_documented_flag_of_a_command_exists(name: str) -> None:
    shared = [key for key in commands() if SECTIONS.get(key, key) == SECTIONS.get(name, name)]
    known = set().union(*(options(commands()[key]) for key in shared))
    assert documented(SECTIONS.get(name, name)) <= known


@pytest.mark.parametrize("tool", TOOLS)
def test_the_flags_of_a_tool_are_those_that_are_documented(tool: str) -> None:
    assert documented(tool) == options(tool_parser(tool, ArgumentParser))


def test_the_flags_of_train_are_documented_once() -> None:
    """Those of the settings are in the table of settings, which another test compares."""
    of_settings = {flag for setting in settings() for flag in setting.flags}
    negated = {option for option in options(flags.build_parser()) if NEGATED.match(option)}
    others = options(flags.build_parser()) - of_settings - negated
    found = documented("train")
    assert others <= found
    assert found <= others | of_settings | {"--no-text-encoder", "--no-"}
    assert set(ALIASES.values()) <= found


def test_the_flags_of_name_and_evaluate_are_documented() -> None:
    assert documented("name") == options(commands(eyes.build_parser())["name"])
    assert documented("evaluate") == options(evaluation.build_parser()) | {"--out"}  # of train


def commands_in_documents() -> Iterator[tuple[str, str]]:
    """(document, command) for the commands of ours in the code blocks."""
    for document, line in shell_commands():
        if re.match(r"(brushwork|\.venv/bin/brushwork|python3? )", line):
            yield document, line.partition("  #")[0]


@pytest.mark.parametrize(("document", "line"), list(commands_in_documents()))
def test_every_command_in_a_code_block_is_understood(document: str, line: str) -> None:
    program, *words = shlex.split(line)
    if program.startswith("python"):
        program, words = words[0], words[1:]
        module = words.pop(0) if program == "-m" else program.removesuffix(".py").replace("/", ".")
        if module != "app":
            assert understands(module, words), f"{document}: {line}"
            return
    parse(words)


def parse(words: list[str]) -> None:
    """Parse a command line; fails with what the parser says."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            arguments = build_parser().parse_args(words)
            if arguments.command == "train":
                flags.parse_arguments(arguments.words)
            if arguments.command == "name":
                eyes.build_parser().parse_args(["name", *arguments.words])
            if arguments.command == "evaluate":
                evaluation.build_parser().parse_args(arguments.words)
    except SystemExit as end:
        if end.code:
            pytest.fail(said.getvalue())


def understands(module: str, words: list[str]) -> bool:
    """True if a module exists and its source names every flag, or one that benches share."""
    found = importlib.util.find_spec(module)
    assert found is not None, module
    if module == "worker.core.training":
        flags.build_parser().parse_args(words)
        return True
    assert found.origin is not None
    source = text(
        Path(found.origin).parent / "__main__.py"
        if found.submodule_search_locations
        else Path(found.origin)
    )
    for shared in re.findall(r"^from bench\.(\w+) import", source, re.MULTILINE):
        source += text(ROOT / "bench" / f"{shared}.py")
    return all(f'"{flag}"' in source for flag in words if flag.startswith("--"))


def test_the_command_that_trains_the_example_is_complete() -> None:
    line = next(line for _, line in commands_in_documents() if "-m app train" in line)
    given = flags.parse_arguments(shlex.split(line)[4:])
    assert (ROOT / given.data[0].path / "metadata.jsonl").exists()
    assert given.config(resolution=64, images=24, family=BaseFamily.SD1).steps == 60
