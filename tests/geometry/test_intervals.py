import pytest

from dti_geom.geometry.intervals import Share


def test_wilson_interval_matches_closed_form_values():
    share = Share.of(9, 10)  # 0.5958 … 0.9821, Wilson's own formula worked by hand
    assert (share.low, share.high) == (pytest.approx(0.5958, abs=2e-4), pytest.approx(0.9821, abs=2e-4))
    assert Share.of(0, 50).low == 0
    assert Share.of(50, 50).high == 1
    with pytest.raises(ValueError, match="nothing"):
        Share.of(0, 0)
