//! Folding, exceptions and state, edge by edge.
