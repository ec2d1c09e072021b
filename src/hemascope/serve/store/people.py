"""Users with roles, and their sessions: log-in, lock-out, expiry."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias, get_args

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import Connection, delete, insert, select, update

from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.schema import sessions, users

Role: TypeAlias = Literal["viewer", "technologist", "reviewer", "administrator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""From the one that may do least; each may do what those before it may."""

SHORTEST, LONGEST_PASSWORD, LONGEST_NAME = 10, 200, 100  # characters
FAILURES, LOCKED = 5, 15 * 60.0  # wrong passwords in a row, and seconds that they cost
IDLE, LONGEST_SESSION = 30 * 60.0, 12 * 3600.0  # seconds
HASHER = PasswordHasher()


@dataclass(frozen=True)
class User:
    """Somebody who has logged in. `csrf` must come with each change that the browser asks for."""

    id: int
    name: str
    role: Role
    csrf: str = ""

    def may(self, role: Role) -> bool:
        """Whether the user has this role, or one that includes it."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Account:
    """A user as administrators see it; nobody is let in before `locked_until`."""

    id: int
    name: str
    role: Role
    disabled: bool
    locked_until: float


def list_accounts(connection: Connection) -> list[Account]:
    """All users by their names."""
    columns = (users.c.id, users.c.name, users.c.role, users.c.disabled, users.c.locked_until)
    return [Account(*row) for row in connection.execute(select(*columns).order_by(users.c.name))]


def add_user(store: Store, name: str, password: str, role: Role, by: str = "command line") -> None:
    """Adds a user. Raises ValueError for a name that is taken, or a short password."""
    name = name.strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ValueError(f"a name has 1 to {LONGEST_NAME} characters, all of which can be printed")
    if role not in ROLES:
        raise ValueError(f"unknown role '{role}'; the roles are {', '.join(ROLES)}")
    found = _hash_password(password)
    with store.changing() as connection:
        if connection.execute(select(users.c.id).where(users.c.name == name)).first():
            raise ValueError(f"there is a user '{name}' already")
        connection.execute(insert(users).values(name=name, password=found, role=role))
        audit.append(connection, by, "add user", name, role=role)


def change_user(
    store: Store,
    name: str,
    by: str = "command line",
    *,
    password: str | None = None,
    role: Role | None = None,
    disabled: bool | None = None,
    unlocked: bool = False,
) -> None:
    """Changes a user, and ends the user's sessions. Raises ValueError for an unknown name.

    A new password, or `unlocked`, ends a lock-out.
    """
    if role is not None and role not in ROLES:
        raise ValueError(f"unknown role '{role}'; the roles are {', '.join(ROLES)}")
    changes: dict[str, object] = {"role": role, "disabled": disabled}
    changes = {key: value for key, value in changes.items() if value is not None}
    if password is not None:
        changes["password"] = _hash_password(password)
    if password is not None or unlocked:
        changes |= {"failures": 0, "locked_until": 0.0}
    if not changes:
        raise ValueError("nothing was given to change")
    with store.changing() as connection:
        row = connection.execute(select(users.c.id).where(users.c.name == name)).one_or_none()
        if row is None:
            raise ValueError(f"there is no user '{name}'")
        connection.execute(update(users).where(users.c.id == row.id).values(**changes))
        connection.execute(delete(sessions).where(sessions.c.user_id == row.id))
        shown = {key: value for key, value in changes.items() if key in ("role", "disabled")}
        shown |= {"password": password is not None} | ({"unlocked": True} if unlocked else {})
        audit.append(connection, by, "change user", name, **shown)


def has_users(store: Store) -> bool:
    """Whether there is anybody who could log in."""
    with store.reading() as connection:
        return connection.execute(select(users.c.id).limit(1)).first() is not None


def log_in(store: Store, name: str, password: str) -> str | None:
    """Begins a session, and gives what the browser is to hold; None for a wrong name or password.

    It takes as long for an unknown name. After five wrong passwords nothing is let in for a while.
    """
    with _checked(store, name, password, "log in") as (connection, user_id):
        return None if user_id is None else _begin_session(connection, user_id)


def confirm_password(store: Store, user: User, password: str) -> bool:
    """Whether it is the user's; asked once more where a user signs. Wrong ones count as above."""
    with _checked(store, user.name, password, "confirm password") as (_, user_id):
        return user_id is not None


@contextmanager
def _checked(
    store: Store, name: str, password: str, action: str
) -> Iterator[tuple[Connection, int | None]]:
    """A changing connection, and the user's number; None where the password is refused."""
    with store.reading() as connection:
        row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
    right = _is_right(row.password if row else _some_hash(), password)
    with store.changing() as connection:
        row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
        if row is None or row.disabled or row.locked_until > time.time() or not right:
            if row is not None and row.locked_until <= time.time():
                _count_failure(connection, row.id, row.failures + 1)
            audit.append(connection, "nobody", f"refused: {action}", name[:LONGEST_NAME])
            yield connection, None
            return
        values = {"failures": 0, "locked_until": 0.0}
        connection.execute(update(users).where(users.c.id == row.id).values(**values))
        audit.append(connection, row.name, action, row.name)
        yield connection, row.id


def _count_failure(connection: Connection, user_id: int, failures: int) -> None:
    locked = time.time() + LOCKED if failures >= FAILURES else 0.0
    connection.execute(
        update(users)
        .where(users.c.id == user_id)
        .values(failures=failures % FAILURES, locked_until=locked)
    )


def find_session(store: Store, held: str) -> User | None:
    """Who holds a session; None for one that is unknown or has expired."""
    key, moment = _key(held), time.time()
    with store.reading() as connection:
        row = connection.execute(
            select(sessions, users.c.name, users.c.role, users.c.disabled)
            .join(users, users.c.id == sessions.c.user_id)
            .where(sessions.c.key == key)
        ).one_or_none()
    if row is None or row.disabled:
        return None
    if moment - row.seen > IDLE or moment - row.began > LONGEST_SESSION:
        log_out(store, held)
        return None
    if moment - row.seen > 60:
        with store.changing() as connection:
            connection.execute(update(sessions).where(sessions.c.key == key).values(seen=moment))
    return User(row.user_id, row.name, row.role, row.csrf)


def log_out(store: Store, held: str) -> None:
    """Ends a session."""
    with store.changing() as connection:
        connection.execute(delete(sessions).where(sessions.c.key == _key(held)))


def is_csrf(user: User, given: str) -> bool:
    """Whether what came with a change is the token of the user's session."""
    return bool(user.csrf) and hmac.compare_digest(user.csrf.encode(), given.encode())


def _begin_session(connection: Connection, user_id: int) -> str:
    held, moment = secrets.token_urlsafe(32), time.time()
    old = moment - LONGEST_SESSION
    connection.execute(delete(sessions).where(sessions.c.began < old))
    connection.execute(
        insert(sessions).values(
            key=_key(held),
            user_id=user_id,
            csrf=secrets.token_urlsafe(32),
            began=moment,
            seen=moment,
        )
    )
    return held


def _key(held: str) -> str:
    return hashlib.sha256(held.encode()).hexdigest()


def _hash_password(password: str) -> str:
    if not SHORTEST <= len(password) <= LONGEST_PASSWORD:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST_PASSWORD} characters")
    return HASHER.hash(password)


def _is_right(found: str, password: str) -> bool:
    try:
        return len(password) <= LONGEST_PASSWORD and HASHER.verify(found, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


@cache
def _some_hash() -> str:
    return HASHER.hash(secrets.token_urlsafe(16))
