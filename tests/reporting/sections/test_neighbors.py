from dti_geom.reporting import neighbors_finding, overlap_figure, overlap_finding, shared_tokens


def test_shared_tokens_are_those_in_both_lists(make_neighbors):
    assert shared_tokens(make_neighbors(cosine=(3, 4, 5), euclidean=(9, 4, 3))) == {3, 4}


def test_finding_counts_the_overlap_and_names_the_leaders(make_neighbors):
    assert neighbors_finding(make_neighbors()) == (
        "2 of 3 neighbours are in both lists; the closest by cosine is “\u2068near3\u2069” at 0.5000, the nearest by "
        "distance “\u2068near9\u2069” at 0.4000, where the query itself has norm 0.4100."
    )


def test_overlap_bars_are_the_shared_counts(make_neighbors):
    queries = (make_neighbors("cat"), make_neighbors("dog", euclidean=(7, 8, 9)))
    listed, shared = overlap_figure(queries).data
    assert list(listed.x) == [3, 3]
    assert list(shared.x) == [2, 0]
    assert overlap_finding(queries) == (
        "Over 2 queries the two metrics agree on 2 of 6 neighbours (33.3 %), least for “\u2068dog\u2069” with 0 of 3."
    )
