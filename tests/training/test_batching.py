"""Order and splitting of batches."""

from emopeft.downstream.training.batching import epoch_order, micro_batches


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    one = epoch_order(50, seed=3, epoch=7)
    assert sorted(one) == list(range(50))
    assert one == epoch_order(50, seed=3, epoch=7)
    assert one != epoch_order(50, seed=3, epoch=8)
    assert one != epoch_order(50, seed=4, epoch=7)


def test_groups_keep_within_the_budget_and_lose_nobody() -> None:
    seconds = [1.0, 9.0, 2.0, 3.0, 30.0, 2.5]
    groups = micro_batches(range(6), seconds, budget=9.0)
    assert sorted(i for g in groups for i in g) == list(range(6))
    assert groups[0] == [4]  # longer than the budget: on its own
    for group in groups[1:]:
        assert len(group) * max(seconds[i] for i in group) <= 9.0
    assert groups[1:] == [[1], [3, 5, 2], [0]]
