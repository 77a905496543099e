//! Keys that the environment overrides: `STUBE__SECTION__KEY=value`.

use super::{ConfigError, quota, wrong};

/// What a variable that overrides a key begins with.
pub(super) const PREFIX: &str = "STUBE__";

/// Puts one environment variable into `table`, as the type its key has in `schema`.
pub(super) fn override_key(
    table: &mut toml::Table,
    schema: &toml::Table,
    variable: &str,
    value: &str,
) -> Result<(), ConfigError> {
    let unknown = || wrong(variable, "no such key");
    let (section, key) = variable.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")).ok_or_else(unknown)?;
    let section = section.to_lowercase();
    if section == "quota" {
        return override_limit(table, schema, variable, (key, value));
    }
    // API keys are the tenants' own words and keep their case.
    let path: Vec<String> = match section.as_str() {
        "keys" => vec![key.to_owned()],
        // A section may be within another: `STUBE__HTTP__TLS__KEY`.
        _ => key.to_lowercase().split("__").map(str::to_owned).collect(),
    };
    let (key, within) = path.split_last().ok_or_else(unknown)?;
    let mut examples = schema.get(&section).and_then(toml::Value::as_table).ok_or_else(unknown)?;
    for name in within {
        examples = examples.get(name).and_then(toml::Value::as_table).ok_or_else(unknown)?;
    }
    let value = match section.as_str() {
        "keys" if !key.is_empty() => toml::Value::String(value.to_owned()),
        _ => {
            let example = examples.get(key).filter(|example| !example.is_table()).ok_or_else(unknown)?;
            read_value(example, value).map_err(|problem| wrong(variable, problem))?
        }
    };
    let keys = subsection(table, std::iter::once(&section).chain(within).map(String::as_str))?;
    if section == "keys" && value.as_str() == Some("") {
        keys.remove(key);
    } else {
        keys.insert(key.clone(), value);
    }
    Ok(())
}

/// The section of a section, and so on; made where it is missing.
fn subsection<'table, 'name>(
    mut table: &'table mut toml::Table,
    path: impl Iterator<Item = &'name str>,
) -> Result<&'table mut toml::Table, ConfigError> {
    for name in path {
        let next = table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = next.as_table_mut().ok_or_else(|| wrong(name, "expected a section"))?;
    }
    Ok(table)
}

/// `STUBE__QUOTA__NAME__KEY`: a tenant's limit, or everyone's.
fn override_limit(
    table: &mut toml::Table,
    schema: &toml::Table,
    variable: &str,
    (key, value): (&str, &str),
) -> Result<(), ConfigError> {
    let unknown = || wrong(variable, "no such key");
    let (name, key) = key.rsplit_once("__").ok_or_else(unknown)?;
    let name = if name.eq_ignore_ascii_case(quota::DEFAULT) { quota::DEFAULT } else { name };
    let key = key.to_lowercase();
    let example = schema.get("quota").and_then(|quota| quota.get(quota::DEFAULT)?.get(&key)).ok_or_else(unknown)?;
    let value = read_value(example, value).map_err(|problem| wrong(variable, problem))?;
    subsection(table, ["quota", name].into_iter())?.insert(key, value);
    Ok(())
}

/// Reads `text` as the type that `example` has.
fn read_value(example: &toml::Value, text: &str) -> Result<toml::Value, &'static str> {
    match example {
        toml::Value::Integer(_) => text.trim().parse().map(toml::Value::Integer).map_err(|_| "expected a whole number"),
        toml::Value::Float(_) => text.trim().parse().map(toml::Value::Float).map_err(|_| "expected a number"),
        toml::Value::Boolean(_) => text.trim().parse().map(toml::Value::Boolean).map_err(|_| "expected true or false"),
        toml::Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect()))
        }
        _ => Ok(toml::Value::String(text.to_owned())),
    }
}
