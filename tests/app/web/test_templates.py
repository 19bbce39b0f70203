"""Templates and the context dataclasses of their pages say the same; no template runs code."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
from jinja2 import meta, nodes

from app.registry.paths import ROOT, TEMPLATES
from app.web.templates import environment

FRAME = {"shell"}
FORM_METHODS = {
    "action",
    "attributes",
    "children",
    "closest",
    "matches",
    "method",
    "remove",
    "submit",
}


def pages() -> Iterator[tuple[str, type]]:
    """(template, context dataclass) of every call that renders one below `app/web/`."""
    for path in sorted((ROOT / "app" / "web").rglob("*/*.py")):
        tree = ast.parse(path.read_text())
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for template, name in rendered_in(function):
                    yield template, resolve(module, name)


def rendered_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str]]:
    known = {
        target.id: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(function):
        if not isinstance(call, ast.Call):
            continue
        for place, argument in enumerate(call.args[:-1]):
            if isinstance(argument, ast.Constant) and str(argument.value).endswith(".html"):
                context = call.args[place + 1]
                if isinstance(context, ast.Name):
                    context = known.get(context.id, context)
                yield str(argument.value), made_by(context, function.name)


def made_by(context: ast.expr, where: str) -> str:
    assert isinstance(context, ast.Call), f"{where}: make the context where it is rendered"
    return ast.unparse(context.func)


def resolve(module: str, name: str) -> type:
    """The class called `name` there; of a function that makes contexts, what it returns."""
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if isinstance(found, type):
        return found
    returns = found.__annotations__["return"]  # type: ignore[attr-defined]
    made_in = importlib.import_module(found.__module__)  # type: ignore[attr-defined]
    kind: type = getattr(made_in, returns) if isinstance(returns, str) else returns
    return kind


PAGES = sorted(set(pages()), key=lambda page: (page[0], page[1].__name__))


def closure(template: str) -> set[str]:
    """The template with all it extends and includes."""
    found = {template}
    tree = environment.parse((TEMPLATES / template).read_text())
    for node in tree.find_all((nodes.Include, nodes.Extends)):
        if isinstance(node.template, nodes.Const):
            found |= closure(str(node.template.value))
    return found


def names_used(template: str) -> tuple[set[str], set[str]]:
    """Names that the template and its parts read, and names that they set themselves."""
    read: set[str] = set()
    written: set[str] = set()
    for part in closure(template):
        tree = environment.parse((TEMPLATES / part).read_text())
        read |= meta.find_undeclared_variables(tree)
        written |= {
            name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")
        }
        written |= {node.target for node in tree.find_all(nodes.Import)}
        written |= {node.name for node in tree.find_all(nodes.Macro)}
        written |= {  # `is defined` and `| default(…)`: may be missing
            node.node.name
            for node in tree.find_all((nodes.Test, nodes.Filter))
            if node.name in ("defined", "default") and isinstance(node.node, nodes.Name)
        }
    return read - set(environment.globals) - FRAME, written


@pytest.mark.parametrize(("template", "context"), PAGES, ids=str)
def test_a_template_reads_only_what_its_context_gives(template: str, context: type) -> None:
    read, written = names_used(template)
    assert read - {field.name for field in dataclasses.fields(context)} - written == set()


@pytest.mark.parametrize("context", sorted({c for _, c in PAGES}, key=str), ids=str)
def test_every_field_of_a_context_is_shown_by_a_template(context: type) -> None:
    read = {name for template, used in PAGES if used is context for name in names_used(template)[0]}
    assert {field.name for field in dataclasses.fields(context)} - read == set()


def test_there_are_pages_to_check() -> None:
    assert {"home/home.html", "datasets/show.html", "datasets/list.html"} <= {
        template for template, _ in PAGES
    }


ALL_TEMPLATES = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*.html"))


@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_a_template_holds_no_code_and_no_style_of_its_own(template: str) -> None:
    source = (TEMPLATES / template).read_text()
    assert not re.search(r"<style\b", source)
    assert not re.search(r"\sstyle\s*=", source)
    assert not re.search(r"\son[a-z]+\s*=\s*[\"']", source)
    assert not re.search(r"\shx-(on|vals=.js|headers=.js)", source)
    assert not re.search(r"javascript:", source)
    for tag in re.findall(r"<script\b[^>]*>[^<]*", source):
        assert "src=" in tag
        assert tag.endswith(">")


@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_what_a_template_names_is_there(template: str) -> None:
    source = (TEMPLATES / template).read_text()
    for path in re.findall(r"static\('([^'~]+)'\)", source):
        assert (ROOT / "static" / path).is_file(), path
    sprite = next((ROOT / "static" / "vendor").glob("lucide-static-*/sprite.svg")).read_text()
    for name in re.findall(r"icon\(\"([a-z0-9-]+)\"", source):
        assert f'<symbol id="{name}"' in sprite, name


@pytest.mark.parametrize("template", ALL_TEMPLATES)
def test_no_control_hides_what_a_form_can_do(template: str) -> None:
    """A control called `remove` is what `form.remove` gives: htmx could not swap that form."""
    named = set(re.findall(r"name=\"([a-z_]+)\"", (TEMPLATES / template).read_text()))
    assert not named & FORM_METHODS


def test_a_name_nobody_gave_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nobody_gave_this }}").render()


def test_templates_and_scripts_stay_small() -> None:
    for path in [*TEMPLATES.rglob("*.html"), *(ROOT / "static" / "js").glob("*.js")]:
        lines = len(Path(path).read_text().splitlines())
        assert lines <= 300, f"{path.name} has {lines} lines; look for the second idea in it"
