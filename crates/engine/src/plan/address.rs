//! Fields of addresses: read once an event, however many networks and scopes are asked of them.

use std::net::IpAddr;

use crate::condition::parse_address;
use crate::event::{Event, FieldPath, Value};

/// A field that some test takes addresses from.
#[derive(Debug)]
pub(super) struct AddressField {
    field: FieldPath,
}

impl AddressField {
    pub(super) fn new(field: &FieldPath) -> Self {
        Self { field: field.clone() }
    }

    /// Puts the event's addresses in place of those before; counts what is none.
    pub(super) fn read(&self, event: &Event, unusable: &mut u64, addresses: &mut Vec<IpAddr>) {
        addresses.clear();
        self.field.leaves(event, &mut |view| {
            let address = match view.value() {
                Value::Null => return false,
                Value::Text(text) => parse_address(&text),
                Value::Bool(_) | Value::Number(_) | Value::Object(_) | Value::Array(_) => None,
            };
            *unusable += u64::from(address.is_none());
            addresses.extend(address);
            false
        });
    }
}
