"""What a DAG file imports: its functions are not pickled, workers import them."""

import ray

VALUE = 1


@ray.remote
def first():
    return VALUE


@ray.remote
def second(before):
    return [before, VALUE]


def graph():
    return second.bind(first.bind())
