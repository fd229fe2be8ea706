"""What a run writes and a report reads: predicted beside measured; no torch."""

from partition.record.run import DeviceBytes, Final, Metrics, RunDirectory, StepTime, Summary

__all__ = ["DeviceBytes", "Final", "Metrics", "RunDirectory", "StepTime", "Summary"]
