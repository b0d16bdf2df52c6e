//! Looking after the store of a running daemon: retention in steps, and backlogs of every sink.

use std::time::Duration;

use chrono::{DateTime, Utc};
use vigie_engine::alert::Alert;

use super::{SqliteStore, archive};
use crate::pipeline::BoxFuture;
use crate::store::{Maintain, Queue, Result, Store};

impl Maintain for SqliteStore {
    fn maintain(&self, now: DateTime<Utc>, retention: Duration) -> BoxFuture<'_, Result<bool>> {
        Box::pin(async move { Ok(Self::maintain(self, now, retention).await?.more) })
    }

    fn store_bytes(&self) -> Result<u64> {
        Self::store_bytes(self)
    }

    fn muted<'a>(&'a self, muted_by: &'a str, after: u64, limit: usize) -> BoxFuture<'a, Result<Vec<(u64, Alert)>>> {
        let muted_by = muted_by.to_owned();
        Box::pin(self.reader.ask(move |session| archive::muted(session.connection, &muted_by, after, limit)))
    }

    fn backlogs(&self) -> BoxFuture<'_, Result<Vec<(String, Queue)>>> {
        Box::pin(async move {
            let sinks = self.reader.ask(|session| {
                let mut statement = session
                    .connection
                    .prepare("SELECT DISTINCT sink FROM deliveries WHERE status = 0 ORDER BY sink")?;
                let names = statement.query_map([], |row| row.get::<_, String>(0))?;
                Ok(names.collect::<rusqlite::Result<Vec<String>>>()?)
            });
            let mut backlogs = Vec::new();
            for sink in sinks.await? {
                let queue = self.queue(&sink).await?;
                backlogs.push((sink, queue));
            }
            Ok(backlogs)
        })
    }
}
