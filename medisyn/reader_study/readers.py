"""Readers: keys that stand in responses, and tokens that let people in. Of a token only its hash is kept."""

import hashlib
import hmac
import secrets

from medisyn.reader_study import design
from medisyn.reader_study.design import Study


def keys(n: int) -> tuple[str, ...]:
    """reader-01, reader-02, ..."""
    return tuple(f"reader-{k:02d}" for k in range(1, n + 1))


def issue(study: Study) -> dict[str, str]:
    """A new token for each reader, by key; old ones stop working. Only their sha256 lies in readers.json."""
    tokens = {reader: secrets.token_urlsafe(24) for reader in study.readers}
    design.whole(study.folder / "readers.json", {reader: digest(token) for reader, token in tokens.items()})
    return tokens


def whose(study: Study, token: str) -> str | None:
    """The reader whom a token lets in, or None; compared in constant time."""
    asked, found = digest(token), None
    for reader, kept in design.load(study.folder / "readers.json", study.folder).items():
        if kept is not None and hmac.compare_digest(asked, kept):
            found = reader
    return found


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
