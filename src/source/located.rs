//! A source whose events come with the place of their address.
//!
//! It stands around any source, so that the engine stays pure and neither a driver nor the pipeline knows of databases.

use std::sync::Arc;

use super::{Cursor, Fetched, Seen, Source, SourceError};
use crate::geo::Lookup;
use crate::pipeline::BoxFuture;

/// A source and the databases that its events are looked up in.
pub struct Located {
    inner: Box<dyn Source>,
    lookup: Arc<Lookup>,
}

impl Located {
    /// Puts it around a source.
    #[must_use]
    pub fn new(inner: Box<dyn Source>, lookup: Arc<Lookup>) -> Self {
        Self { inner, lookup }
    }
}

impl Source for Located {
    fn fetch<'a>(
        &'a mut self,
        cursor: Option<&'a Cursor>,
        seen: &'a dyn Seen,
    ) -> BoxFuture<'a, Result<Fetched, SourceError>> {
        Box::pin(async move {
            let mut fetched = self.inner.fetch(cursor, seen).await?;
            for events in [&mut fetched.events, &mut fetched.before_start] {
                let located = std::mem::take(events).into_iter().map(|event| self.lookup.locate_event(event));
                *events = located.collect();
            }
            Ok(fetched)
        })
    }
}
