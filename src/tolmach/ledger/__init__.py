"""What was asked, who answered, and what it cost: written off the hot path, in SQLite or PostgreSQL.

It knows errors and the struct of a key, and nothing else of ours; the gateway writes, the command reads.
"""

from tolmach.ledger.database import Database, without_password
from tolmach.ledger.opening import default_file, open_database
from tolmach.ledger.prices import Prices, Rate
from tolmach.ledger.rows import AttemptRow, RequestRow, new_uid
from tolmach.ledger.writer import Ledger

__all__ = [
    "AttemptRow",
    "Database",
    "Ledger",
    "Prices",
    "Rate",
    "RequestRow",
    "default_file",
    "new_uid",
    "open_database",
    "without_password",
]
