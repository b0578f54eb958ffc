"""Which module may import which: read from the source, imports inside functions too."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "anychat"

_PURE = {"errors", "chat", "wire", "decoding"}
_CORE = _PURE | {"protocols", "cookies", "transport", "session", "blocking"}
_LIBRARY = _CORE | {"pages", "providers", "sites", "registry", "requests", "completions", "client"}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "chat": {"errors"},
    "wire": {"errors", "chat"},
    "decoding": {"errors", "chat", "wire"},
    "protocols": _PURE | {"protocols"},
    "cookies": {"errors", "wire"},
    "transport": {"errors", "wire", "cookies", "transport"},
    "egress": {"errors", "wire", "transport", "egress"},
    "discovery": _PURE | {"protocols", "discovery"},
    "discover": {"errors", "wire", "cookies", "transport", "discovery"},
    "blocking": {"errors"},
    "session": _PURE | {"protocols.base", "protocols.forgiving", "cookies", "transport"},
    "requests": _PURE | {"cookies", "transport", "session", "blocking", "providers"},
    "pages": _CORE | {"discovery", "discover", "egress", "pages"},
    "providers": _CORE | {"pages"},
    "sites": _CORE | {"providers", "sites", "requests"},
    "recipes": _PURE | {"protocols", "cookies", "transport", "recipes"},
    "registry": _CORE | {"providers", "sites", "recipes"},
    "completions": {"errors", "chat"},
    "configuration": _CORE | {"pages", "providers", "sites", "registry", "configuration", "recipes", "egress"},
    "routing": _CORE | {"pages", "providers", "sites", "registry", "configuration", "routing"},
    "routed": _CORE | {"providers", "registry", "completions", "configuration", "routing"},
    "question": _CORE | {"providers", "completions"},
    "client": _LIBRARY | {"question", "routed", "routing"},
    "testing": _PURE | {"protocols", "cookies", "transport", "registry", "sites.apis", "discovery", "testing"},
    "demo": _PURE | {"testing", "demo"},
    "state": {"errors", "state"},
    "access": {"errors", "state", "access"},
    "ledger": {"errors", "access.keys", "ledger"},
    "gateway": _LIBRARY | {"routing", "configuration", "gateway", "ledger", "egress", "state", "access"},
    "cli": _LIBRARY
    | {"routing", "configuration", "gateway", "egress", "testing", "demo", "cli", "ledger", "state", "access"}
    | {"discovery", "discover", "recipes"},
    # Loads its names at their first use; the type checker alone sees these imports.
    "": _LIBRARY,
}
"""Area (the first part of a module's name below `anychat`) -> the areas or modules it may import."""

PURE_AREAS = ("errors", "chat", "wire", "decoding", "protocols", "discovery")

PURE_ROUTING = ("kinds", "health", "policy", "resume", "seam")
"""Of routing only the decisions are pure; what carries them out is not."""

IMPURE = {"asyncio", "concurrent", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil"}
IMPURE |= {"signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"}
IMPURE |= {"http.client", "http.server", "urllib.request", "wreq", "aiohttp", "requests", "httpx"}
"""What a pure module must not import: sockets, the clock, randomness, the environment, threads, files."""

HOMES: dict[str, tuple[str, ...]] = {
    "aiohttp": ("anychat.transport.aiohttp",),
    "aiohttp_socks": ("anychat.transport.aiohttp",),
    "browser_cookie3": ("anychat.cookies",),
    "click": ("anychat.cli",),
    "genai_prices": ("anychat.ledger.prices",),
    "granian": ("anychat.gateway.rsgi", "anychat.gateway.serve"),
    "httptools": ("anychat.transport.plain_connection", "anychat.demo.http1"),
    "opentelemetry": ("anychat.gateway.otel",),
    "prometheus_client": ("anychat.gateway.metrics",),
    "prompt_toolkit": ("anychat.cli",),
    "psycopg": ("anychat.ledger.postgres",),
    "rich": ("anychat.cli",),
    "redis": ("anychat.state.link",),
    "selectolax": ("anychat.protocols", "anychat.discovery"),
    "uvloop": ("anychat.gateway.serve",),
    "wreq": ("anychat.transport.http",),
    "yarl": ("anychat.transport.aiohttp",),
}
"""Third-party package -> the modules, with what is below them, that may import it."""


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _targets(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports; `from a import b` gives a.b where that is a module of ours."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "absolute imports only"
        assert node.module is not None
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            if inner != "anychat.__version__":  # a text that stands in the package itself, above all imports
                yield inner if inner in MODULES else node.module


def _imports(module: str) -> set[str]:
    """All that a module imports, wherever the import stands."""
    return {target for node in ast.walk(_tree(module)) for target in _targets(node)}


def _imports_when_loaded(module: str) -> set[str]:
    """What is imported as the module is loaded: not inside functions, nor for the type checker alone."""
    found: set[str] = set()
    waiting: list[ast.AST] = [_tree(module)]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            only_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if not only_types and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                found.update(_targets(node))
                waiting.append(node)
    return found


def _area(module: str) -> str:
    return module.removeprefix("anychat").lstrip(".").partition(".")[0]


def _forbidden(module: str, imports: set[str]) -> list[str]:
    allowed = ALLOWED[_area(module)]
    ours = {name for name in imports if name.partition(".")[0] == "anychat"}
    return sorted(name for name in ours if _area(name) not in allowed and name.removeprefix("anychat.") not in allowed)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_its_left(module):
    assert _area(module) in ALLOWED, f"{module}: say in ALLOWED what this area may import"
    assert _forbidden(module, _imports(module)) == []


def test_the_table_itself_has_no_way_back():
    # protocols.base is the part of protocols that a session may see.
    graph = {area: {name.partition(".")[0] for name in names} - {area} for area, names in ALLOWED.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(ALLOWED)
    assert "transport" not in ALLOWED["protocols"]
    assert "protocols" not in ALLOWED["transport"]
    assert "protocols" not in ALLOWED["session"]


_PURE_ROUTING = {f"anychat.routing.{name}" for name in PURE_ROUTING}


@pytest.mark.parametrize("module", sorted(_PURE_ROUTING & set(MODULES)))
def test_the_decisions_of_routing_know_only_errors_and_each_other(module):
    ours = {name for name in _imports(module) if name.partition(".")[0] == "anychat"}
    assert ours <= _PURE_ROUTING | {"anychat.errors", "anychat.chat"}


@pytest.mark.parametrize("module", [name for name in MODULES if _area(name) in PURE_AREAS or name in _PURE_ROUTING])
def test_a_pure_module_reaches_neither_socket_clock_randomness_nor_environment(module):
    names = {part for name in _imports(module) for part in (name, name.partition(".")[0])}
    assert sorted(names & IMPURE) == []
    calls = {ast.unparse(node.func) for node in ast.walk(_tree(module)) if isinstance(node, ast.Call)}
    clocks = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now"}
    assert sorted(calls & (clocks | {"open", "input", "print", "exec", "eval", "__import__"})) == []


@pytest.mark.parametrize("package", HOMES)
def test_a_package_is_imported_only_where_it_is_at_home(package):
    users = {module for module in MODULES if package in {name.partition(".")[0] for name in _imports(module)}}
    homes = HOMES[package]
    assert {user for user in users if not any(user == home or user.startswith(f"{home}.") for home in homes)} == set()


@pytest.mark.parametrize("module", MODULES)
def test_only_known_packages_are_imported(module):
    tops = {name.partition(".")[0] for name in _imports(module)}
    assert sorted(tops - sys.stdlib_module_names - set(HOMES) - {"anychat", "msgspec"}) == []


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {module: {name for name in _imports_when_loaded(module) if name in MODULES} for module in MODULES}
    graph["anychat"].clear()
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")
    assert set(order) == set(MODULES)


def test_a_forbidden_import_would_be_seen():
    assert _forbidden("anychat.errors", {"anychat.wire"}) == ["anychat.wire"]
    assert _forbidden("anychat.session", {"anychat.protocols.openai"}) == ["anychat.protocols.openai"]
    assert _forbidden("anychat.session", {"anychat.protocols.base", "anychat.transport.base"}) == []
    assert _forbidden("anychat.protocols.openai", {"anychat.transport.base"}) == ["anychat.transport.base"]
    tree = ast.parse("def f():\n    from anychat.session import Session\n    import time")
    assert {target for node in ast.walk(tree) for target in _targets(node)} == {"anychat.session", "time"}
