"""Steps that methods share: pure functions, and small modules for what is remembered."""
