//! How many rows are asked for at once: fewer where a page is too long to be read, more again after a while.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::vonage::client::MAX_PAGE_SIZE;

/// It doubles again after each time as long as this: long rows come in bursts, and a page too many costs 16 MiB.
const GROW_AFTER: Duration = Duration::from_secs(60);

/// What a restart forgets and finds out again.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageSize {
    halved: Option<(u32, Instant)>,
}

impl PageSize {
    /// Rows to ask for now.
    #[must_use]
    pub fn now(self, now: Instant) -> u32 {
        let Some((size, at)) = self.halved else { return MAX_PAGE_SIZE };
        let doublings = now.saturating_duration_since(at).as_secs() / GROW_AFTER.as_secs().max(1);
        let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(8);
        size.saturating_mul(1 << doublings).min(MAX_PAGE_SIZE)
    }

    /// A page of `asked` rows was too long.
    pub fn halve(&mut self, asked: u32, now: Instant) {
        self.halved = Some(((asked / 2).max(1), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_halves_down_to_one_row_and_grows_back() {
        let (mut size, now) = (PageSize::default(), Instant::now());
        let mut sizes = Vec::new();
        for _ in 0..8 {
            sizes.push(size.now(now));
            size.halve(size.now(now), now);
        }
        assert_eq!(sizes, [100, 50, 25, 12, 6, 3, 1, 1]);
        let grown: Vec<u32> = (0..9).map(|minutes| size.now(now + GROW_AFTER * minutes)).collect();
        assert_eq!(grown, [1, 2, 4, 8, 16, 32, 64, 100, 100]);
    }
}
