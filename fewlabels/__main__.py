"""`python -m fewlabels`, as `torchrun -m fewlabels` needs it."""

from fewlabels.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
