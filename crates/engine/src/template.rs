//! Alert titles from event fields: `{{ event.event_type }} from {{ event.source_country }}`.

/// A compiled template.
#[derive(Debug, Clone)]
pub struct Template {}
