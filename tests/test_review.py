"""Review in the store: labels, undo and redo, two people, the count, signatures, amendments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Connection, text

from hemascope.cli import app
from hemascope.serve.store import audit
from hemascope.serve.store.added import add_cell, locate_by_hand
from hemascope.serve.store.database import Store, open_store
from hemascope.serve.store.labels import OUTSIDE, UNIDENTIFIED, labels_of
from hemascope.serve.store.people import User, add_user, find_session, log_in
from hemascope.serve.store.recount import live_classes, machine_classes, recount
from hemascope.serve.store.references import find_references
from hemascope.serve.store.review import (
    ConflictError,
    ReviewedCell,
    comment_cell,
    label_cells,
    list_cells,
    redo,
    undo,
)
from hemascope.serve.store.review_time import mark_opened, review_seconds
from hemascope.serve.store.samples import (
    NewField,
    StoredSample,
    add_sample,
    fail_sample,
    fill_sample,
    find_sample,
    list_samples,
    list_unfinished,
    read_fields,
)
from hemascope.serve.store.signing import (
    RefusedError,
    amend,
    latest_signed,
    list_signatures,
    sign,
    signed_count,
    verify_signatures,
)
from hemascope.smear.counted import DifferentialCount, NamedCell, NamedField
from hemascope.smear.differential import CountOptions, count_sample
from hemascope.smear.fhir import to_fhir
from hemascope.smear.hl7 import to_hl7
from named_fields import CELL, card_of, field_of, fields_of, prediction_of, white

PASSWORD = "correct horse battery"
CARD = card_of()
BLURRED = ("blurred",)
HERE = Path(__file__).parent


def person(store: Store, name: str, role: str = "technologist") -> User:
    add_user(store, name, PASSWORD, role)  # type: ignore[arg-type]
    user = find_session(store, log_in(store, name, PASSWORD) or "")
    assert user is not None
    return user


def fill(store: Store, user: User, named: Sequence[NamedField]) -> str:
    """A sample with these fields, located and named."""
    given = [NewField(f"{number}.png", b"%d" % number) for number in range(len(named))]
    sample_id = add_sample(store, user, "slide 17", given)
    fill_sample(store, sample_id, named, "a" * 64, "b" * 64)
    return sample_id


DRAWN = [
    *fields_of({"neutrophil": 5, "lymphocyte": 3}),
    field_of([white("monocyte", BLURRED)], "blurred.png"),
]


@pytest.fixture
def ada(store: Store) -> User:
    return person(store, "Ada", "reviewer")


@pytest.fixture
def sample(store: Store, ada: User) -> str:
    return fill(store, ada, DRAWN)


def cells_of(store: Store, sample: str) -> list[ReviewedCell]:
    with store.reading() as connection:
        return list_cells(connection, sample)


def found(store: Store, sample: str) -> StoredSample:
    with store.reading() as connection:
        stored = find_sample(connection, sample)
    assert stored is not None
    return stored


def versions(cells: Sequence[ReviewedCell]) -> dict[int, int]:
    return {cell.id: cell.version for cell in cells}


def count(
    connection: Connection, stored: StoredSample, cells: Sequence[ReviewedCell]
) -> DifferentialCount:
    fields = read_fields(connection, stored.id)
    return recount(stored.name, fields, cells, CARD, stored.wbc, CountOptions())


def count_now(store: Store, sample: str) -> DifferentialCount:
    with store.reading() as connection:
        stored = find_sample(connection, sample)
        assert stored is not None
        return count(connection, stored, list_cells(connection, sample))


def trail(store: Store) -> list[str]:
    with store.reading() as connection:
        assert audit.verify(connection).problems == ()
        return [entry["action"] for entry in audit.read_entries(connection)]


def test_before_review_the_count_is_the_machines(store: Store, sample: str) -> None:
    own = count_sample("slide 17", DRAWN, CARD)
    again = count_now(store, sample)
    assert (again.classes, again.unidentified) == (own.classes, own.unidentified)
    assert again.trusted == own.trusted
    cells = cells_of(store, sample)
    assert len(cells) == 9
    assert [cell.counts_as for cell in cells].count(UNIDENTIFIED) == 1


def test_a_label_changes_the_count_and_keeps_the_machines(
    store: Store, ada: User, sample: str
) -> None:
    wrong = next(cell for cell in cells_of(store, sample) if cell.machine == "neutrophil")
    label_cells(store, ada, sample, versions([wrong]), "monocyte")
    (after,) = (cell for cell in cells_of(store, sample) if cell.id == wrong.id)
    assert (after.machine, after.label, after.labelled_by) == ("neutrophil", "monocyte", "Ada")
    assert (after.version, after.probability) == (wrong.version + 1, wrong.probability)
    rows = {row.name: row.share for row in count_now(store, sample).classes}
    assert (rows["neutrophil"].successes, rows["monocyte"].successes) == (4, 1)
    assert rows["neutrophil"].n == 8
    assert count_now(store, sample).trusted == "raw"
    live = {row.name: row.share for row in live_classes(cells_of(store, sample), CARD)}
    assert live == rows
    machine = {row.name: row.share for row in machine_classes(cells_of(store, sample), CARD)}
    assert machine["neutrophil"].successes == 5
    assert found(store, sample).state == "in review"


@pytest.mark.parametrize("label", [*OUTSIDE, "platelet"])
def test_what_is_no_white_cell_leaves_the_denominator(
    store: Store, ada: User, sample: str, label: str
) -> None:
    cell = next(cell for cell in cells_of(store, sample) if cell.machine == "neutrophil")
    label_cells(store, ada, sample, versions([cell]), label)
    after = count_now(store, sample)
    assert (after.white, sum(after.unidentified.values())) == (7, 1)
    assert label in labels_of(CARD)
    assert live_classes(cells_of(store, sample), CARD)[0].share.n == 7


def test_undo_and_redo_go_back_and_forth(store: Store, ada: User, sample: str) -> None:
    first, second = cells_of(store, sample)[:2]

    def labels() -> tuple[str, str]:
        now = {cell.id: cell.label for cell in cells_of(store, sample)}
        return now[first.id], now[second.id]

    label_cells(store, ada, sample, versions([first, second]), "monocyte")
    again = [cell for cell in cells_of(store, sample) if cell.id == first.id]
    label_cells(store, ada, sample, versions(again), "basophil")
    assert labels() == ("basophil", "monocyte")
    assert undo(store, ada, sample) == [first.id]
    assert labels() == ("monocyte", "monocyte")
    assert undo(store, ada, sample) == sorted([first.id, second.id])
    assert labels() == ("", "")
    assert undo(store, ada, sample) == []
    assert len(redo(store, ada, sample)) == 2
    assert redo(store, ada, sample) == [first.id]
    assert labels() == ("basophil", "monocyte")
    undo(store, ada, sample)
    other = [cell for cell in cells_of(store, sample) if cell.id == second.id]
    label_cells(store, ada, sample, versions(other), "lymphocyte")
    assert redo(store, ada, sample) == []  # a new change ends what could be redone
    assert trail(store)[-6:] == ["undo", "undo", "redo", "redo", "undo", "label"]


def test_no_update_is_lost(store: Store, ada: User, sample: str) -> None:
    bob = person(store, "Bob")
    cells = cells_of(store, sample)[:2]
    seen = versions(cells)
    label_cells(store, ada, sample, {cells[0].id: cells[0].version}, "monocyte")
    with pytest.raises(ConflictError, match="somebody else"):
        label_cells(store, bob, sample, seen, "basophil")
    now = {cell.id: cell.label for cell in cells_of(store, sample)}
    assert (now[cells[0].id], now[cells[1].id]) == ("monocyte", "")  # all of a change or none
    assert undo(store, bob, sample) == []  # nobody undoes what another did
    label_cells(store, bob, sample, versions(cells_of(store, sample)[:2]), "basophil")
    with pytest.raises(ConflictError, match="somebody else"):
        undo(store, ada, sample)


def test_of_two_at_once_one_wins(store: Store, ada: User, sample: str) -> None:
    cells = versions(cells_of(store, sample))
    outcomes: list[str] = []

    def work(label: str) -> None:
        try:
            label_cells(store, ada, sample, cells, label)
            outcomes.append(label)
        except ConflictError:
            outcomes.append("")

    threads = [threading.Thread(target=work, args=(name,)) for name in ("monocyte", "basophil")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = filter(None, outcomes)
    assert len(outcomes) == 2
    assert {cell.label for cell in cells_of(store, sample)} == {winner}


def test_cells_of_another_sample_are_out_of_reach(store: Store, ada: User, sample: str) -> None:
    other = fill(store, ada, DRAWN)
    with pytest.raises(ConflictError):
        label_cells(store, ada, other, versions(cells_of(store, sample)[:1]), "monocyte")
    with pytest.raises(ConflictError):
        comment_cell(store, ada, other, cells_of(store, sample)[0].id, 1, "hello")


def test_a_comment_is_kept_with_its_markup_and_its_versions(
    store: Store, ada: User, sample: str
) -> None:
    cell = cells_of(store, sample)[0]
    comment = "<script>x</script> '); DROP TABLE cells; -- |^~\\&"
    comment_cell(store, ada, sample, cell.id, cell.version, comment)
    assert cells_of(store, sample)[0].comment == comment
    with pytest.raises(ConflictError):
        comment_cell(store, ada, sample, cell.id, cell.version, "late")


def settle(store: Store, user: User, sample: str) -> int:
    """Acknowledges what is unidentified, and gives the number of changes that were seen."""
    unclear = [cell for cell in cells_of(store, sample) if cell.counts_as == UNIDENTIFIED]
    label_cells(store, user, sample, versions(unclear), UNIDENTIFIED)
    return found(store, sample).changes


def test_a_signature_locks_the_sample(store: Store, ada: User, sample: str) -> None:
    with pytest.raises(RefusedError, match="1 cell is unidentified"):
        sign(store, ada, sample, "technologist", PASSWORD, 0, count)
    changes = settle(store, ada, sample)
    with pytest.raises(RefusedError, match="password"):
        sign(store, ada, sample, "technologist", "wrong", changes, count)
    with pytest.raises(RefusedError, match="has changed"):
        sign(store, ada, sample, "technologist", PASSWORD, changes - 1, count)
    assert sign(store, ada, sample, "technologist", PASSWORD, changes, count)
    assert found(store, sample).shown_state == "signed"
    cells = cells_of(store, sample)
    for attempt in (
        lambda: label_cells(store, ada, sample, versions(cells[:1]), "monocyte"),
        lambda: undo(store, ada, sample),
        lambda: comment_cell(store, ada, sample, cells[0].id, cells[0].version, "late"),
        lambda: sign(store, ada, sample, "reviewer", PASSWORD, changes, count),
    ):
        with pytest.raises(ConflictError, match="signed"):
            attempt()
    assert cells_of(store, sample) == cells


def test_only_what_is_signed_is_final(store: Store, ada: User, sample: str) -> None:
    sign(store, ada, sample, "reviewer", PASSWORD, settle(store, ada, sample), count)
    with store.reading() as connection:
        signatures = list_signatures(connection, sample)
        latest = latest_signed(connection, found(store, sample))
    assert latest == signatures[-1]
    final = signed_count(signatures)
    assert "Reviewed and signed by Ada as reviewer" in final.method
    assert "Reviewed by Ada until 20" in final.method
    assert "Nobody has signed" not in final.method
    bundle = json.loads(to_fhir(final, latest.status))
    states = {entry["resource"].get("status") for entry in bundle["entry"]}
    assert states == {"final", None}
    assert "not reviewed" not in json.dumps(bundle)
    segments = to_hl7(final, latest.status).split("\r")
    assert {s.split("|")[11] for s in segments if s.startswith("OBX")} == {"F"}
    assert next(s for s in segments if s.startswith("OBR")).split("|")[25] == "F"
    assert "preliminary" in to_fhir(count_now(store, sample))


def test_an_amendment_opens_a_new_version(store: Store, ada: User, sample: str) -> None:
    sign(store, ada, sample, "reviewer", PASSWORD, settle(store, ada, sample), count)
    bob = person(store, "Bob")
    with pytest.raises(RefusedError, match="only a reviewer"):
        amend(store, bob, sample, "a wrong cell")
    with pytest.raises(RefusedError, match="reason"):
        amend(store, ada, sample, "  ")
    amend(store, ada, sample, "a wrong cell")
    assert found(store, sample).shown_state == "being amended"
    cell = next(cell for cell in cells_of(store, sample) if cell.machine == "neutrophil")
    label_cells(store, ada, sample, versions([cell]), "monocyte")
    changes = found(store, sample).changes
    sign(store, ada, sample, "reviewer", PASSWORD, changes, count)
    with store.reading() as connection:
        first, second = list_signatures(connection, sample)
        assert verify_signatures(connection) == []
    assert (first.status, second.status) == ("final", "amended")
    assert second.reason == "a wrong cell"
    shares = [
        {row.name: row.share.successes for row in made.count.classes} for made in (first, second)
    ]
    assert (shares[0]["neutrophil"], shares[1]["neutrophil"]) == (5, 4)  # the first one stays
    assert found(store, sample).shown_state == "amended"


def test_two_signatures_are_of_two_people(store: Store, ada: User, sample: str) -> None:
    bob = person(store, "Bob")
    changes = settle(store, bob, sample)

    def signs(user: User, meaning: str) -> bool:
        return sign(store, user, sample, meaning, PASSWORD, changes, count, needs_two=True)  # type: ignore[arg-type]

    with pytest.raises(RefusedError, match="only a reviewer"):
        signs(bob, "reviewer")
    assert not signs(ada, "technologist")
    assert found(store, sample).state == "in review"
    for user, meaning in ((ada, "reviewer"), (bob, "technologist")):
        with pytest.raises(RefusedError, match="already"):
            signs(user, meaning)
    assert signs(person(store, "Eve", "reviewer"), "reviewer")
    assert found(store, sample).state == "signed"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE signatures SET name = 'Eve'",
        "UPDATE signatures SET record = labels",
        "DELETE FROM signatures",
    ],
)
def test_an_altered_signature_is_found(
    store: Store, ada: User, sample: str, statement: str
) -> None:
    sign(store, ada, sample, "reviewer", PASSWORD, settle(store, ada, sample), count)
    with store.changing() as connection:
        connection.execute(text(statement))
    with store.reading() as connection:
        assert verify_signatures(connection)


def test_an_import_that_was_stopped_goes_on_and_doubles_nothing(store: Store, ada: User) -> None:
    given = [NewField(f"{n}.png", b"%d" % n) for n in range(len(DRAWN))]
    sample = add_sample(store, ada, "slide 18", given)
    with store.reading() as connection:
        assert list_unfinished(connection) == [sample]
    for _ in range(2):
        fill_sample(store, sample, DRAWN, "a" * 64, "b" * 64)
    assert len(cells_of(store, sample)) == 9
    fail_sample(store, sample, "too late")
    with store.reading() as connection:
        assert list_unfinished(connection) == []
        assert find_sample(connection, sample).state == "new"  # type: ignore[union-attr]


def test_a_search_takes_signs_as_they_are(store: Store, ada: User) -> None:
    for name in ("100 %", "slide_1", "' OR 1=1 --"):
        add_sample(store, ada, name, [NewField("a.png", b"a")])
    with store.reading() as connection:
        for search, names in (
            ("%", ["100 %"]),
            ("_", ["slide_1"]),
            ("' or", ["' OR 1=1 --"]),
            ("", ["' OR 1=1 --", "slide_1", "100 %"]),
        ):
            assert [row.name for row in list_samples(connection, search)] == names


# Labels, additions, removals and imports without end, each printed once it is done. They are made
# by a child for each number that is read, since to start Python anew takes most of a second.
CHANGES = """
import os, sys
from pathlib import Path
from hemascope.serve.store.added import add_cell, locate_by_hand
from hemascope.serve.store.database import open_store
from hemascope.serve.store.people import User
from hemascope.serve.store.review import label_cells, list_cells
from hemascope.serve.store.samples import NewField, add_sample, fill_sample
from hemascope.smear.counted import NamedCell
from named_fields import fields_of, prediction_of

sample, drawn = sys.argv[2], fields_of({'neutrophil': 3})
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        break
    os.waitpid(child, 0)
    print('ended', flush=True)
else:
    sys.exit()
number = int(line)
print(os.getpid(), flush=True)
store, user = open_store(Path(sys.argv[1])), User(1, 'Ada', 'technologist')

def answer(*words):
    print(*words, 'done', flush=True)

def give(cell, label):
    edit = label_cells(store, user, sample, {cell.id: cell.version}, label)
    answer('label', cell.id, edit, label)

while True:
    with store.reading() as connection:
        cells = list_cells(connection, sample)
    cell = cells[number % len(cells)]
    give(cell, ('monocyte', 'basophil')[number // len(cells) % 2])
    row, column = divmod(sum(cell.field == 0 for cell in cells), 16)
    box = (40 * column + 1, 20 * row + 20, 40 * column + 37, 20 * row + 38)
    missed = NamedCell(locate_by_hand(drawn[0], box), prediction_of('eosinophil'))
    answer('added', add_cell(store, user, sample, 0, missed))
    if number % 4 == 0:
        give(cells[(number + 1) % len(cells)], 'not a cell')
        given = [NewField(f'{n}.png', b'%d' % (number + n)) for n in range(len(drawn))]
        imported = add_sample(store, user, 'x', given)
        answer('sample', imported)
        fill_sample(store, imported, drawn, 'a' * 64, 'b' * 64)
        answer('filled', imported)
    number += 1
"""


@contextmanager
def changing(folder: Path, sample: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose children make changes, one for each number that it is given."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}
    words = [sys.executable, "-c", CHANGES, str(folder), sample]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process


def change_until_killed(
    process: subprocess.Popen[str], number: int, seconds: float
) -> list[list[str]]:
    """What a child answered before it was killed in the middle of its changes."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{number}\n")
    process.stdin.flush()
    child = int(process.stdout.readline())
    lines = [process.stdout.readline() for _ in range(5)]  # one change of each kind
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    lines += iter(process.stdout.readline, "ended\n")
    return [line[:-1].split(maxsplit=3) for line in lines if line.endswith(" done\n")]


def check_labels(store: Store, sample: str, answers: list[list[str]]) -> None:
    """Each label that was answered is there, unless a later change is."""
    with store.reading() as connection:
        query = "SELECT cell_id, max(edit_id) FROM edit_cells GROUP BY cell_id"
        newest = dict(connection.execute(text(query)).all())
    now = {cell.id: cell.label for cell in cells_of(store, sample)}
    last = {int(words[1]): words for words in answers if words[0] == "label"}
    assert len(last) >= 10
    assert any(words[3] == "not a cell done" for words in last.values())
    for cell, (_, _, edit, label) in last.items():
        assert newest[cell] >= int(edit)
        if newest[cell] == int(edit):
            assert f"{now[cell]} done" == label


def check_added(store: Store, sample: str, answers: list[list[str]]) -> None:
    """Each cell that was added is there once: as a row, in its field, and in the audit trail."""
    cells = cells_of(store, sample)
    with store.reading() as connection:
        fields = read_fields(connection, sample)
        trail = [entry for entry in audit.read_entries(connection) if entry["subject"] == sample]
    noted = [json.loads(one["detail"])["cell"] for one in trail if one["action"] == "add cell"]
    added = {cell.id for cell in cells if cell.added_by}
    answered = {int(words[1]) for words in answers if words[0] == "added"}
    assert answered <= added
    assert len(answered) >= 20
    assert sorted(noted) == sorted(added)
    places = [(cell.field, cell.number) for cell in cells]
    assert len(set(places)) == len(places)
    for number, field in enumerate(fields):
        white = [index for index, cell in enumerate(field.cells) if cell.located.kind == "white"]
        assert sorted(index for where, index in places if where == number) == white
        boxes = [cell.located.box for cell in field.cells if cell.located.kind == "white"]
        assert len(set(boxes)) == len(boxes)


def check_imported(store: Store, answers: list[list[str]]) -> None:
    """Each sample that was imported is there, with all its cells or none."""
    imported, filled = (
        {words[1] for words in answers if words[0] == name} for name in ("sample", "filled")
    )
    with store.reading() as connection:
        there = {row.id: row.state for row in list_samples(connection, most=100_000)}
    assert filled <= imported <= set(there)
    assert all(there[sample] == "new" for sample in filled)
    for sample, state in there.items():
        if state == "importing":
            assert cells_of(store, sample) == []
        elif state == "new":
            assert len(cells_of(store, sample)) == 3


@pytest.mark.slow
def test_what_was_answered_survives_a_kill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process is killed twenty times while it labels, adds, removes and imports."""
    folder = tmp_path / "store"
    store = open_store(folder)
    sample = fill(store, person(store, "Ada"), fields_of({"neutrophil": 40}))
    random, answers = Random(0), []
    with changing(folder, sample) as process:
        for turn in range(20):
            answers += change_until_killed(process, 8 * turn, random.uniform(0.0, 0.15))
    check_labels(store, sample, answers)
    check_added(store, sample, answers)
    check_imported(store, answers)
    assert sum(not cell.added_by for cell in cells_of(store, sample)) == 40
    verified = app(["station", "verify", str(folder)], result_action="return_value")
    assert verified == 0, capsys.readouterr().err


def missed(x: float = 100, y: float = 60) -> NamedCell:
    box = (x, y, x + CELL, y + CELL)
    return NamedCell(locate_by_hand(DRAWN[0], box), prediction_of("eosinophil"))


def test_a_missed_cell_is_added_counted_and_taken_out_again(
    store: Store, ada: User, sample: str
) -> None:
    before = len(cells_of(store, sample))
    cell_id = add_cell(store, ada, sample, 0, missed())
    (added,) = (cell for cell in cells_of(store, sample) if cell.id == cell_id)
    assert (added.counts_as, added.added_by, added.field) == ("eosinophil", "Ada", 0)
    count = count_now(store, sample)
    assert {row.name: row.share.successes for row in count.classes}["eosinophil"] == 1
    assert "They added 1 cell that the model had missed." in count.method
    with pytest.raises(ValueError, match="there already"):
        add_cell(store, ada, sample, 0, missed(105))
    assert undo(store, ada, sample) == [cell_id]
    assert {row.name: row.share.successes for row in count_now(store, sample).classes}[
        "eosinophil"
    ] == 0
    redo(store, ada, sample)
    assert len(cells_of(store, sample)) == before + 1
    assert trail(store)[-3:] == ["add cell", "undo", "redo"]


@pytest.mark.parametrize(
    "box", [(0, 60, 60, 120), (5, 5, 9, 90), (9, 9, 5, 5), (600, 60, 700, 120), (-1, 9, 60, 60)]
)
def test_a_box_that_cannot_be_of_a_cell_is_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"box|border"):
        locate_by_hand(DRAWN[0], box)  # type: ignore[arg-type]


def test_references_are_cells_that_were_signed_last(store: Store, ada: User, sample: str) -> None:
    def references(*without: str) -> list[int]:
        with store.reading() as connection:
            return find_references(connection, "monocyte", without)

    wrong = next(cell for cell in cells_of(store, sample) if cell.machine == "neutrophil")
    label_cells(store, ada, sample, versions([wrong]), "monocyte")
    assert references() == []
    sign(store, ada, sample, "reviewer", PASSWORD, settle(store, ada, sample), count)
    assert references() == [wrong.id]
    assert references(sample) == []
    amend(store, ada, sample, "a wrong cell")
    assert references() == []


def test_the_time_of_a_review_leaves_out_pauses(
    store: Store, ada: User, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.reading() as connection:
        assert review_seconds(connection, sample, "") is None
    moments = iter(
        f"2090-11-28T{at}.000+00:00" for at in ("10:00:00", "10:00:20", "14:00:00", "14:00:05")
    )
    monkeypatch.setattr(audit, "now", lambda: next(moments))
    mark_opened(store, sample)
    for _ in range(2):
        with store.changing() as connection:
            audit.append(connection, "Ada", "label", sample)
    with store.reading() as connection:
        assert review_seconds(connection, sample, found(store, sample).opened) == 325.0
