//! What an answer cannot say by itself is asked besides: what lies beyond its page, whether the list shows anything at
//! all, whether the newest event is still there. Nothing here changes the poller.

use std::sync::Arc;

use crate::source::vonage::client::ClientError;
use crate::source::vonage::event::read_row;
use crate::source::vonage::poller::judge::{Finding, Judgement, MAX_PROBES, Verdict, is_stray};
use crate::source::vonage::poller::{AnchorLookup, Observation, Poller, Probe, Request};
use crate::source::vonage::transport::TransportError;
use crate::source::vonage::{VonageSource, moment};

impl VonageSource {
    /// Judges, with as many look-ups as that takes.
    pub(super) async fn judge(
        &self,
        poller: &Poller,
        request: &Request,
        observation: &mut Observation,
    ) -> Result<Judgement, ClientError> {
        loop {
            match poller.judge(request, observation) {
                Finding::Decided(mut judgement) => {
                    let is_empty = judgement.verdict == Verdict::Complete && observation.rows.is_empty();
                    if is_empty && poller.is_final(request, observation.answered_s) {
                        judgement.verdict = self.confirm_empty(poller).await?;
                    }
                    if judgement.verdict == Verdict::Missing {
                        observation.anchor = self.look_up_anchor(poller).await;
                    }
                    return Ok(judgement);
                }
                Finding::Probe(probe) => {
                    let result = match self.probe(poller, &probe, observation).await {
                        // Each time that it is asked: what is on the page is handed on all the same.
                        Err(error) if is_at_fault(&error) && poller.has_failed(request) => Probe::Unknown,
                        result => result?,
                    };
                    observation.probes.push(result);
                }
            }
        }
    }

    async fn probe(&self, poller: &Poller, probe: &Request, observation: &Observation) -> Result<Probe, ClientError> {
        if observation.probes.len() >= MAX_PROBES {
            return Ok(Probe::Unknown);
        }
        match self.ask(probe).await {
            Ok(answer) => {
                // A stray row that comes with every page is not what lies beyond.
                let zone = poller.state.calibration.zone.offset();
                let is_shown_stray = |raw: &Arc<str>| {
                    let row = read_row(raw, zone, moment(observation.answered_s));
                    is_stray(probe, &row) && observation.rows.iter().any(|shown| shown.id == row.id)
                };
                let is_empty = answer.cut.is_none() && answer.rows.iter().all(is_shown_stray);
                Ok(if is_empty { Probe::Empty } else { Probe::Rows })
            }
            Err(ClientError::Rejected { .. }) => Ok(Probe::Unknown),
            // Nothing is not as long as this.
            Err(ClientError::Transport(TransportError::TooLarge(_))) => Ok(Probe::Rows),
            Err(error) => Err(error),
        }
    }

    /// A window that no root covers is settled without rows only by a list that does show some.
    async fn confirm_empty(&self, poller: &Poller) -> Result<Verdict, ClientError> {
        Ok(match poller.state.anchor.is_none() || self.shows_anything().await? {
            true => Verdict::Complete,
            false => Verdict::Missing,
        })
    }

    async fn look_up_anchor(&self, poller: &Poller) -> Option<AnchorLookup> {
        let anchor = poller.state.anchor.as_ref()?;
        Some(match self.client.get(&anchor.id).await {
            Ok(Some(_)) => match self.shows_anything().await {
                Ok(true) => AnchorLookup::Found,
                Ok(false) => AnchorLookup::Unlisted,
                Err(_) => AnchorLookup::Failed,
            },
            Ok(None) => AnchorLookup::Gone,
            Err(_) => AnchorLookup::Failed,
        })
    }
}

/// Asking again may do.
fn is_at_fault(error: &ClientError) -> bool {
    matches!(error, ClientError::Server { retry_after: None, .. } | ClientError::Transport(_) | ClientError::Body(_))
}
