//! `/v1/calls`, `/v1/records`, `/v1/usage`, `/v1/subjects` and `/v1/events`.

use serde_json::json;

use super::examples;
use super::operation::Operation;
use crate::control::code::Code;
use crate::control::subjects::{Batch, ErasedView, ExportView};
use crate::control::usage::{CallsView, RecordsView, UsageListView};

const USAGE: &str = "Usage";
const SUBJECTS: &str = "Subjects";
const SUBJECT: &str = "/v1/subjects/{identity}";

/// The operations.
pub fn operations() -> Vec<Operation> {
    let mut all: Vec<_> = usage().into_iter().chain(subjects()).map(of_the_account).collect();
    all.push(events());
    all
}

/// What the tenant as a whole may.
fn of_the_account(operation: Operation) -> Operation {
    operation.for_servers("`roomAdmin` and no `room`").fails(&[Code::LedgerUnavailable])
}

fn usage() -> [Operation; 3] {
    let calls = json!({"calls": [examples::call()], "next_cursor": null});
    let records = json!({"records": [examples::record()], "next_cursor": examples::CURSOR});
    [
        Operation::new(USAGE, "get", "/v1/calls", "listCalls", "List calls, by their start")
            .with(&["from", "to", "of_room", "limit", "cursor"])
            .answers::<CallsView<'static>>(200, "A page of calls.", calls)
            .fails(&[Code::InvalidRequest]),
        Operation::new(USAGE, "get", "/v1/records", "listRecords", "List records, by their start")
            .about("One for each participant's session in a room.")
            .with(&["from", "to", "of_room", "of_identity", "call", "limit", "cursor"])
            .answers::<RecordsView<'static>>(200, "A page of records.", records)
            .fails(&[Code::InvalidRequest]),
        Operation::new(USAGE, "get", "/v1/usage", "readUsage", "Sum up by day or by room")
            .about("Days outlive the records; rooms are summed over the records and calls that are kept.")
            .with(&["from", "to", "of_room", "group_by"])
            .answers::<UsageListView>(200, "Sums, and their sum.", examples::usage())
            .fails(&[Code::InvalidRequest]),
    ]
}

fn subjects() -> [Operation; 4] {
    let people = || json!({"identities": ["p-7f3a", "p-91bc"]});
    let erasure = || json!({"records": 3, "events": 2, "sessions": 1});
    let erased = "So many rows lost the person. Again: zeros.";
    [
        Operation::new(SUBJECTS, "get", SUBJECT, "exportSubject", "Hand out what is kept about a person")
            .with(&["identity"])
            .answers::<ExportView<'static>>(200, "Everything, and what it means.", examples::export())
            .fails(&[Code::InvalidRequest]),
        Operation::new(SUBJECTS, "delete", SUBJECT, "eraseSubject", "Erase a person")
            .about("Sums stay, and rows lose the person. Running sessions end with `consent_withdrawn`.")
            .with(&["identity"])
            .answers::<ErasedView>(200, erased, erasure())
            .fails(&[Code::InvalidRequest]),
        Operation::new(
            SUBJECTS,
            "post",
            "/v1/subjects/export",
            "exportSubjects",
            "Hand out what is kept about several",
        )
        .takes::<Batch>(people())
        .answers::<ExportView<'static>>(200, "Everything, and what it means.", examples::export()),
        Operation::new(SUBJECTS, "post", "/v1/subjects/erase", "eraseSubjects", "Erase several people")
            .takes::<Batch>(people())
            .answers::<ErasedView>(200, erased, erasure()),
    ]
}

fn events() -> Operation {
    of_the_account(Operation::new(USAGE, "get", "/v1/events", "streamEvents", "Read events as they happen"))
        .about("Server-sent events with the bodies of webhooks. They have no end; up to 64 streams at a time.")
        .with(&["Last-Event-ID", "after"])
        .answers_text(200, "A stream without an end.", "text/event-stream", examples::EVENTS)
        .fails(&[Code::InvalidEventId, Code::TooManyStreams])
}
