"""`make demo`: the whole line on pictures that come inside dependencies, so that it runs anywhere."""
