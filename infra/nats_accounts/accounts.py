"""Holds the keys of our own server, and names its accounts with their rights.

    nats/identity.json   {made_s, operator, system, application, guests, …}: seeds; made once, 0600

    LUCID        stages, conductor, API: every subject, JetStream;
    SYS          the server's own: the conductor sends the claims of guests there;
    one each     for every recording host, and for every join token: the subjects of `Guest`, no JetStream

1. LUCID serves the subjects of `FROM_GUESTS`. A guest imports those with its own name: its request crosses
   the border, and so does the answer. No guest sees a subject of LUCID or of another guest.
2. Each host has an account of its own. Within one account a host could have answers sent into the inbox
   of another. There a reply subject with a wildcard takes the answers of all others away ✓.
3. The key of a guest's account is made of one secret and its name: there is nothing to keep for each.
4. A reader of the file has every right on the server.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from infra.disk.durable import write_private
from infra.nats_accounts import claims
from infra.nats_accounts.claims import Account, Rights, Service, Told
from infra.nats_accounts.nkey import Kind, Nkey
from schemas import subjects
from schemas.errors import Unavailable

IDENTITY = "identity.json"
SUBSCRIPTIONS = 32
"""Of one guest: its inbox, and the messages of the platform to it."""
FROM_GUESTS = (
    Service("recordings", subjects.ALL_RECORDINGS),
    Service("asks", subjects.ALL_ASKS),
    Service("joins", subjects.ALL_JOINS),
)
TOLD = Told("told", subjects.ALL_TOLD)
EVERYONE, FOR_EVER = "*", 1 << 40
"""In revocations: every user of the account; a second that never comes."""

KINDS: Final[Mapping[str, Kind]] = {
    "operator": Kind.OPERATOR,
    **dict.fromkeys(("system", "application", "guests"), Kind.ACCOUNT),
    **dict.fromkeys(("application_user", "system_user"), Kind.USER),
}


class Guest(NamedTuple):
    """One host, or one machine that joins: its name, and the subjects that it uses."""

    name: str
    asks: tuple[Service, ...]
    hears: tuple[Told, ...] = ()


def host(name: str) -> Guest:
    """The subjects of a recording host. Raises Misuse (host.id): a name with a dot or a wildcard is none."""
    safe = subjects.host_id(name)
    return Guest(
        f"host-{safe}",
        (Service("recordings", f"lucid.rec.*.{safe}.*"), Service("asks", f"lucid.ask.{safe}.*")),
        (Told("told", f"lucid.told.{safe}.*"),),
    )


def joining(token: str) -> Guest:
    """The subjects of a machine with a join token. Raises Misuse (host.id)."""
    safe = subjects.host_id(token)
    return Guest(f"join-{safe}", (Service("joins", f"lucid.join.{safe}"),))


class Login(NamedTuple):
    """One user of the server, as a URL holds it. seed: the secret."""

    jwt: str
    seed: str


class Accounts:
    """The keys of one server, and the claims that they sign."""

    def __init__(self, keys: Mapping[str, Nkey], made_s: int) -> None:
        self._keys, self.made_s = keys, made_s

    @classmethod
    def new(cls) -> "Accounts":
        return cls({name: Nkey.new(kind) for name, kind in KINDS.items()}, int(time.time()))

    @property
    def application(self) -> str:
        """The public key of the account LUCID: its folder in the store has this name."""
        return self._keys["application"].public

    @property
    def system(self) -> str:
        return self._keys["system"].public

    def application_login(self) -> Login:
        return self._login("application", "lucid")

    def system_login(self) -> Login:
        return self._login("system", "lucid-system")

    def operator_claims(self) -> str:
        return claims.operator(self._keys["operator"], self.system, self.made_s)

    def first_claims(self) -> dict[str, str]:
        """The claims of the two accounts that are always there."""
        lucid = Account("LUCID", jetstream=True, serves=FROM_GUESTS, tells=(TOLD,))
        found = {self.system: Account("SYS"), self.application: lucid}
        return {
            key: claims.account(self._keys["operator"], key, account, self.made_s)
            for key, account in found.items()
        }

    def account_of(self, guest: Guest) -> str:
        """The public key of a guest's account."""
        return self._account_key(guest).public

    def guest_claims(self, guest: Guest, revoked: Mapping[str, int], at_s: int) -> str:
        """The signed claims of a guest's account. The server keeps the newest of an account.

        revoked: public user key → second up to which its credentials do not count.
        """
        account = Account(
            guest.name,
            asks=tuple((service, self.application) for service in guest.asks),
            hears=tuple((told, self.application) for told in guest.hears),
            revoked=revoked,
        )
        return claims.account(self._keys["operator"], self.account_of(guest), account, at_s)

    def credential(self, guest: Guest, public: str, at_s: int, ends_s: int) -> str:
        """The signed claims of a guest's user, which made its key itself. They are no secret."""
        rights = Rights(
            publish=tuple(service.subject for service in guest.asks),
            subscribe=("_INBOX.>", *(told.subject for told in guest.hears)),
            subscriptions=SUBSCRIPTIONS,
        )
        return claims.user(self._account_key(guest), public, guest.name, rights, at_s, ends_s)

    def _account_key(self, guest: Guest) -> Nkey:
        raw = hmac.digest(self._keys["guests"].raw, guest.name.encode(), hashlib.sha256)
        return Nkey(Kind.ACCOUNT, raw)

    def text(self) -> bytes:
        seeds = {name: key.seed for name, key in self._keys.items()}
        return json.dumps({"made_s": self.made_s, **seeds}).encode()

    def _login(self, account: str, name: str) -> Login:
        key = self._keys[f"{account}_user"]
        return Login(claims.user(self._keys[account], key.public, name, Rights(), self.made_s), key.seed)


def read_accounts(data: Path) -> Accounts | None:
    """Return the accounts of the server over this folder; None: there are none yet.

    Raises Unavailable (nats.identity): other keys would not be believed by any host that has joined.
    """
    path = data / IDENTITY
    try:
        members = json.loads(path.read_bytes())
        keys = {name: Nkey.read(kind, members[name]) for name, kind in KINDS.items()}
        return Accounts(keys, int(members["made_s"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise Unavailable(
            f"the keys of the NATS server cannot be read: {path}: {why}",
            code="nats.identity",
            hint="restore it from a backup; without it every host must join again: move it away",
        ) from None


def make_accounts(data: Path) -> Accounts:
    """Make the accounts of a server, durably. Its store lock is held."""
    made = Accounts.new()
    write_private(data / IDENTITY, made.text())
    return made
