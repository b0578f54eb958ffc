"""Keys of callers: what each allows, and how one is recognised. Pure; randomness and the time are passed in."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from hmac import compare_digest

from msgspec import Struct

from tolmach.errors import AuthError, ModelNotFound

__all__ = ["KEY_PREFIX", "Key", "KeyRing", "check", "check_model", "find", "hash_of", "model_not_found", "new_key"]

KEY_PREFIX = "ak-"
"""How every key begins, so that people and scanners of secrets know one when they see it."""

_RANDOM_BYTES = 32
_ID_BYTES = 6
_NOBODY = "0" * 64


class Key(Struct, frozen=True, kw_only=True):
    """A caller's key as it is stored: what it allows, and its hash; never the key itself.

    The hash is a plain SHA-256. Slow hashes (bcrypt, argon2) make guessing dear where people choose
    the secret; this one is 32 random bytes, and nobody guesses 256 bits at any speed. A slow hash
    would only make every request slow. None is no limit.
    """

    id: str
    """12 hexadecimal digits. Not secret: logs, metrics and the ledger name a key by it."""
    name: str
    hash: str
    """SHA-256 of the key's text, 64 hexadecimal digits."""
    models: tuple[str, ...] = ()
    """Names of models that may be asked for, as patterns with `*` and `?`; empty for all."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of questions and answers together."""
    streams: int | None = None
    """Answers under way at once."""
    budget_day: float | None = None
    """US dollars in a day, by UTC."""
    budget_month: float | None = None
    """US dollars in a calendar month, by UTC."""
    expires: int | None = None
    """Unix time, in seconds, from which on it is refused."""
    disabled: bool = False
    created: int = 0
    """Unix time, in seconds."""

    def __repr__(self) -> str:
        return f"Key(id={self.id!r}, name={self.name!r})"

    @property
    def limited(self) -> bool:
        """Whether anything about it has to be counted."""
        counted = (self.requests_per_minute, self.tokens_per_minute, self.streams, self.budget_day, self.budget_month)
        return any(limit is not None for limit in counted)

    def allows(self, model: str) -> bool:
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


def hash_of(plain: str) -> str:
    """The SHA-256 of a key's text, in hexadecimal digits."""
    return sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def new_key(random: Callable[[int], bytes], name: str, *, created: int = 0) -> tuple[str, Key]:
    """A new key: its text, which is kept nowhere, and what is stored. `random` gives so many random bytes."""
    plain = KEY_PREFIX + random(_RANDOM_BYTES).hex()
    return plain, Key(id=random(_ID_BYTES).hex(), name=name, hash=hash_of(plain), created=created)


def find(keys: Mapping[str, Key], plain: str) -> Key | None:
    """The key of a text, from keys by their hashes.

    What the time of the look-up could tell is about hashes, from which no key can be made; the last
    comparison takes the same time whatever is equal, and is made when nothing was found, too.
    """
    digest = hash_of(plain)
    key = keys.get(digest)
    return key if compare_digest(key.hash if key else _NOBODY, digest) else None


def check(key: Key | None, now: float) -> Key:
    """The key, if it may be used at `now` (unix seconds). Raises `AuthError`, which says no more than it must."""
    if key is None:
        raise AuthError("this key is not known here", status=401, code="invalid_api_key")
    if key.disabled:
        raise AuthError("this key is switched off", status=401, code="invalid_api_key")
    if key.expires is not None and now >= key.expires:
        raise AuthError("this key has expired", status=401, code="invalid_api_key")
    return key


def check_model(key: Key, model: str) -> None:
    """Raises `ModelNotFound` when `model` is not allowed."""
    if not key.allows(model):
        raise model_not_found(key, model)


def model_not_found(key: Key | None, model: str) -> ModelNotFound:
    """The error for a model that there is not, or that the key may not ask for, without telling the one from the other.

    So nobody finds out with a key for a few models which others there are.
    """
    why = ", or this key may not ask for it" if key is not None and key.models else ""
    return ModelNotFound(f"the model {model!r} does not exist here{why}")


class KeyRing:
    """The keys in force, in memory. They are replaced as a whole; a look-up sees the ones before or the ones after."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: dict[str, Key] = {}
        self.replace(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def replace(self, keys: Iterable[Key]) -> None:
        self._keys = {key.hash: key for key in keys}

    def current(self, key: Key) -> Key | None:
        """What has become of a key that was found before; None when it was removed."""
        return self._keys.get(key.hash)

    def find(self, plain: str, now: float) -> Key:
        """The key of a text. Raises `AuthError` for one that is unknown, switched off or expired at `now`."""
        return check(find(self._keys, plain), now)

    @property
    def limited(self) -> bool:
        """Whether any of them has a limit."""
        return any(key.limited for key in self._keys.values())
