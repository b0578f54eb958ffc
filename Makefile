# Needs make and python3 (3.11 or later, with venv). `make run` and `make test` are all a newcomer needs.
#
#   make run [ARGS="..."]     tolmach demo: plays five chat services, asks them all through a gateway, and serves it
#   make test [ARGS="..."]    the tests (ARGS for pytest; --all: the whole of what is taken in parts)
#   make lint, make fix       ruff and mypy; what ruff can mend by itself
#   make bench [ARGS="..."]   measurements (ARGS names some of them: decoders session)
#   make soak [ARGS="..."]    a million requests through one gateway: its memory stays flat
#   make fuzz [ARGS="..."]    malformed answers for the decoders (ARGS="--seconds 60")
#   make docs                 the tables in README.md and README.ru.md again from the code
#   make package             sdist, wheel and SBOM in dist/, built twice, checked and tried
#   make requirements         the pins again (ARGS="--upgrade" for newer versions)
#   make clean                removes .venv, caches and what was built

.PHONY: run test lint fix bench soak fuzz docs package requirements clean
.DEFAULT_GOAL := run

bin := .venv/bin
benchmarks := $(filter-out report gateway_in_memory gateway_processes gateway_upstream gateway_load soak,$(basename $(notdir $(wildcard benchmarks/*.py))))

# The first interpreter that is new enough; PYTHON=... chooses another.
define install
@for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11); do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		exec "$$python" requirements/install.py $(1); \
	fi; \
done; \
echo "tolmach needs Python 3.11 or later; none found$(if $(PYTHON), as $(PYTHON)). \
Install one, or say where it is: make $@ PYTHON=/path/to/python3" >&2; exit 1
endef

run:
	$(call install,run)
	@$(bin)/tolmach demo $(ARGS)

test:
	$(call install,dev)
	@$(bin)/python -m pytest -n auto --dist worksteal --durations 30 $(ARGS)

lint:
	$(call install,dev)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

fix:
	$(call install,dev)
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench:
	$(call install,dev)
	@for name in $(or $(ARGS),$(benchmarks)); do $(bin)/python benchmarks/$$name.py || exit 1; echo; done

soak:
	$(call install,dev)
	@$(bin)/python benchmarks/soak.py $(ARGS)

fuzz:
	$(call install,dev)
	@$(bin)/python -m tolmach.testing.fuzz $(ARGS)

docs:
	$(call install,dev)
	@$(bin)/python -m tolmach.testing.tables $(ARGS)

package:
	$(call install,dev)
	@$(bin)/python release/package.py

requirements:
	$(call install,dev)
	@$(bin)/python requirements/compile.py $(ARGS)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist
	find src tests requirements release -name __pycache__ -type d -prune -exec rm -rf {} +
