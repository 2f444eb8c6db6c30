"""Each module measures one work: ``measure(quick)`` gives its rows."""
