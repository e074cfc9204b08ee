"""What tests of sources ask of a table."""


def rows_of(table):
    """Give name -> (class or "", is a test row)."""
    classes = (*table.classes, "")
    return {n: (classes[k], bool(t)) for n, k, t in zip(table.names, table.labels, table.test, strict=True)}


def noted(table, *said):
    """Check that one note holds all of these."""
    assert any(all(part in note for part in said) for note in table.notes), table.notes
