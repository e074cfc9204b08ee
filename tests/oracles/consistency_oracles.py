"""References of the methods that ask two views, or a view and its disturbed self, for the same answer.

PiModel (Laine, Aila 2017), MeanTeacher (Tarvainen, Valpola 2017), VAT (Miyato et al. 2018), UDA (Xie et al. 2020), Dash
(Xu et al. 2021).

Shapes: B labeled rows, M unlabeled rows, K classes, images [n, C, H, W]. L = labeled + factor * L_u; the mean in L_u is
over all M rows, kept or not. `still` gives all that no gradient flows through (targets, row weights, perturbations,
memories), `moving` the rest (network.py). With no unlabeled rows the unlabeled loss is 0 and memories stay as they are.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from .basics import Floats, cross_entropy, log_softmax, ramp, softmax
from .network import Batch, Model

Result = dict[str, Any]
Gradient = Literal["both", "second"]
Annealing = Literal["none", "linear", "log", "exp"]
Rise = Literal["linear", "exp"]
VAT_VALUES = 3072  # values of a 32 x 32 x 3 image, for which VAT's eps is given


def mean_or_zero(values: Floats) -> float:
    """Return the mean of all `values`, and 0 where there are none."""
    return float(values.mean()) if values.size else 0.0


def supervised(batch: Batch, model: Model) -> float:
    """Return the mean cross-entropy of the first labeled view."""
    return float(cross_entropy(model.logits(batch.labeled[0]), batch.labels).mean())


def soft_cross_entropy(q: Floats, z: Floats) -> Floats:
    """Return -sum_k q_k log softmax(z)_k of each row: distributions `q` [M, K], logits `z` [M, K] -> [M]."""
    log_p = log_softmax(z)
    out = np.zeros(len(z), dtype=np.float64)
    for i, row in enumerate(q):
        for k, share in enumerate(row):
            out[i] -= share * log_p[i, k]
    return out


def divergence(q: Floats, z: Floats) -> Floats:
    """Return KL(q || softmax(z)) of each row: distributions `q` [M, K], logits `z` [M, K] -> [M]; 0 log 0 is 0."""
    out = soft_cross_entropy(q, z)
    for i, row in enumerate(q):
        for share in row:
            out[i] += share * math.log(share) if share > 0 else 0.0
    return out


def entropy(z: Floats) -> Floats:
    """Return the entropy of softmax(z) of each row: logits `z` [M, K] -> [M]."""
    return soft_cross_entropy(softmax(z), z)


def sharpen(p: Floats, temperature: float) -> Floats:
    """Return p_k^(1/temperature) / sum_j p_j^(1/temperature) of each row of `p` [M, K]."""
    out = np.zeros_like(p, dtype=np.float64)
    for i, row in enumerate(p):
        powers = row ** (1.0 / temperature)
        out[i] = powers / powers.sum()
    return out


def one_hot(p: Floats) -> Floats:
    """Return 1 at the first largest place of each row of `p` [M, K], 0 elsewhere."""
    out = np.zeros_like(p, dtype=np.float64)
    for i, row in enumerate(p):
        out[i, int(np.argmax(row))] = 1.0
    return out


def ones_where(tests: list[bool]) -> Floats:
    """Return 1 where a test holds and 0 elsewhere."""
    return np.array([1.0 if test else 0.0 for test in tests], dtype=np.float64)


def risen(t: int, steps: int, ramp_share: float, rise: Rise) -> float:
    """Return the ramp at step `t`: x, or exp(-5 (1 - x)^2) with rise "exp", x = min(1, t / (steps * ramp_share)).

    With `ramp_share` 0 it is 1 from the start. At step 0 "linear" is 0, "exp" exp(-5) = .0067.

    Read: CuriousAI/mean-teacher (pytorch/mean_teacher/ramps.py, sigmoid_rampup), s-laine/tempens (train.py, rampup, by
    epochs; there the whole first epoch has factor 0), brain-research/realistic-ssl-evaluation (lib/ssl_framework.py)
    for "exp"; TorchSSL (models/vat/vat.py) and microsoft/Semi-supervised-learning (vat.py, pimodel.py, meanteacher.py)
    for "linear".
    """
    x = ramp(t / steps, ramp_share)
    return x if rise == "linear" else math.exp(-5.0 * (1.0 - x) ** 2)


def checked(rise: Rise) -> Rise:
    """Return `rise` where it is one that there is."""
    if rise not in ("linear", "exp"):
        raise ValueError(rise)
    return rise


def assemble(
    labeled_loss: float, unlabeled_loss: float, factor: float, row_weight: Floats, target: Floats, **extra: Any
) -> Result:
    """Return what every `step` returns; `factor` multiplies the unlabeled loss in `loss`."""
    return {
        "loss": labeled_loss + factor * unlabeled_loss,
        "labeled_loss": labeled_loss,
        "unlabeled_loss": unlabeled_loss,
        "kept": mean_or_zero(row_weight),
        "row_weight": row_weight,
        "target": target,
        **extra,
    }


class PiModel:
    """Laine, Aila 2017: L_u = mean over rows and classes of (softmax z1 - softmax z2)^2 of two weak views.

    L = CE(labeled) + lambda * ramp * L_u, ramp = risen(t, steps, ramp_share, rise). With gradient "both" it flows
    through both views, as in the authors' code (s-laine/tempens, train.py); with "second" the first view is a constant,
    as in microsoft/Semi-supervised-learning (pimodel.py). `target` is softmax z1.
    """

    def __init__(
        self, lambda_: float = 10.0, ramp_share: float = 0.4, gradient: Gradient = "both", rise: Rise = "linear"
    ) -> None:
        if gradient not in ("both", "second"):
            raise ValueError(gradient)
        self.lambda_ = lambda_
        self.ramp_share = ramp_share
        self.gradient = gradient
        self.rise: Rise = checked(rise)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step."""
        target = softmax(still.logits(batch.unlabeled[0]))
        first = softmax(moving.logits(batch.unlabeled[0])) if self.gradient == "both" else target
        second = softmax(moving.logits(batch.unlabeled[1]))
        loss = mean_or_zero((first - second) ** 2)
        factor = self.lambda_ * risen(batch.t, batch.steps, self.ramp_share, self.rise)
        return assemble(supervised(batch, moving), loss, factor, np.ones(len(target)), target)


class MeanTeacher:
    """Tarvainen, Valpola 2017: L_u = mean over rows and classes of (softmax z1 - softmax teacher z2)^2.

    The student sees the first weak view and learns, the teacher (the network of averaged parameters) sees the second
    and is `target`. L = CE(labeled) + lambda * ramp * L_u, ramp = risen(t, steps, ramp_share, rise). Read:
    CuriousAI/mean-teacher (pytorch/mean_teacher/losses.py, pytorch/main.py), microsoft/Semi-supervised-learning
    (meanteacher.py).
    """

    def __init__(self, lambda_: float = 50.0, ramp_share: float = 0.4, rise: Rise = "linear") -> None:
        self.lambda_ = lambda_
        self.ramp_share = ramp_share
        self.rise: Rise = checked(rise)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step; `still` must have a teacher."""
        if still.teacher is None:
            raise ValueError("MeanTeacher needs still.teacher")
        target = softmax(still.teacher.logits(batch.unlabeled[1]))
        student = softmax(moving.logits(batch.unlabeled[0]))
        loss = mean_or_zero((student - target) ** 2)
        factor = self.lambda_ * risen(batch.t, batch.steps, self.ramp_share, self.rise)
        return assemble(supervised(batch, moving), loss, factor, np.ones(len(target)), target)


def unit(values: Floats) -> Floats:
    """Return `values` divided by the root of the sum of their squares; zeros stay zeros."""
    length = math.sqrt(float((values**2).sum()))
    return values / length if length > 0 else np.zeros_like(values)


def divergence_gradient(p: Floats, image: Floats, model: Model) -> Floats:
    """Return the gradient to `image` [C, H, W] of KL(p || softmax(z(image))), `p` [K] a constant.

    With a = V x, f = tanh a, z = W f + b: dKL/dz = softmax(z) - p because p sums to 1; dKL/df = W^T dKL/dz;
    dKL/da = (1 - f^2) dKL/df; dKL/dx = V^T dKL/da.
    """
    f = model.features(image[None])[0]
    to_z = softmax(model.classify(f[None]))[0] - p
    to_a = (1.0 - f**2) * (model.W.T @ to_z)
    return (model.V.T @ to_a).reshape(image.shape)


class VAT:
    """Miyato et al. 2018: L_u = mean KL(sg p(x) || p(x + r)), L_e = mean entropy of p(x).

    r has the length eps * sqrt(values of an image / 3072) and points, image by image, where power iteration finds that
    the KL grows most: from a random unit d, d <- unit(gradient of KL(p(x) || p(x + xi d)) to xi d), `iterations` times.
    L = CE(labeled) + lambda * ramp * L_u + entropy * L_e, ramp = risen(t, steps, ramp_share, rise): neither lambda nor
    the ramp acts on the entropy. draws["directions"] [M, C, H, W] are normal numbers. `target` is p(x). A gradient of 0
    gives r = 0.

    Read: takerum/vat_tf (vat.py, train_semisup.py, layers.py: both terms with factor 1, no ramp),
    brain-research/realistic-ssl-evaluation (third_party/vat/vat_utils.py, lib/ssl_framework.py, lib/ssl_utils.py,
    lib/hparams.py: the entropy is that of the student's logits, which for VAT are those of x + r; means are over all
    rows of the batch, the labeled ones counted as 0), TorchSSL (models/vat/vat.py, vat_utils.py) and
    microsoft/Semi-supervised-learning (vat.py): the entropy of p(x), as here.
    """

    def __init__(
        self,
        lambda_: float = 0.3,
        entropy: float = 0.06,
        eps: float = 6.0,
        xi: float = 1e-6,
        ramp_share: float = 0.4,
        iterations: int = 1,
        rise: Rise = "linear",
    ) -> None:
        self.lambda_ = lambda_
        self.entropy = entropy
        self.eps = eps
        self.xi = xi
        self.ramp_share = ramp_share
        self.iterations = iterations
        self.rise: Rise = checked(rise)

    def perturbation(self, images: Floats, p: Floats, directions: Floats, model: Model) -> Floats:
        """Return r [M, C, H, W] of `images` with probabilities `p` [M, K]."""
        out = np.zeros_like(images, dtype=np.float64)
        for i, image in enumerate(images):
            d = unit(np.asarray(directions[i], dtype=np.float64))
            for _ in range(self.iterations):
                d = unit(divergence_gradient(p[i], image + self.xi * d, model))
            out[i] = self.eps * math.sqrt(image.size / VAT_VALUES) * d
        return out

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, with `entropy_loss` before its factor and `perturbation`."""
        images = batch.unlabeled[0]
        p = softmax(still.logits(images))
        r = self.perturbation(images, p, batch.draws["directions"] if len(images) else images, still)
        entropy_loss = mean_or_zero(entropy(moving.logits(images)))
        loss = mean_or_zero(divergence(p, moving.logits(images + r)))
        factor = self.lambda_ * risen(batch.t, batch.steps, self.ramp_share, self.rise)
        labeled_loss = supervised(batch, moving)
        out = assemble(labeled_loss, loss, factor, np.ones(len(p)), p, entropy_loss=entropy_loss, perturbation=r)
        out["loss"] += self.entropy * entropy_loss
        return out


class UDA:
    """Xie et al. 2020: L_u = mean 1[max p >= threshold] CE(z_s, sharpen(p, temperature)); L = labeled + lambda * L_u.

    With annealing of the training signal, a labeled row counts only while the probability of its label is at most
    eta_t = a_t (1 - 1/K) + 1/K; a_t is t/steps (linear), 1 - exp(-5 t/steps) (log) or exp(5 (t/steps - 1)) (exp). The
    labeled loss is the sum of the counting rows' cross-entropies over their number (at least 1). `classes` is K.

    Read: google-research/uda, image/main.py (anneal_sup_loss leaves out what is GREATER than eta, so a row at eta
    counts), microsoft/Semi-supervised-learning (uda.py, hooks/pseudo_label.py, hooks/masking.py), TorchSSL
    (models/uda/uda.py, uda_utils.py).
    """

    def __init__(
        self,
        lambda_: float = 1.0,
        threshold: float = 0.8,
        temperature: float = 0.4,
        annealing: Annealing = "none",
        classes: int | None = None,
    ) -> None:
        if annealing not in ("none", "linear", "log", "exp"):
            raise ValueError(annealing)
        if annealing != "none" and classes is None:
            raise ValueError("annealing needs the number of classes")
        self.lambda_ = lambda_
        self.threshold = threshold
        self.temperature = temperature
        self.annealing = annealing
        self.classes = classes

    def eta(self, share: float) -> float:
        """Return eta_t for the share t / steps of the run."""
        assert self.classes is not None
        a = {"linear": share, "log": 1.0 - math.exp(-5.0 * share), "exp": math.exp(5.0 * (share - 1.0))}[self.annealing]
        return a * (1.0 - 1.0 / self.classes) + 1.0 / self.classes

    def labeled_loss(self, batch: Batch, still: Model, moving: Model) -> float:
        """Return the mean cross-entropy of the labeled rows that count; 0 where none does."""
        if self.annealing == "none":
            return supervised(batch, moving)
        eta = self.eta(batch.t / batch.steps)
        p = softmax(still.logits(batch.labeled[0]))
        counts = ones_where([p[i, k] <= eta for i, k in enumerate(batch.labels)])
        losses = cross_entropy(moving.logits(batch.labeled[0]), batch.labels)
        return float((counts * losses).sum() / max(counts.sum(), 1.0))

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step; `target` is [M, K]."""
        p = softmax(still.logits(batch.unlabeled[0]))
        target = sharpen(p, self.temperature)
        row_weight = ones_where([max(row) >= self.threshold for row in p])
        loss = mean_or_zero(row_weight * soft_cross_entropy(target, moving.logits(batch.unlabeled[1])))
        return assemble(self.labeled_loss(batch, still, moving), loss, self.lambda_, row_weight, target)


class Dash:
    """Xu et al. 2021: L_u = mean 1[CE(z_w, target) <= rho] CE(z_s, target); L = CE(labeled) + lambda * L_u.

    Before step `warm_up` no unlabeled row counts and rho is 0. At that step rho0 is the mean labeled cross-entropy of
    the batch; from there on rho = max(floor, factor * decay^(-n) * rho0), n = floor((t - warm_up) / period). With
    `soft` the target is sharpen(p, temperature) until rho has come down to the floor and the one-hot argmax then;
    without it is always one-hot. In the warm-up, where it plays no part, it is what it is at the warm-up's end.
    Where step `warm_up` was never seen with unlabeled rows, rho0 is 0 and rho the floor.

    Read: idstcv/Dash (dash.py, libml/train.py, start_train.sh), microsoft/Semi-supervised-learning (dash/dash.py,
    dash/utils.py), whose rule for n and for the loss tested this is.
    """

    def __init__(
        self,
        warm_up: int,
        period: float,
        lambda_: float = 1.0,
        factor: float = 1.0001,
        decay: float = 1.27,
        floor: float = 0.05,
        temperature: float = 0.5,
        soft: bool = True,
    ) -> None:
        self.warm_up = warm_up
        self.period = period
        self.lambda_ = lambda_
        self.factor = factor
        self.decay = decay
        self.floor = floor
        self.temperature = temperature
        self.soft = soft
        self.rho0 = 0.0

    def rho(self, t: int) -> float:
        """Return the threshold of step `t` with rho0 as it is; 0 in the warm-up."""
        if t < self.warm_up:
            return 0.0
        n = math.floor((t - self.warm_up) / self.period)
        return max(self.floor, self.factor * self.decay ** (-n) * self.rho0)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, with `rho`; `target` is [M, K]."""
        p = softmax(still.logits(batch.unlabeled[0]))
        if batch.t == self.warm_up and len(p):
            self.rho0 = supervised(batch, still)
        rho = self.rho(batch.t)
        warming = batch.t < self.warm_up
        at_floor = rho <= self.floor and not warming
        target = sharpen(p, self.temperature) if self.soft and not at_floor else one_hot(p)
        tested = soft_cross_entropy(target, still.logits(batch.unlabeled[0]))
        row_weight = ones_where([bool(value <= rho) and not warming for value in tested])
        loss = mean_or_zero(row_weight * soft_cross_entropy(target, moving.logits(batch.unlabeled[1])))
        return assemble(supervised(batch, moving), loss, self.lambda_, row_weight, target, rho=rho)
