"""Signs the claims of NATS: of an operator, of an account, of a user (JWT, version 2).

    header   {typ: JWT, alg: ed25519-nkey}
    claims   {jti, iat, exp?, iss, sub, name, nats: {type, version: 2, …}}

1. iss and sub are public nkeys. `jti` is a digest of the other claims, so equal claims give equal text.
2. An account is signed by the operator, a user by its account.
3. A service is imported by the account that asks, a stream by the account that hears.
Source: github.com/nats-io/jwt/v2.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.nats_accounts.nkey import Nkey

UNLIMITED = -1
Members = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of a user within its account. No subject at all: every one."""

    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    subscriptions: int = UNLIMITED

    def claim(self) -> Members:
        return {
            "pub": {"allow": list(self.publish)} if self.publish else {},
            "sub": {"allow": list(self.subscribe)} if self.subscribe else {},
            "subs": self.subscriptions,
            "data": UNLIMITED,
            "payload": UNLIMITED,
        }


@dataclass(frozen=True, slots=True)
class Service:
    """Subjects that one account serves, and that another one may ask."""

    name: str
    subject: str

    def export(self) -> Members:
        return {
            "name": self.name,
            "subject": self.subject,
            "type": "service",
            "response_type": "Singleton",
        }

    def imported(self, account: str) -> Members:
        return {"name": self.name, "subject": self.subject, "type": "service", "account": account}


@dataclass(frozen=True, slots=True)
class Told:
    """Subjects that one account publishes, and that another one may hear."""

    name: str
    subject: str

    def export(self) -> Members:
        return {"name": self.name, "subject": self.subject, "type": "stream"}

    def imported(self, account: str) -> Members:
        return {"name": self.name, "subject": self.subject, "type": "stream", "account": account}


@dataclass(frozen=True, slots=True)
class Account:
    """One account. serves, tells: to others; asks, hears: of (subjects, their account).

    revoked: public user key, or `*` for all → second up to which its credentials do not count.
    """

    name: str
    jetstream: bool = False
    serves: tuple[Service, ...] = ()
    tells: tuple[Told, ...] = ()
    asks: tuple[tuple[Service, str], ...] = ()
    hears: tuple[tuple[Told, str], ...] = ()
    revoked: Mapping[str, int] = field(default_factory=dict)

    def claim(self) -> Members:
        stored = UNLIMITED if self.jetstream else 0
        found: Members = {
            "type": "account",
            "version": 2,
            "limits": {
                **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), UNLIMITED),
                "wildcards": True,
                "leaf": 0,
                "mem_storage": stored,
                "disk_storage": stored,
                "streams": stored,
                "consumer": stored,
            },
            "exports": [
                *(service.export() for service in self.serves),
                *(told.export() for told in self.tells),
            ],
            "imports": [
                *(service.imported(account) for service, account in self.asks),
                *(told.imported(account) for told, account in self.hears),
            ],
            "default_permissions": {"pub": {}, "sub": {}},
        }
        if self.revoked:
            found["revocations"] = dict(sorted(self.revoked.items()))
        return found


def operator(key: Nkey, system_account: str, at_s: int) -> str:
    """Return the signed claims of the operator, by itself."""
    return _signed(
        key, key.public, "lucid", {"type": "operator", "version": 2, "system_account": system_account}, at_s
    )


def account(key: Nkey, public: str, claimed: Account, at_s: int) -> str:
    """Return the signed claims of an account. key: the operator's. The server keeps the newest of them."""
    return _signed(key, public, claimed.name, claimed.claim(), at_s)


def user(key: Nkey, public: str, name: str, rights: Rights, at_s: int, ends_s: int = 0) -> str:
    """Return the signed claims of a user. key: its account's. ends_s: when they end; 0: never."""
    nats: Members = {"type": "user", "version": 2, **rights.claim()}
    return _signed(key, public, name, nats, at_s, ends_s)


def _signed(key: Nkey, subject: str, name: str, nats: Members, at_s: int, ends_s: int = 0) -> str:
    claims: Members = {"iat": at_s, "iss": key.public, "name": name, "nats": nats, "sub": subject}
    if ends_s:
        claims["exp"] = ends_s
    claims["jti"] = base64.b32encode(hashlib.sha256(_json(claims)).digest()).decode().rstrip("=")
    text = _part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + _part(claims)
    return (text + b"." + _base64(key.sign(text))).decode()


def _part(members: Members) -> bytes:
    return _base64(_json(members))


def _json(members: Members) -> bytes:
    return json.dumps(members, separators=(",", ":"), sort_keys=True).encode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
