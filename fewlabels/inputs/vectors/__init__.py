"""Feature vectors: of text, of sound, of the rows of a sheet."""
