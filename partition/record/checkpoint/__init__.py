"""Checkpoints as far as they can be read without torch: which there are, what they say, whether they are sound."""

from partition.record.checkpoint.document import DOCUMENT, document_text, layer_file, read_document
from partition.record.checkpoint.facts import (
    CandidateFacts,
    CheckpointRecord,
    Facts,
    FileRecord,
    Position,
    Surroundings,
)
from partition.record.checkpoint.matching import Continuation, check_matches, check_serves, check_steps_left
from partition.record.checkpoint.place import FOLDER, LATEST, find, find_folder, list_checkpoints, read_latest
from partition.record.checkpoint.verification import find_damage, read_verified, verify

__all__ = [
    "DOCUMENT",
    "FOLDER",
    "LATEST",
    "CandidateFacts",
    "CheckpointRecord",
    "Continuation",
    "Facts",
    "FileRecord",
    "Position",
    "Surroundings",
    "check_matches",
    "check_serves",
    "check_steps_left",
    "document_text",
    "find",
    "find_damage",
    "find_folder",
    "layer_file",
    "list_checkpoints",
    "read_document",
    "read_latest",
    "read_verified",
    "verify",
]
