"""Two-sample tests: a fresh classifier is told to tell two sets apart; on patients it has not met, how often is it right?

Lopez-Paz and Oquab 2017, arXiv:1610.06545. 0.5 = it cannot, 1 = always. Two classifiers: a logistic regression
on features sees what images show; a small network on crops of pixels sees how they are rendered (softness,
blocks, noise), which tests of content pass over.
"""

import numpy as np
from scipy.optimize import minimize

FOLDS = 5             # of the regression
FOLDS_OF_PIXELS = 3   # of the network: each trains one anew
PENALTY = 1.0         # of the regression's squared weights, features standardised
CROP = 64             # pixels a side of what the network sees
STEPS, BATCH = 240, 32


def folds(keys: np.ndarray, number: int, seed: int) -> np.ndarray:
    """A fold for each case, the same for all cases of a key: int64 (n,)."""
    names, of = np.unique(keys, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % number)[of]


def tell_apart_features(first: np.ndarray, second: np.ndarray, first_keys: np.ndarray, second_keys: np.ndarray,
                        seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image of float (n, D) and (m, D) is told rightly by a regression that never met its patient."""
    x, truth = np.concatenate((first, second)).astype(np.float64), np.repeat([0.0, 1.0], [len(first), len(second)])
    fold = folds(np.concatenate((first_keys, second_keys)), FOLDS, seed)
    right = np.zeros(len(x))
    for k in range(FOLDS):
        fit, test = fold != k, fold == k
        if not test.any() or len(np.unique(truth[fit])) < 2:
            continue
        mean, std = x[fit].mean(0), x[fit].std(0) + 1e-8
        weights = logistic((x[fit] - mean) / std, truth[fit])
        scored = (x[test] - mean) / std @ weights[:-1] + weights[-1]
        right[test] = (scored > 0) == (truth[test] > 0.5)
    return right[:len(first)], right[len(first):]


def logistic(x: np.ndarray, truth: np.ndarray, penalty: float = PENALTY) -> np.ndarray:
    """Weights and, last, the intercept of the regression that minimises the log loss summed + penalty |w|^2 / 2: (D + 1,).

    Both classes weigh the same, however many cases each has.
    """
    sign = 2 * truth - 1
    share = np.where(truth > 0.5, truth.mean(), 1 - truth.mean())
    balance = 0.5 / share

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -sign * balance * np.exp(-np.logaddexp(0, margin))
        return (float((balance * np.logaddexp(0, -margin)).sum() + penalty / 2 * w[:-1] @ w[:-1]),
                np.append(x.T @ slope + penalty * w[:-1], slope.sum()))
    return minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x


def tell_apart_pixels(first: np.ndarray, second: np.ndarray, first_keys: np.ndarray, second_keys: np.ndarray,
                      seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image of uint8 (n, S, S, 3) and (m, S, S, 3) is told rightly by a network that never met its patient.

    Three convolutions on random crops, trained anew for each fold; its verdict on an image is the mean of five crops.
    """
    import torch
    squares, truth = (first, second), np.repeat([0, 1], [len(first), len(second)])
    fold = folds(np.concatenate((first_keys, second_keys)), FOLDS_OF_PIXELS, seed)
    right, offset = np.zeros(len(truth)), len(first)

    def crops(rows: np.ndarray, corner: np.ndarray) -> torch.Tensor:
        picked = [(squares[0][r] if r < offset else squares[1][r - offset])[a:a + CROP, b:b + CROP]
                  for r, (a, b) in zip(rows, corner, strict=True)]
        return torch.from_numpy(np.stack(picked)).permute(0, 3, 1, 2).float() / 127.5 - 1
    room = first.shape[1] - CROP
    for k in range(FOLDS_OF_PIXELS):
        sides = [np.flatnonzero((fold != k) & (truth == side)) for side in (0, 1)]
        test = np.flatnonzero(fold == k)
        if not len(test) or min(map(len, sides)) == 0:
            continue
        rng = np.random.default_rng([seed, k])
        network = fresh(seed * 100 + k)
        optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-2)
        for i in range(STEPS):
            rows = np.concatenate([rng.choice(side, BATCH // 2) for side in sides])
            said = network(crops(rows, rng.integers(0, room + 1, (len(rows), 2))))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(said, torch.from_numpy(truth[rows]).float())
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * min(1.0, 2 * (STEPS - i) / STEPS)
            optimizer.step()
        network.eval()
        corners = [(0, 0), (0, room), (room, 0), (room, room), (room // 2, room // 2)]
        with torch.inference_mode():
            for start in range(0, len(test), 64):
                rows = test[start:start + 64]
                said = sum(network(crops(rows, np.tile(c, (len(rows), 1))))[:, 0] for c in corners).numpy()
                right[rows] = (said > 0) == (truth[rows] == 1)
    return right[:offset], right[offset:]


def fresh(seed: int):
    """A network for crops: (B, 3, 64, 64) -> (B, 1). Other random numbers in the process stay as they are."""
    import torch
    from torch import nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                             nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                             nn.Conv2d(32, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
                             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 1))
