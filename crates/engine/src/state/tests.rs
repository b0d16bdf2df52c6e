//! Detections against a naive reference.
