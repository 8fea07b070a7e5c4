from dti_geom.probes.painted import PaintedPair, PaintedSum, PaintedSwap
from dti_geom.reporting.blocks import Pictures, Span
from dti_geom.reporting.sections.painted import painted_data, painted_finding, painted_section
from dti_geom.statistics import Share
from section_blocks import blocks_of, table_named


def painted() -> PaintedSwap:
    pairs = tuple(
        PaintedPair("fox", "<b>", stretch, 1.5 * stretch, 0.8, 0.3, 0.2, ("a", "b", "c", "d"))
        for stretch in (1.0, 16.0)
    )
    sums = tuple(
        PaintedSum(stretch, 1.5 * stretch, 0.8, 0.3, 0.2, Share.of(right, 4))
        for stretch, right in ((1.0, 4), (16.0, 3))
    )
    return PaintedSwap("a photo of a {}", (0, 1), pairs, sums)


def test_the_finding_compares_swaps_as_stored_with_the_largest_stretch() -> None:
    finding = painted_finding(painted())
    for part in ("4 of 4", "0.800 against 0.300", "×1.50", "×24.0, 3 of 4"):
        assert part in finding


def test_each_pair_is_a_row_of_four_pictures() -> None:
    (pictures,) = blocks_of(painted_section(painted()), Pictures)
    assert len(pictures.columns) == 4
    first, second = pictures.rows
    assert first.label.startswith("fox, <b> ×1\nnorms ×1.50")
    assert second.label.startswith("fox, <b> ×16\nnorms ×24.0")
    uris = [picture.uri for picture in first.pictures if picture is not None]
    assert uris == [f"data:image/png;base64,{letter}" for letter in "abcd"]


def test_the_table_sums_up_pairs_at_each_stretch() -> None:
    plain, far = table_named(painted_section(painted()), "Pictures").rows
    assert plain[:7] == [1.0, 1.5, 0.8, 0.3, 0.2, 4, 4]
    assert far[5:7] == [3, 4]
    assert isinstance(far[7], Span)
    assert far[7] == Span(100 * Share.of(3, 4).low, 100 * Share.of(3, 4).high)


def test_the_data_of_the_page_leave_the_pictures_out() -> None:
    data = painted_data(painted())
    assert [pair.pictures for pair in data.pairs] == [(), ()]
    assert data.sums == painted().sums
