"""Measures perdure beside the raw limit of its engines and beside other libraries: ``python -m bench``.

One run interleaves all of them in rounds on the same data, so that whatever else the machine does meets all alike.
Ratios of one round are compared, never times of different runs; times are printed as information only.

Each module of ``bench.rows`` measures some of the numbered goals. ``lanes`` holds perdure and the raw limit, ``peers``
the other libraries; each of them is a *lane*: opened once, and asked again and again for the seconds that one operation
takes. What a raw lane writes are the statements of perdure's own ``queries.sql``, and ``lanes.same_rows`` compares
what both have written.
"""
