"""The versions of the ledger's tables. A database is brought from the version that it has to the newest.

A migration that was released is never changed; what comes later is another one. The SQL is what SQLite and
PostgreSQL have in common: `at` is whole microseconds, since the two cut fractions in different ways.
"""

from tolmach.errors import ConfigError
from tolmach.ledger.database import Database

__all__ = ["MIGRATIONS", "migrate"]

_COUNTED = """
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    estimated SMALLINT NOT NULL,
    cost BIGINT,
    first_ms DOUBLE PRECISION,
    total_ms DOUBLE PRECISION NOT NULL
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"""CREATE TABLE tolmach_requests (
            uid TEXT PRIMARY KEY,
            request TEXT NOT NULL,
            at BIGINT NOT NULL,
            surface TEXT NOT NULL,
            model TEXT NOT NULL,
            target TEXT NOT NULL,
            key TEXT NOT NULL,
            status INTEGER NOT NULL,
            error TEXT NOT NULL,
            gone SMALLINT NOT NULL,
            streamed SMALLINT NOT NULL,
            {_COUNTED},
            worker BIGINT NOT NULL
        )""",
        f"""CREATE TABLE tolmach_attempts (
            uid TEXT NOT NULL,
            number INTEGER NOT NULL,
            at BIGINT NOT NULL,
            target TEXT NOT NULL,
            credential INTEGER NOT NULL,
            status INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            error TEXT NOT NULL,
            reason TEXT NOT NULL,
            {_COUNTED},
            PRIMARY KEY (uid, number)
        )""",
        "CREATE INDEX tolmach_requests_at ON tolmach_requests (at)",
        "CREATE INDEX tolmach_requests_request ON tolmach_requests (request)",
    ),
    (
        "CREATE TABLE tolmach_keys (id TEXT PRIMARY KEY, data TEXT NOT NULL)",
        "CREATE INDEX tolmach_attempts_at ON tolmach_attempts (at)",
    ),
    (
        "CREATE TABLE tolmach_facts (name TEXT PRIMARY KEY)",
        "INSERT INTO tolmach_facts (name) SELECT 'had keys' WHERE EXISTS (SELECT 1 FROM tolmach_keys)",
    ),
)
"""The statements that lead to version 1, 2, ..."""


def migrate(database: Database) -> None:
    """Bring a database to the newest version, under a lock. Raises `ConfigError` for one of a newer tolmach."""
    newest = len(MIGRATIONS)
    if _version(database) == newest:
        return
    with database.transaction(alone=True):
        database.execute("CREATE TABLE IF NOT EXISTS tolmach_schema (version INTEGER NOT NULL)")
        version = _version(database)
        if version > newest:
            raise ConfigError(
                f"ledger: {database.where} is of a newer tolmach (version {version}, this one knows {newest}); "
                "update tolmach, or name another database"
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                database.execute(statement)
        database.execute("DELETE FROM tolmach_schema")
        database.execute("INSERT INTO tolmach_schema (version) VALUES (?)", (newest,))


def _version(database: Database) -> int:
    """0 for a database without tables of ours."""
    if not database.has_table("tolmach_schema"):
        return 0
    rows = database.query("SELECT max(version) FROM tolmach_schema")
    return rows[0][0] or 0
