//! Files that options name: read whole, up to a bound, and never what is no file.

use std::io::Read as _;
use std::path::Path;

/// The content; why not as the rest of a sentence that begins with the file. A pipe or a device would be read for ever.
pub(super) fn read(path: &Path, most_bytes: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read ({error})");
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a file".into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most_bytes { Err(format!("is larger than {most_bytes} bytes")) } else { Ok(bytes) }
}
