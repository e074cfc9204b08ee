"""What a run is worth: accuracy, and what is free."""
