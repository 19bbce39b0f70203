"""Which database the files of a store belong to: an id in both, and how far the database has got.

The store's marker names the registry and its newest event. A database that has another id, or in
which that event is missing or differs, is another database, an older copy or a copy that has gone
its own way. Its sweeps only report, because the files it does not know may be needed elsewhere.
"""
