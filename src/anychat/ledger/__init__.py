"""What was asked, who answered, and what it cost: written off the hot path, in SQLite or PostgreSQL."""

from anychat.ledger.database import Database, default_file, open_database, without_password
from anychat.ledger.prices import Prices, Rate
from anychat.ledger.rows import AttemptRow, RequestRow, new_uid
from anychat.ledger.writer import Ledger

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
