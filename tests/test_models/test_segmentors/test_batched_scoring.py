"""Batches are scored one after the other, and the next one is started early."""

from mmmap.models.segmentors.batched_scoring import one_ahead


def test_the_next_batch_is_under_way_before_the_scores_of_one_are_needed():
    events = []
    batches = ((name, name) for name in 'abc')

    def score(crops):
        events.append(f'start {crops}')
        return lambda: events.append(f'wait {crops}') or crops.upper()

    assert list(one_ahead(batches, score)) == [('a', 'A'), ('b', 'B'), ('c', 'C')]
    assert events == ['start a', 'start b', 'wait a', 'start c', 'wait b', 'wait c']
