"""Agreement, proficiency tests and bundles in the store, on both databases."""

from __future__ import annotations

import pytest

from hemascope.errors import StorageError
from hemascope.metrics.intervals import wilson
from hemascope.serve.store import audit
from hemascope.serve.store.bundles import (
    Comparison,
    add_bundle,
    choose_bundle,
    chosen_folder,
    fail_unfinished,
    find_bundle,
    finish_bundle,
    folder_of,
    keep_comparison,
    list_bundles,
)
from hemascope.serve.store.database import Store
from hemascope.serve.store.labels import UNIDENTIFIED
from hemascope.serve.store.people import User
from hemascope.serve.store.proficiency import (
    find_test,
    finish_test,
    give_test,
    label_in_test,
    list_hidden,
    list_tests,
)
from hemascope.serve.store.quality import (
    divide,
    latest_reviews,
    list_reviews,
    measure_agreement,
    pair_amended,
)
from hemascope.serve.store.review import ConflictError, label_cells
from hemascope.serve.store.signing import amend, sign
from test_review import DRAWN, PASSWORD, cells_of, count, fill, found, person, settle, versions


@pytest.fixture
def ada(store: Store) -> User:
    return person(store, "Ada", "administrator")


@pytest.fixture
def sample(store: Store, ada: User) -> str:
    """A signed sample, in which Ada made one neutrophil a monocyte."""
    sample = fill(store, ada, DRAWN)
    wrong = next(cell for cell in cells_of(store, sample) if cell.machine == "neutrophil")
    label_cells(store, ada, sample, versions([wrong]), "monocyte")
    sign(store, ada, sample, "reviewer", PASSWORD, settle(store, ada, sample), count)
    return sample


def test_agreement_is_of_the_machine_and_what_was_signed_last(
    store: Store, ada: User, sample: str
) -> None:
    with store.reading() as connection:
        (review,) = list_reviews(connection)
    agreement = measure_agreement(review.pairs)
    assert (agreement.alike.successes, agreement.alike.n) == (7, 9)  # one has no name
    of = {row.label: row for row in agreement.classes}
    assert (of["neutrophil"].first, of["neutrophil"].second, of["neutrophil"].both) == (5, 4, 4)
    assert agreement.confusion.sum() == 9
    (by_user,) = divide([review], lambda one: one.name)
    assert (by_user.name, by_user.reviews, by_user.alike) == ("Ada", 1, agreement.alike)

    amend(store, ada, sample, "a wrong cell")
    label_cells(store, ada, sample, versions(cells_of(store, sample)[:2]), "basophil")
    sign(store, ada, sample, "reviewer", PASSWORD, found(store, sample).changes, count)
    with store.reading() as connection:
        reviews = list_reviews(connection)
    assert [review.version for review in latest_reviews(reviews)] == [2]
    assert sum(first != last for first, last in pair_amended(reviews)) == 2


def test_who_is_tested_sees_no_label_and_is_scored(store: Store, ada: User, sample: str) -> None:
    bob = person(store, "Bob")
    with pytest.raises(ValueError, match="knows its labels"):
        give_test(store, ada, sample, "Ada")
    with pytest.raises(ValueError, match="nobody"):
        give_test(store, ada, sample, "Eve")
    with pytest.raises(ValueError, match="signed"):
        give_test(store, ada, fill(store, ada, DRAWN), "Bob")
    number = give_test(store, ada, sample, "Bob")
    with store.reading() as connection:
        assert list_hidden(connection, bob.id) == {sample}
        test = find_test(connection, number)
        assert test is not None
        assert test.order != sorted(test.order)
        assert {given for _, given, _ in test.answers} == {UNIDENTIFIED}
    wrong, *right = test.order
    for cell in right:
        label_in_test(store, bob, number, [cell], test.truth[cell])
    label_in_test(store, bob, number, [wrong], "erythroblast")
    with pytest.raises(ValueError, match="not of the test"):
        label_in_test(store, bob, number, [10**6], "monocyte")
    with pytest.raises(ConflictError, match="no such test of yours"):
        label_in_test(store, ada, number, [wrong], "monocyte")
    finish_test(store, bob, number)
    with pytest.raises(ConflictError, match="finished"):
        label_in_test(store, bob, number, [wrong], test.truth[wrong])
    with store.reading() as connection:
        (test,) = list_tests(connection, bob.id)
        assert list_hidden(connection, bob.id) == set()
        assert audit.verify(connection).problems == ()
    assert (test.score.alike.successes, test.score.alike.n) == (7, 8)
    assert test.score.kappa.value is not None


def test_a_bundle_is_made_compared_and_chosen(store: Store, ada: User) -> None:
    number = add_bundle(store, ada, "ours", "2026-11-01", 3)
    with pytest.raises(ConflictError, match="learning already"):
        add_bundle(store, ada, "another", "2026-11-01", 3)
    with pytest.raises(ConflictError, match="not ready"):
        choose_bundle(store, ada, number)
    folder = folder_of(store, number)
    folder.mkdir(parents=True)
    (folder / "card.json").write_bytes(b"{}")
    finish_bundle(store, number, 50)
    share = wilson(9, 10)
    keep_comparison(store, number, Comparison("first", "2026", 1, share, share, 8, 1))
    with store.reading() as connection:
        stored = find_bundle(connection, number)
    assert stored is not None
    assert stored.comparison is not None
    assert stored.comparison.p_value == pytest.approx(2 * 10 / 2**9)
    assert chosen_folder(store) is None
    with pytest.raises(ConflictError, match="administrator"):
        choose_bundle(store, person(store, "Bob", "reviewer"), number)
    choose_bundle(store, ada, number)
    assert chosen_folder(store) == folder
    (folder / "card.json").write_bytes(b"{ }")
    with pytest.raises(StorageError, match="altered"):
        chosen_folder(store)
    choose_bundle(store, ada, "")
    assert chosen_folder(store) is None


def test_a_bundle_that_a_stop_left_unfinished_failed(store: Store, ada: User) -> None:
    add_bundle(store, ada, "ours", "2026-11-01", 3)
    fail_unfinished(store)
    with store.reading() as connection:
        (left,) = list_bundles(connection)
    assert (left.state, "stopped" in left.problem) == ("failed", True)
    add_bundle(store, ada, "ours again", "2026-11-01", 3)
