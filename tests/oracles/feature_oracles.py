"""References of the classifiers on frozen features: neighbors, regressions, graphs, a mixture, prototypes.

Shapes: N rows of D features, of which n have a label and M = N - n have none; K classes, numbered 0..K-1. `labels` [N]
holds -1 where there is no label. `labeled` and `asked` are row numbers; where a function takes `labeled`, only the
labels of those rows are read. Nothing here normalizes its rows beyond what a cosine does: call `normalized` first.

Ties: of equally near neighbors the row that comes first, of equally likely classes the lower number. A class without
a label is given nothing by anyone except `sinkhorn_prototypes`, where the pool can give it a prototype.

Formulas: FEATURES.md of the project, sections B3.1 to B3.4 and "Other graphs", and the papers named below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from .bank_oracles import normalize_rows
from .basics import Floats, Ints, cross_entropy, softmax

# ---------------------------------------------------------------------------------------------------------------------
# What the others share


def normalized(x: Floats, train: Ints) -> Floats:
    """Return x [N, D] with rows of unit norm, minus the mean over rows `train`, with unit norm again (B3, Notation).

    Both times a row of zeros stays one, so a row of zeros in x ends up as the unit vector opposite to the mean.
    """
    unit = normalize_rows(x)
    return normalize_rows(unit - unit[train].mean(axis=0))


def cosines(a: Floats, b: Floats) -> Floats:
    """Return the cosine [n, m] of each row of a [n, D] with each of b [m, D], 0 with a row of zeros."""
    unit_a, unit_b = normalize_rows(a), normalize_rows(b)
    out = np.zeros((len(a), len(b)), dtype=np.float64)
    for i, row in enumerate(unit_a):
        for j, other in enumerate(unit_b):
            out[i, j] = float(row @ other)
    return out


def nearest(closeness: Floats, k: int) -> Ints:
    """Return the places of the k largest of `closeness` [n], largest first, ties by place; all where n < k."""
    return np.argsort(-closeness, kind="stable")[:k].astype(np.int64)


def one_hot_targets(labels: Ints, classes: int) -> Floats:
    """Return Y [N, K], one-hot where there is a label, 0 where labels [N] are -1."""
    out = np.zeros((len(labels), classes), dtype=np.float64)
    for i, k in enumerate(labels):
        if k >= 0:
            out[i, k] = 1.0
    return out


def rows_to_sum_one(f: Floats) -> Floats:
    """Return f [N, K] with each row divided by its sum; a row of zeros stays one."""
    out = np.zeros_like(f, dtype=np.float64)
    for i, row in enumerate(f):
        if row.sum() > 0:
            out[i] = row / row.sum()
    return out


def number_of_classes(labels: Ints, labeled: Ints, classes: int | None) -> int:
    """Return `classes`, or one more than the largest label of the rows `labeled`."""
    return int(labels[labeled].max()) + 1 if classes is None else classes


def without(labeled: Ints, i: int) -> Ints:
    """Return `labeled` without the row in its place i."""
    return np.array([row for place, row in enumerate(labeled) if place != i], dtype=np.int64)


def balanced_accuracy(predicted: Ints, labels: Ints) -> float:
    """Return the mean over classes of the share of a class's rows that are predicted right.

    predicted [N], labels [N]; rows with label -1 and classes without rows are left out.
    """
    recalls: list[float] = []
    for k in sorted({int(k) for k in labels if k >= 0}):
        rows = [i for i, label in enumerate(labels) if label == k]
        recalls.append(sum(1 for i in rows if predicted[i] == k) / len(rows))
    return sum(recalls) / len(recalls)


def estimated_shares(probabilities: Floats, trained: Floats, steps: int = 100) -> Floats:
    """Estimate the class shares [K] of a pool by EM (Saerens et al. 2002; B3.1).

    probabilities [N, K]: p(k | row) of a classifier that learned where classes had the shares `trained` [K]. From
    pi = trained: p'_ik = normalize_k(p_ik pi_k / trained_k), pi_k = mean_i p'_ik, `steps` times.
    A class with no share where the classifier learned gets none.
    """
    shares = np.array(trained, dtype=np.float64)
    for _ in range(steps):
        ratio = np.array([s / t if t > 0 else 0.0 for s, t in zip(shares, trained, strict=True)])
        shares = rows_to_sum_one(probabilities * ratio).mean(axis=0)
    return shares


def shrunk_shares(estimated: Floats) -> Floats:
    """Return half the estimated class shares [K] plus half the uniform ones (B3.1; lesson (e))."""
    return 0.5 * estimated + 0.5 / len(estimated)


# ---------------------------------------------------------------------------------------------------------------------
# Nearest neighbors


def knn_scores(x: Floats, labels: Ints, labeled: Ints, asked: Ints, k: int, classes: int | None = None) -> Floats:
    """Return scores [len(asked), K] of which the largest names the class with most votes.

    The k rows of `labeled` of largest cosine (all, where they are fewer) vote for their class. Of classes with equally
    many votes that wins whose voters have the larger sum of cosines. A score is votes + sum / (2k + 1): the sums lie
    within [-k, k], so the second term never makes up for a vote. Only the order of the scores has a meaning.
    A row that is labeled itself is its own neighbor.
    """
    scores = np.zeros((len(asked), number_of_classes(labels, labeled, classes)), dtype=np.float64)
    closeness = cosines(x[asked], x[labeled])
    for i in range(len(asked)):
        for j in nearest(closeness[i], k):
            scores[i, labels[labeled[j]]] += 1.0 + closeness[i, j] / (2 * k + 1)
    return scores


def knn_leave_one_out(x: Floats, labels: Ints, labeled: Ints, k: int) -> Ints:
    """Predict the class [n] of each row of `labeled` by the k nearest of the others; class 0 if there are none."""
    classes = number_of_classes(labels, labeled, None)
    predicted = np.zeros(len(labeled), dtype=np.int64)
    for i, row in enumerate(labeled):
        others = without(labeled, i)
        if len(others):
            scores = knn_scores(x, labels, others, np.array([row]), k, classes)
            predicted[i] = int(scores[0].argmax())
    return predicted


def best_k(x: Floats, labels: Ints, labeled: Ints, candidates: Sequence[int]) -> int:
    """Return the candidate k of the largest leave-one-out balanced accuracy, the smallest such k."""
    best, best_score = -1, -1.0
    for k in sorted(candidates):
        score = balanced_accuracy(knn_leave_one_out(x, labels, labeled, k), labels[labeled])
        if score > best_score + 1e-12:  # sums of fractions in another order are no better
            best, best_score = k, score
    return best


# ---------------------------------------------------------------------------------------------------------------------
# Ridge regression


def ridge(x: Floats, labels: Ints, labeled: Ints, asked: Ints, lam: float, classes: int | None = None) -> Floats:
    """Return f(x) = k(x)'A [len(asked), K] with A = (G + lam I)^-1 Y, G = XX' over `labeled` (B3.1).

    One-hot targets, no intercept, lam > 0. Without labeled rows f = 0.
    """
    if len(labeled) == 0:
        return np.zeros((len(asked), classes or 0), dtype=np.float64)
    y = one_hot_targets(labels[labeled], number_of_classes(labels, labeled, classes))
    gram = x[labeled] @ x[labeled].T
    coefficients = np.linalg.solve(gram + lam * np.eye(len(labeled)), y)
    return x[asked] @ x[labeled].T @ coefficients


def ridge_leave_one_out(x: Floats, labels: Ints, labeled: Ints, lam: float) -> Floats:
    """Return f [n, K] of each row of `labeled`, fitted to the others: n fits, one after the other."""
    classes = number_of_classes(labels, labeled, None)
    out = np.zeros((len(labeled), classes), dtype=np.float64)
    for i, row in enumerate(labeled):
        out[i] = ridge(x, labels, without(labeled, i), np.array([row]), lam, classes)[0]
    return out


def ridge_error(x: Floats, labels: Ints, labeled: Ints, lam: float) -> float:
    """Return the mean over classes of the mean of ||e_i||^2 over a class's rows (B3.1).

    e_i = y_i - f(x_i), f fitted without row i. Classes without a row do not count.
    """
    out = ridge_leave_one_out(x, labels, labeled, lam)
    residuals = one_hot_targets(labels[labeled], out.shape[1]) - out
    means: list[float] = []
    for k in sorted({int(k) for k in labels[labeled]}):
        squares = [float(residuals[i] @ residuals[i]) for i, row in enumerate(labeled) if labels[row] == k]
        means.append(sum(squares) / len(squares))
    return sum(means) / len(means)


def ridge_best(x: Floats, labels: Ints, labeled: Ints, lambdas: Sequence[float]) -> float:
    """Return the lambda of least `ridge_error`, of equals the one that stands first in `lambdas` (B3.1)."""
    errors = [ridge_error(x, labels, labeled, lam) for lam in lambdas]
    return lambdas[errors.index(min(errors))]


# ---------------------------------------------------------------------------------------------------------------------
# Logistic regression


def logistic_objective(weights: Floats, z: Floats, y: Ints, c: float) -> float:
    """Return c * sum of cross-entropies + ||W||^2 / 2 without the intercepts, the last row of weights [D + 1, K]."""
    return c * float(cross_entropy(z @ weights, y).sum()) + 0.5 * float((weights[:-1] ** 2).sum())


def logistic_weights(z: Floats, y: Ints, classes: int, c: float) -> Floats:
    """Minimize `logistic_objective` by Newton's method to a gradient of norm 1e-8 and return W [D + 1, K].

    z [n, D + 1] are rows whose last feature is 1; each class has a row in y [n].
    """
    width = z.shape[1]
    weights = np.zeros((width, classes), dtype=np.float64)
    penalty = np.eye(width)
    penalty[-1, -1] = 0.0
    # Adding one number to all intercepts changes nothing, so the Hessian is singular along it. The gradient has no
    # part in that direction, so a curvature put there alters no step and keeps the mean of the intercepts 0.
    pin = np.zeros((width, width))
    pin[-1, -1] = 1.0
    for _ in range(200):
        p = softmax(z @ weights)
        gradient = c * z.T @ (p - np.eye(classes)[y]) + penalty @ weights
        if np.linalg.norm(gradient) <= 1e-8:
            return weights
        hessian = np.zeros((classes, width, classes, width), dtype=np.float64)
        for k in range(classes):
            for j in range(classes):
                curvature = p[:, k] * (float(k == j) - p[:, j])
                hessian[k, :, j, :] = c * z.T @ (curvature[:, None] * z) + float(k == j) * penalty + pin
        flat = hessian.reshape(classes * width, classes * width)
        step = -np.linalg.solve(flat, gradient.T.ravel()).reshape(classes, width).T
        slope = float((gradient * step).sum())
        value, scale = logistic_objective(weights, z, y, c), 1.0
        # halve until the objective falls enough; near the minimum its rounding hides that, and a whole step is right
        while -slope > 1e-12 * max(1.0, value) and (
            logistic_objective(weights + scale * step, z, y, c) > value + 1e-4 * scale * slope
        ):
            scale /= 2
        weights = weights + scale * step
    raise RuntimeError("Newton's method did not converge")


def logistic(x: Floats, labels: Ints, labeled: Ints, asked: Ints, c: float, classes: int | None = None) -> Floats:
    """Return the probabilities [len(asked), K] of multinomial logistic regression with an L2 penalty (B3.1).

    Minimizes c * sum_i CE_i + ||W||^2 / 2 over the weights W [D, K] and intercepts [K], these without a penalty: the
    objective of scikit-learn's LogisticRegression for 3 classes or more. For 2 classes that has one weight vector
    w = w_1 - w_0, whose ||w||^2 / 2 is twice the penalty here, so this with c equals scikit-learn with C = 2c.
    A class without a labeled row has probability 0 (the limit of its intercept is -inf).
    """
    total = number_of_classes(labels, labeled, classes)
    present = sorted({int(k) for k in labels[labeled]})
    y = np.array([present.index(int(k)) for k in labels[labeled]], dtype=np.int64)
    z = np.hstack([x, np.ones((len(x), 1))])
    weights = logistic_weights(z[labeled], y, len(present), c)
    out = np.zeros((len(asked), total), dtype=np.float64)
    out[:, present] = softmax(z[asked] @ weights)
    return out


def logistic_leave_one_out(x: Floats, labels: Ints, labeled: Ints, c: float) -> Floats:
    """Return the probabilities [n, K] of each row of `labeled`, fitted to the others (two or more rows)."""
    classes = number_of_classes(labels, labeled, None)
    out = np.zeros((len(labeled), classes), dtype=np.float64)
    for i, row in enumerate(labeled):
        out[i] = logistic(x, labels, without(labeled, i), np.array([row]), c, classes)[0]
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Label propagation


def knn_graph(x: Floats, k: int, power: float = 3.0) -> Floats:
    """Return the weights W [N, N] of the neighbor graph (B3.2): symmetric, with a zero diagonal.

    w_ij = max(cos(x_i, x_j), 0)^power where j is among the k nearest others of i by cosine, else 0; W <- W + W', so
    two rows that are each among the other's nearest have twice the weight.
    """
    w = np.zeros((len(x), len(x)), dtype=np.float64)
    closeness = cosines(x, x)
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        for place in nearest(closeness[i, others], k):
            j = others[place]
            w[i, j] = max(closeness[i, j], 0.0) ** power
    return w + w.T


def propagation_matrix(w: Floats, alpha: float) -> Floats:
    """Return I - alpha S [N, N], S = D^-1/2 W D^-1/2, D the row sums of w [N, N]; S = 0 where those are (B3.2)."""
    degrees = w.sum(axis=1)
    s = np.zeros_like(w)
    for i in range(len(w)):
        for j in range(len(w)):
            if w[i, j] > 0:
                s[i, j] = w[i, j] / np.sqrt(degrees[i] * degrees[j])
    return np.eye(len(w)) - alpha * s


def propagate(w: Floats, labels: Ints, alpha: float, classes: int) -> Floats:
    """Solve (I - alpha S) F = Y0 for F [N, K], not normalized (Zhou et al. 2004, without its 1 - alpha; B3.2).

    Y0 is one-hot on labeled rows and 0 elsewhere; a row without neighbors has F = Y0.
    """
    return np.linalg.solve(propagation_matrix(w, alpha), one_hot_targets(labels, classes))


def propagate_leave_one_out(w: Floats, labels: Ints, alpha: float, classes: int) -> Floats:
    """Return F [n, K] of each labeled row, in the order of rows, after its own label was removed: n solutions (B3.2).

    Not normalized; a row that no other label reaches has F = 0.
    """
    rows = np.flatnonzero(labels >= 0)
    out = np.zeros((len(rows), classes), dtype=np.float64)
    for place, i in enumerate(rows):
        hidden = labels.copy()
        hidden[i] = -1
        out[place] = propagate(w, hidden, alpha, classes)[i]
    return out


def propagate_leave_one_out_closed(w: Floats, labels: Ints, alpha: float, classes: int) -> Floats:
    """Return the same as `propagate_leave_one_out` as F_i - M_ii y_i, M = (I - alpha S)^-1 (B3.2)."""
    inverse = np.linalg.inv(propagation_matrix(w, alpha))
    y = one_hot_targets(labels, classes)
    f = inverse @ y
    rows = np.flatnonzero(labels >= 0)
    return np.array([f[i] - inverse[i, i] * y[i] for i in rows], dtype=np.float64).reshape(len(rows), classes)


def new_rows(x_new: Floats, x: Floats, f: Floats, k: int, power: float = 3.0) -> Floats:
    """Return the distributions [m, K] of rows x_new [m, D] from those of training rows x [N, D] (B3.2).

    The mean of the row-normalized f [N, K] of the k nearest training rows by cosine, weighted by max(cos, 0)^power. A
    training row with f = 0 counts as zeros, so the result can sum to less than 1. Zeros where all weights are 0.
    """
    distributions = rows_to_sum_one(f)
    closeness = cosines(x_new, x)
    out = np.zeros((len(x_new), f.shape[1]), dtype=np.float64)
    for i in range(len(x_new)):
        total = 0.0
        for j in nearest(closeness[i], k):
            weight = max(closeness[i, j], 0.0) ** power
            out[i] += weight * distributions[j]
            total += weight
        if total > 0:
            out[i] /= total
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Whitening and the Gaussian mixture


def whitening(a: Floats, neighbors: int = 5, shrink: float = 0.1) -> Floats:
    """Return the symmetric map S^-1/2 [p, p] of the scatter within neighborhoods of rows a [N, p] (B3.4).

    S = 1/2 mean (a_i - a_j)(a_i - a_j)' over all rows i and the `neighbors` nearest other rows j of each, by Euclidean
    distance; then S += shrink tr(S)/p I. Apply it as a @ map.
    """
    width = a.shape[1]
    scatter = np.zeros((width, width), dtype=np.float64)
    pairs = 0
    for i in range(len(a)):
        distances = ((a - a[i]) ** 2).sum(axis=1)
        distances[i] = np.inf
        for j in nearest(-distances, min(neighbors, len(a) - 1)):
            scatter += np.outer(a[i] - a[j], a[i] - a[j])
            pairs += 1
    scatter *= 0.5 / pairs
    scatter += shrink * np.trace(scatter) / width * np.eye(width)
    values, vectors = np.linalg.eigh(scatter)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def principal_components(x: Floats, p: int) -> tuple[Floats, Floats]:
    """Return the mean [D] of rows x [N, D] and their p directions [D, p] of largest variance, largest first.

    The sign of a direction is arbitrary.
    """
    mean = x.mean(axis=0)
    _, vectors = np.linalg.eigh((x - mean).T @ (x - mean))
    return mean, vectors[:, ::-1][:, :p]


def whitened(x: Floats, train: Ints, p: int, neighbors: int = 5, shrink: float = 0.1) -> Floats:
    """Return all rows [N, p] in the whitened principal components of the rows `train` (B3.4).

    Mean, components and map come from the rows `train` alone, neighbors are sought among their components; rows are
    not normalized after it. p is at most the rank of the centered training rows.
    """
    mean, directions = principal_components(x[train], p)
    a = (x - mean) @ directions
    return a @ whitening(a[train], neighbors, shrink)


def gaussian_probabilities(a: Floats, means: Floats, scale: float) -> Floats:
    """Return Q [N, J] = softmax of L: a_i . mu_k - ||mu_k||^2 / 2, centered in rows, times scale / median |L| (B3.4).

    a [N, p], means [J, p]. The median is over all entries; where it is 0 (one class) L stays as it is.
    """
    logits = a @ means.T - 0.5 * (means**2).sum(axis=1)
    logits -= logits.mean(axis=1, keepdims=True)
    middle = float(np.median(np.abs(logits)))
    return softmax(logits * (scale / middle if middle > 0 else 1.0))


def gaussian_em(
    a: Floats,
    labels: Ints,
    classes: int,
    steps: int = 3,
    weight: float = 0.1,
    scale: float = 3.0,
    pool: Ints | None = None,
) -> Floats:
    """Return Q [N, K] of a mixture of equal spherical Gaussians on whitened rows a [N, p] (B3.4).

    Starts from the means of the labels, then `steps` times
    mu_k = (sum_label a + weight sum_i Q_ik a_i) / (n_k + weight sum_i Q_ik), and Q anew from these with its own median.
    i runs over the rows `pool`, by default those without a label; the median is over all N rows. The labels do not fix
    Q of their rows. Classes without a label have no mean and Q = 0.
    """
    if pool is None:
        pool = np.flatnonzero(labels < 0)
    present = sorted({int(k) for k in labels if k >= 0})
    sums = np.array([sum(a[i] for i in np.flatnonzero(labels == k)) for k in present])
    counts = np.array([int((labels == k).sum()) for k in present])
    q = gaussian_probabilities(a, sums / counts[:, None], scale)
    for _ in range(steps):
        means = np.zeros_like(sums)
        for j in range(len(present)):
            mass = sum(q[i, j] for i in pool)
            means[j] = (sums[j] + weight * sum(q[i, j] * a[i] for i in pool)) / (counts[j] + weight * mass)
        q = gaussian_probabilities(a, means, scale)
    out = np.zeros((len(a), classes), dtype=np.float64)
    out[:, present] = q
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Anchored Sinkhorn prototypes


def label_shares(labels: Ints, classes: int) -> Floats:
    """Return r_k = n_k / n [K], a quarter of the least such for classes without a label, then summing to 1 (B3.3)."""
    r = one_hot_targets(labels, classes).sum(axis=0) / (labels >= 0).sum()
    least = min(r[r > 0])
    r = np.array([value if value > 0 else least / 4 for value in r])
    return r / r.sum()


def sinkhorn_prototypes(
    x: Floats,
    labels: Ints,
    classes: int,
    tau: float = 0.05,
    rounds: int = 3,
    shares: Floats | None = None,
    pool: Ints | None = None,
    balancings: int = 10,
) -> Floats:
    """Return probabilities [N, K] of all rows by prototypes that labels anchor (SS-Text-U without text; B3.3).

    Prototypes w start as the means of the labeled rows of each class, 0 for a class without. `rounds` times:
    Q = exp(cos(x_i, w_k) / tau) over the rows `pool` (by default those without a label), divided by its sum; then
    `balancings` times columns scaled to sums r_k, rows to 1/M; Q *= M; and
    w_k = (n_k / 2) / (n tau) sum_{y_i = k} x_i + 1 / (M tau) sum_{i in pool} Q_ik x_i.
    r = shares [K] or, without these, `label_shares`. In the end softmax(cos(x, w) / tau). Without a pool its term is 0.
    The rows of x [N, D] have unit norm.
    """
    if pool is None:
        pool = np.flatnonzero(labels < 0)
    r = label_shares(labels, classes) if shares is None else np.asarray(shares, dtype=np.float64)
    n, m = int((labels >= 0).sum()), len(pool)
    sums = np.zeros((classes, x.shape[1]), dtype=np.float64)
    counts = np.zeros(classes, dtype=np.float64)
    for i in np.flatnonzero(labels >= 0):
        sums[labels[i]] += x[i]
        counts[labels[i]] += 1
    w = np.array([total / count if count else total for total, count in zip(sums, counts, strict=True)])
    for _ in range(rounds):
        q = np.exp(cosines(x[pool], w) / tau)
        q /= q.sum() if m else 1.0
        for _ in range(balancings if m else 0):
            for k in range(classes):
                q[:, k] *= r[k] / q[:, k].sum()
            for i in range(m):
                q[i] *= (1.0 / m) / q[i].sum()
        q *= m
        w = np.zeros_like(w)
        for k in range(classes):
            w[k] = counts[k] / 2 / (n * tau) * sums[k]
            for place, i in enumerate(pool):
                w[k] += q[place, k] * x[i] / (m * tau)
    return softmax(cosines(x, w) / tau)


# ---------------------------------------------------------------------------------------------------------------------
# Poisson learning


def poisson_source(labels: Ints, classes: int) -> Floats:
    """Return b [N, K]: y_i - mean y at labeled rows (mean y over these), 0 elsewhere (Calder et al. 2020)."""
    source = one_hot_targets(labels, classes)
    rows = np.flatnonzero(labels >= 0)
    source[rows] -= source[rows].mean(axis=0)
    return source


def poisson_learning(w: Floats, labels: Ints, classes: int) -> Floats:
    """Solve L u = b with sum_i d_i u_i = 0 for u [N, K], without the correction by class proportions.

    Calder et al. 2020 (Poisson Learning), with L = D - W, d the row sums of w [N, N], b `poisson_source`. By the
    pseudo-inverse of L, then minus the mean of u over all rows with weights d. For a graph in one piece this is the
    solution. In more pieces there may be none; the pseudo-inverse first moves b to mean 0 in each piece, and makes u
    of mean 0 there.
    """
    degrees = w.sum(axis=1)
    laplacian = np.diag(degrees) - w
    # eigenvalues of the constant vectors are rounding errors near 1e-15 of the largest, and must not be inverted
    u = np.linalg.pinv(laplacian, rcond=1e-12, hermitian=True) @ poisson_source(labels, classes)
    return u - degrees @ u / degrees.sum()


def class_sizes(n: int, shares: Floats) -> Ints:
    """Split n rows among classes by shares [K] that sum to 1: n * share rounded down, the rest by largest remainder.

    Remainders are compared rounded to 9 decimals; of equals the lower class is first.
    """
    exact = n * np.asarray(shares, dtype=np.float64)
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(-np.round(exact - sizes, 9), kind="stable")
    for k in order[: n - int(sizes.sum())]:
        sizes[k] += 1
    return sizes


def classes_of_sizes(u: Floats, sizes: Ints) -> Ints:
    """Threshold scores u [N, K] to classes z [N] of which class k has exactly sizes[k] rows (these sum to N).

    z is the assignment of largest sum_i u[i, z_i] among all with those sizes. By duality there is one weight s_k for
    each class with z_i = argmax_k (u_ik + s_k), so it is the class-size constraint by class weights (the auction of
    Jacobs, Merkurjev, Esedoglu 2018 seeks the same s). z does not depend on how it is found, and is unique unless two
    assignments have the same sum. Scores are taken as they are, the labels get no special treatment.

    How to find it for many rows: start with z_i = argmax_k u_ik. While sizes are not met, let c(k, j) be the least
    u_ik - u_ij of the rows i in k (inf for none); find the cheapest path, by these costs of steps from class to class,
    from any class with too many rows to any with too few (Bellman-Ford, costs can be negative), and at each step of
    the path move the row that gave its cost. (Successive shortest paths: each z is best for the sizes that it has.)
    """
    seats = np.repeat(np.arange(len(sizes)), sizes)
    rows, columns = linear_sum_assignment(u[:, seats], maximize=True)
    z = np.zeros(len(u), dtype=np.int64)
    z[rows] = seats[columns]
    return z


def poisson_mbo(w: Floats, labels: Ints, classes: int, shares: Floats, steps: int = 40, rounds: int = 20) -> Floats:
    """Return one-hot classes [N, K] of Poisson MBO under class sizes (Calder et al. 2020, with their mu = 1).

    Start: u = one-hot of argmax_k of `poisson_learning`, not corrected by proportions (as in the authors' code).
    `rounds` times: `steps` times u <- u - dt (L u - b), dt = 1 / max degree, then u = one-hot of
    `classes_of_sizes(u, class_sizes(N, shares))`. The authors look for class weights that multiply u, by a
    fixed number of coarse steps that can miss the sizes; here they are met exactly.
    Each class has a labeled row, and the graph is in one piece.
    """
    degrees = w.sum(axis=1)
    laplacian = np.diag(degrees) - w
    source = poisson_source(labels, classes)
    sizes = class_sizes(len(w), shares)
    u = np.eye(classes)[poisson_learning(w, labels, classes).argmax(axis=1)]
    for _ in range(rounds):
        for _ in range(steps):
            u = u - (laplacian @ u - source) / degrees.max()
        u = np.eye(classes)[classes_of_sizes(u, sizes)]
    return u
