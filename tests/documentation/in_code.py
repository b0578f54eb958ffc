"""What of the code is public, found in the code itself: the other half of `in_documents`."""

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import click
from msgspec import Struct
from prometheus_client import CollectorRegistry

from tests.test_layers import MODULES
from tolmach.configuration.checking import fields_of

_LOOPS = (ast.DictComp, ast.ListComp, ast.SetComp, ast.GeneratorExp)
_LOOKED_AT = re.compile(r"\b(exit|SystemExit|(headers|environ)\.(get|pop)|head\.header)$")


class Module:
    """What is looked at of a module.

    That is its texts; its classes with the names of their bases; what it gives names to; its calls that leave the
    program or ask headers or the environment, by name and first argument; and what its comprehensions go over, with
    the names that they call.
    """

    def __init__(self, text: str) -> None:
        tree = ast.parse(text)
        self.texts: set[str] = set()
        self.bases: dict[str, set[str]] = {}
        self.calls: list[tuple[str, ast.expr]] = []
        self.loops: list[tuple[str, str]] = []
        self.given = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts.add(node.value)
            elif isinstance(node, ast.Call) and node.args and _LOOKED_AT.search(name := _dotted(node.func)):
                self.calls.append((name, node.args[0]))
            elif isinstance(node, ast.ClassDef):
                self.bases[node.name] = {_dotted(base).rpartition(".")[2] for base in node.bases}
            elif isinstance(node, _LOOPS):
                over = _dotted(node.generators[0].iter)
                self.loops += [(over, _dotted(call.func)) for call in ast.walk(node) if isinstance(call, ast.Call)]


Sources = Mapping[str, Module]
"""The modules of the package by name."""


def sources() -> Sources:
    return {name: Module(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _dotted(node: ast.AST) -> str:
    """`os.environ.get`; of what is called or made on the way only what comes behind it."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# Keys of files


def keys(tables: Mapping[str, Any]) -> set[str]:
    """`gateway.limits.depth`, of the types of the tables; one of a name (`[routes.NAME]`) goes without it."""
    return {key for name, hint in tables.items() for key in _keys(name, hint)}


def _keys(name: str, hint: Any) -> Iterator[str]:
    table = _struct_in(hint)
    if table is None:
        yield name
        return
    for field, below in fields_of(table).items():
        yield from _keys(f"{name}.{field}", below)


def _struct_in(hint: Any) -> type[Struct] | None:
    """The table that a type is, or has in it: `tuple[Step, ...]`, `dict[str, Route]`."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        return hint
    return next((found for part in get_args(hint) if (found := _struct_in(part))), None)


def tables_of(kind: type[Struct], *but: str) -> dict[str, Any]:
    """The fields of a struct with their types."""
    hints = get_type_hints(kind)
    return {name: hints[name] for name in kind.__struct_fields__ if name not in but}


# The command

EVERY = "every command"


def commands(root: click.Command, name: str = "tolmach") -> dict[str, click.Command]:
    """All commands by the words that call them."""
    found = {name: root}
    if isinstance(root, click.Group):
        context = click.Context(root)
        for word in root.list_commands(context):
            command = root.get_command(context, word)
            assert command is not None
            found |= commands(command, f"{name} {word}")
    return found


def options(root: click.Command) -> set[str]:
    """`tolmach ask --json`, and `every command --help` for what all of them take."""
    context = click.Context(root, **root.context_settings)
    found = {
        name: {*context.help_option_names, *(flag for each in command.params for flag in _flags(each))}
        for name, command in commands(root).items()
    }
    common = set.intersection(*found.values())
    own = {f"{name} {flag}" for name, flags in found.items() for flag in flags - common}
    return own | {f"{EVERY} {flag}" for flag in common}


def _flags(parameter: click.Parameter) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else []


def exit_codes(modules: Sources, by_error: Mapping[Any, int]) -> set[str]:
    """Those of errors, and whatever number the command leaves with elsewhere."""
    command = [module for name, module in modules.items() if name.startswith("tolmach.cli")]
    numbers = {
        name: value.value
        for module in command
        for name, value in module.given.items()
        if isinstance(value, ast.Constant) and type(value.value) is int
    }
    left_with = [
        argument for module in command for name, argument in module.calls if re.search(r"\b(exit|SystemExit)$", name)
    ]
    found = {0, *by_error.values()}
    for node in (node for argument in left_with for node in ast.walk(argument)):
        if isinstance(node, ast.Name) and node.id in numbers:
            found.add(numbers[node.id])
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            found.add(node.value)
    return {str(code) for code in found}


# Errors, headers, variables


def errors(modules: Sources) -> set[str]:
    """The public classes that derive from `TolmachError`."""
    bases = {name: above for module in modules.values() for name, above in module.bases.items()}
    found = {"TolmachError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return {name for name in found if not name.startswith("_")}


_HEADER = re.compile(r"x(-[a-z0-9]+)+-?")
_HEADERS = re.compile(r"\b(headers\.get|head\.header)$")
_FRAMING = frozenset({"content-length", "transfer-encoding", "host"})
"""What HTTP itself is made of."""


def headers(modules: Sources, exposed: str, asked_for: str) -> set[str]:
    """The headers of the gateway's answers (`exposed` to scripts), and those of questions that it looks at.

    `asked_for` is the demo's own. The beginning of names that are made up at run time ends with `*`, unless all
    that begin so are known.
    """
    ours = [module for name, module in modules.items() if re.match(r"tolmach\.(gateway|access)\b", name)]
    found = {*exposed.split(", "), asked_for}.union(*map(_looked_at, ours))
    written = {text for module in ours for text in module.texts if _HEADER.fullmatch(text)}
    found |= {text for text in written if not text.endswith("-")}
    found |= {f"{text}*" for text in written if text.endswith("-") and not any(name.startswith(text) for name in found)}
    return {name for name in found if name not in _FRAMING and not name.startswith("access-control-")}


def _looked_at(module: Module) -> set[str]:
    """What is taken of a question's headers, or of a service's to be shown: by name, or by each name of a tuple."""
    found = {_text(argument) for name, argument in module.calls if _HEADERS.search(name)} - {""}
    for over, name in module.loops:
        if over in module.given and _HEADERS.search(name):
            found |= set(ast.literal_eval(module.given[over]))
    return found


_VARIABLE = re.compile(r"(?:TOLMACH|OTEL|XDG|PROMETHEUS)_[A-Z_]+")


def variables(modules: Sources) -> set[str]:
    """The environment variables that are read or set; a beginning of names ends with `*`.

    Names that a user chooses (`${NAME}`), and those of services' keys, stand in no code.
    """
    found = {text for module in modules.values() for text in module.texts if _VARIABLE.fullmatch(text)}
    for name, argument in (call for module in modules.values() for call in module.calls):
        if re.search(r"\benviron\.(get|pop)$", name) and _text(argument):
            found.add(_text(argument))
    return {f"{name}*" if name.endswith("__") else name for name in found}


def _text(node: ast.expr) -> str:
    """A text that is written out; empty for any other expression."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


# Metrics


def metrics(registry: CollectorRegistry) -> set[str]:
    """`tolmach_tokens_total (direction, target)`: each with its labels."""
    found = set()
    collectors: list[Any] = list(registry._collector_to_names)  # which have no public names for this
    for collector in collectors:
        for metric in collector.describe():
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            found.add(f"{name} ({', '.join(sorted(collector._labelnames))})")
    return found
