//! `vigie events`: asks the Audit API directly, and shows what of a source could not be read as events. It reads and shows;
//! nothing is stored, nothing is matched.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, FixedOffset, Utc};
use serde_json::value::RawValue;

use super::exit::{Exit, Failure, Outcome, WithExit};
use super::output::Output;
use super::{Form, Global, load, log, progress, run as run_verb};
use crate::clock::SystemClock;
use crate::config::{NamedSource, process_variable};
use crate::secret::Secret;
use crate::source::vonage::account::{Account, DEFAULT_BASE_URL};
use crate::source::vonage::client::{BoundForm, Client, ClientError, ListQuery, MAX_PAGE_SIZE, describe};
use crate::store::archive::{Named, PoisonFilter};

/// Most pages that one listing walks: a million events; narrow the window for more.
const MAX_PAGES: u32 = 10_000;
/// How much of a field a line shows.
const MAX_FIELD_CHARS: usize = 60;
/// How much a line shows of why a row is no event.
const MAX_ERROR_CHARS: usize = 200;
/// How much of such a row is shown to people; `-o json` gives all of it.
const MAX_RAW_CHARS: usize = 4_000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Events of a window
    List(ListArgs),
    /// One event by its id
    Get(GetArgs),
    /// The event types that the API names
    Types(AccountArgs),
    /// Rows of the store that could not be read as events, as they came, newest first
    Poison(PoisonArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct PoisonArgs {
    /// Of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Stored since: how long ago (2h), a date or a stamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct AccountArgs {
    /// Which source of the configuration
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Without a configuration: where the API is
    #[arg(long, value_name = "URL", default_value = DEFAULT_BASE_URL)]
    base_url: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// From this time on: a stamp, a date, or how long ago (24h)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only these event types
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only events that hold this text
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    account: AccountArgs,
    /// Event id
    id: String,
}

pub(super) fn run(verb: Verb, global: &Global, output: &mut Output) -> Outcome {
    log::start(global, "warn");
    match verb {
        Verb::List(args) => {
            let query = query(&args)?;
            let client = client(&args.account, global, output)?;
            run_verb::block_on(list(&client, query, args.limit, global.quiet, output))?
        }
        Verb::Get(args) => {
            let client = client(&args.account, global, output)?;
            match run_verb::block_on(client.get(&args.id))?.map_err(failure)? {
                Some(raw) => {
                    let event: Box<RawValue> = serde_json::from_str(&raw).exit(Exit::UNAVAILABLE)?;
                    output.json(&event)?;
                    Ok(Exit::OK)
                }
                None => Err(Failure::text(Exit::NOT_FOUND, "there is no such event")),
            }
        }
        Verb::Poison(args) => poison(args, global, output),
        Verb::Types(args) => {
            let client = client(&args, global, output)?;
            let types = run_verb::block_on(client.event_types())?.map_err(failure)?;
            match output.form() {
                Form::Human if types.is_empty() => output.note("the API names no event types (204)")?,
                Form::Human => {
                    for kind in &types {
                        output.line(&format!(
                            "{:<28} {}",
                            shown(&kind.name, MAX_FIELD_CHARS),
                            shown(&kind.description, MAX_FIELD_CHARS)
                        ))?;
                    }
                }
                Form::Json => output.json(&types)?,
                Form::Ndjson => types.iter().try_for_each(|kind| output.json(kind))?,
            }
            Ok(Exit::OK)
        }
    }
}

fn poison(args: PoisonArgs, global: &Global, output: &mut Output) -> Outcome {
    let now = crate::clock::Clock::now(&SystemClock);
    let since = args.since.as_deref().map(|text| parse_time(text, now)).transpose()?;
    let tool = load::tool(global, output)?;
    tool.require(Named::Source, args.source.as_deref())?;
    let filter = PoisonFilter { source: args.source, since, limit: args.limit };
    let rows = run_verb::block_on(tool.store.poison(&filter))?.exit(Exit::STORAGE)?;
    match output.form() {
        Form::Human => {
            for row in &rows {
                let at = row.created_at.format("%Y-%m-%dT%H:%M:%SZ");
                let error = shown(row.poison.as_deref().unwrap_or_default(), MAX_ERROR_CHARS);
                output.line(&format!("{at} {} {}: {error}", row.source, shown(&row.id, MAX_FIELD_CHARS)))?;
                let raw =
                    row.raw.as_deref().map_or_else(|| "(gone by retention)".into(), |raw| shown(raw, MAX_RAW_CHARS));
                output.line(&format!("  {raw}"))?;
            }
            output.note(&super::output::counted(rows.len(), "row"))?;
        }
        Form::Json => output.json(&rows)?,
        Form::Ndjson => rows.iter().try_for_each(|row| output.json(row))?,
    }
    Ok(Exit::OK)
}

async fn list(client: &Client, query: ListQuery, limit: usize, quiet: bool, output: &mut Output) -> Outcome {
    let bar = progress::bar(None, "events", quiet);
    let mut rows: Vec<Arc<str>> = Vec::new();
    walk(client, query, |row| {
        if rows.len() < limit {
            rows.push(row);
            bar.inc(1);
        }
        rows.len() < limit
    })
    .await?;
    bar.finish_and_clear();
    print(&rows, output)?;
    Ok(Exit::OK)
}

/// How a walk over pages ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// At the last row, or because no more was wanted.
    Whole,
    /// There may be more behind [`MAX_PAGES`].
    Cut,
}

/// Gives every row of a window once, page by page, until `take` wants no more.
pub(super) async fn walk(
    client: &Client,
    mut query: ListQuery,
    mut take: impl FnMut(Arc<str>) -> bool,
) -> Result<Walked, Failure> {
    let mut seen: HashSet<String> = HashSet::new();
    for page in 1..=MAX_PAGES {
        query.page = page;
        let answer = client.list(&query).await.map_err(failure)?;
        let last = answer.rows.is_empty() || answer.page.total_pages.is_some_and(|total| u64::from(page) >= total);
        for row in answer.rows {
            let identity = field(&row, "id").unwrap_or_else(|| row.to_string());
            // Rows shift while one pages: an event may stand on two pages.
            if seen.insert(identity) && !take(row) {
                return Ok(Walked::Whole);
            }
        }
        if last {
            return Ok(Walked::Whole);
        }
    }
    Ok(Walked::Cut)
}

fn print(rows: &[Arc<str>], output: &mut Output) -> Result<(), Failure> {
    let parsed = |row: &Arc<str>| serde_json::from_str::<Box<RawValue>>(row);
    match output.form() {
        Form::Json => {
            let events: Vec<_> = rows.iter().map(parsed).collect::<Result<_, _>>().exit(Exit::UNAVAILABLE)?;
            output.json(&events)?;
        }
        Form::Ndjson => {
            for row in rows {
                output.json(&parsed(row).exit(Exit::UNAVAILABLE)?)?;
            }
        }
        Form::Human => {
            for row in rows {
                let part =
                    |name: &str| field(row, name).map_or_else(|| "-".to_owned(), |text| shown(&text, MAX_FIELD_CHARS));
                let who = field(row, "user_email").or_else(|| field(row, "source")).unwrap_or_else(|| "-".into());
                output.line(&format!(
                    "{:<26} {:<28} {:<3} {:<20} {:<32} {}",
                    part("created_at"),
                    part("event_type"),
                    part("source_country"),
                    part("source_ip"),
                    shown(&who, MAX_FIELD_CHARS),
                    part("id"),
                ))?;
            }
            output.note(&super::output::counted(rows.len(), "event"))?;
        }
    }
    Ok(())
}

fn field(row: &str, name: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(row).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}

fn shown(text: &str, most_chars: usize) -> String {
    vigie_engine::text::single_line(text, most_chars)
}

fn query(args: &ListArgs) -> Result<ListQuery, Failure> {
    let now = crate::clock::Clock::now(&SystemClock);
    let time = |text: &Option<String>| text.as_deref().map(|text| parse_time(text, now)).transpose();
    let (from, to) = (time(&args.from)?, time(&args.to)?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Failure::usage("--from lies after --to"));
    }
    Ok(ListQuery {
        event_types: args.types.clone(),
        from,
        to,
        bounds: BoundForm::default(),
        search_text: args.search.clone(),
        page: 1,
        size: MAX_PAGE_SIZE,
    })
}

/// A stamp, a date, or how long ago.
pub(super) fn parse_time(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Failure> {
    if let Some(stamp) = crate::source::stamp::Stamp::parse(text).and_then(|stamp| stamp.at(FixedOffset::east_opt(0)?))
    {
        return Ok(stamp);
    }
    let ago = vigie_engine::time::parse_duration(text).ok().and_then(|ago| chrono::TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| now.checked_sub_signed(ago)).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no time: 2026-01-02T03:04:05Z, 2026-01-02, or how long ago, such as 24h"))
    })
}

fn client(args: &AccountArgs, global: &Global, output: &mut Output) -> Result<Client, Failure> {
    let account = if global.config.is_empty() && args.source.is_none() {
        account_from_environment(&args.base_url)?
    } else {
        account_from_config(args.source.as_deref(), global, output)?
    };
    account.client(Arc::new(SystemClock)).exit(Exit::UNAVAILABLE)
}

/// Without a configuration: key and secret are the environment's.
pub(super) fn account_from_environment(base_url: &str) -> Result<Account, Failure> {
    let first = |names: [&str; 2]| {
        let value = names.iter().find_map(|name| process_variable(name).filter(|value| !value.is_empty()));
        value.ok_or_else(|| Failure::usage(format!("no credentials: set {} or name a configuration", names[0])))
    };
    let api_key = first(["VONAGE_API_KEY", "NEXMO_API_KEY"])?;
    let api_secret = first(["VONAGE_API_SECRET", "NEXMO_API_SECRET"])?;
    let base_url = base_url.parse().map_err(|error| Failure::usage(format!("--base-url: {error}")))?;
    Ok(Account::new(base_url, api_key, Secret::new(api_secret)))
}

fn account_from_config(name: Option<&str>, global: &Global, output: &mut Output) -> Result<Account, Failure> {
    let (config, diagnostics) = load::config(global, output)?;
    let Some(config) = config else {
        output.diagnostics(&diagnostics)?;
        return Err(Failure::text(Exit::CONFIG, "the configuration is invalid"));
    };
    Ok(choose_account(name, config.sources)?.1)
}

/// The Vonage source of this name, or the only one, with its account.
pub(super) fn choose_account(name: Option<&str>, sources: Vec<NamedSource>) -> Result<(String, Account), Failure> {
    let mut accounts: Vec<(String, Account)> =
        sources.into_iter().filter_map(|source| Some((source.name, source.account?))).collect();
    let names = accounts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, accounts.len()) {
        (Some(name), _) => match accounts.iter().position(|(known, _)| known == name) {
            Some(index) => Ok(accounts.swap_remove(index)),
            None => Err(Failure::text(Exit::NOT_FOUND, format!("no Vonage source `{name}`; there are: {names}"))),
        },
        (None, 1) => Ok(accounts.swap_remove(0)),
        (None, 0) => Err(Failure::usage("the configuration has no Vonage source")),
        (None, _) => Err(Failure::usage(format!("which source? name one of {names} with --source"))),
    }
}

/// A failure of the API with its exit code.
fn failure(error: ClientError) -> Failure {
    let exit = match &error {
        ClientError::Refused { .. } => Exit::REFUSED,
        ClientError::Rejected { .. } => Exit::USAGE,
        ClientError::RateLimited { .. } => Exit::TEMPORARY,
        _ => Exit::UNAVAILABLE,
    };
    Failure::text(exit, describe(&error))
}
