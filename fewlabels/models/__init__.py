"""Networks: a classifier is a backbone that gives features and a linear head whose rows are class centers."""
