"""Templates read exactly the variables that pages give them; no template runs code."""

from __future__ import annotations

import ast
import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class Variables:
    """The variables that a call of `render` or `render_fragment` gives by name."""

    template: str
    names: frozenset[str]


Context = type | Variables


def pages() -> Iterator[tuple[str, Context]]:
    """(template, context) of every call that renders one below `app/web/`."""
    for path in sorted((ROOT / "app" / "web").rglob("*/*.py")):
        tree = ast.parse(path.read_text())
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for template, name in rendered_in(function):
                    yield template, resolve(module, name)
                for given in named_in(function):
                    yield given.template, given


def rendered_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str]]:
    known = {
        target.id: node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        and not ast.unparse(node.value).startswith("replace(")  # a copy is of the same class
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


def named_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Variables]:
    """The calls of `render` and `render_fragment` without a context dataclass."""
    for call in ast.walk(function):
        if not isinstance(call, ast.Call) or not is_rendered(call):
            continue
        names = {str(keyword.arg) for keyword in call.keywords} - {"status"}
        place = 0 if is_fragment(call) else 1  # after the request
        if len(call.args) > place + 1:
            assert not names, f"{function.name}: give a context dataclass or variables, not both"
            continue
        template = call.args[place]
        assert isinstance(template, ast.Constant), f"{function.name}: name the template"
        yield Variables(template.value, frozenset(names))


def is_fragment(call: ast.Call) -> bool:
    return name_of(call) == "render_fragment"


def is_rendered(call: ast.Call) -> bool:
    return name_of(call) in {"render", "render_fragment", "render_outside", "render_page"}


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


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


@functools.cache
def contexts() -> dict[Context, set[str]]:
    """The templates that each context is given to."""
    found: dict[Context, set[str]] = {}
    for template, context in pages():
        found.setdefault(context, set()).add(template)
    return found


@functools.cache
def parsed(template: str) -> nodes.Template:
    return environment.parse((TEMPLATES / template).read_text())


def closure(template: str) -> set[str]:
    """The template with all it extends and includes."""
    found = {template}
    for node in parsed(template).find_all((nodes.Include, nodes.Extends)):
        if isinstance(node.template, nodes.Const):
            found |= closure(str(node.template.value))
    return found


@functools.cache
def names_in(template: str) -> tuple[set[str], set[str]]:
    """Names that this one file reads, and names that it sets itself."""
    tree = parsed(template)
    written = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    written |= {node.target for node in tree.find_all(nodes.Import)}
    written |= {node.name for node in tree.find_all(nodes.Macro)}
    written |= {  # `is defined` and `| default(…)`: may be missing
        node.node.name
        for node in tree.find_all((nodes.Test, nodes.Filter))
        if node.name in ("defined", "default") and isinstance(node.node, nodes.Name)
    }
    return meta.find_undeclared_variables(tree), written


def names_used(template: str) -> tuple[set[str], set[str]]:
    """Names that the template and its parts read, and names that they set themselves."""
    parts = [names_in(part) for part in closure(template)]
    read, written = (set[str]().union(*names) for names in zip(*parts, strict=True))
    return read - set(environment.globals) - FRAME, written


def fields_of(context: Context) -> set[str]:
    if isinstance(context, Variables):
        return set(context.names)
    return {field.name for field in dataclasses.fields(context)}


def sources() -> Iterator[tuple[str, str]]:
    """(name, source) of every template."""
    for path in sorted(TEMPLATES.rglob("*.html")):
        yield str(path.relative_to(TEMPLATES)), path.read_text()


def test_templates_read_only_what_their_contexts_give() -> None:
    unknown = {}
    for context, templates in contexts().items():
        for template in templates:
            read, written = names_used(template)
            if missing := read - fields_of(context) - written:
                unknown[template, context] = missing
    assert not unknown, unknown


def test_every_field_of_a_context_is_shown_by_a_template() -> None:
    unused = {}
    for context, templates in contexts().items():
        if left := fields_of(context).difference(*(names_used(t)[0] for t in templates)):
            unused[context] = left
    assert not unused, unused


def test_there_are_pages_to_check() -> None:
    templates = set[str]().union(*contexts().values())
    assert {"home/home.html", "datasets/show.html", "datasets/list.html"} <= templates


CODE = r"<style\b|\sstyle\s*=|\son[a-z]+\s*=\s*[\"']|\shx-(?:on|vals=.js|headers=.js)|javascript:"


def test_templates_hold_no_code_and_no_style_of_their_own() -> None:
    found = []
    for template, source in sources():
        found += [(template, code) for code in re.findall(CODE, source)]
        for tag in re.findall(r"<script\b[^>]*>[^<]*", source):
            if "src=" not in tag or not tag.endswith(">"):
                found.append((template, tag))
    assert not found, found


def test_files_and_icons_that_templates_name_are_there() -> None:
    sprite = next((ROOT / "static" / "vendor").glob("lucide-static-*/sprite.svg")).read_text()
    missing = []
    for template, source in sources():
        for path in re.findall(r"static\('([^'~]+)'\)", source):
            if not (ROOT / "static" / path).is_file():
                missing.append((template, path))
        for name in re.findall(r"icon\(\"([a-z0-9-]+)\"", source):
            if f'<symbol id="{name}"' not in sprite:
                missing.append((template, name))
    assert not missing, missing


def test_no_control_hides_what_a_form_can_do() -> None:
    """A control called `remove` is what `form.remove` gives: htmx could not swap that form."""
    hidden = [
        (template, name)
        for template, source in sources()
        for name in re.findall(r"name=\"([a-z_]+)\"", source)
        if name in FORM_METHODS
    ]
    assert not hidden, hidden


def test_a_name_nobody_gave_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nobody_gave_this }}").render()


def test_templates_and_scripts_stay_small() -> None:
    for path in [*TEMPLATES.rglob("*.html"), *(ROOT / "static" / "js").glob("*.js")]:
        lines = len(Path(path).read_text().splitlines())
        assert lines <= 300, f"{path.name} has {lines} lines; look for the second idea in it"
