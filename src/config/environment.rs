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
    let key = if section == "keys" { key.to_owned() } else { key.to_lowercase() };
    let value = match schema.get(&section).and_then(toml::Value::as_table) {
        Some(_) if section == "keys" && !key.is_empty() => toml::Value::String(value.to_owned()),
        Some(keys) => {
            read_value(keys.get(&key).ok_or_else(unknown)?, value).map_err(|problem| wrong(variable, problem))?
        }
        None => return Err(unknown()),
    };
    let keys = table.entry(&section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let keys = keys.as_table_mut().ok_or_else(|| wrong(&section, "expected a section"))?;
    if section == "keys" && value.as_str() == Some("") {
        keys.remove(&key);
    } else {
        keys.insert(key, value);
    }
    Ok(())
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
    let mut inner = table;
    for section in ["quota", name] {
        let next = inner.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        inner = next.as_table_mut().ok_or_else(|| wrong(section, "expected a section"))?;
    }
    inner.insert(key, value);
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
