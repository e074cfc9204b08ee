"""Methods whose unlabeled rows count from the first step on, for tests of a few steps."""

from fewlabels.methods import method_class, method_names

OPTIONS = {
    "supervised": {},
    "pseudo_label": {"threshold": 0.0, "ramp": 0.0},
    "pi_model": {"ramp": 0.0},
    "mean_teacher": {"ramp": 0.0},
    "vat": {"ramp": 0.0},
    "mixmatch": {"weight": 10.0},  # in so few steps its own factor of 75 lets it learn nothing
    "remixmatch": {},
    "uda": {"threshold": 0.0},
    "fixmatch": {"threshold": 0.0},
    "dash": {"warm_up_steps": 0.0, "decay": 1.01},
    "flexmatch": {"threshold": 0.12},
    "comatch": {"threshold": 0.0, "bank": 1, "edge": 0.102},
    "adamatch": {},
    "simmatch": {"threshold": 0.0},
    "crmatch": {"threshold": 0.0},
    "defixmatch": {"threshold": 0.0},
    "refixmatch": {"threshold": 0.14},
    "freematch": {"fairness": 1.0},
    "softmatch": {},
    "sequencematch": {"threshold": 0.12},
    "shrinkmatch": {"threshold": 0.14},
    "fullmatch": {"threshold": 0.12, "start_steps": 0.0},
    "regmixmatch": {"sure": 0.14},
    "debiaspl": {"threshold": 0.0},
    "layermatch": {},
}

# Their loss of labeled rows is another than cross-entropy on weak views.
OWN_LABELED_LOSS = {
    "adamatch": "strong views of labeled rows too",
    "defixmatch": "strong views of labeled rows too",
    "mixmatch": "labeled rows are mixed",
    "remixmatch": "labeled rows are strong views, and mixed",
}

# Held to their references in test_against_oracles.py, all others in test_methods_and_their_oracles.py.
ELSEWHERE = {"supervised", "pseudo_label", "fixmatch", "freematch", "layermatch"}

WITH_UNLABELED = [name for name in method_names() if name != "supervised"]
MIXES = [name for name in WITH_UNLABELED if method_class(name).mixes]


# They turn images or paste them into each other, which vectors, quicker to train on and to compile, do not show.
ON_IMAGES = ("crmatch", "remixmatch", "regmixmatch")

# With options that make other steps of a method: what holds for the methods holds for these.
OTHER = {
    "pseudo_label two": {"passes": "two"},
    "adamatch window": {"window": 3.0},
    "debiaspl before": {"bias_of_targets": "before"},
    "simmatch own": {"targets_of": "own", "bank_momentum": 0.7},
    "crmatch weak": {"weak_learns": True},
    "fullmatch learns": {"target_learns": True, "threshold": 0.5},
    "regmixmatch one": {"passes": "one"},
}


def eager(name, **options):
    """Make a method, or one of `OTHER`, with rows that count."""
    method = name.split()[0]
    return method_class(method)(**OPTIONS[method] | OTHER.get(name, {}) | options)
