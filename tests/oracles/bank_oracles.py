"""References of CoMatch (Li et al. 2021), SimMatch (Zheng et al. 2022) and CRMatch (Fan et al. 2022).

The first two keep a bank of embeddings and smooth their targets with it; the third adds two tasks to FixMatch: to
tell a rotation, and to keep the weak and the strong view of an image apart.

Shapes: B labeled rows, M unlabeled rows, K classes, D features, E numbers in an embedding, images [n, C, H, W].
`still` gives all through which no gradient flows, `moving` the rest (`network.Model`). Every mean over unlabeled rows
is over all M, kept or not. With M = 0 the loss is the labeled one and the memories stay as they are, the banks' labeled
rows included.
"""

from __future__ import annotations

import math

import numpy as np

from .basics import Floats, Ints, cross_entropy, log_softmax, softmax
from .network import Batch, Model
from .threshold_methods import Result, confidence_and_target, fixed_row_weight, labeled_part, unlabeled_part

LEAK = 0.1  # slope of the projector's leaky ReLU below 0, as in salesforce/CoMatch, WideResNet.py


def normalize_rows(x: Floats) -> Floats:
    """Return rows [n, E] of length 1; a row of zeros stays one."""
    out = np.zeros_like(x, dtype=np.float64)
    for i, row in enumerate(x):
        length = math.sqrt(sum(value * value for value in row))
        out[i] = row / length if length > 0 else 0.0
    return out


def linear(model: Model, name: str, x: Floats) -> Floats:
    """Return x A^T + a [n, out] of x [n, in], with A, a the model's own `name`.weight and `name`.bias."""
    weight, bias = model.own[f"{name}.weight"], model.own[f"{name}.bias"]
    out = np.zeros((len(x), len(weight)), dtype=np.float64)
    for i, row in enumerate(x):
        out[i] = weight @ row + bias
    return out


def embed(model: Model, features: Floats) -> Floats:
    """Map features [n, D] to embeddings [n, E] of length 1: linear, leaky ReLU, linear, normalized."""
    hidden = linear(model, "projector.0", features)
    hidden = np.where(hidden > 0, hidden, LEAK * hidden)
    return normalize_rows(linear(model, "projector.2", hidden))


def similarities(a: Floats, b: Floats, temperature: float) -> Floats:
    """Return a_i . b_j / temperature [n, m] of a [n, E] and b [m, E]."""
    out = np.zeros((len(a), len(b)), dtype=np.float64)
    for i, row in enumerate(a):
        for j, other in enumerate(b):
            out[i, j] = float(row @ other) / temperature
    return out


def distribution_cross_entropy(z: Floats, q: Floats) -> Floats:
    """Return -sum_k q_k log softmax(z)_k of each row: logits z [n, K], distributions q [n, K] -> [n]."""
    log_p = log_softmax(z)
    return np.array([-sum(q_k * l_k for q_k, l_k in zip(q[i], log_p[i], strict=True)) for i in range(len(z))])


def one_hot(k: int, classes: int) -> Floats:
    """Return the distribution [K] that is all at class k."""
    out = np.zeros(classes, dtype=np.float64)
    out[k] = 1.0
    return out


class UniformAlignment:
    """Alignment to the uniform distribution: normalize(p * (1/K) / a), row by row.

    a [K] is the mean of the last `window` steps' batch means of p, this step's included.
    """

    def __init__(self, classes: int, window: int) -> None:
        self.classes = classes
        self.window = window
        self.means: list[Floats] = []  # of the last steps, the oldest first

    def align(self, p: Floats) -> Floats:
        """Take in p [M, K] (M > 0) and return it aligned."""
        self.means.append(p.mean(axis=0))
        if len(self.means) > self.window:
            self.means.pop(0)
        average = sum(self.means) / len(self.means)
        out = np.zeros_like(p, dtype=np.float64)
        for i, row in enumerate(p):
            raised = row * (1.0 / self.classes) / average
            out[i] = raised / raised.sum()
        return out


def labeled_only(labeled_loss: float, target: Floats | Ints, *keys: str) -> Result:
    """Return what `step` returns with M = 0; `target` has no rows, `keys` are the losses beside L_u."""
    return {
        "loss": labeled_loss,
        "labeled_loss": labeled_loss,
        "unlabeled_loss": 0.0,
        "row_weight": np.zeros(0, dtype=np.float64),
        "target": target,
        "kept": 0.0,
    } | dict.fromkeys(keys, 0.0)


class CoMatch:
    """Li et al. 2021: targets smoothed by a bank, and a graph of targets that embeddings must follow.

    p: softmax of the weak view, aligned to uniform. g: embeddings. From step `bank_steps` on
    A_ij = softmax_j(g_w_i . bank_j / temperature), q = smoothing p + (1 - smoothing) A bank_targets; before, q = p.
    L_u = (1/M) sum_i 1[max q_i >= threshold] CE(z_s1_i, q_i).
    Q_ij = q_i . q_j, 1 where i = j, 0 where below graph_threshold, each row divided by its sum.
    S_ij = softmax_j(g_s1_i . g_s2_j / temperature), with gradient to both. L_c = -(1/M) sum_ij Q_ij log S_ij.
    L = CE(labeled) + lambda L_u + contrast L_c.

    The bank is a ring of `bank_rows` rows. After it was used it takes in the M unlabeled rows (g_w, p unsmoothed), then
    the B labeled ones (g_l, one-hot). Only rows that were filled take part; while there is none, q = p.

    Views: labeled weak; unlabeled weak, strong, strong.
    Read: salesforce/CoMatch Train_CoMatch.py, WideResNet.py, imagenet/Model.py, imagenet/Train_CoMatch.py;
    microsoft/Semi-supervised-learning semilearn/algorithms/comatch/comatch.py, hooks/dist_align.py.
    """

    def __init__(
        self,
        classes: int,
        embedding: int,
        bank_rows: int,
        bank_steps: int,
        window: int,
        lambda_: float = 1.0,
        contrast: float = 1.0,
        threshold: float = 0.95,
        temperature: float = 0.2,
        smoothing: float = 0.9,
        graph_threshold: float = 0.8,
    ) -> None:
        self.classes = classes
        self.bank_rows = bank_rows
        self.bank_steps = bank_steps
        self.lambda_ = lambda_
        self.contrast = contrast
        self.threshold = threshold
        self.temperature = temperature
        self.smoothing = smoothing
        self.graph_threshold = graph_threshold
        self.alignment = UniformAlignment(classes, window)
        self.bank_embeddings: Floats = np.zeros((bank_rows, embedding), dtype=np.float64)
        self.bank_targets: Floats = np.zeros((bank_rows, classes), dtype=np.float64)
        self.written = 0  # rows appended so far

    def append(self, embedding: Floats, target: Floats) -> None:
        """Put one row, [E] and [K], where the oldest is (or where none was yet)."""
        place = self.written % self.bank_rows
        self.bank_embeddings[place] = embedding
        self.bank_targets[place] = target
        self.written += 1

    def smooth(self, p: Floats, g_w: Floats, t: int) -> Floats:
        """Return q [M, K] of p [M, K] and the weak views' embeddings [M, E]."""
        filled = min(self.written, self.bank_rows)
        if t < self.bank_steps or filled == 0:
            return p.copy()
        attention = softmax(similarities(g_w, self.bank_embeddings[:filled], self.temperature))
        q = np.zeros_like(p, dtype=np.float64)
        for i in range(len(p)):
            neighbors = sum(attention[i, j] * self.bank_targets[j] for j in range(filled))
            q[i] = self.smoothing * p[i] + (1 - self.smoothing) * neighbors
        return q

    def graph(self, q: Floats) -> Floats:
        """Return Q [M, M] of the targets q [M, K]."""
        edges = np.zeros((len(q), len(q)), dtype=np.float64)
        for i in range(len(q)):
            for j in range(len(q)):
                similarity = 1.0 if i == j else float(q[i] @ q[j])
                edges[i, j] = similarity if similarity >= self.graph_threshold else 0.0
            edges[i] /= edges[i].sum()
        return edges

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, `contrast_loss` before its factor."""
        labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
        weak, strong1, strong2 = batch.unlabeled
        rows = len(weak)
        if rows == 0:
            return labeled_only(labeled_loss, np.zeros((0, self.classes)), "contrast_loss")

        p = self.alignment.align(softmax(still.logits(weak)))
        g_w = embed(still, still.features(weak))
        g_l = embed(still, still.features(batch.labeled[0]))
        q = self.smooth(p, g_w, batch.t)
        row_weight = fixed_row_weight(q, self.threshold)
        for i in range(rows):
            self.append(g_w[i], p[i])
        for i, k in enumerate(batch.labels):
            self.append(g_l[i], one_hot(k, self.classes))

        f_s1 = moving.features(strong1)
        each = distribution_cross_entropy(moving.classify(f_s1), q)
        unlabeled_loss = float(sum(row_weight * each)) / rows
        g_s1, g_s2 = embed(moving, f_s1), embed(moving, moving.features(strong2))
        contrasts = distribution_cross_entropy(similarities(g_s1, g_s2, self.temperature), self.graph(q))
        contrast_loss = float(sum(contrasts)) / rows
        return {
            "loss": labeled_loss + self.lambda_ * unlabeled_loss + self.contrast * contrast_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "contrast_loss": contrast_loss,
            "row_weight": row_weight,
            "target": q,
            "kept": float(row_weight.mean()),
        }


class SimMatch:
    """Zheng et al. 2022: class probabilities and similarities to the labeled rows calibrate each other.

    All of the teacher, or without `teacher` of the network itself (`still`): p = softmax of its weak logits, aligned to
    uniform; g_w, g_l its embeddings of the weak and the labeled views. The bank has one row (embedding, label) for each
    of the L labeled rows; a step first brings those of its labeled rows up to date (the last of a row that stands there
    several times), then uses the rows seen so far. A row that was seen before the step, with the embedding e then, gets
    unit(bank_momentum * e + (1 - bank_momentum) * g_l), one that was not, g_l.
    Over the rows seen: q_ij = softmax_j(g_w_i . bank_j / temperature), q'_ij = normalize_j(q_ij p_i[label_j]),
    p'_i = smoothing p_i + (1 - smoothing) sum_j q_ij onehot(label_j).
    L_u = (1/M) sum_i 1[max p'_i >= threshold] CE(z_s_i, p'_i).
    L_in = (1/M) sum_i CE between q'_i and softmax_j(g_s_i . bank_j / temperature), g_s the student's embedding.
    L = CE(labeled) + lambda L_u + instance L_in.

    Views: labeled weak; unlabeled weak, strong.
    Read: mingkai-zheng/SimMatch models/simmatch.py, simmatch.py (ImageNet alone: a teacher, no bank_momentum; the bank
    is brought up to date after it was used, and starts at random); microsoft/Semi-supervised-learning
    semilearn/algorithms/simmatch/simmatch.py (CIFAR and other small sets: no teacher, bank_momentum .7; elsewhere a
    teacher and none; its normalization runs over the batch's rows, number by number, where here it runs over a row).
    """

    def __init__(
        self,
        classes: int,
        labeled_count: int,
        embedding: int,
        window: int,
        lambda_: float = 1.0,
        instance: float = 1.0,
        threshold: float = 0.95,
        temperature: float = 0.1,
        smoothing: float = 0.9,
        teacher: bool = True,
        bank_momentum: float = 0.0,
    ) -> None:
        self.teacher = teacher
        self.bank_momentum = bank_momentum
        self.classes = classes
        self.lambda_ = lambda_
        self.instance = instance
        self.threshold = threshold
        self.temperature = temperature
        self.smoothing = smoothing
        self.alignment = UniformAlignment(classes, window)
        self.bank: Floats = np.zeros((labeled_count, embedding), dtype=np.float64)
        self.bank_labels: Ints = np.full(labeled_count, -1, dtype=np.int64)  # -1: not seen

    def take_in(self, g_l: Floats, labels: Ints, rows: Ints) -> None:
        """Bring the bank's `rows` [B] up to date with embeddings g_l [B, E] and `labels` [B]."""
        bank, seen = self.bank.copy(), self.bank_labels >= 0  # as they were before the step
        for i, row in enumerate(rows):
            self.bank[row] = g_l[i]
            if self.bank_momentum > 0 and seen[row]:
                mixed = self.bank_momentum * bank[row] + (1 - self.bank_momentum) * g_l[i]
                self.bank[row] = normalize_rows(mixed[None])[0]
            self.bank_labels[row] = labels[i]

    def calibrate(self, p: Floats, q: Floats, labels: Ints) -> tuple[Floats, Floats]:
        """Return p' [M, K] and q' [M, n] of p [M, K] and q [M, n], n bank rows with `labels` [n]."""
        p_new, q_new = np.zeros_like(p, dtype=np.float64), np.zeros_like(q, dtype=np.float64)
        for i in range(len(p)):
            by_class = np.zeros(self.classes, dtype=np.float64)
            for j, k in enumerate(labels):
                by_class[k] += q[i, j]
                q_new[i, j] = q[i, j] * p[i, k]
            q_new[i] /= q_new[i].sum()
            p_new[i] = self.smoothing * p[i] + (1 - self.smoothing) * by_class
        return p_new, q_new

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, `instance_loss` before its factor."""
        labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
        weak, strong = batch.unlabeled
        rows = len(weak)
        if rows == 0:
            return labeled_only(labeled_loss, np.zeros((0, self.classes)), "instance_loss")

        teacher = still.teacher if self.teacher else still
        assert teacher is not None and batch.labeled_rows is not None
        f_w = teacher.features(weak)
        p = self.alignment.align(softmax(teacher.classify(f_w)))
        g_l = embed(teacher, teacher.features(batch.labeled[0]))
        self.take_in(g_l, batch.labels, batch.labeled_rows)
        seen = [j for j, k in enumerate(self.bank_labels) if k >= 0]
        q = softmax(similarities(embed(teacher, f_w), self.bank[seen], self.temperature))
        target, q_new = self.calibrate(p, q, self.bank_labels[seen])
        row_weight = fixed_row_weight(target, self.threshold)

        f_s = moving.features(strong)
        each = distribution_cross_entropy(moving.classify(f_s), target)
        unlabeled_loss = float(sum(row_weight * each)) / rows
        of_student = similarities(embed(moving, f_s), self.bank[seen], self.temperature)
        instance_loss = float(sum(distribution_cross_entropy(of_student, q_new))) / rows
        return {
            "loss": labeled_loss + self.lambda_ * unlabeled_loss + self.instance * instance_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "instance_loss": instance_loss,
            "row_weight": row_weight,
            "target": target,
            "kept": float(row_weight.mean()),
        }


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between a and b [D]; 0 where one of them is all 0."""
    lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / lengths if lengths > 0 else 0.0


class CRMatch:
    """Fan et al. 2022: FixMatch, rotations to be told, and weak and strong features to be kept apart.

    L_u = (1/M) sum_i w_i CE(z_s_i, y_i), y = argmax p, w = 1[max p >= threshold], p = softmax(z_w).
    L_r = mean CE of the rotation head on the second weak view of row i, turned by turns_i quarter turns counter-
    clockwise, to turns_i. The head: linear, ReLU, linear to 4. All rows count, kept or not.
    L_d = (1/M) sum_i w_i max(0, cosine(a_i, b_i)), a and b the projected features of the weak view (no gradient, unless
    `both`) and of the strong one.
    L = CE(labeled) + lambda L_u + rotation L_r + distance L_d.

    Views: labeled weak; unlabeled weak, strong, weak. Draws: `turns` [M], 0 to 3.
    Read: microsoft/Semi-supervised-learning semilearn/algorithms/crmatch/crmatch.py (the authors' own code was not
    found). There a has a gradient in the joint pass (`use_cat`), and none where each view has its own.
    """

    def __init__(
        self,
        lambda_: float = 1.0,
        rotation: float = 1.0,
        distance: float = 1.0,
        threshold: float = 0.95,
        both: bool = False,
    ) -> None:
        self.both = both
        self.lambda_ = lambda_
        self.rotation = rotation
        self.distance = distance
        self.threshold = threshold

    def rotation_loss(self, images: Floats, turns: Ints, moving: Model) -> float:
        """Return L_r of images [M, C, H, H] (M > 0) that are yet to be turned by `turns` [M]."""
        turned = np.array([np.rot90(image, int(k), axes=(1, 2)) for image, k in zip(images, turns, strict=True)])
        hidden = linear(moving, "rotation.0", moving.features(turned))
        logits = linear(moving, "rotation.2", np.maximum(hidden, 0.0))
        return float(cross_entropy(logits, turns).mean())

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, `rotation_loss` and `distance_loss` before their factors."""
        labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
        weak, strong, weak2 = batch.unlabeled
        rows = len(weak)
        if rows == 0:
            return labeled_only(labeled_loss, np.zeros(0, dtype=np.int64), "rotation_loss", "distance_loss")

        f_w, f_s = still.features(weak), moving.features(strong)
        p = softmax(still.classify(f_w))
        _, target = confidence_and_target(p)
        row_weight = fixed_row_weight(p, self.threshold)
        unlabeled_loss, _ = unlabeled_part(moving.classify(f_s), target, row_weight)
        rotation_loss = self.rotation_loss(weak2, batch.draws["turns"], moving)
        a = linear(moving, "projection", moving.features(weak)) if self.both else linear(still, "projection", f_w)
        b = linear(moving, "projection", f_s)
        distance_loss = sum(row_weight[i] * max(0.0, cosine(a[i], b[i])) for i in range(rows)) / rows
        return {
            "loss": labeled_loss
            + self.lambda_ * unlabeled_loss
            + self.rotation * rotation_loss
            + self.distance * distance_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "rotation_loss": rotation_loss,
            "distance_loss": float(distance_loss),
            "row_weight": row_weight,
            "target": target,
            "kept": float(row_weight.mean()),
        }
