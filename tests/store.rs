//! The ledger's store: the same tests on SQLite and on PostgreSQL.

#[path = "store/postgres.rs"]
mod postgres;
#[path = "store/database.rs"]
mod database;

/// Each test twice: once with a SQLite file, once with a database of the tests' PostgreSQL.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod sqlite {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::database::Database::sqlite().await).await;
            }
        )*}
        mod postgres {$(
            #[tokio::test]
            async fn $name() {
                super::$name(crate::database::Database::postgres().await).await;
            }
        )*}
    };
}

#[path = "store/batches.rs"]
mod batches;
#[path = "store/queries.rs"]
mod queries;
#[path = "store/subjects.rs"]
mod subjects;
#[path = "store/outbox.rs"]
mod outbox;
#[path = "store/audit.rs"]
mod audit;
#[path = "store/upkeep.rs"]
mod upkeep;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/outages.rs"]
mod outages;
