"""Which module may import which: read from the source, imports inside functions too."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "tolmach"

_PURE = {"errors", "chat", "wire", "decoding"}
_CORE = _PURE | {"protocols", "cookies", "transport", "session", "blocking"}
_PROVIDERS = _CORE | {"pages", "providers"}

ALLOWED: dict[str, set[str]] = {
    "version": set(),
    "safe_text": set(),
    "errors": set(),
    "extras": {"errors"},
    "chat": {"errors"},
    "wire": {"errors", "chat"},
    "decoding": {"errors", "chat", "wire"},
    "protocols": _PURE | {"protocols"},
    "cookies": {"errors", "extras", "wire"},
    "transport": {"version", "errors", "extras", "wire", "cookies", "transport"},
    "egress": {"errors", "wire", "transport", "egress"},
    "discovery": _PURE | {"protocols", "discovery"},
    "blocking": {"errors"},
    "session": _PURE | {"protocols.base", "protocols.lenient", "cookies", "transport"},
    "pages": _CORE | {"version", "discovery", "egress", "pages"},
    "recipes": _PURE | {"safe_text", "protocols", "cookies", "transport", "recipes"},
    "providers": _PROVIDERS | {"egress", "recipes"},
    "configuration": _PROVIDERS | {"safe_text", "configuration", "recipes", "egress"},
    "routing": _PROVIDERS | {"configuration", "routing"},
    "client": _PROVIDERS | {"configuration", "routing", "client"},
    "testing": _PURE
    | {"protocols", "cookies", "transport", "providers.registry", "providers.sites.apis", "discovery", "testing"},
    "demo": _PURE | {"testing", "demo"},
    "state": {"errors", "extras", "state"},
    "access": {"errors", "state", "access"},
    "ledger": {"errors", "extras", "access.keys", "ledger"},
    "gateway": _PROVIDERS
    | {"version", "safe_text", "extras", "routing", "configuration", "gateway", "ledger", "egress", "state", "access"},
    "cli": _PROVIDERS
    | {"version", "client", "routing", "configuration", "gateway", "egress", "testing", "demo", "cli", "ledger"}
    | {"safe_text", "state", "access", "discovery", "recipes"},
    "__main__": {"cli"},
    # Loads its names at their first use; the type checker alone sees these imports.
    "": _PROVIDERS | {"version", "client"},
}
"""Area (the first part of a module's name below `tolmach`) -> the areas or modules it may import."""

ROOMS: dict[str, set[str]] = {
    "gateway.addresses": set(),
    "gateway.cors": {"http"},
    "gateway.http": set(),
    "gateway.status": set(),
    "gateway.request_target": {"http"},
    "gateway.policy": {"cors", "http", "request_target"},
    "gateway.surfaces": {"surfaces", "status", "answers.estimate"},
    "gateway.emulation": {"emulation", "surfaces.bodies"},
    "gateway.telemetry": {"telemetry", "context", "http"},
    "gateway.context": {"http", "telemetry.logs", "telemetry.transcript", "public_errors"},
    "gateway.public_errors": {"telemetry.logs"},
    "gateway.answers": {"answers", "surfaces", "emulation", "context", "http", "telemetry.metrics"},
    "gateway.serving": {"serving", "core", "http", "addresses", "telemetry.metrics"},
    "providers.base": set(),
    "providers.registry": {"base"},
    "providers.names": {"registry", "sites.apis"},
    "providers.stream_session": set(),
    "providers.sites": {"base", "stream_session", "sites"},
}
"""Room of a large area, or module of it -> what of the same area it may import."""

PURE_AREAS = ("errors", "chat", "wire", "decoding", "safe_text", "protocols", "discovery")

PURE_ROUTING = ("failures", "health", "policy", "resume", "seam")
"""Of routing only the decisions are pure; what carries them out is not."""

IMPURE = {"asyncio", "concurrent", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil"}
IMPURE |= {"signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "uuid"}
IMPURE |= {"http.client", "http.server", "urllib.request", "wreq", "aiohttp", "requests", "httpx"}
"""What a pure module must not import: sockets, the clock, randomness, the environment, threads, files."""

HOMES: dict[str, tuple[str, ...]] = {
    "aiohttp": ("tolmach.transport.aiohttp",),
    "aiohttp_socks": ("tolmach.transport.aiohttp",),
    "browser_cookie3": ("tolmach.cookies",),
    "click": ("tolmach.cli",),
    "genai_prices": ("tolmach.ledger.prices",),
    "granian": ("tolmach.gateway.serving",),
    "httptools": ("tolmach.transport.plain", "tolmach.demo.http1"),
    "opentelemetry": ("tolmach.gateway.telemetry.otel",),
    "prometheus_client": ("tolmach.gateway.telemetry.metrics",),
    "prompt_toolkit": ("tolmach.cli",),
    "psycopg": ("tolmach.ledger.postgres",),
    "rich": ("tolmach.cli",),
    "redis": ("tolmach.state.link",),
    "selectolax": ("tolmach.protocols", "tolmach.discovery"),
    "uvloop": ("tolmach.gateway.serving",),
    "wreq": ("tolmach.transport.wreq",),
    "yarl": ("tolmach.transport.aiohttp",),
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
            yield inner if inner in MODULES else node.module


def _imports(module: str) -> set[str]:
    """All that a module imports, wherever the import stands."""
    return {target for node in ast.walk(_tree(module)) for target in _targets(node)}


def _area(module: str) -> str:
    return module.removeprefix("tolmach").lstrip(".").partition(".")[0]


def _forbidden(module: str, imports: set[str]) -> list[str]:
    allowed = ALLOWED[_area(module)]
    ours = {name for name in imports if name.partition(".")[0] == "tolmach"}
    return sorted(name for name in ours if _area(name) not in allowed and name.removeprefix("tolmach.") not in allowed)


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


_PURE_ROUTING = {f"tolmach.routing.{name}" for name in PURE_ROUTING}


@pytest.mark.parametrize("module", sorted(_PURE_ROUTING & set(MODULES)))
def test_the_decisions_of_routing_know_only_errors_and_each_other(module):
    ours = {name for name in _imports(module) if name.partition(".")[0] == "tolmach"}
    assert ours <= _PURE_ROUTING | {"tolmach.errors", "tolmach.chat"}


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
    assert sorted(tops - sys.stdlib_module_names - set(HOMES) - {"tolmach", "msgspec"}) == []


def _room(module: str) -> str:
    """The key of `ROOMS` for a module, empty where its area has no table of rooms."""
    name = module.removeprefix("tolmach.")
    return next((room for room in ROOMS if name == room or name.startswith(f"{room}.")), "")


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name)])
def test_a_room_imports_only_from_the_rooms_below_it(module):
    area = _area(module)
    allowed = ROOMS[_room(module)]
    own = {name.removeprefix(f"tolmach.{area}.") for name in _imports(module) if name.startswith(f"tolmach.{area}.")}
    wrong = {name for name in own if not any(name == one or name.startswith(f"{one}.") for one in allowed)}
    assert sorted(wrong) == []


def test_modules_do_not_import_each_other_in_a_circle():
    # Imports for the type checker alone count, and those inside functions: a reader follows them, too.
    graph = {module: {name for name in _imports(module) if name in MODULES} - {module} for module in MODULES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")
    assert set(order) == set(MODULES)


def test_a_forbidden_import_would_be_seen():
    assert _forbidden("tolmach.errors", {"tolmach.wire"}) == ["tolmach.wire"]
    assert _forbidden("tolmach.session", {"tolmach.protocols.openai.chat"}) == ["tolmach.protocols.openai.chat"]
    assert _forbidden("tolmach.session", {"tolmach.protocols.base", "tolmach.transport.base"}) == []
    assert _forbidden("tolmach.protocols.openai.chat", {"tolmach.transport.base"}) == ["tolmach.transport.base"]
    tree = ast.parse("def f():\n    from tolmach.session import Session\n    import time")
    assert {target for node in ast.walk(tree) for target in _targets(node)} == {"tolmach.session", "time"}
