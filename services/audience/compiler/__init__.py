"""From a segment or a funnel to one SELECT in the dialect of the warehouse.

`target` says for what; `predicates`, `events` and `funnels` (by `funnel_asof` or `funnel_windows`, which both give
`chains`) compile the parts, `segments` and `answers` the whole; `guard` reads the SQL again before it leaves.
"""
