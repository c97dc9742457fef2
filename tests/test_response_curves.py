"""Response curves: against plain arithmetic on planted models, against SciPy and statsmodels, error
rates on simulated curves, and what is refused."""
import re

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from statsmodels.stats.multivariate import test_mvmean as mean_vector_test

from feature_interaction_graph.engine.errors import InputError
from feature_interaction_graph.measurement.curves import (
    ResponseCurves, plot_response, response_curve
)
from feature_interaction_graph.measurement.prepared import plan_pushes
from feature_interaction_graph.measurement.shapes import (
    SHAPES, bend_components, best_fit, fit_shape, independent_samples, mean_is_zero, onset_doses,
    shape_columns
)
from feature_interaction_graph.planted.models import plant, plant_attention, plant_chain, plant_gate
from feature_interaction_graph.planted.simulator import SimulatedClamp
from feature_interaction_graph.planted.wiring import Edge, Input, Wiring

DOSES = np.linspace(0, 2, 9)


def samples_of(shape, parameters, n=100, seed=0, noise=0.05, doses=DOSES, spread=0.3):
    """Curves of a shape whose size differs from sample to sample, plus noise that wanders along the
    doses."""
    random = np.random.default_rng(seed)
    n_slopes = len(SHAPES[shape][0])
    curve = shape_columns(shape, doses, doses[0], np.array(parameters[n_slopes:])) @ np.array(
        parameters[:n_slopes]
    )
    values = (1 + spread * random.standard_normal((n, 1))) * curve + noise * random.standard_normal(
        (n, len(doses))
    ).cumsum(1)
    return values - values[:, :1]


def test_hotelling_agrees_with_statsmodels():
    drawn = np.random.default_rng(0).multivariate_normal(
        [0.1, 0.2, 0.0], [[1, 0.9, 0.5], [0.9, 1, 0.4], [0.5, 0.4, 2]], 40
    )
    assert mean_is_zero(drawn) == pytest.approx(
        mean_vector_test(drawn, np.zeros(3)).pvalue, rel=1e-9
    )
    assert mean_is_zero(drawn @ np.diag([1, 100, 0.01])) == pytest.approx(
        mean_is_zero(drawn), rel=1e-6
    )
    assert np.isnan(mean_is_zero(drawn[:3]))


def test_the_test_for_bends_is_generalised_least_squares():
    samples = samples_of("bent", [0.5, 0.45, 1.0], 60, 3)[:, 1:]
    mean, precision = samples.mean(0), np.linalg.inv(np.cov(samples.T) / 60)
    line = DOSES[1:, None]
    slope = np.linalg.solve(line.T @ precision @ line, line.T @ precision @ mean)
    left = mean - line @ slope
    projected = samples @ bend_components(DOSES, 7)
    squared = 60 * projected.mean(0) @ np.linalg.inv(np.cov(projected.T)) @ projected.mean(0)
    assert left @ precision @ left == pytest.approx(squared, rel=1e-6)


@pytest.mark.parametrize("shape, true", [("threshold", [-0.8, 0.61]), ("saturating", [0.5, 1.13]),
                                         ("ramp", [1.1, 0.4, 1.33]), ("bent", [0.2, 0.9, 0.7]),
                                         ("non-monotone", [0.6, -0.3, 1.21])])
@pytest.mark.parametrize("doses", [DOSES, np.array([0.2, 0.3, 0.5, 0.9, 1.2, 1.6, 2.0])])
def test_the_search_finds_what_a_general_minimiser_finds(shape, true, doses):
    "SciPy's differential evolution on the same weighted misfit, noise included."
    samples = samples_of(shape, true, 50, 7, doses=doses)[:, 1:]
    mean = samples.mean(0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(samples.T) / 50 + 0.02**2 * np.eye(len(mean))))
    found, misfit = best_fit(shape, doses, mean[None], whiten)
    n_slopes = len(SHAPES[shape][0])
    def cost(parameters):
        slopes, knots = parameters[:n_slopes], parameters[n_slopes:]
        if len(knots) == 2 and knots[1] - knots[0] < np.diff(doses).mean(): return 1e9
        if shape == "bent" and slopes[0] * slopes[1] < 0: return 1e9
        if shape == "non-monotone" and slopes[0] * slopes[1] > 0: return 1e9
        return (
            (whiten @ (mean - shape_columns(shape, doses[1:], doses[0], knots) @ slopes)) ** 2
        ).sum()
    knots = {"threshold": (doses[0], doses[-2]), "saturation": (doses[1], doses[-1])}
    bounds = [(-3, 3)] * n_slopes + [
        knots.get(name, (doses[1], doses[-2])) for name in SHAPES[shape][1]
    ]
    other = optimize.differential_evolution(cost, bounds, seed=1, tol=1e-10, maxiter=400)
    assert misfit[0] <= other.fun * (1 + 1e-3) + 1e-6
    if other.fun <= misfit[0] * (1 + 1e-3):
        np.testing.assert_allclose(found[0], other.x, rtol=0.02, atol=5e-3)


@pytest.mark.parametrize(
    "shape, parameters", [("linear", [0.5]), ("threshold", [0.6, 0.8]), ("threshold", [-0.6, 0.8]),
                          ("saturating", [0.5, 1.2]), ("saturating", [-0.5, 1.2]),
                          ("ramp", [0.9, 0.4, 1.3]), ("bent", [0.3, 0.9, 1.0]),
                          ("non-monotone", [0.6, -0.5, 1.1]), ("non-monotone", [-0.6, 0.5, 0.9])]
)
def test_shapes_are_recognised_and_their_parameters_found(shape, parameters):
    fits = [fit_shape(samples_of(shape, parameters, 100, seed), DOSES, n_bootstrap=100)
            for seed in range(12)]
    right = [fit for fit in fits if fit.shape == shape]
    assert len(right) >= 11, [fit.shape for fit in fits]
    for index, true in enumerate(parameters):
        values = [list(fit.parameters.values())[index] for fit in right]
        assert np.median(values) == pytest.approx(true, rel=0.06)
    assert min(fit.r2 for fit in right) > 0.97
    np.testing.assert_allclose(right[0].predict(DOSES)[0], 0, atol=1e-12)
    assert right[0].predict(2.0) == pytest.approx(right[0].predict(DOSES)[-1]) and np.ndim(
        right[0].predict(2.0)
    ) == 0


@pytest.mark.parametrize("n", [10, 25, 100])
@pytest.mark.parametrize("doses", [np.linspace(0, 2, 5), DOSES, np.linspace(0.5, 3, 13)])
def test_a_straight_line_is_rarely_called_anything_else(n, doses):
    wrong = [fit_shape(samples_of("linear", [0.5], n, seed, 0.1, doses), doses, n_bootstrap=0)
             for seed in range(200)]
    assert np.mean([fit.shape not in ("linear", "flat") for fit in wrong]) <= 0.05
    assert np.mean([fit.p_not_linear < 0.05 for fit in wrong]) <= 0.1


@pytest.mark.parametrize("clusters", [None, 4])
def test_nothing_is_rarely_called_something(clusters):
    random, moved = np.random.default_rng(5), 0
    for _ in range(200):
        n = 25 if clusters else 60
        values = random.standard_normal((n, 1)) * DOSES + 0.1 * random.standard_normal((n, 9))
        sequence = None
        if clusters:
            values, sequence = np.repeat(values, clusters, 0), np.repeat(np.arange(n), clusters)
        moved += fit_shape(values - values[:, :1], DOSES, sequence, n_bootstrap=0).shape != "flat"
    # 1 % expected; ignoring clusters gives far more
    assert moved <= 8


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 100])
def test_intervals_cover(n):
    truth = {"slope": 0.6, "threshold": 0.8}
    hits = {name: [] for name in truth}
    for seed in range(200):
        fit = fit_shape(samples_of("threshold", [0.6, 0.8], n, seed), DOSES, n_bootstrap=300)
        if fit.shape != "threshold": continue
        for name, true in truth.items():
            hits[name].append(fit.intervals[name][0] <= true <= fit.intervals[name][1])
    for name, covered in hits.items():
        assert len(covered) > 150 and np.mean(covered) >= 0.9, (name, np.mean(covered))


def test_intervals_of_few_samples_cover():
    """Twelve samples of eight changes: the best-fitting line of so few strays further than a plain
    bootstrap says."""
    covered = []
    for seed in range(150):
        fit = fit_shape(samples_of("linear", [0.6], 12, seed, 0.3), DOSES, n_bootstrap=200)
        if fit.shape == "linear":
            covered.append(fit.intervals["slope"][0] <= 0.6 <= fit.intervals["slope"][1])
    assert len(covered) > 100 and np.mean(covered) >= 0.85, (len(covered), np.mean(covered))


def test_repeating_samples_of_a_sequence_adds_nothing():
    samples = samples_of("threshold", [0.6, 0.8], 40)
    once = fit_shape(samples, DOSES)
    often = fit_shape(np.repeat(samples, 5, 0), DOSES, np.repeat(np.arange(40), 5))
    assert once.shape == often.shape == "threshold" and once.parameters == pytest.approx(
        often.parameters
    )
    for name, (low, high) in once.intervals.items():
        assert often.intervals[name] == pytest.approx((low, high), rel=0.05)
    uneven = independent_samples(samples, np.random.default_rng(0).integers(0, 15, 40))
    np.testing.assert_allclose(uneven.mean(0), samples.mean(0), atol=1e-12)


def test_curves_without_spread_and_without_movement():
    exact = np.tile(np.maximum(0, DOSES - 0.8), (20, 1))
    fit = fit_shape(exact, DOSES)
    assert fit.shape == "threshold" and fit.parameters["threshold"] == pytest.approx(
        0.8, abs=1e-3
    ) and fit.p_not_linear == 2.0**-19
    nothing = fit_shape(np.zeros((20, 9)), DOSES)
    assert (nothing.shape == "flat" and nothing.p_moves == 1 and not nothing.parameters
            and nothing.predict(1.0) == 0)
    two = fit_shape(samples_of("linear", [0.5], 30)[:, [0, 8]], DOSES[[0, 8]])
    assert two.shape == "linear" and np.isnan(two.p_not_linear)


def test_onsets():
    curves = np.stack([np.maximum(0, DOSES - 0.7), -np.minimum(DOSES, 0.5),
                       np.where(DOSES == 2, 1.0, 0), np.zeros(9)])
    np.testing.assert_allclose(onset_doses(curves, DOSES), [0.7, 0.0, 1.875, np.nan], atol=1e-9)


@pytest.fixture(scope="module")
def shaped():
    """One source that acts on five targets through five rules; the values of the targets before it
    differ, those of the source reach beyond every corner."""
    torch.set_num_threads(1)
    edges = [
        Edge(0, 1, 0, 0.8), Edge(0, 2, 0, 0.9, threshold=0.6), Edge(0, 3, 0, -0.7, saturation=1.1),
        Edge(0, 4, 0, -0.9, threshold=0.6), Edge(0, 5, 0, 0.9), Edge(0, 5, 0, -1.5, threshold=1.0),
        Edge(0, 6, 0, -1.2), Edge(0, 7, 0, 0.9, threshold=0.6)
    ]
    inputs = [Input(0, rate=0.3)] + [
        Input(target, rate=1.0, low=2.5, high=3.5) for target in (1, 2, 3, 4, 5)
    ] + [Input(6, rate=1.0, low=0.5, high=2.5)]
    planted = plant(Wiring(8, 1, inputs, edges), negative=0.0)
    corpus = planted.corpus(120, 16, seed=1)
    source = (0, planted.feature(0, 0))
    targets = [(1, planted.feature(1, target)) for target in range(1, 8)]
    return (planted, corpus, source, targets,
            response_curve(planted.model, planted.saes, source, targets, corpus, progress=False))


def test_every_sample_is_what_the_wiring_computes(shaped):
    """Activation and pre-activation of each sample at each dose, sorted (the order of samples is
    nobody's business), against float64 arithmetic."""
    planted, corpus, source, targets, curves = shaped
    simulator, readout = planted.simulator(corpus), planted.intended[1]
    sequence, position, _ = simulator.firings(*source)
    def at(dose):
        return simulator.branch(
            [SimulatedClamp(*source, np.full(len(sequence), dose))], sequence, position
        )[1][:, 0]
    low = at(curves.curves[0].doses[0])
    for target in targets:
        curve = curves[target]
        for index, dose in enumerate(curve.doses):
            for read, mine in ((readout.active, curve.samples), (readout.pre, curve.pre_samples)):
                possible = np.unique((read(at(dose)) - read(low))[:, target[1]])
                assert np.abs(mine[:, index][:, None] - possible).min(1).max() < 5e-3, (
                    target, dose
                )
        for mean, std, ci, mine in ((curve.mean, curve.std, curve.ci, curve.samples),
                                    (curve.pre_mean, curve.pre_std, curve.pre_ci,
                                     curve.pre_samples)):
            np.testing.assert_allclose(mean, mine.mean(0), atol=1e-12)
            np.testing.assert_allclose(std, mine.std(0, ddof=1), atol=1e-6)
            half = stats.t.ppf(0.975, len(mine) - 1) * mine.std(0, ddof=1) / len(mine)**0.5
            np.testing.assert_allclose(ci, [mine.mean(0) - half, mine.mean(0) + half], atol=1e-6)


def test_the_typical_range_is_that_of_the_firings(shaped):
    planted, corpus, source, targets, curves = shaped
    _, _, values = planted.simulator(corpus).firings(*source)
    for curve in curves:
        np.testing.assert_allclose(curve.typical, np.percentile(values, [10, 90]), rtol=1e-3)


def test_samples_of_one_sequence_are_one_for_the_interval(shaped):
    "Against the sums of each sequence, which only the plan of the samples knows."
    planted, corpus, source, targets, _ = shaped
    how = dict(n_samples=150, max_per_sequence=3, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        plans = []
        def noted(*args, **more):
            plans.append(plan_pushes(*args, **more))
            return plans[-1]
        patch.setattr("feature_interaction_graph.measurement.curves.plan_pushes", noted)
        curve = response_curve(planted.model, planted.saes, source, targets[:1], corpus, **how)
    curve, _, group = curve[targets[0]], *np.unique(plans[0].sequence, return_inverse=True)
    n, count = len(group), int(group.max()) + 1
    assert count < n == len(curve.samples)
    for samples, ci in ((curve.samples, curve.ci), (curve.pre_samples, curve.pre_ci)):
        away = samples - samples.mean(0)
        sums = np.stack([away[group == one].sum(0) for one in range(count)])
        error = np.sqrt(count / (count - 1) * (sums**2).sum(0)) / n
        np.testing.assert_allclose(ci[1] - ci[0], 2 * stats.t.ppf(0.975, count - 1) * error,
                                   atol=1e-9)


def test_planted_shapes_are_recovered_in_units_of_the_wiring(shaped):
    planted, _, source, targets, curves = shaped
    unit = planted.intended[0].encoder[0, source[1]]
    expected = [("linear", [0.8]), ("threshold", [0.9, 0.6]), ("saturating", [-0.7, 1.1]),
                ("threshold", [-0.9, 0.6]), ("non-monotone", [0.9, -0.6, 1.0])]
    for variable, ((shape, true), target) in enumerate(zip(expected, targets, strict=False), 1):
        curve, gain = curves[target], planted.intended[1].encoder[variable, target[1]]
        for fit in (curve.fit, curve.pre_fit):
            assert fit.shape == shape, str(curve)
            n_slopes = len(SHAPES[shape][0])
            scale = [gain / unit] * n_slopes + [unit] * (len(true) - n_slopes)
            np.testing.assert_allclose(
                np.array(list(fit.parameters.values())) / scale, true, rtol=0.02
            )
            for value, factor, (low, high) in zip(true, scale, fit.intervals.values(), strict=True):
                assert low - 0.01 <= value * factor <= high + 0.01
    assert curves[targets[1]].onset_quartiles[1] / unit == pytest.approx(0.6, rel=0.05)
    assert curves[targets[4]].share_rising == 1.0


def test_a_mean_over_different_thresholds_is_smooth_where_no_sample_is(shaped):
    _, _, _, targets, curves = shaped
    closing = curves[targets[5]]
    assert closing.pre_fit.shape == "linear" and closing.fit.shape in (
        "bent", "saturating"
    ) and closing.share_falling == 1.0
    # a target without an input of its own: its SAE's threshold lets it jump a little later than its
    # variable starts
    unborn = curves[targets[6]]
    first, middle, third = unborn.onset_quartiles
    assert (unborn.pre_fit.shape == "threshold" and third - first < 1e-3
            and middle >= unborn.pre_fit.parameters["threshold"] - 0.05)


def test_signs_that_cancel_are_said():
    planted = plant_gate("sign-flip")
    source, target = (0, planted.feature(0, 0)), (1, planted.feature(1, 2))
    curve = response_curve(
        planted.model, planted.saes, source, target, planted.corpus(150, 16, seed=1), progress=False
    )[target]
    assert "the mean hides two kinds of samples" in str(curve) and min(
        curve.share_rising, curve.share_falling
    ) > 0.3
    slopes = curve.pre_samples[:, -1] / curve.doses[-1]
    assert curve.shape == "flat" or abs(curve.parameters["slope"]) < 0.3 * np.abs(slopes).mean()


def test_later_positions_given_doses_and_several_samples_of_a_sequence():
    planted = plant_attention(2, 0.7)
    corpus = planted.corpus(60, 16, seed=2)
    source, target = (0, planted.feature(0, 0)), (1, planted.feature(1, 1))
    gain = planted.intended[1].encoder[1, target[1]] / planted.intended[0].encoder[0, source[1]]
    curve = response_curve(
        planted.model, planted.saes, source, [target], corpus, doses=[0.1, 0.5, 1.0, 1.6, 2.0, 2.5],
        offset=2, max_per_sequence=3, n_samples=120, progress=False
    )[target]
    assert curve.doses.tolist() == [0.1, 0.5, 1.0, 1.6, 2.0, 2.5] and curve.offset == 2 and len(
        curve.samples
    ) > 60
    assert curve.pre_fit.shape == "linear" and curve.pre_fit.parameters["slope"] == pytest.approx(
        0.7 * gain, rel=0.01
    )
    here = response_curve(
        planted.model, planted.saes, source, target, corpus, progress=False
    )[target]
    assert (here.shape == "flat" and not here.samples.any() and np.isnan(here.onsets).all()
            and "flat" in str(here))
    again = response_curve(
        planted.model, planted.saes, source, target, corpus, offset=2, progress=False, batch_rows=32
    )[target]
    np.testing.assert_allclose(again.mean,
                               response_curve(planted.model, planted.saes, source, target, corpus,
                                              offset=2, progress=False)[target].mean, atol=1e-5)


def test_targets_of_several_layers():
    planted = plant_chain((0.8, 0.6))
    source = (0, planted.feature(0, 0))
    targets = [(2, planted.feature(2, 2)), (1, planted.feature(1, 1))]
    curves = response_curve(
        planted.model, planted.saes, source, targets, planted.corpus(60, 12), progress=False
    )
    assert (isinstance(curves, ResponseCurves) and [curve.target for curve in curves] == targets
            and len(curves) == 2 and str(curves).count("\n") == 1)
    unit = planted.intended[0].encoder[0, source[1]]
    for (layer, feature), slope in zip(targets, (0.48, 0.8), strict=True):
        found = (curves[layer, feature].pre_fit.parameters["slope"] * unit
                 / planted.intended[layer].encoder[layer, feature])
        assert found == pytest.approx(slope, rel=0.01)
    with pytest.raises(InputError, match="is not among the targets"): curves[1, 99]


def test_the_figure_says_what_it_shows(shaped):
    _, _, source, targets, curves = shaped
    figure = plot_response(curves, max_lines=5)
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    assert (len(drawn) == len(targets) and drawn[0].get_xlabel()
            == f"dose of L0_F{source[1]} (activation)" and "L1_F" in drawn[0].get_ylabel())
    assert {text.get_text() for text in drawn[0].get_legend().get_texts()} >= {
        "mean", "samples", "fitted shape", "95 % interval of the mean"
    }
    assert len(drawn[1].lines) == 1 + 5 + 2 and drawn[1].get_title(loc="left") == "threshold"
    single = plot_response(curves[targets[0]], pre=True)
    assert len(single.axes) == 1 and "pre-activation" in single.axes[0].get_ylabel()
    mean = next(line for line in single.axes[0].lines if line.get_label() == "mean")
    np.testing.assert_allclose(mean.get_ydata(), curves[targets[0]].pre_mean)


REFUSED = {
    "one dose": (dict(doses=[1.0]), "1 dose was given"),
    "unsorted doses": (dict(doses=[0.0, 2.0, 1.0]), "not ascending"),
    "a dose twice": (dict(doses=[0.0, 1.0, 1.0]), "name one twice"),
    "a negative dose": (dict(doses=[-1.0, 1.0]), "never below 0"),
    "an infinite dose": (dict(doses=[0.0, float("inf")]), "finite"),
    "one default dose": (dict(n_doses=1), "n_doses is 1"),
    "few samples": (dict(n_samples=3), "n_samples is 3"),
    "the past": (dict(offset=-1), "offset is -1"),
    "upstream": (dict(targets=[(1, 0), (0, 0)]), "target L0_F0 is not downstream of source L0_F"),
    "no such target": (dict(targets=(1, 999)), "target L1_F999 does not exist"),
    "no such layer": (dict(targets=(7, 0)), "SAEs are loaded for layers 0, 1"),
    "no target": (dict(targets=[]), "no target was given"),
    "never fires": (dict(source=(0, None)), "fires in 0 sequences"),
    "beyond the end": (dict(offset=40), "gives 0 samples with a token 40 positions later"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(shaped, name):
    planted, corpus, source, targets, _ = shaped
    changed, words = REFUSED[name]
    how = {"source": source, "targets": targets[0], **changed}
    if how["source"][1] is None:
        how["source"] = (0, int(np.flatnonzero(planted.intended[0].variable == -1)[0]))
    with pytest.raises(InputError, match=re.escape(words)) as refused:
        response_curve(planted.model, planted.saes, how.pop("source"), how.pop("targets"), corpus,
                       progress=False, **how)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
