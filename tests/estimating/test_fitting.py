"""Weights that are known are found again; what cannot be known is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ktlslab.errors import UsageError
from ktlslab.estimating import checking, predicting
from ktlslab.estimating.costs import IDENTITY, MOVING, cost_class
from ktlslab.estimating.fitting import Evidence, apply
from ktlslab.estimating.leastsquares import nnls

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")
GCM = "AES-GCM in libcrypto.so.3"
TRUE = {"user code": 0.1, "kernel code": 0.3, "copying and clearing": 0.02, "system calls": 150.0, GCM: 0.03}


def key(layer, engine, suite, payload, end="client"):
    values = {"record_layer": layer, "io_engine": engine, "suite": suite, "payload_bytes": payload, "workload": "echo"}
    values |= {"tls_version": "", "depth": 1, "connections": 1, "record_size": 16384, "link": "loopback"}
    return (*(values.get(name, 0) for name in IDENTITY), end)


def made(layers=("plain", "userspace"), payloads=(64, 1024, 16384)):
    """Return instructions of cells as they might be."""
    random = np.random.default_rng(3)
    rows = {}
    for layer in layers:
        for engine in ("syscall", "uring"):
            for suite in SUITES if layer != "plain" else ("",):
                for payload in payloads:
                    secret = payload * 2.5 * (layer != "plain")
                    rows[key(layer, engine, suite, payload)] = {
                        "user code": random.uniform(5e3, 2e4),
                        "kernel code": random.uniform(1e4, 3e4),
                        "copying and clearing": payload * random.uniform(1, 3),
                        "system calls": float(random.integers(1, 5)),
                        "AES-GCM in kernel" if layer == "kernel" else GCM: secret,
                    }
    index = pd.MultiIndex.from_tuples(list(rows), names=[*IDENTITY, "end"])
    return pd.DataFrame(list(rows.values()), index=index).fillna(0.0)


def evidence(noise=0.0, **made_of):
    features = made(**made_of)
    ns = apply(features, pd.Series(TRUE))
    return Evidence.of(features, ns * np.exp(np.random.default_rng(1).normal(0, noise, len(ns))))


def test_the_method_of_lawson_and_hanson_keeps_to_zero_and_above():
    matrix = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert nnls(matrix, matrix @ [2.0, 0.5]) == pytest.approx([2.0, 0.5])
    # Without the constraint the second would be -1: with it, the first alone is the mean.
    assert nnls(matrix, np.array([3.0, 2.0, 1.0])) == pytest.approx([2.0, 0.0])
    assert nnls(np.zeros((2, 1)), np.ones(2)) == pytest.approx([0.0])


def test_no_other_coefficients_are_better():
    """Karush, Kuhn, Tucker: no gradient at a coefficient above 0, none that falls at a coefficient of 0."""
    random = np.random.default_rng(7)
    for _ in range(50):
        matrix, values = random.uniform(0, 1, (20, 8)), random.normal(0, 1, 20)
        found = nnls(matrix, values)
        gradient = matrix.T @ (matrix @ found - values)
        assert (found >= 0).all()
        assert gradient[found > 0] == pytest.approx(0, abs=1e-8)
        assert (gradient[found == 0] >= -1e-8).all()


def test_known_weights_are_found():
    assert evidence().fit()[list(TRUE)].tolist() == pytest.approx(list(TRUE.values()))


def test_too_few_cells_are_refused():
    with pytest.raises(UsageError, match="were both measured and profiled"):
        evidence(layers=("plain",), payloads=(64,))


def test_the_error_of_exact_figures_is_nothing_and_of_noisy_ones_about_the_noise():
    assert checking.summary(checking.left_out(evidence())[0])["error"].dropna().max() < 1e-9
    errors = checking.summary(checking.left_out(evidence(0.05))[0])["error"]
    assert 0.01 < errors["arm"] < 0.1


def test_a_prediction_is_the_truth_and_its_interval_holds_it():
    known = evidence(0.02)
    wanted = made(("plain", "userspace", "kernel"))
    checks, off = checking.left_out(known)
    found = predicting.predict(wanted, predicting.Drawn.of(known, wanted.columns), off, checks)
    truth = apply(wanted, pd.Series(TRUE | {"AES-GCM in kernel": TRUE[GCM]})).droplevel("end")
    truth = truth.reindex(found.index)
    assert (found["reason"] == "").all()
    assert (found["estimate_ns"] / truth - 1).abs().max() < 0.05
    assert ((found["estimate_low"] < truth) & (truth < found["estimate_high"])).mean() > 0.9


def test_a_cipher_that_no_library_was_measured_with_is_refused():
    known = evidence()
    wanted = made(("kernel",)).rename(columns={"AES-GCM in kernel": "CHACHA20-POLY1305 in kernel"})
    checks, off = checking.left_out(known)
    found = predicting.predict(wanted, predicting.Drawn.of(known, wanted.columns), off, checks)
    assert found["estimate_ns"].isna().all()
    assert found["reason"].str.contains("CHACHA20-POLY1305 in kernel, which was never seen here").all()


def test_weights_that_could_not_be_checked_are_refused():
    known = evidence(layers=("userspace",), payloads=(64, 1024, 4096, 16384))
    only = known.where(pd.Series(known.features.index.get_level_values("io_engine") == "syscall"))
    checks, off = checking.left_out(Evidence.of(only.features, only.ns))
    assert checks[checks["left_out"] == "arm"]["reason"].str.startswith("only it has").all()
    wanted = made(("kernel",))
    found = predicting.predict(wanted, predicting.Drawn.of(only, wanted.columns), off, checks)
    assert found["reason"].str.contains("the weights are not checked").all()


# What Debian's 6.1, 6.12 and 7.3 call them, on CPUs with erms and without.
MOVES = (
    *("copy_user_generic_string", "copy_user_enhanced_fast_string", "rep_movs_alternative", "rep_stos_alternative"),
    *("memcpy", "__memcpy", "memcpy_orig", "memmove", "__memset", "memset_orig", "copy_page", "clear_page_rep"),
    *("clear_page_erms", "clear_highpages_kasan_tagged", "__clear_user"),
)
WALKS = (
    *("__check_object_size", "__skb_datagram_iter", "_copy_to_iter", "_copy_from_iter", "copy_page_to_iter"),
    *("simple_copy_to_iter", "skb_copy_bits", "_copy_to_user", "iov_iter_advance"),
)


@pytest.mark.parametrize("function", MOVES)
def test_code_that_moves_memory_costs_by_the_byte(function):
    for name in ("copying", "clearing"):
        assert cost_class("kernel", name, "kernel", function, "") == MOVING


@pytest.mark.parametrize("function", WALKS)
def test_code_that_checks_and_walks_around_copying_is_the_kernels(function):
    assert cost_class("kernel", "copying", "kernel", function, "") == "kernel code"


def test_an_error_above_the_limit_is_refused():
    exact = evidence()
    twice = exact.ns.index.get_level_values("io_engine") == "uring"
    known = Evidence(features=exact.features, ns=exact.ns * np.where(twice, 2, 1))
    wanted = made(("kernel",))
    checks, off = checking.left_out(known)
    found = predicting.predict(wanted, predicting.Drawn.of(known, wanted.columns), off, checks)
    assert found["reason"].str.contains("more than 15%").all()
