"""The users page: who may do what on the station, changed by an administrator."""

from __future__ import annotations

import time
from typing import cast

from starlette.responses import RedirectResponse, Response

from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.render import render
from hemascope.serve.store.people import (
    LONGEST_NAME,
    LONGEST_PASSWORD,
    ROLES,
    SHORTEST,
    Account,
    Role,
    add_user,
    change_user,
    list_accounts,
)

ROLE_LENGTH = 20


def show_users(call: Call) -> Response:
    """All users, and the forms that add and change them."""
    with call.station.store.reading() as connection:
        accounts = list_accounts(connection)
    return render(
        "users.html.j2",
        call.texts,
        user=call.user,
        accounts=accounts,
        roles=ROLES,
        now=time.time(),
        longest_name=LONGEST_NAME,
        password_lengths=(SHORTEST, LONGEST_PASSWORD),
    )


def add(call: Call) -> Response:
    """Adds a user."""
    name, password = call.text("name", LONGEST_NAME), call.text("password", LONGEST_PASSWORD)
    add_user(call.station.store, name, password, _role(call), call.user.name)
    return RedirectResponse("/users", 303)


def change_role(call: Call) -> Response:
    """Gives a user another role."""
    account = _find(call, is_other=True)
    change_user(call.station.store, account.name, call.user.name, role=_role(call))
    return RedirectResponse("/users", 303)


def change_state(call: Call) -> Response:
    """Disables a user, or lets the user in again."""
    account, wanted = _find(call, is_other=True), call.text("disabled", 5)
    if wanted not in ("true", "false"):
        raise ProblemError(400, "disabled must be true or false")
    change_user(call.station.store, account.name, call.user.name, disabled=wanted == "true")
    return RedirectResponse("/users", 303)


def change_password(call: Call) -> Response:
    """Gives a user a new password, which also ends a lock-out."""
    account, password = _find(call), call.text("password", LONGEST_PASSWORD)
    change_user(call.station.store, account.name, call.user.name, password=password)
    return RedirectResponse("/users", 303)


def unlock(call: Call) -> Response:
    """Ends the lock-out of a user who gave too many wrong passwords."""
    change_user(call.station.store, _find(call).name, call.user.name, unlocked=True)
    return RedirectResponse("/users", 303)


def _role(call: Call) -> Role:
    """The role of the form, which the store checks."""
    return cast(Role, call.text("role", ROLE_LENGTH))


def _find(call: Call, is_other: bool = False) -> Account:
    """The user that a request names; with `is_other`, not the one who asks."""
    user_id = call.request.path_params["user"]
    if is_other and user_id == call.user.id:
        raise ProblemError(409, "another administrator must change your role, or disable you")
    with call.station.store.reading() as connection:
        for account in list_accounts(connection):
            if account.id == user_id:
                return account
    raise ProblemError(404, "there is no such user")
