//! Names become addresses through here: resolve, vet every address, hand over just those (so the connection is pinned to
//! what was vetted).
//!
//! One refused address refuses the whole answer: a name that also points at a metadata service is not a misprint.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::Policy;
use crate::pipeline::BoxFuture;

/// More addresses than any real destination has.
const MAX_ADDRESSES: usize = 64;

/// How a name becomes addresses, before they are vetted.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Asks the system.
#[must_use]
pub fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.take(MAX_ADDRESSES).collect()) })
    })
}

/// The addresses of a host, once it and all of them are vetted.
///
/// # Errors
/// [`super::guard::Refused`], or what the lookup gave.
pub(in crate::sink) async fn vetted(
    policy: Policy,
    lookup: &Lookup,
    host: &str,
) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
    policy.vet_host(host)?;
    let addresses = lookup(host.to_owned()).await?;
    for address in &addresses {
        policy.vet_address(address.ip())?;
    }
    Ok(addresses)
}

pub(super) struct Vetting {
    policy: Policy,
    lookup: Lookup,
}

impl Vetting {
    pub(super) fn new(policy: Policy, lookup: Lookup) -> Self {
        Self { policy, lookup }
    }
}

impl Resolve for Vetting {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, lookup) = (self.policy, Arc::clone(&self.lookup));
        Box::pin(async move {
            let addresses = vetted(policy, &lookup, name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
