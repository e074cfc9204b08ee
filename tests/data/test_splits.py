"""Splits: what is kept, hidden and set apart, as properties of any table; and the file that says so."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import (
    apply_split,
    draw_split,
    fewest_apart,
    hide_all_but,
    parted,
    split_text,
)
from fewlabels.errors import UserError
from fewlabels.files import replace_text

FEW = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.filter_too_much])
seeds = st.integers(0, 2**31 - 1)


def table_of(labels, test=None, classes=None, names=None):
    labels = np.array(labels, np.int64)
    data = {"x": np.zeros((len(labels), 2, 2), np.uint8), "y": labels}
    table = open_table(data | ({"classes": classes} if classes else {}))
    changes = {"test": np.array(test)} if test is not None else {}
    return replace(table, **changes, **({"names": tuple(names)} if names else {}))


@st.composite
def full_tables(draw, least=5):
    """Draw a fully labeled table of 2 to 4 classes, in any order."""
    counts = draw(st.lists(st.integers(least, 17), min_size=2, max_size=4))
    return table_of(draw(st.permutations([k for k, n in enumerate(counts) for _ in range(n)])))


@st.composite
def any_tables(draw, least_unlabeled=0):
    """Draw a table with at least 5 labels a class, with and without unlabeled rows and test rows (labeled)."""
    labels = draw(st.lists(st.integers(draw(st.sampled_from([-1, 0])), 2), max_size=12)) + [-1] * least_unlabeled
    has_test = draw(st.booleans())
    test = [has_test and label >= 0 and draw(st.booleans()) for label in labels]
    return table_of([0, 1, 2] * 5 + labels, [False] * 15 + test)


def same_split(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("labels", "test", "truth"))


def parts(table):
    return [table.labeled_rows, table.unlabeled_rows, table.test_rows]


# --- drawing ---


@FEW
@given(full_tables(), st.integers(1, 4), seeds)
def test_exactly_n_labels_a_class_are_kept(table, count, seed):
    split = draw_split(table, count, seed)
    assert np.bincount(split.labels[split.labeled_rows]).tolist() == [count] * len(table.classes)


@FEW
@given(full_tables(), st.none() | st.integers(1, 4), seeds)
def test_a_fifth_of_each_class_is_test(table, count, seed):
    split = draw_split(table, count, seed)
    for k in range(len(table.classes)):
        assert (table.labels[split.test] == k).sum() == (table.labels == k).sum() // 5


@FEW
@given(full_tables(), st.integers(1, 4), seeds)
def test_hidden_rows_have_truth_and_no_label_and_the_others_no_truth(table, count, seed):
    split = draw_split(table, count, seed)
    hidden = split.unlabeled_rows
    assert len(hidden)
    assert np.array_equal(split.truth[hidden], table.labels[hidden])
    shown = np.setdiff1d(np.arange(len(table)), hidden)
    assert np.array_equal(split.labels[shown], table.labels[shown])
    assert (split.truth[shown] == -1).all()


@FEW
@given(st.one_of(full_tables(), any_tables()), seeds)
def test_each_row_is_in_one_part(table, seed):
    fully = not len(table.unlabeled_rows)
    enough = np.bincount(table.labels[table.labeled_rows]).min() >= 2
    for count in (None, 1) if fully and enough else (None,):
        together = np.concatenate(parts(draw_split(table, count, seed)))
        assert sorted(together.tolist()) == list(range(len(table)))


@FEW
@given(full_tables(), st.integers(1, 4), seeds)
def test_the_same_seed_draws_the_same_split(table, count, seed):
    assert same_split(draw_split(table, count, seed), draw_split(table, count, seed))


@FEW
@given(seeds, seeds)
def test_another_seed_draws_another_split(seed, other):
    assume(seed != other)
    table = table_of(list(range(4)) * 25)
    first, second = draw_split(table, 4, seed), draw_split(table, 4, other)
    assert not np.array_equal(first.test, second.test)
    assert not np.array_equal(first.labeled_rows, second.labeled_rows)


@FEW
@given(full_tables(), seeds)
def test_the_test_rows_do_not_depend_on_how_many_labels_are_kept(table, seed):
    splits = [draw_split(table, count, seed) for count in (None, 1, 4)]
    assert all(np.array_equal(split.test, splits[0].test) for split in splits)


@FEW
@given(full_tables(), seeds)
def test_more_labels_contain_the_fewer(table, seed):
    few, more = draw_split(table, 2, seed), draw_split(table, 3, seed)
    assert set(few.labeled_rows) < set(more.labeled_rows)


def test_labels_and_test_rows_are_drawn_from_all_places():
    table = table_of([0, 1] * 10)
    drawn = [draw_split(table, 2, seed) for seed in range(200)]
    assert np.mean([split.test for split in drawn], axis=0) == pytest.approx(0.2, abs=0.12)
    assert np.mean([split.labels >= 0 for split in drawn], axis=0) - 0.2 == pytest.approx(0.2, abs=0.2)
    kept = np.mean([np.isin(np.arange(20), split.labeled_rows) for split in drawn], axis=0)
    assert kept == pytest.approx(0.2, abs=0.12)


@FEW
@given(any_tables(least_unlabeled=1), seeds)
def test_a_set_that_is_not_fully_labeled_gives_up_no_label(table, seed):
    assert same_split(draw_split(table, None, seed), table)


@FEW
@given(any_tables(), seeds)
def test_a_given_test_split_stays(table, seed):
    assume(table.test.any())
    assert np.array_equal(draw_split(table, None, seed).test, table.test)


@FEW
@given(any_tables(), seeds)
def test_test_rows_are_never_learned_from(table, seed):
    split = draw_split(table, None, seed)
    assert not split.test[split.labeled_rows].any()
    assert not split.test[split.unlabeled_rows].any()


@FEW
@given(full_tables(), st.integers(1, 4), seeds)
def test_the_drawn_table_is_a_copy(table, count, seed):
    before = table.labels.copy()
    draw_split(table, count, seed)
    assert np.array_equal(table.labels, before)
    assert not table.test.any()


def test_classes_of_fewer_than_five_rows_are_not_set_apart():
    assert not draw_split(table_of([0, 0, 1, 1, 1, 1]), None, 0).test.any()


def test_what_was_done_is_noted():
    notes = " ".join(draw_split(table_of([0, 1] * 10), 2, 0).notes)
    assert "(4 rows) is set apart as the test split" in notes
    assert "12 labels are hidden, 4 are kept" in notes
    assert draw_split(table_of([0, 1, -1]), None, 0).notes == ()


def test_classes_that_gave_no_test_row_are_named_and_whole_groups_are_said():
    (note,) = draw_split(table_of([0] * 10 + [1] * 4, classes=["many", "few"]), None, 0).notes
    assert "few" in note and "many" not in note and "group" not in note
    (note,) = draw_split(table_of([0] * 10 + [1] * 10, classes=["many", "few"]), None, 0).notes
    assert "few" not in note and "many" not in note
    grouped = replace(table_of([0, 1] * 10), groups=tuple(f"g{i // 2}" for i in range(20)))
    (note,) = draw_split(grouped, None, 0).notes
    assert "group" in note


@pytest.mark.parametrize("seed", range(5))
def test_of_whole_groups_no_class_gives_more_than_a_fifth(seed):
    """Many small groups: without a count of what is left all of them would go."""
    table = replace(table_of([0, 1] * 30), groups=tuple(f"g{i // 4}" for i in range(60)))
    test = draw_split(table, None, seed).test
    assert test.sum() > 0 and all(test[table.labels == k].sum() <= 30 // 5 for k in (0, 1))
    tested = {group for group, chosen in zip(table.groups, test, strict=True) if chosen}
    assert tested.isdisjoint(group for group, chosen in zip(table.groups, test, strict=True) if not chosen)


def test_hiding_labels_of_a_set_with_unlabeled_rows_is_refused():
    with pytest.raises(UserError, match=r"has 2 unlabeled rows already\. Leave the option out"):
        draw_split(table_of([0, 1, -1, -1]), 1, 0)


def test_more_labels_than_a_class_has_are_refused_with_how_many_there_are():
    table = table_of([0] * 10 + [1] * 4, classes=["ant", "bee"])
    with pytest.raises(UserError, match=r"--labels-per-class 5: give a whole number from 1 to 4.* bee has 4") as error:
        draw_split(table, 5, 0)
    assert "ant" not in str(error.value)
    with pytest.raises(UserError, match="from 1 to 4"):
        draw_split(table, 0, 0)


def test_hiding_keeps_what_was_hidden_before():
    once = hide_all_but(table_of([0, 1, 0, 1]), np.array([0, 1, 2]))
    twice = hide_all_but(once, np.array([0]))
    assert twice.labels.tolist() == [0, -1, -1, -1]
    assert twice.truth.tolist() == [-1, 1, 0, 1]


# --- the table ---


@FEW
@given(any_tables(), st.randoms(use_true_random=False))
def test_taking_rows_takes_all_of_them(table, random):
    table = replace(table, truth=np.arange(len(table)))
    rows = np.array(random.sample(range(len(table)), 3))
    taken = table.take(rows)
    assert taken.names == tuple(table.names[row] for row in rows)
    assert all(taken.contents[i] is table.contents[row] for i, row in enumerate(rows))
    assert same_split(taken, replace(table, labels=table.labels[rows], test=table.test[rows], truth=table.truth[rows]))


def test_a_test_row_is_in_no_other_part_whatever_its_label():
    table = table_of([0, 1, -1, -1], [False, True, False, True])
    assert [rows.tolist() for rows in parts(table)] == [[0], [2], [1, 3]]


def test_counts_are_of_each_class_and_part():
    table = table_of([0, 0, 1, 1, -1, -1], [False, True, False, False, False, False])
    assert table.counts() == [("0", 1, 1), ("1", 2, 0)]


@pytest.mark.parametrize("column", ["labels", "test", "truth", "names", "classes"])
def test_the_fingerprint_depends_on_every_column(column):
    table = draw_split(table_of([0, 1] * 10), 2, 0)
    value = getattr(table, column)
    changed = value[::-1] if column != "classes" else ("a", "b")
    assert replace(table).fingerprint() == table.fingerprint()
    assert replace(table, **{column: changed}).fingerprint() != table.fingerprint()


# --- the file ---


@FEW
@given(table=full_tables(), count=st.none() | st.integers(1, 4), seed=seeds)
def test_a_split_that_was_written_down_comes_back(tmp_path_factory, table, count, seed):
    path = tmp_path_factory.getbasetemp() / "split.csv"
    split = draw_split(table, count, seed)
    replace_text(path, split_text(split))
    assert same_split(apply_split(table, path), split)


@FEW
@given(table=any_tables())
def test_a_split_of_a_table_with_unlabeled_rows_comes_back(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "split.csv"
    replace_text(path, split_text(table))
    assert same_split(apply_split(table, path), table)


# Without halves of characters, which no UTF-8 file can hold.
names_of_classes = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@FEW
@given(names=st.lists(names_of_classes, min_size=3, max_size=3, unique=True))
@example(names=['a,"b"', "c\nd", "ünï 漢字 ;\t'"])
@example(names=[" ", "\ufeff", "\x00\u2028\x85"])
@example(names=["-1", "None", "label"])
@example(names=["=1+1", "a\rb", "@x"])
@example(names=["'=1", "=1", "'"])
def test_any_name_of_a_class_or_row_survives_the_file(tmp_path_factory, names):
    path = tmp_path_factory.getbasetemp() / "names.csv"
    table = table_of([0, 1, 2], classes=names, names=reversed(names))
    split = hide_all_but(table, np.array([1, 2]))
    replace_text(path, split_text(split))
    assert same_split(apply_split(table, path), split)


TABLE = table_of([0, 1] * 10, classes=["ant", "bee"])
SPLIT = draw_split(TABLE, 2, 0)


@pytest.fixture
def changed(tmp_path):
    """Give a function that applies a changed text of `SPLIT` to `TABLE`."""

    def apply(change, table=TABLE):
        path = tmp_path / "split.csv"
        path.write_bytes(change(split_text(SPLIT)).encode())
        return apply_split(table, path)

    return apply


def test_a_split_shows_the_labels_that_were_kept_and_those_of_the_test_rows(changed):
    rows = list(csv.DictReader(split_text(SPLIT).splitlines()))
    assert [row["name"] for row in rows] == list(SPLIT.names)
    assert sum(row["split"] == "test" for row in rows) == 4
    assert all(row["label"] for row in rows if row["split"] == "test")
    assert sum(bool(row["label"]) for row in rows if row["split"] == "train") == 4
    assert any("split.csv" in note for note in changed(lambda text: text).notes)


def reordered(text):
    header, *rows = text.splitlines()
    return "\n".join([header, *reversed(rows)])


SAME = {
    "as it was": lambda text: text,
    "windows": lambda text: text.replace("\n", "\r\n"),
    "a byte order mark": lambda text: "\ufeff" + text,
    "reordered": reordered,
    "one more column": lambda text: "".join(f"{line},note\n" for line in text.splitlines()),
}


@pytest.mark.parametrize("name", SAME)
def test_what_spreadsheets_do_to_the_file_does_not_matter(changed, name):
    assert same_split(changed(SAME[name]), SPLIT)


WRONG = {
    "missing": (lambda text: text[: text.index("x[19]")], "lacks 1 rows of the data, such as x\\[19\\]"),
    "extra": (lambda text: text + "x[20],ant,train\n", "names 1 rows that the data has not, such as x\\[20\\]"),
    "others": (
        lambda text: text.replace("x[3],", "z,"),
        r"other rows: 2 problems\n.* such as x\[3\]\n.*names 1 rows that the data has not, such as z",
    ),
    "contradicting": (
        lambda text: text.replace(",ant,", ",bee,"),
        r"contradicts the data in 4 rows: .* is bee there and ant",
    ),
    "unknown class": (lambda text: text.replace(",ant,", ",cow,"), r"is cow there and ant in the data"),
    "odd split": (lambda text: text.replace(",test", ",valid"), "a split is train or test, not valid"),
    "short row": (lambda text: text.replace(",ant,test", ",ant"), "a split is train or test, not nothing"),
    "no header": (lambda text: text.partition("\n")[2], "needs the columns name, label and split"),
    "no rows": (lambda text: text.partition("\n")[0], "needs the columns name, label and split"),
    "empty": (lambda _: "", "needs the columns name, label and split"),
    "huge field": (lambda text: text + "x" * 200_000 + ",ant,train\n", "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_split_that_does_not_fit_the_data_is_refused(changed, name):
    change, said = WRONG[name]
    with pytest.raises(UserError, match=said) as error:
        changed(change)
    assert "split.csv" in str(error.value)


def test_a_label_where_the_data_has_none_is_refused(changed):
    labels = np.where(np.arange(20) == SPLIT.labeled_rows[0], -1, TABLE.labels)
    with pytest.raises(UserError, match=r"in 1 rows: x\[\d+\] is \w+ there and unlabeled in the data"):
        changed(lambda text: text, replace(TABLE, labels=labels))


def test_a_split_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no split at .*none\.csv; give the split\.csv of a run"):
        apply_split(TABLE, tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="cannot be read"):
        apply_split(TABLE, tmp_path / "binary.csv")


def test_a_row_that_is_named_twice_is_refused(changed):
    with pytest.raises(UserError, match=r"x\[0\]"):
        changed(lambda text: text + "x[0],ant,test\nx[0],,train\n")


def test_a_test_row_without_a_label_is_refused(changed):
    row = SPLIT.unlabeled_rows[0]
    table = replace(TABLE, labels=np.where(np.arange(20) == row, -1, TABLE.labels))
    with pytest.raises(UserError, match="label"):
        changed(lambda text: text.replace(f"x[{row}],,train", f"x[{row}],,test"), table)


def test_a_split_that_parts_a_group_is_refused(changed):
    groups = tuple(f"g{i // 4}" for i in range(20))
    with pytest.raises(UserError, match=r"g[0-4]"):
        changed(lambda text: text, replace(TABLE, groups=groups))


# --- parts that judge each other ---


@FEW
@given(any_tables(), st.integers(2, 5), seeds)
def test_parts_hold_each_labeled_row_once_and_leave_every_class(table, count, seed):
    rows = table.labeled_rows
    assume(fewest_apart(table, rows) >= count)
    found = parted(table, rows, count, seed)
    assert len(found) == count and np.array_equal(np.sort(np.concatenate(found)), rows)
    for part in found:
        assert {*table.labels[np.setdiff1d(rows, part)]} == {*table.labels[rows]} == {*table.labels[part]}


@FEW
@given(st.lists(st.integers(0, 6), min_size=8, max_size=40), st.integers(2, 4), seeds)
def test_parts_keep_groups_whole_and_leave_every_class_or_there_are_none(groups, count, seed):
    table = replace(table_of([0, 1] * len(groups)), groups=tuple(f"g{g}" for g in groups for _ in "ab"))
    rows = table.labeled_rows
    assert fewest_apart(table, rows) == len({*groups})
    assume(len({*groups}) >= count)
    found = parted(table, rows, count, seed)
    of = [{table.groups[row] for row in part} for part in found]
    assert all(not a & b for i, a in enumerate(of) for b in of[:i])
    for part in found:
        assert {*table.labels[np.setdiff1d(rows, part)]} == {0, 1}


def test_a_class_of_one_group_is_never_judged_by_what_has_not_seen_it():
    table = replace(table_of([0] * 6 + [1] * 6), groups=("a",) * 6 + ("b", "c", "d") * 2)
    assert fewest_apart(table, table.labeled_rows) == 1
    assert parted(table, table.labeled_rows, 2, 0) == []
    assert fewest_apart(replace(table, groups=("",) * 6 + table.groups[6:]), table.labeled_rows) == 3
