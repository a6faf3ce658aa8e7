import torch

from edgeprune.training.order import Order


def test_each_time_round_shows_every_sample_once_as_far_as_they_fill_batches() -> None:
    order = Order(10, 4, torch.Generator().manual_seed(0))
    rounds = [torch.cat([next(order), next(order)]).tolist() for _ in range(3)]
    assert all(len(set(seen)) == 8 and set(seen) <= set(range(10)) for seen in rounds) and rounds[0] != rounds[1]


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    assert sorted(next(Order(3, 8, torch.Generator())).tolist()) == [0, 1, 2]


def test_it_goes_on_from_where_it_was() -> None:
    order = Order(9, 2, torch.Generator().manual_seed(1))
    for _ in range(6):
        next(order)
    other = Order(9, 2, torch.Generator())
    other.generator.set_state(order.generator.get_state())
    other.shuffled, other.at = order.shuffled, order.at
    assert [next(order).tolist() for _ in range(7)] == [next(other).tolist() for _ in range(7)]
