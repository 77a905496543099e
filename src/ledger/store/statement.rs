//! SQL and the values that go with it, for both databases.
//!
//! One text serves both. SQLite looks a named parameter like `$1` up by walking all of a statement's names, so long
//! statements are written with `?` there: [`Many`] knows.

use std::borrow::Cow;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use super::fault::StoreError;

/// Rows in one statement. With 22 columns still below SQLite's 32,766 and PostgreSQL's 65,535 parameters.
const ROWS_MAX: usize = 512;

/// The character that PostgreSQL refuses in a text. One such identity would block the ledger for ever.
const NUL: char = '\0';

/// Which database is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

enum Value {
    Text(Option<String>),
    Number(Option<i64>),
}

/// Values in the order of their parameters.
#[derive(Default)]
pub(super) struct Values(Vec<Value>);

impl Values {
    /// A text.
    pub(super) fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.optional_text(Some(text))
    }

    /// A text or NULL.
    pub(super) fn optional_text(&mut self, text: Option<impl Into<String>>) -> &mut Self {
        self.0.push(Value::Text(text.map(|text| storable(text.into()))));
        self
    }

    /// A number. Beyond 2^63 it is the largest there is.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.optional_number(Some(number))
    }

    /// A number or NULL.
    pub(super) fn optional_number(&mut self, number: Option<u64>) -> &mut Self {
        self.0.push(Value::Number(number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))));
        self
    }
}

fn storable(text: String) -> String {
    if text.contains(NUL) { text.replace(NUL, "\u{fffd}") } else { text }
}

/// One statement. Its text is composed of this program's own texts only; what comes from outside is a value.
pub(super) struct Statement {
    sql: Cow<'static, str>,
    values: Values,
}

impl Statement {
    /// A statement with parameters `$1`, `$2`, ….
    pub(super) fn new(sql: impl Into<Cow<'static, str>>) -> Self {
        Self { sql: sql.into(), values: Values::default() }
    }

    /// Binds the next parameter to a text.
    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.values.text(text);
        self
    }

    /// Binds the next parameter to a number.
    pub(super) fn number(mut self, number: u64) -> Self {
        self.values.number(number);
        self
    }

    /// Appends ` AND column IN ($n, …)`.
    pub(super) fn within(mut self, column: &str, texts: &[&str]) -> Self {
        let first = self.values.0.len() + 1;
        for text in texts {
            self.values.text(*text);
        }
        let places: Vec<String> = (first..=self.values.0.len()).map(|place| format!("${place}")).collect();
        self.sql.to_mut().push_str(&format!(" AND {column} IN ({})", places.join(", ")));
        self
    }

    /// Appends ` AND condition $n`, `condition` being a column and an operator, for a text that is there.
    pub(super) fn and_text(mut self, condition: &str, text: Option<impl Into<String>>) -> Self {
        if let Some(text) = text {
            self.values.text(text);
            self.and_last(condition);
        }
        self
    }

    /// As [`Self::and_text`], for a number.
    pub(super) fn and_number(mut self, condition: &str, number: Option<u64>) -> Self {
        if let Some(number) = number {
            self.values.number(number);
            self.and_last(condition);
        }
        self
    }

    /// Appends ` AND (number column, text column) > ($n, $m)`: what comes after in their order.
    pub(super) fn after(mut self, numbers: &str, texts: &str, number: u64, text: &str) -> Self {
        self.values.number(number).text(text);
        let place = self.values.0.len();
        self.sql.to_mut().push_str(&format!(" AND ({numbers}, {texts}) > (${}, ${place})", place - 1));
        self
    }

    fn and_last(&mut self, condition: &str) {
        let place = self.values.0.len();
        self.sql.to_mut().push_str(&format!(" AND {condition} ${place}"));
    }

    /// Appends SQL without parameters.
    pub(super) fn then(mut self, sql: &str) -> Self {
        self.sql.to_mut().push_str(sql);
        self
    }

    /// Appends ` LIMIT n`.
    pub(super) fn limit(mut self, rows: u32) -> Self {
        self.values.number(rows.into());
        let place = self.values.0.len();
        self.sql.to_mut().push_str(&format!(" LIMIT ${place}"));
        self
    }

    fn query(self) -> Query<'static, Any, AnyArguments> {
        self.values.0.into_iter().fold(sqlx::query(AssertSqlSafe(self.sql)), |query, value| match value {
            // Not the `Option` itself, for that is copied.
            Value::Text(Some(text)) => query.bind(text),
            Value::Text(None) => query.bind(None::<String>),
            Value::Number(number) => query.bind(number),
        })
    }

    /// Runs it; the number of rows it changed.
    pub(super) async fn run(self, connection: &mut AnyConnection) -> Result<u64, StoreError> {
        Ok(self.query().execute(connection).await?.rows_affected())
    }

    /// Runs it; its rows.
    pub(super) async fn rows(self, connection: &mut AnyConnection) -> Result<Vec<Fields>, StoreError> {
        Ok(self.query().fetch_all(connection).await?.into_iter().map(Fields).collect())
    }

    /// Runs it; its first row.
    pub(super) async fn row(self, connection: &mut AnyConnection) -> Result<Option<Fields>, StoreError> {
        // Not `fetch_optional`: that leaves a statement with RETURNING half done on SQLite.
        Ok(self.rows(connection).await?.into_iter().next())
    }
}

/// A statement about many rows at once: `head (?, …), (?, …) tail`, in as few round trips as parameters allow.
pub(super) struct Many {
    pub(super) head: &'static str,
    pub(super) columns: usize,
    pub(super) tail: &'static str,
}

impl Many {
    fn sql(&self, rows: usize, dialect: Dialect) -> String {
        let mut sql = String::with_capacity(self.head.len() + self.tail.len() + rows * self.columns * 7);
        sql.push_str(self.head);
        for row in 0..rows {
            sql.push_str(if row == 0 { " (" } else { ", (" });
            for column in 0..self.columns {
                if column > 0 {
                    sql.push(',');
                }
                match dialect {
                    Dialect::Sqlite => sql.push('?'),
                    Dialect::Postgres => sql.push_str(&format!("${}", row * self.columns + column + 1)),
                }
            }
            sql.push(')');
        }
        sql.push(' ');
        sql.push_str(self.tail);
        sql
    }

    /// The statements for `rows`; `values` writes one row's. Lengths are powers of two, so that a connection's cache
    /// knows them all and none is parsed twice.
    pub(super) fn statements<'r, R>(
        &self,
        rows: &'r [R],
        dialect: Dialect,
        values: impl Fn(&'r R, &mut Values),
    ) -> Vec<Statement> {
        let mut statements = Vec::new();
        let mut rest = rows;
        while !rest.is_empty() {
            let length = (1 << rest.len().ilog2()).min(ROWS_MAX);
            let (now, later) = rest.split_at(length);
            let mut bound = Values(Vec::with_capacity(length * self.columns));
            now.iter().for_each(|row| values(row, &mut bound));
            statements.push(Statement { sql: self.sql(length, dialect).into(), values: bound });
            rest = later;
        }
        statements
    }
}

/// One row of an answer.
pub(super) struct Fields(AnyRow);

impl Fields {
    /// A text.
    pub(super) fn text(&self, column: &str) -> Result<String, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    /// A text or NULL.
    pub(super) fn optional_text(&self, column: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.try_get(column)?)
    }

    /// A number.
    pub(super) fn number(&self, column: &str) -> Result<u64, StoreError> {
        self.optional_number(column)?.ok_or_else(|| StoreError::unreadable(column))
    }

    /// A number or NULL.
    pub(super) fn optional_number(&self, column: &str) -> Result<Option<u64>, StoreError> {
        let number: Option<i64> = self.0.try_get(column)?;
        number.map(|number| u64::try_from(number).map_err(|_| StoreError::unreadable(column))).transpose()
    }

    /// A text that stands for something.
    pub(super) fn parsed<T>(&self, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        parse(&self.text(column)?).ok_or_else(|| StoreError::unreadable(column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: Many = Many { head: "INSERT INTO t (a, b) VALUES", columns: 2, tail: "ON CONFLICT DO NOTHING" };

    #[test]
    fn both_dialects_say_the_same() {
        assert_eq!(PAIRS.sql(2, Dialect::Sqlite), "INSERT INTO t (a, b) VALUES (?,?), (?,?) ON CONFLICT DO NOTHING");
        assert_eq!(
            PAIRS.sql(2, Dialect::Postgres),
            "INSERT INTO t (a, b) VALUES ($1,$2), ($3,$4) ON CONFLICT DO NOTHING"
        );
    }

    #[test]
    fn every_row_is_in_one_statement_of_a_known_length() {
        for (rows, lengths) in [(0, vec![]), (1, vec![1]), (7, vec![4, 2, 1]), (1300, vec![512, 512, 256, 16, 4])] {
            let all: Vec<u64> = (0..rows).collect();
            let statements = PAIRS.statements(&all, Dialect::Sqlite, |row, values| {
                values.number(*row).text("x");
            });
            let seen: Vec<usize> = statements.iter().map(|statement| statement.values.0.len() / 2).collect();
            assert_eq!(seen, lengths, "{rows}");
        }
    }

    #[test]
    fn conditions_are_numbered_in_order() {
        let statement = Statement::new("SELECT a FROM t WHERE b = $1")
            .text("b")
            .and_number("c >=", Some(3))
            .and_text("d =", None::<&str>)
            .within("e", &["x", "y"])
            .then(" ORDER BY a")
            .limit(5);
        assert_eq!(statement.sql, "SELECT a FROM t WHERE b = $1 AND c >= $2 AND e IN ($3, $4) ORDER BY a LIMIT $5");
        assert_eq!(statement.values.0.len(), 5);
    }

    #[test]
    fn no_text_blocks_the_ledger() {
        assert_eq!(storable("a\0b".into()), "a\u{fffd}b");
    }
}
