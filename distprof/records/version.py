"""The first bytes of every shard, and the version of the schema."""

from __future__ import annotations

MAGIC = "distprof"

#: (major, minor).  A reader refuses another major version, and ignores unknown fields of a newer minor version.
SCHEMA_VERSION = (3, 0)
#: Earlier major versions, and the release of distprof that reads them.
READ_BY = {1: "0.1", 2: "0.1"}
SCHEMA_HISTORY: dict[tuple[int, int], str] = {
    (1, 0): "header, plan, topology, tree, parameters, counts, step, expert_layers, expert_load, error, end",
    (
        1,
        1,
    ): "topology: sources, groups, stages, roots, finer axes; parameters: sharded, kind, shared_as; "
    "expert_layers: axis, top_k, counted; expert_load: unseen; expert_routing; counts: device_work, compiled, "
    "eager_refused, generated; ops; memory",
    (2, 0): "step: owners and stamps in place of forward_ns and backward_ns",
    (2, 1): "header: launch and launched_ns; step: phase outside, batch_found; counts: batch_size, batch_found, "
    "uncounted_work; plan: settling; parameters: kept_alike, held_as, first, total, evaluated, "
    "tied_roots; memory_unknown; counts and ops: amounts beyond 64 bits",
    (3, 0): "compressed payloads; plan: start in place of warmup, traced; step: forward_ns and backward_ns, without "
    "owners and stamps; expert_routing: rows by layer; window in plan, counts, ops, step, memory, memory_unknown, "
    "expert_load and expert_routing; timeline, collectives, collective_window, pauses; step: processor_wait_ns, "
    "processor_wait_seen; topology: backend "
    "of a group; header: clock_domain; clock_offset; end: failure; warmup_step; step: tokens; window_summary; "
    "expert_load: calls; expert_routing: kept_by_call, capacity",
}
