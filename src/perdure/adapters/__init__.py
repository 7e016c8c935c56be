"""Perdure behind the interfaces of other frameworks, one package each.

An adapter translates and decides nothing; what it stands on is in ``perdure.services``. Each needs its extra, and
importing one imports its framework.
"""
