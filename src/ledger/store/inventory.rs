//! The data inventory: every stored column, why it is kept and for how long. A test holds it against the schema, both
//! ways; `docs/privacy.md` is written from it.

/// What is to be known about one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub table: &'static str,
    pub column: &'static str,
    /// Whether its value tells something about a natural person or was chosen by one.
    pub personal: bool,
    pub purpose: &'static str,
    pub retention: &'static str,
    /// Where an operator's legal reason goes; the usual one, to be confirmed by the operator.
    pub legal: &'static str,
}

const RECORD: &str = "privacy.record_retention_d after the end (7 days; at most 14 without legal_basis_note)";
const PERSON: &str = "as the record, or until the subject is erased";
const ADDRESS: &str = "as the record; in the mode full at most 7 days after joining; or until the subject is erased";
const SUMS: &str = "13 months";
const EVENT: &str = "until delivered, at most 4 days; for GET /v1/events as long as records";
const AUDIT: &str = "12 months";
const DATABASE: &str = "as long as the database";
const ROOM: &str = "until the room ends";
const RUN: &str = "until the next start of the same node";

/// Billing and quotas of the service that was ordered.
const CONTRACT: &str = "contract (GDPR Art. 6(1)(b))";
/// Abuse and faults, weighed by the operator.
const INTEREST: &str = "legitimate interest (GDPR Art. 6(1)(f))";
/// Proof of what was done with data.
const DUTY: &str = "legal duty (GDPR Art. 5(2), Art. 6(1)(c))";
/// Nothing about a person.
const NONE: &str = "not personal";

const fn personal(
    table: &'static str,
    column: &'static str,
    purpose: &'static str,
    retention: &'static str,
    legal: &'static str,
) -> Column {
    Column { table, column, personal: true, purpose, retention, legal }
}

const fn plain(table: &'static str, column: &'static str, purpose: &'static str, retention: &'static str) -> Column {
    Column { table, column, personal: false, purpose, retention, legal: NONE }
}

/// Every column of every table, in the schema's order.
pub const INVENTORY: &[Column] = &[
    plain("schema_version", "id", "the one row", DATABASE),
    plain("schema_version", "version", "which tables there are", DATABASE),
    plain("runs", "node", "which server", RUN),
    plain("runs", "boot", "which run of it", RUN),
    plain("runs", "batch", "that no batch counts twice", RUN),
    plain("runs", "probes", "whether the database can be written", RUN),
    plain("sessions", "record_id", "names the record", RECORD),
    plain("sessions", "tenant", "whose record it is", RECORD),
    plain("sessions", "node", "which server closes it after a crash", RECORD),
    plain("sessions", "boot", "which run of the server left it open", RECORD),
    plain("sessions", "call_id", "which call it belongs to", RECORD),
    plain("sessions", "room_id", "which room it was in", RECORD),
    personal("sessions", "room_name", "usage by room; the tenant chooses it and may name a person", RECORD, CONTRACT),
    personal("sessions", "identity", "whose usage it is; access and erasure", PERSON, CONTRACT),
    personal("sessions", "ip_mode", "in which form the address is kept", ADDRESS, INTEREST),
    personal("sessions", "ip_value", "abuse; only in the form the mode allows", ADDRESS, INTEREST),
    personal("sessions", "os", "faults of one system: its family, no version", PERSON, INTEREST),
    personal("sessions", "client", "faults of one kind of client", PERSON, INTEREST),
    personal("sessions", "joined_at", "when usage began", RECORD, CONTRACT),
    personal("sessions", "ended_at", "when usage ended; from here its retention counts", RECORD, CONTRACT),
    personal("sessions", "duration_ms", "billing and quotas", RECORD, CONTRACT),
    personal("sessions", "rx_bytes", "billing and quotas", RECORD, CONTRACT),
    personal("sessions", "tx_bytes", "billing and quotas", RECORD, CONTRACT),
    personal("sessions", "audio_published_ms", "billing by kind of media", RECORD, CONTRACT),
    personal("sessions", "video_published_ms", "billing by kind of media", RECORD, CONTRACT),
    plain("sessions", "transport", "faults of one transport", RECORD),
    plain("sessions", "end_reason", "faults and disputes", RECORD),
    plain("sessions", "participant_id", "which participant of the events it was", RECORD),
    plain("calls", "call_id", "names the call", RECORD),
    plain("calls", "tenant", "whose call it is", RECORD),
    plain("calls", "node", "which server closes it after a crash", RECORD),
    plain("calls", "boot", "which run of the server left it open", RECORD),
    plain("calls", "room_id", "which room it was in", RECORD),
    personal("calls", "room_name", "usage by room; the tenant chooses it and may name a person", RECORD, CONTRACT),
    plain("calls", "started_at", "when usage began", RECORD),
    plain("calls", "ended_at", "when usage ended; from here its retention counts", RECORD),
    plain("calls", "duration_ms", "billing and quotas", RECORD),
    plain("calls", "participants", "billing: how many sessions took part", RECORD),
    plain("calls", "peak_participants", "quotas: how many at once", RECORD),
    plain("calls", "rx_bytes", "billing and quotas", RECORD),
    plain("calls", "tx_bytes", "billing and quotas", RECORD),
    plain("calls", "end_reason", "faults and disputes", RECORD),
    plain("sums", "tenant", "whose usage it is", SUMS),
    plain("sums", "day", "when", SUMS),
    plain("sums", "participant_ms", "billing and quotas", SUMS),
    plain("sums", "rounded_up_minutes", "billing by begun minutes", SUMS),
    plain("sums", "calls", "billing by call", SUMS),
    plain("sums", "egress_bytes", "billing and quotas", SUMS),
    plain("sums", "ingress_bytes", "billing and quotas", SUMS),
    plain("sums", "peak_participants", "billing by peak", SUMS),
    plain("sums", "distinct_addresses", "how many clients, counted without keeping addresses", SUMS),
    plain("streams", "tenant", "whose events are counted", DATABASE),
    plain("streams", "position", "how many events there were", DATABASE),
    plain("streams", "seq", "the number of the tenant's own last event", DATABASE),
    plain("events", "event_id", "lets receivers drop a second copy", EVENT),
    plain("events", "tenant", "whose event it is", EVENT),
    plain("events", "position", "where a reader of the stream goes on", EVENT),
    plain("events", "room_id", "which room it is about", EVENT),
    plain("events", "seq", "order within the room", EVENT),
    plain("events", "created_at", "its age", EVENT),
    personal("events", "identity", "lets an erasure find it", "as the event, or until the subject is erased", CONTRACT),
    personal("events", "body", "what receivers are told; the person goes with an erasure", EVENT, CONTRACT),
    plain("lines", "url", "where events go: the operator's configuration", EVENT),
    plain("lines", "tenant", "whose events they are", EVENT),
    plain("lines", "room_id", "which room they are about", EVENT),
    plain("lines", "attempts", "how long to wait for the next", EVENT),
    plain("lines", "next_at", "when the next attempt is", EVENT),
    plain("lines", "holder", "which server is trying now", EVENT),
    plain("deliveries", "event_id", "what still has to be delivered", EVENT),
    plain("deliveries", "url", "to where: the operator's configuration", EVENT),
    plain("deliveries", "tenant", "whose event it is", EVENT),
    plain("deliveries", "room_id", "which room it is about", EVENT),
    plain("deliveries", "place", "order within the line", EVENT),
    plain("deliveries", "created_at", "when to give up", EVENT),
    plain("rooms", "room_id", "names the room", ROOM),
    plain("rooms", "tenant", "whose room it is", ROOM),
    plain("rooms", "node", "which server opens it again after a restart", ROOM),
    personal("rooms", "name", "finds the room; the tenant chooses it and may name a person", ROOM, CONTRACT),
    personal("rooms", "metadata", "what the tenant wants its clients to know", ROOM, CONTRACT),
    plain("rooms", "max_participants", "a setting of the room", ROOM),
    plain("rooms", "empty_timeout_ms", "a setting of the room", ROOM),
    plain("rooms", "departure_timeout_ms", "a setting of the room", ROOM),
    plain("rooms", "max_duration_ms", "a setting of the room", ROOM),
    plain("rooms", "created_at", "its age", ROOM),
    plain("rooms", "seq", "the number of its last event", ROOM),
    plain("audit", "position", "order of the entries", AUDIT),
    plain("audit", "written_at", "when something was done with data", AUDIT),
    personal("audit", "actor", "which API key did it; a key's name may name its user", AUDIT, DUTY),
    plain("audit", "action", "what was done", AUDIT),
    plain("audit", "detail", "to how much, on which request; never to whom", AUDIT),
    plain("audit", "hash", "shows a later change", AUDIT),
    plain("audit_chain", "id", "the one row", DATABASE),
    plain("audit_chain", "first_position", "where the kept entries begin", DATABASE),
    plain("audit_chain", "first_previous", "ties them to those that were deleted in time", DATABASE),
    plain("audit_chain", "last_position", "shows that entries at the end are missing", DATABASE),
    plain("audit_chain", "last_hash", "shows that entries at the end are missing", DATABASE),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_tells_of_every_column() {
        let document = include_str!("../../../docs/privacy.md");
        let yes = |personal| if personal { "yes" } else { "no" };
        for Column { table, column, personal, purpose, retention, legal } in INVENTORY {
            let row = format!("| `{table}.{column}` | {} | {purpose} | {retention} | {legal} |", yes(*personal));
            assert!(document.lines().any(|line| line == row), "docs/privacy.md lacks: {row}");
        }
        let rows = document.lines().filter(|line| line.starts_with("| `") && line.split('|').count() == 7).count();
        assert_eq!(rows, INVENTORY.len(), "a column of docs/privacy.md is not stored");
    }
}
