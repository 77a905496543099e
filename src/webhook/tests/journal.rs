//! What the log says of a receiver, and what it must not.

use std::io;
use std::sync::{Mutex, PoisonError};

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::receiver::{Receiver, Reply};
use super::*;

/// A log in memory.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<u8>>>);

impl Journal {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_says_once_that_a_receiver_fails_and_once_that_it_works_again() {
    let journal = Journal::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(journal.clone()).finish();
    // For this thread, on which everything here runs.
    let _guard = tracing::subscriber::set_default(subscriber);
    let receiver = Receiver::start(|request, number| match number {
        _ if request.path.starts_with("/gone") => Reply::Status(410),
        0..2 => Reply::Status(500),
        _ => Reply::Status(200),
    });
    let (url, gone) = (receiver.url("/canarypath?token=canaryquery"), receiver.url("/gone?token=canaryquery"));
    let store = Store::new(100);
    for seq in 1..=3 {
        store.add(&url, "a", "canaryroom", seq);
    }
    let running = start(&[&url, &gone], store, LIMIT);
    until("everything arrives", || running.store.waiting() == 0).await;
    running.store.add(&gone, "a", "canaryroom", 1);
    until("it is gone", || running.store.waiting() == 0).await;
    running.store.add(&gone, "a", "canaryroom", 2);
    until("it is still gone", || running.store.waiting() == 0).await;
    running.stop().await;
    let text = journal.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("stube::webhook")).collect();
    let [fails, recovered, gone] = lines[..] else { panic!("three lines: {text}") };
    assert!(fails.contains("WARN") && fails.contains(r#"host="127.0.0.1" reason="it answered 500""#), "{fails}");
    assert!(recovered.contains("INFO") && recovered.contains("works again"), "{recovered}");
    assert!(gone.contains("WARN") && gone.contains("it answered 410"), "{gone}");
    for secret in ["canary", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", API_SECRET, "eyJ", "v1,", "EV_"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
