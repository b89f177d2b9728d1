"""Traces: a span for each request and for each step of its way, where SLUICE_TRACING is on."""
