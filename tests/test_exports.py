"""`__all__` of every module: complete, right, and cheap to have."""

import ast
import inspect
import json
import re
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import tolmach
from tests.test_layers import MODULES, SOURCE

NOT_IMPORTED = {
    "wreq": "the HTTP client is loaded with the first request",
    "aiohttp": "an extra",
    "aiohttp_socks": "an extra",
    "asyncio": "the pure parts do without it",
    "browser_cookie3": "an extra",
    "click": "the command's",
    "http.cookiejar": "slow to load",
    "httptools": "loaded with the first request to a plain address",
    "msgspec": "loaded with the first name that needs it",
    "prompt_toolkit": "the command's",
    "rich": "the command's",
    "selectolax": "loaded with the first page",
    "tolmach.client.clients": "names are loaded at their first use",
    "tolmach.session": "names are loaded at their first use",
    "tolmach.providers.sites": "sites are loaded by name",
}
"""What `import tolmach` must not import, and why."""


def _load(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tolmach"):
            raise
        pytest.skip(f"{error.name} is not installed")


def _defined(name: str) -> set[str]:
    """The public classes and functions that stand in a module."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def _taken() -> list[tuple[str, str, str]]:
    """(importing module, module, name) for each name that one module takes from another of ours."""
    taken = []
    for user, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                names = [alias.name for alias in node.names]
                taken += [(user, node.module, name) for name in names if f"{node.module}.{name}" not in MODULES]
    return taken


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])  # a program
def test_all_is_complete_and_every_name_of_it_exists(name):
    module = _load(name)
    if not inspect.getdoc(module) and not hasattr(module, "__all__"):
        assert MODULES[name].read_text() == "", f"{name} has neither a docstring nor __all__"
        return
    exported = getattr(module, "__all__", [])
    assert len(exported) == len(set(exported))
    assert [name for name in exported if not hasattr(module, name)] == []
    assert sorted(_defined(name) - set(exported) - {"__getattr__", "__dir__"}) == []


def test_modules_take_from_each_other_only_what_is_exported():
    wrong = [
        f"{user} takes {name} from {module}"
        for user, module, name in _taken()
        if name != "__version__" and name not in getattr(_load(module), "__all__", [])
    ]
    assert wrong == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is(name):
    assert inspect.getdoc(_load(name)) or MODULES[name].stat().st_size == 0


@pytest.mark.parametrize("name", tolmach.__all__)
def test_every_public_name_loads_and_is_documented(name):
    value = getattr(tolmach, name)
    assert name in dir(tolmach)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__module__.startswith("tolmach.")
        assert value.__doc__, f"tolmach.{name} has no docstring"
    else:
        # A type alias or a table, such as Messages: only the source shows the line below it that says what it is.
        assert re.search(rf'^{name}(: \S.*)? = (.|\n)*?\n"""', _sources(), re.M), f"say below tolmach.{name} what it is"


def _sources() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tolmach.nonsense  # noqa: B018


def test_import_tolmach_is_light():
    program = "import sys, json, tolmach; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "tolmach" in loaded
    assert sorted(loaded & set(NOT_IMPORTED)) == []


def test_the_installed_package_is_typed():
    assert (SOURCE / "py.typed").exists()
