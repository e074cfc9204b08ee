"""How a row of each kind of data is read, kept, seen in views and fed to the training."""
