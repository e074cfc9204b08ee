"""report.html: one file that says what was asked and what came out."""
