"""A workflow whose tasks take a value from a module, which their workers import."""

import measures
import ray


@ray.remote
def first():
    return measures.VALUE


@ray.remote
def second(before):
    return [before, measures.VALUE]


def graph():
    return second.bind(first.bind())
