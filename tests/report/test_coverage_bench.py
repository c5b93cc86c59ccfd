from flowjax_benchmarks.coverage import POPULATIONS, coverage, false_effects


def test_ours_hold_where_percentile_intervals_do_not():
    exponential = next(at for at in POPULATIONS if at.name == "exponential")
    held = coverage(exponential, 12, 800)["held"]
    assert held["studentised"] > 0.925 > 0.91 > held["percentile"]
    assert held["percentile"] < held["BCa"] < held["studentised"]


def test_runs_without_effect_are_counted():
    found = false_effects("normal", 12, 40)
    assert found["called"] <= 0.15 < 0.7 < found["called if each were tested alone"]
    # Windows in which no sample changes have no t.
    few = false_effects("most samples do not change", 6, 40)
    assert few["called if each were tested alone"] > 0.1
