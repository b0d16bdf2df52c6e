//! The shipped rules inside the binary, and the files of a demo directory. A test keeps the list and `rules/` the same.

use std::io;
use std::path::Path;

/// The source's name in the demo's configuration.
pub(super) const SOURCE: &str = "demo";

/// Every file of the pack: path below the root of the repository, and text.
pub(super) const FILES: &[(&str, &str)] = &[
    ("rules/lists/allowed_countries.txt", include_str!("../../../rules/lists/allowed_countries.txt")),
    ("rules/lists/callback_domains.txt", include_str!("../../../rules/lists/callback_domains.txt")),
    ("rules/lists/forwarding_targets.txt", include_str!("../../../rules/lists/forwarding_targets.txt")),
    ("rules/lists/number_countries.txt", include_str!("../../../rules/lists/number_countries.txt")),
    ("rules/lists/office_networks.txt", include_str!("../../../rules/lists/office_networks.txt")),
    ("rules/lists/staff_domains.txt", include_str!("../../../rules/lists/staff_domains.txt")),
    ("rules/lists/trusted_api_networks.txt", include_str!("../../../rules/lists/trusted_api_networks.txt")),
    ("rules/vonage/account-callback-outside.yaml", include_str!("../../../rules/vonage/account-callback-outside.yaml")),
    ("rules/vonage/account-flagged.yaml", include_str!("../../../rules/vonage/account-flagged.yaml")),
    ("rules/vonage/account-gone-quiet.yaml", include_str!("../../../rules/vonage/account-gone-quiet.yaml")),
    ("rules/vonage/account-settings-changed.yaml", include_str!("../../../rules/vonage/account-settings-changed.yaml")),
    ("rules/vonage/allow-list-entry-deleted.yaml", include_str!("../../../rules/vonage/allow-list-entry-deleted.yaml")),
    (
        "rules/vonage/allow-list-opened-then-used.yaml",
        include_str!("../../../rules/vonage/allow-list-opened-then-used.yaml"),
    ),
    ("rules/vonage/allow-list-stripped.yaml", include_str!("../../../rules/vonage/allow-list-stripped.yaml")),
    ("rules/vonage/allow-list-widened.yaml", include_str!("../../../rules/vonage/allow-list-widened.yaml")),
    (
        "rules/vonage/api-change-from-new-network.yaml",
        include_str!("../../../rules/vonage/api-change-from-new-network.yaml"),
    ),
    (
        "rules/vonage/api-change-from-unexpected-country.yaml",
        include_str!("../../../rules/vonage/api-change-from-unexpected-country.yaml"),
    ),
    (
        "rules/vonage/api-change-from-unknown-network.yaml",
        include_str!("../../../rules/vonage/api-change-from-unknown-network.yaml"),
    ),
    (
        "rules/vonage/app-with-foreign-callback.yaml",
        include_str!("../../../rules/vonage/app-with-foreign-callback.yaml"),
    ),
    ("rules/vonage/apps-stopped-in-bulk.yaml", include_str!("../../../rules/vonage/apps-stopped-in-bulk.yaml")),
    (
        "rules/vonage/autoreload-or-billing-changed.yaml",
        include_str!("../../../rules/vonage/autoreload-or-billing-changed.yaml"),
    ),
    ("rules/vonage/change-of-unknown-origin.yaml", include_str!("../../../rules/vonage/change-of-unknown-origin.yaml")),
    (
        "rules/vonage/dashboard-change-from-unexpected-country.yaml",
        include_str!("../../../rules/vonage/dashboard-change-from-unexpected-country.yaml"),
    ),
    (
        "rules/vonage/dashboard-change-outside-office.yaml",
        include_str!("../../../rules/vonage/dashboard-change-outside-office.yaml"),
    ),
    ("rules/vonage/impossible-travel.yaml", include_str!("../../../rules/vonage/impossible-travel.yaml")),
    ("rules/vonage/lists.yaml", include_str!("../../../rules/vonage/lists.yaml")),
    (
        "rules/vonage/login-from-unexpected-country.yaml",
        include_str!("../../../rules/vonage/login-from-unexpected-country.yaml"),
    ),
    ("rules/vonage/new-country-for-user.yaml", include_str!("../../../rules/vonage/new-country-for-user.yaml")),
    (
        "rules/vonage/number-forwarded-elsewhere.yaml",
        include_str!("../../../rules/vonage/number-forwarded-elsewhere.yaml"),
    ),
    (
        "rules/vonage/number-linked-to-another-account.yaml",
        include_str!("../../../rules/vonage/number-linked-to-another-account.yaml"),
    ),
    (
        "rules/vonage/number-linked-to-new-application.yaml",
        include_str!("../../../rules/vonage/number-linked-to-new-application.yaml"),
    ),
    ("rules/vonage/number-released.yaml", include_str!("../../../rules/vonage/number-released.yaml")),
    ("rules/vonage/number-rented-abroad.yaml", include_str!("../../../rules/vonage/number-rented-abroad.yaml")),
    ("rules/vonage/numbers-rented-in-bulk.yaml", include_str!("../../../rules/vonage/numbers-rented-in-bulk.yaml")),
    (
        "rules/vonage/profile-changed-then-login.yaml",
        include_str!("../../../rules/vonage/profile-changed-then-login.yaml"),
    ),
    ("rules/vonage/search-burst.yaml", include_str!("../../../rules/vonage/search-burst.yaml")),
    (
        "rules/vonage/secret-created-out-of-hours.yaml",
        include_str!("../../../rules/vonage/secret-created-out-of-hours.yaml"),
    ),
    (
        "rules/vonage/secret-deleted-out-of-hours.yaml",
        include_str!("../../../rules/vonage/secret-deleted-out-of-hours.yaml"),
    ),
    (
        "rules/vonage/secret-rotation-left-open.yaml",
        include_str!("../../../rules/vonage/secret-rotation-left-open.yaml"),
    ),
    ("rules/vonage/secret-swapped.yaml", include_str!("../../../rules/vonage/secret-swapped.yaml")),
    (
        "rules/vonage/subaccount-access-widened.yaml",
        include_str!("../../../rules/vonage/subaccount-access-widened.yaml"),
    ),
    ("rules/vonage/toll-fraud-prelude.yaml", include_str!("../../../rules/vonage/toll-fraud-prelude.yaml")),
    (
        "rules/vonage/user-outside-staff-domains.yaml",
        include_str!("../../../rules/vonage/user-outside-staff-domains.yaml"),
    ),
];

/// Writes rules and lists.
pub(in crate::cli) fn write_rules(directory: &Path) -> io::Result<()> {
    for (path, text) in FILES {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Writes configuration, rules and lists.
pub(super) fn write(directory: &Path, base_url: &str, account: &str, secret: &str) -> io::Result<()> {
    write_rules(directory)?;
    std::fs::write(directory.join("vigie.yaml"), configuration(directory, base_url, account, secret))
}

fn configuration(directory: &Path, base_url: &str, account: &str, secret: &str) -> String {
    let state = serde_json::Value::from(directory.join("state").to_string_lossy().into_owned());
    format!(
        r#"# The demo's configuration: a simulated account, the shipped rules, alerts on the terminal.
sources:
  {SOURCE}:
    vonage_audit:
      api_key: "{account}"
      api_secret: "{secret}"
      base_url: "{base_url}"
      poll_interval: 500ms
      start: 30d                          # rules that compare with the past need one
rules: [rules/vonage]
sinks:
  terminal: {{stdout: {{format: text}}}}
routes:
  - to: terminal
state: {{dir: {state}}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_every_file_of_the_pack() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for directory in ["rules/lists", "rules/vonage"] {
            for entry in std::fs::read_dir(root.join(directory)).expect("the pack") {
                found.push(format!("{directory}/{}", entry.expect("an entry").file_name().to_string_lossy()));
            }
        }
        found.sort();
        let listed: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(found, listed);
    }
}
